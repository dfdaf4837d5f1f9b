//! How a row is divided: into blocks of elements, into groups of blocks, and into parts of whole groups.

use super::lanes::LANES;
use crate::dtype::Logits;

/// The number of elements in a block.
pub(super) const BLOCK: usize = 128;
/// The number of maxima that the scan records of each block. They are the maxima of disjoint parts of the block.
/// If [`super::element::Element::CONSECUTIVE_BINS`] is true, a part has consecutive elements. Otherwise, a part has the
/// elements of every fourth vector lane. With [`LANES`] maxima, the scan would write so much memory that it would evict
/// the row from the first-level cache.
pub(super) const BIN: usize = 4;
/// The number of vectors in a block.
pub(super) const VECTORS: usize = BLOCK / LANES;
/// The largest number of blocks in a group.
pub(super) const LARGEST_GROUP: usize = 32;

/// The blocks and groups of a row. The scan also records [`LANES`] maxima of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The number of blocks in a group. The last group may have fewer.
    pub(super) group: usize,
    /// The number of blocks in the row. The last block may have fewer elements than [`BLOCK`].
    pub(super) blocks: usize,
}

impl Layout {
    /// Divides a row into groups of at most [`LARGEST_GROUP`] blocks. The result has at least `wanted` groups, and at
    /// least 16 groups, if the row has enough blocks. The scan records [`LANES`] maxima of each group.
    pub(super) fn new(vocab: usize, wanted: usize) -> Layout {
        let blocks = vocab.div_ceil(BLOCK);
        let group = (blocks / wanted.max(16)).clamp(1, LARGEST_GROUP);
        Layout { group, blocks }
    }

    /// The number of groups.
    pub(super) fn groups(self) -> usize {
        self.blocks.div_ceil(self.group)
    }

    /// The number of elements in a full group.
    pub(super) fn stride(self) -> usize {
        self.group * BLOCK
    }
}

/// Consecutive whole groups of a row. One task processes one part.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// The logits of the part.
    pub(super) row: Logits<'a>,
    /// The blocks and groups of the part.
    pub(super) layout: Layout,
    /// The index in the row of the first group.
    first_group: usize,
}

impl<'a> Part<'a> {
    /// The whole row as one part.
    pub(super) fn whole(row: Logits<'a>, layout: Layout) -> Part<'a> {
        Part { row, layout, first_group: 0 }
    }

    /// Part number `index`, counted from 0, if the row is divided into parts of `groups` groups.
    pub(super) fn part(&self, index: usize, groups: usize) -> Part<'a> {
        let first_group = index * groups;
        let start = first_group * self.layout.stride();
        let len = (groups * self.layout.stride()).min(self.row.len() - start);
        let layout = Layout { group: self.layout.group, blocks: len.div_ceil(BLOCK) };
        Part { row: self.row.slice(start, len), layout, first_group }
    }

    /// Divides the row into its first `groups` groups and the other groups.
    pub(super) fn split_at(&self, groups: usize) -> [Part<'a>; 2] {
        let start = groups * self.layout.stride();
        let blocks = groups * self.layout.group;
        let of = |start, len, blocks, first_group| Part {
            row: self.row.slice(start, len),
            layout: Layout { blocks, ..self.layout },
            first_group,
        };
        [
            of(0, start, blocks, self.first_group),
            of(start, self.row.len() - start, self.layout.blocks - blocks, self.first_group + groups),
        ]
    }

    /// Selects the maxima of this part from the block maxima and the group maxima of the row.
    pub(super) fn maxima<'m>(&self, bins: &'m [f32], tops: &'m [f32]) -> (&'m [f32], &'m [f32]) {
        let bins = &bins[self.first_group * self.layout.group * BIN..][..self.layout.blocks * BIN];
        (bins, &tops[self.first_group * LANES..][..self.layout.groups() * LANES])
    }
}
