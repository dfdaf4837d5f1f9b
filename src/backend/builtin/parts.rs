//! Splitting a pass over one row between threads. What the parts find is put together so that the result does not
//! depend on how many there were.

use rayon::prelude::*;

use super::format::BLOCK;
use super::lanes::LANES;
use super::scan::{Layout, Summary};
use crate::dtype::Logits;

/// A run of whole groups of a row.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) row: Logits<'a>,
    pub(super) layout: Layout,
    first_group: usize,
}

impl<'a> Part<'a> {
    pub(super) fn whole(row: Logits<'a>, layout: Layout) -> Part<'a> {
        Part { row, layout, first_group: 0 }
    }

    /// The part's own of the row's block and group maxima.
    pub(super) fn maxima<'m>(&self, bins: &'m [f32], tops: &'m [f32]) -> (&'m [f32], &'m [f32]) {
        let bins = &bins[self.first_group * self.layout.group * LANES..][..self.layout.blocks * LANES];
        (bins, &tops[self.first_group * LANES..][..self.layout.groups() * LANES])
    }

    /// The `index`-th part of `groups` groups.
    fn part(&self, index: usize, groups: usize) -> Part<'a> {
        let first_group = index * groups;
        let start = first_group * self.layout.stride();
        let len = (groups * self.layout.stride()).min(self.row.len() - start);
        let layout = Layout { group: self.layout.group, blocks: len.div_ceil(BLOCK) };
        Part { row: self.row.slice(start, len), layout, first_group }
    }

    /// Elements that [`collect`] needs room for.
    pub(super) fn room(&self, parts: usize) -> usize {
        self.layout.blocks * BLOCK + parts * LANES
    }
}

/// Runs a scan, which fills the block and group maxima.
pub(super) fn scan(
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
    tops.par_chunks_mut(groups * LANES)
        .zip(bins.par_chunks_mut(groups * whole.layout.group * LANES))
        .enumerate()
        .map(|(i, (tops, bins))| pass(whole.part(i, groups), bins, tops))
        .reduce(|| Summary::EMPTY, Summary::and)
}

/// Runs a pass that collects entries in order and counts those before each block. Returns what the passes returned
/// beside that, merged, and the number of entries.
pub(super) fn collect<T: Send>(
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
