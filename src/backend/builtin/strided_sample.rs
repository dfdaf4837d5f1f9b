//! A sample of a row: every n-th vector.

use fearless_simd::{f32x16, i32x16, prelude::*, Simd};

use super::element::Element;
use super::lanes::LANES;

/// Applies `function` to every `stride`-th vector of a row and writes the results to `out`.
#[inline(always)]
pub(super) fn strided_sample<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    stride: usize,
    out: &mut [i32],
    function: impl Fn(f32x16<S>) -> i32x16<S>,
) {
    for (i, out) in out.chunks_exact_mut(LANES).enumerate() {
        let mut bits = [E::NEG_INF; 2 * LANES];
        bits[..LANES].copy_from_slice(&row[i * stride * LANES..][..LANES]);
        function(E::pair(simd, &bits)[0]).store_slice(out);
    }
}
