//! Operations of all threads of a block.

use super::layout::THREADS;
use crate::ptx::{Int, Mask, Ptx, Shared, WARP};
use crate::semantics::arith::Arith;

const WARPS: usize = THREADS / WARP;

/// Reductions over the threads of a block.
#[derive(Clone, Copy)]
pub(super) struct Block<'k> {
    pub(super) k: &'k Ptx,
    /// The number of this thread in its block.
    pub(super) thread: Int,
    /// One partial result per warp.
    partial: Shared,
}

impl<'k> Block<'k> {
    pub(super) fn new(k: &'k Ptx) -> Block<'k> {
        Block { k, thread: k.thread(), partial: k.shared(WARPS) }
    }

    /// The sum of a value over the threads.
    pub(super) fn sum(&self, value: Int) -> Int {
        self.reduce(self.k.warp_sum(value), |a, b| self.k.add(a, b))
    }

    /// The largest value of the threads.
    pub(super) fn max(&self, value: Int) -> Int {
        self.reduce(self.k.warp_max(value), |a, b| self.k.max(a, b))
    }

    /// The least value of the threads.
    pub(super) fn min(&self, value: Int) -> Int {
        self.reduce(self.k.warp_min(value), |a, b| self.k.min(a, b))
    }

    /// Combines the values of the warps.
    fn reduce(&self, of_warp: Int, combine: impl Fn(Int, Int) -> Int) -> Int {
        let k = self.k;
        let first_lane = k.eq(k.and(self.thread, k.int(WARP as i32 - 1)), k.int(0));
        k.when(first_lane, || {
            k.store_shared(self.partial, k.shr(self.thread, WARP.trailing_zeros()), of_warp);
        });
        k.barrier();
        let fours = (0..WARPS).step_by(4).map(|index| k.load_shared_four(self.partial, index));
        let result = fours.flatten().reduce(&combine).expect("a block has warps");
        // The next reduction may overwrite the partial results only now.
        k.barrier();
        result
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
