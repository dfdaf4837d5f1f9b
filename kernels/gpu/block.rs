//! Operations of all threads of a block.

use crate::ptx::{Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// Reductions over the threads of a block.
#[derive(Clone, Copy)]
pub(super) struct Block<'k> {
    pub(super) k: &'k Ptx,
    /// The number of this thread in its block.
    pub(super) thread: Int,
    /// Partial results: one per warp for each of two reductions.
    partial: [Shared; 2],
}

impl<'k> Block<'k> {
    pub(super) fn new(k: &'k Ptx) -> Block<'k> {
        let warps = k.threads() / WARP;
        Block { k, thread: k.thread(), partial: [(); 2].map(|()| k.shared(warps)) }
    }

    /// The sum of a value over the threads.
    pub(super) fn sum(&self, value: Int) -> Int {
        let k = self.k;
        self.share([k.warp_sum(value)]);
        let sum = self.combine(0, |a, b| k.add(a, b));
        k.barrier();
        sum
    }

    /// The largest value of the threads.
    pub(super) fn max(&self, value: Int) -> Int {
        let k = self.k;
        self.share([k.warp_max(value)]);
        let max = self.combine(0, |a, b| k.max(a, b));
        k.barrier();
        max
    }

    /// The least value of the threads.
    pub(super) fn min(&self, value: Int) -> Int {
        let k = self.k;
        self.share([k.warp_min(value)]);
        let min = self.combine(0, |a, b| k.min(a, b));
        k.barrier();
        min
    }

    /// The sum over the threads of values whose sum needs 64 bits.
    pub(super) fn wide_sum(&self, value: Wide) -> Wide {
        let k = self.k;
        let of_warp = k.wide_group_sum(value, WARP);
        self.share([k.low(of_warp), k.high(of_warp)]);
        let halves = |number: usize| (0..self.partial[0].len()).map(move |index| (number, index));
        let [low, high] =
            [0, 1].map(|number| halves(number).map(|(n, i)| k.load_shared_at(self.partial[n], i)));
        let sum = low.zip(high).map(|(low, high)| k.join(low, high)).reduce(|a, b| k.wadd(a, b));
        k.barrier();
        sum.expect("a block has warps")
    }

    /// The least and the largest value of the threads. The partial results stay in use: no other reduction may follow
    /// before the next barrier.
    pub(super) fn range(&self, value: Int) -> (Int, Int) {
        let k = self.k;
        self.share([k.warp_min(value), k.warp_max(value)]);
        (self.combine(0, |a, b| k.min(a, b)), self.combine(1, |a, b| k.max(a, b)))
    }

    /// Makes the partial results of each warp visible to all threads.
    fn share<const N: usize>(&self, of_warp: [Int; N]) {
        let k = self.k;
        let first_lane = k.eq(k.and(self.thread, k.int(WARP as i32 - 1)), k.int(0));
        k.when(first_lane, || {
            for (array, value) in self.partial.into_iter().zip(of_warp) {
                k.store_shared(array, k.shr(self.thread, WARP.trailing_zeros()), value);
            }
        });
        k.barrier();
    }

    fn combine(&self, number: usize, combine: impl Fn(Int, Int) -> Int) -> Int {
        let array = self.partial[number];
        let fours = (0..array.len()).step_by(4).map(|index| self.k.load_shared_four(array, index));
        fours.flatten().reduce(combine).expect("a block has warps")
    }

    /// Finds the largest threshold in `low..=high` for which `enough` is true, by bisection. `enough(low)` is true. All
    /// threads call `enough` with the same value and get the same result. With `close`, the search ends at the first
    /// threshold for which both are true.
    pub(super) fn largest_threshold(
        &self,
        (low, high): (Int, Int),
        test: impl FnOnce(Int) -> Verdict,
    ) -> Int {
        let k = self.k;
        let (low, high) = (k.variable(low), k.variable(high));
        k.repeat_while(
            || k.lt(k.get(low), k.get(high)),
            || {
                let (from, to) = (k.get(low), k.get(high));
                let half = k.shr_by(k.sub(to, from), k.int(1));
                let middle = k.add(k.add(from, half), k.int(1));
                let verdict = test(middle);
                k.set(low, k.select(verdict.enough, middle, from));
                let end = verdict.close.map_or(to, |close| k.select(close, middle, to));
                k.set(high, k.select(verdict.enough, end, k.sub(middle, k.int(1))));
            },
        );
        k.get(low)
    }
}

/// What a search learns about a threshold.
pub(super) struct Verdict {
    /// Whether enough values are at least the threshold.
    pub(super) enough: Mask,
    /// Whether the threshold is good enough to end the search, if it is enough.
    pub(super) close: Option<Mask>,
}
