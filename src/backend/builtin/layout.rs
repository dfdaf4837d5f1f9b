//! How a row is divided: into blocks of elements, into groups of blocks, and into parts of whole groups.

use super::lanes::LANES;
use crate::dtype::Logits;

/// Elements in a block. The scan records [`LANES`] maxima of each block.
pub(super) const BLOCK: usize = 128;
/// Vectors in a block.
pub(super) const VECTORS: usize = BLOCK / LANES;

/// The blocks and groups of a row. The scan also records [`LANES`] maxima of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Blocks in a group; the last group may have fewer.
    pub(super) group: usize,
    /// Blocks in the row; the last one may be cut short by the end of the row.
    pub(super) blocks: usize,
}

impl Layout {
    /// Makes groups as large as possible while there are still sixteen or more maxima for each of `wanted` entries.
    pub(super) fn new(vocab: usize, wanted: usize) -> Layout {
        let blocks = vocab.div_ceil(BLOCK);
        let group = (blocks / wanted.max(32)).clamp(1, 32);
        Layout { group, blocks }
    }

    /// Number of groups.
    pub(super) fn groups(self) -> usize {
        self.blocks.div_ceil(self.group)
    }

    /// Elements in a group.
    pub(super) fn stride(self) -> usize {
        self.group * BLOCK
    }
}

/// A run of whole groups of a row: the share of one thread.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// The logits of the part.
    pub(super) row: Logits<'a>,
    /// The blocks and groups of the part.
    pub(super) layout: Layout,
    /// The first group's number in the row.
    first_group: usize,
}

impl<'a> Part<'a> {
    /// The whole row as one part.
    pub(super) fn whole(row: Logits<'a>, layout: Layout) -> Part<'a> {
        Part { row, layout, first_group: 0 }
    }

    /// The `index`-th part when the row is cut into parts of `groups` groups.
    pub(super) fn part(&self, index: usize, groups: usize) -> Part<'a> {
        let first_group = index * groups;
        let start = first_group * self.layout.stride();
        let len = (groups * self.layout.stride()).min(self.row.len() - start);
        let layout = Layout { group: self.layout.group, blocks: len.div_ceil(BLOCK) };
        Part { row: self.row.slice(start, len), layout, first_group }
    }

    /// This part's share of the row's block maxima and group maxima.
    pub(super) fn maxima<'m>(&self, bins: &'m [f32], tops: &'m [f32]) -> (&'m [f32], &'m [f32]) {
        let bins = &bins[self.first_group * self.layout.group * LANES..][..self.layout.blocks * LANES];
        (bins, &tops[self.first_group * LANES..][..self.layout.groups() * LANES])
    }
}
