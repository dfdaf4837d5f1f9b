//! Splits a pass over one row into parts, which run on the threads of the current thread pool. The combined result does
//! not depend on the number of parts.

use rayon::prelude::*;

use super::lanes::LANES;
use super::layout::{Part, BIN};
use super::scan::Summary;

/// Runs a scan. The scan writes the block maxima to `bins`, unless `bins` is empty, and the group maxima to `tops`.
pub(super) fn split_scan(
    whole: Part<'_>,
    parts: usize,
    bins: &mut [f32],
    tops: &mut [f32],
    pass: impl Fn(Part<'_>, &mut [f32], &mut [f32]) -> Summary + Sync,
) -> Summary {
    if parts <= 1 {
        return pass(whole, bins, tops);
    }
    let groups = whole.layout.groups().div_ceil(parts);
    let mut bins = bins.chunks_mut(groups * whole.layout.group * BIN);
    let arrays: Vec<_> =
        tops.chunks_mut(groups * LANES).map(|tops| (tops, bins.next().unwrap_or_default())).collect();
    arrays
        .into_par_iter()
        .enumerate()
        .map(|(i, (tops, bins))| pass(whole.part(i, groups), bins, tops))
        .reduce(|| Summary::EMPTY, Summary::and)
}

/// Runs a pass that collects entries in order. For each block, the pass writes the number of entries collected before
/// it to `offsets`. Returns the merged results of the parts and the number of entries.
pub(super) fn split_collect<T: Send>(
    whole: Part<'_>,
    parts: usize,
    values: &mut [i32],
    offsets: &mut [u32],
    pass: impl Fn(Part<'_>, &mut [i32], &mut [u32]) -> (T, usize) + Sync,
    merge: impl Fn(T, T) -> T,
) -> (T, usize) {
    if parts <= 1 {
        return pass(whole, values, offsets);
    }
    let groups = whole.layout.groups().div_ceil(parts);
    let (room, blocks) = (groups * whole.layout.stride() + LANES, groups * whole.layout.group);
    let found: Vec<(T, usize)> = values
        .par_chunks_mut(room)
        .zip(offsets.par_chunks_mut(blocks))
        .enumerate()
        .map(|(i, (values, offsets))| pass(whole.part(i, groups), values, offsets))
        .collect();
    let mut total = 0;
    let mut merged = None;
    for (i, (result, len)) in found.into_iter().enumerate() {
        values.copy_within(i * room..i * room + len, total);
        offsets[i * blocks..].iter_mut().take(blocks).for_each(|offset| *offset += total as u32);
        total += len;
        merged = Some(match merged {
            None => result,
            Some(before) => merge(before, result),
        });
    }
    (merged.expect("a row has at least one block"), total)
}
