//! Histograms. A kernel with one block per slice counts in shared memory and stores a table per slice. A kernel with
//! one block per row reads the tables of all slices.
//!
//! Bins are numbered in the order of selection: the bin of the largest values has number 0. A table consists of
//! [`GROUPS`] groups of consecutive bins. A reader needs the sums of the groups, and the bins of one group.

use super::row_block::RowBlock;
use crate::kernels::gpu::block::Block;
use crate::ptx::{Address, Int, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of groups of a table.
pub(super) const GROUPS: usize = WARP;

/// The shape of a table.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// The number of bins.
    pub(super) bins: usize,
    /// The number of words that are stored per bin.
    pub(super) words: usize,
}

impl Shape {
    /// The number of bins of a group.
    pub(super) const fn width(self) -> usize {
        self.bins / GROUPS
    }

    /// The shapes of the two arrays of a table of `slices` slices: the bins and the sums of the groups.
    pub(super) fn arrays(self, slices: usize) -> [Vec<usize>; 2] {
        [vec![slices, self.bins * self.words], vec![slices, GROUPS * 2]]
    }
}

/// The bins of one slice, in shared memory.
pub(super) struct Bins {
    shape: Shape,
    /// One array for each word of a bin.
    words: Vec<Shared>,
}

impl Bins {
    pub(super) fn new(k: &Ptx, shape: Shape) -> Bins {
        Bins { shape, words: (0..shape.words).map(|_| k.shared(shape.bins)).collect() }
    }

    /// Sets all bins to 0.
    pub(super) fn clear(&self, block: &Block<'_>) {
        let k = block.k;
        k.for_range(block.thread, k.int(self.shape.bins as i32), k.threads(), |bin| {
            self.words.iter().for_each(|&array| k.store_shared(array, bin, k.int(0)));
        });
        k.barrier();
    }

    /// Adds a number to each word of a bin.
    pub(super) fn add(&self, k: &Ptx, bin: Int, numbers: &[Int]) {
        for (&array, &number) in self.words.iter().zip(numbers) {
            k.add_shared(array, bin, number);
        }
    }

    /// Stores the table in the two arrays of [`Shape::arrays`]. `convert` returns the words to store and the value of a
    /// bin from its number and its words.
    pub(super) fn store(
        &self,
        block: &Block<'_>,
        [bins, groups]: [Wide; 2],
        convert: impl Fn(Int, &[Int]) -> (Vec<Int>, Wide),
    ) {
        let k = block.k;
        k.barrier();
        let width = self.shape.width();
        let (warp, lane) = (k.shr(block.thread, WARP.trailing_zeros()), k.lane());
        let bytes = self.shape.words * 4;
        let base = k.base(k.far_address(bins, k.far_element(k.block(), self.shape.bins, k.int(0)), bytes));
        k.for_range(warp, k.int(GROUPS as i32), k.threads() / WARP, |group| {
            let mut sum = k.wide(0);
            for part in 0..width / WARP {
                let bin = k.add(k.element(group, width, lane), k.int((part * WARP) as i32));
                let words: Vec<Int> = self.words.iter().map(|&array| k.load_shared(array, bin)).collect();
                let (words, value) = convert(bin, &words);
                k.store(k.address(base, bin, bytes), 0, &words);
                sum = k.wadd(sum, value);
            }
            let sum = k.wide_group_sum(sum, WARP);
            k.when(k.eq(lane, k.int(0)), || {
                let place = k.element(k.block(), GROUPS, group);
                k.store(k.address(groups, place, 8), 0, &[k.low(sum), k.high(sum)]);
            });
        });
    }
}

/// The tables of all slices of a row.
pub(super) struct RowTables<'a, 'k, F> {
    pub(super) block: &'a RowBlock<'k>,
    pub(super) shape: Shape,
    /// The two arrays of [`Shape::arrays`].
    pub(super) arrays: [Wide; 2],
    /// Loads the value of a bin from its number and the address of its words.
    pub(super) load: F,
}

impl<F: Fn(Int, Address) -> Wide> RowTables<'_, '_, F> {
    fn group(&self, slice: Int, group: Int) -> Wide {
        let k = self.block.k;
        let place = k.element(self.block.number(slice), GROUPS, group);
        k.load_wide(k.address(self.arrays[1], place, 8))
    }

    /// The value of a bin of a slice.
    pub(super) fn bin(&self, slice: Int, bin: Int) -> Wide {
        let k = self.block.k;
        let place = k.far_element(self.block.number(slice), self.shape.bins, bin);
        (self.load)(bin, k.far_address(self.arrays[0], place, self.shape.words * 4))
    }

    /// The sum of all bins of all slices.
    pub(super) fn total(&self) -> Wide {
        self.sum_groups();
        self.block.total(GROUPS)
    }

    fn sum_groups(&self) {
        self.block.fill(GROUPS, |group| self.block.over_slices(|slice| self.group(slice, group)));
    }

    /// Finds the first bin at which the running sum reaches `target`. Returns its number, and the sum of the bins
    /// before it.
    pub(super) fn locate(&self, target: Wide) -> (Int, Wide) {
        let k = self.block.k;
        self.sum_groups();
        let (group, before) = self.block.cross(GROUPS, target);
        // The sum of all groups reaches the target. The minimum only makes the addresses valid in any case.
        let group = k.min(group, k.int(GROUPS as i32 - 1));
        let first = k.mul(group, self.shape.width());
        self.block.fill(self.shape.width(), |bin| {
            self.block.over_slices(|slice| self.bin(slice, k.add(first, bin)))
        });
        let (bin, before_in_group) = self.block.cross(self.shape.width(), k.wide_difference(target, before));
        (k.add(first, bin), k.wadd(before, before_in_group))
    }

    /// This thread's part of the sum of the bins of a slice before bin `end`. The threads of a warp call this together.
    pub(super) fn part_before(&self, slice: Int, end: Int) -> Wide {
        let k = self.block.k;
        let width = self.shape.width();
        let lane = k.lane();
        let (groups, _) = k.divide(end, width);
        let sum = k.wide_variable(k.wide(0));
        let add = |value: Wide| k.set_wide(sum, k.wadd(k.get_wide(sum), value));
        k.when(k.lt(lane, groups), || add(self.group(slice, lane)));
        for part in 0..width / WARP {
            let bin = k.add(k.element(groups, width, lane), k.int((part * WARP) as i32));
            k.when(k.lt(bin, end), || add(self.bin(slice, bin)));
        }
        k.get_wide(sum)
    }
}
