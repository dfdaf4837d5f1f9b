//! A block of threads that processes a whole row: sums over slices, and searches for the place at which a running sum
//! reaches a number.

use super::division::Division;
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::logits::{Run, SliceLogits};
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of threads of a block that processes a row.
pub(super) const THREADS: usize = 1024;
const WARPS: usize = THREADS / WARP;
/// The largest number of sums of [`RowBlock::fill`].
const LARGEST_SUMS: usize = 192;
/// The largest number of logits that a thread loads at the same time.
const LOADS: usize = 8;

/// A block of [`THREADS`] threads and its row.
pub(super) struct RowBlock<'k> {
    pub(super) k: &'k Ptx,
    pub(super) block: Block<'k>,
    pub(super) row: Int,
    warp: Int,
    /// The number of slices of a row.
    slices: usize,
    padded_slices: usize,
    slice_len: usize,
    /// The 64-bit sums of [`RowBlock::fill`] and of the warps.
    sums: Shared,
}

impl<'k> RowBlock<'k> {
    pub(super) fn new(k: &'k Ptx, division: &Division) -> RowBlock<'k> {
        let block = Block::new(k);
        RowBlock {
            k,
            block,
            row: k.block(),
            warp: k.shr(block.thread, WARP.trailing_zeros()),
            slices: division.slices,
            padded_slices: division.padded_slices(),
            slice_len: division.slice_len(),
            sums: k.shared(2 * LARGEST_SUMS),
        }
    }

    /// Whether this is the first thread.
    pub(super) fn is_first(&self) -> Mask {
        self.block.is_first()
    }

    /// Whether `slice` is the number of a slice of the row. Numbers up to the padded number of slices are not.
    pub(super) fn is_slice(&self, slice: Int) -> Mask {
        self.k.lt(slice, self.k.int(self.slices as i32))
    }

    /// The number of a slice of this row among all slices of the batch.
    pub(super) fn number(&self, slice: Int) -> Int {
        self.k.element(self.row, self.slices, slice)
    }

    /// This thread's part of a sum over the slices of the row. The threads of a warp call this together.
    pub(super) fn over_slices(&self, value: impl Fn(Int) -> Wide) -> Wide {
        let k = self.k;
        let sum = k.wide_variable(k.wide(0));
        for part in 0..self.padded_slices / WARP {
            let slice = k.add(k.lane(), k.int((part * WARP) as i32));
            k.when(self.is_slice(slice), || k.set_wide(sum, k.wadd(k.get_wide(sum), value(slice))));
        }
        k.get_wide(sum)
    }

    /// Computes `count` sums, a multiple of [`WARP`]. One warp computes a sum: `part` returns each thread's part from
    /// the number of the sum.
    pub(super) fn fill(&self, count: usize, part: impl FnOnce(Int) -> Wide) {
        assert!(count.is_multiple_of(WARP) && count <= LARGEST_SUMS);
        let k = self.k;
        k.barrier();
        k.for_range(self.warp, k.int(count as i32), WARPS, |number| {
            self.set_sum(number, k.wide_group_sum(part(number), WARP));
        });
        k.barrier();
    }

    /// Computes a sum for each slice, like [`fill`](RowBlock::fill). Returns the number of sums. The sums after the
    /// last slice are 0.
    pub(super) fn fill_slices(&self, part: impl FnOnce(Int) -> Wide) -> usize {
        let k = self.k;
        self.fill(self.padded_slices, |slice| {
            let sum = k.wide_variable(k.wide(0));
            k.when(self.is_slice(slice), || k.set_wide(sum, part(slice)));
            k.get_wide(sum)
        });
        self.padded_slices
    }

    /// The value in the first thread of a warp, and 0 in the others.
    pub(super) fn once(&self, value: impl FnOnce() -> Wide) -> Wide {
        let k = self.k;
        let result = k.wide_variable(k.wide(0));
        k.when(k.eq(k.lane(), k.int(0)), || k.set_wide(result, value()));
        k.get_wide(result)
    }

    fn set_sum(&self, number: Int, sum: Wide) {
        let k = self.k;
        k.when(k.eq(k.lane(), k.int(0)), || k.store_shared_wide(self.sums, number, sum));
    }

    /// The sum with a number.
    pub(super) fn sum(&self, number: Int) -> Wide {
        self.k.load_shared_wide(self.sums, number)
    }

    /// This thread's share of `count` sums, which are divided equally among the threads of a warp.
    fn mine(&self, count: usize) -> Vec<Wide> {
        let k = self.k;
        let each = count / WARP;
        let first = k.mul(k.lane(), each);
        (0..each).map(|number| self.sum(k.add(first, k.int(number as i32)))).collect()
    }

    /// The total of the first `count` sums.
    pub(super) fn total(&self, count: usize) -> Wide {
        let k = self.k;
        let mine = self.mine(count).into_iter().reduce(|a, b| k.wadd(a, b)).expect("there are sums");
        k.wide_group_sum(mine, WARP)
    }

    /// Finds the first of `count` sums at which their running sum reaches `target`. Returns its number, and the running
    /// sum before it. All threads get the same result.
    pub(super) fn cross(&self, count: usize, target: Wide) -> (Int, Wide) {
        let k = self.k;
        let mine = self.mine(count);
        let sum = mine.iter().copied().reduce(|a, b| k.wadd(a, b)).expect("there are sums");
        let mut running = k.wide_difference(k.warp_prefix_sum(sum), sum);
        let (mut number, mut before) = (k.int(0), k.wide(0));
        for &value in &mine {
            running = k.wadd(running, value);
            let is_before = k.wlt(running, target);
            number = k.add(number, k.select(is_before, k.int(1), k.int(0)));
            before = k.wadd(before, k.wselect(is_before, value, k.wide(0)));
        }
        (k.warp_sum(number), k.wide_group_sum(before, WARP))
    }

    /// Finds the first index of a slice at which the running sum of a measure reaches `target`, which is not 0. Calls
    /// `found` with the index, in one thread. `measure` returns the measure of a key at an index.
    pub(super) fn find_in_slice(
        &self,
        (spec, logits, row): (&Spec, Wide, Int),
        slice: Int,
        target: Wide,
        measure: impl Fn(Int, Int) -> Int,
        found: impl FnOnce(Int),
    ) {
        let k = self.k;
        let load = |first: Int, count: usize| {
            SliceLogits::load_run(k, spec, logits, row, Run { first, vector: 1, count, stride: WARP })
        };
        // Each warp sums the measure of one part of the slice.
        let part_len = self.slice_len / WARPS;
        let first = k.mul(slice, self.slice_len);
        let mine = k.add(k.element(self.warp, part_len, first), k.lane());
        let loads = largest_divisor(part_len / WARP, LOADS);
        let sum = k.wide_variable(k.wide(0));
        k.barrier();
        k.for_range(k.int(0), k.int(part_len as i32), loads * WARP, |distance| {
            let logits = load(k.add(mine, distance), loads);
            for number in 0..loads {
                let value = measure(logits.key(number), logits.index(number));
                k.set_wide(sum, k.wadd(k.get_wide(sum), k.widen(value)));
            }
        });
        self.set_sum(self.warp, k.wide_group_sum(k.get_wide(sum), WARP));
        k.barrier();
        let (part, before) = self.cross(WARPS, target);
        let target = k.wide_difference(target, before);

        // Each thread has one element of that part.
        let logits = load(k.add(k.element(part, part_len, first), self.block.thread), 1);
        let value = measure(logits.key(0), logits.index(0));
        let in_part = k.lt(self.block.thread, k.int(part_len as i32));
        let value = k.widen(k.select(in_part, value, k.int(0)));
        let upto = k.warp_prefix_sum(value);
        k.barrier();
        self.set_sum(self.warp, k.wide_from_lane(upto, WARP - 1));
        k.barrier();
        let (warp, before) = self.cross(WARPS, target);
        let after = k.wadd(before, upto);
        let is_before = k.wlt(k.wide_difference(after, value), target);
        let is_reached = k.both(is_before, k.not(k.wlt(after, target)));
        k.when(k.both(k.eq(self.warp, warp), is_reached), || found(logits.index(0)));
    }

    /// The least integer, from 0 on, for which `test` is false. `test` is also false for all larger integers, and for
    /// all from 2²³ on.
    pub(super) fn count_from_zero(&self, test: impl Fn(Int) -> Mask) -> Int {
        let k = self.k;
        let mut first = k.int(0);
        for step in [1 << 13, 1 << 3] {
            let count = k.barrier_count(test(k.element(self.block.thread, step, first)));
            first = k.element(k.max(k.sub(count, k.int(1)), k.int(0)), step, first);
        }
        k.add(first, k.barrier_count(test(k.add(first, self.block.thread))))
    }
}

/// The largest divisor of `number` that is at most `limit`.
fn largest_divisor(number: usize, limit: usize) -> usize {
    (1..=limit).rev().find(|divisor| number.is_multiple_of(*divisor)).expect("1 divides every number")
}
