//! Makes a cleaned copy of a row that may hold NaN or +inf. The other passes do not handle these values.

use fearless_simd::{dispatch, prelude::*, Level, Simd};

use super::blocks::{for_vectors, Blocks};
use super::element::{with_element, Element};
use super::lanes::{Lanes, LANES};
use super::layout::BLOCK;
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, is_infinity, is_nan};

/// The special values that a row contains.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Specials {
    pub(super) had_nan: bool,
    /// Whether the row contains a +inf.
    pub(super) had_inf: bool,
}

/// Writes a row to `out` as cleaned f32 values. Returns the special values that it found.
pub(super) fn clean_row(level: Level, row: Logits<'_>, out: &mut [f32]) -> Specials {
    dispatch!(level, simd => with_element!(row, row, E => clean_row_impl::<_, E>(simd, row, out)))
}

#[inline(always)]
fn clean_row_impl<S: Simd, E: Element>(simd: S, row: &[E::Bits], out: &mut [f32]) -> Specials {
    let a = Lanes(simd);
    let blocks = Blocks::<E>::new(row);
    let mut found = Specials::default();
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut cleaned = [0.0; BLOCK];
        let mut at = 0;
        for_vectors!(E, simd, blocks.get(block), x => {
            let bits = a.to_bits(x);
            found.had_nan |= is_nan(a, bits).any_true();
            found.had_inf |= is_infinity(a, bits).any_true();
            a.from_bits(clean(a, bits)).store_slice(&mut cleaned[at..at + LANES]);
            at += LANES;
        });
        out.copy_from_slice(&cleaned[..out.len()]);
    }
    found
}
