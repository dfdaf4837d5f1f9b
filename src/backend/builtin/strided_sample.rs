//! A sample of a row: every n-th vector.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::element::{with_element, Element};
use super::lanes::LANES;
use crate::dtype::Logits;

/// The number of vectors in a sample of a long row.
pub(super) const SAMPLE: usize = 2048 / LANES;

/// The number of vectors in a smaller sample. It is sufficient for the choice of the passes that read the row.
pub(super) const SMALL_SAMPLE: usize = SAMPLE / 4;

/// The number of vectors from which [`share_at_least`] estimates a share. It is small, because the vectors are read
/// from the second-level cache, which takes time. The callers need no precise estimate.
pub(super) const SHARE_SAMPLE: usize = 512 / LANES;

/// The distance between the vectors of a sample of [`SAMPLE`] vectors. `None` if the row is too short for a sample.
pub(super) fn stride_of(len: usize) -> Option<usize> {
    let vectors = len / LANES;
    (vectors >= 4 * SAMPLE).then_some(vectors / SAMPLE)
}

/// The estimated share of a row's logits that are at least `bound`. 1 if the row is too short for a sample.
pub(super) fn share_at_least(level: Level, row: Logits<'_>, bound: f32) -> f32 {
    if stride_of(row.len()).is_none() {
        return 1.0;
    }
    share_of_part(level, row, bound)
}

/// Like [`share_at_least`], for a part of a row. The part has at least [`SHARE_SAMPLE`] vectors.
pub(super) fn share_of_part(level: Level, row: Logits<'_>, bound: f32) -> f32 {
    let count =
        dispatch!(level, simd => with_element!(row, row, E => count_at_least::<_, E>(simd, row, bound)));
    count as f32 / (SHARE_SAMPLE * LANES) as f32
}

#[inline(always)]
fn count_at_least<S: Simd, E: Element>(simd: S, row: &[E::Bits], bound: f32) -> u32 {
    let stride = row.len() / LANES / SHARE_SAMPLE;
    let mut count = 0;
    for i in 0..SHARE_SAMPLE {
        count += sampled::<S, E>(simd, row, i * stride).simd_ge(bound).to_bitmask().count_ones();
    }
    count
}

/// Vector number `vector` of a row.
#[inline(always)]
fn sampled<S: Simd, E: Element>(simd: S, row: &[E::Bits], vector: usize) -> f32x16<S> {
    let mut bits = [E::NEG_INF; 2 * LANES];
    bits[..LANES].copy_from_slice(&row[vector * LANES..][..LANES]);
    E::pair(simd, &bits)[0]
}

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
        function(sampled::<S, E>(simd, row, i * stride)).store_slice(out);
    }
}
