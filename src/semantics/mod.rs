//! The sampling contract, written once over [`arith::Arith`]; `docs/semantics.md` states it in prose.
//!
//! One row passes through these files in this order: [`clean`] (NaN, infinities, zeros; the total order),
//! [`weights`] (temperature and integer weights), [`top_p`] (nucleus target, min-p), [`draw`] (the 128-bit
//! remainder). [`philox`] and [`params`] run on the host only.

pub mod arith;
pub mod clean;
pub mod draw;
pub mod narrow_keys;
pub mod params;
pub mod philox;
pub mod rules;
pub mod top_p;
pub mod weights;
