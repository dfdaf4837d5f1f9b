//! The sampling contract, written once over [`arith::Arith`]. `docs/semantics.md` describes it in words.
//!
//! A row passes through these files in this order: [`clean`] (NaN, infinities, zeros, the total order), [`weights`]
//! (temperature and integer weights), [`top_p`] (the target of top-p), [`draw`] (the 128-bit remainder). [`rules`]
//! decides which entries survive and what a row reports. [`params`] and [`philox`] run only on the host CPU.

pub mod arith;
pub mod clean;
pub mod draw;
pub mod narrow_keys;
pub mod params;
pub mod philox;
pub mod rules;
pub mod sizes;
pub mod top_p;
pub mod weights;
