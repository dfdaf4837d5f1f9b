//! Operations that involve several threads.

use super::{Int, Mask, Ptx, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// A warp divides a long value into parts, and adds the parts separately. A part has this number of bits. So the sum of
/// 32 parts fits in 32 bits.
const PART_BITS: u32 = 26;

impl Ptx {
    /// The number of this thread in its block.
    pub fn thread(&self) -> Int {
        self.int_op("mov.u32", &[&"%tid.x"])
    }

    /// The number of this thread in its warp.
    pub fn lane(&self) -> Int {
        self.and(self.thread(), self.int(WARP as i32 - 1))
    }

    /// The number of this block.
    pub fn block(&self) -> Int {
        self.int_op("mov.u32", &[&"%ctaid.x"])
    }

    /// Waits for all threads of the block. Their earlier accesses to memory are then visible to each other.
    pub fn barrier(&self) {
        self.line("bar.sync 0");
    }

    /// A barrier. Returns the number of threads whose mask is true.
    pub fn barrier_count(&self, mask: Mask) -> Int {
        self.int_op("bar.red.popc.u32", &[&0, &mask])
    }

    /// A barrier. Returns whether the mask of any thread is true.
    pub fn barrier_any(&self, mask: Mask) -> Mask {
        self.mask_op("bar.red.or.pred", &[&0, &mask])
    }

    /// Whether the mask of at least one thread of the warp is true.
    pub fn warp_any(&self, mask: Mask) -> Mask {
        self.mask_op("vote.sync.any.pred", &[&mask, &"0xffffffff"])
    }

    /// The largest signed value of the threads of a warp.
    pub fn warp_max(&self, value: Int) -> Int {
        self.int_op("redux.sync.max.s32", &[&value, &"0xffffffff"])
    }

    /// The least signed value of the threads of a warp.
    pub fn warp_min(&self, value: Int) -> Int {
        self.int_op("redux.sync.min.s32", &[&value, &"0xffffffff"])
    }

    /// The sum of the values of the threads of a warp, wrapping.
    pub fn warp_sum(&self, value: Int) -> Int {
        self.int_op("redux.sync.add.s32", &[&value, &"0xffffffff"])
    }

    /// Returns the value of the thread that is `distance` positions before this thread in the warp. If there is no such
    /// thread, returns this thread's value.
    pub fn from_before(&self, value: Int, distance: usize) -> Int {
        self.int_op("shfl.sync.up.b32", &[&value, &distance, &0, &"0xffffffff"])
    }

    /// The value of the thread whose number in the warp differs in the bits of `mask`.
    pub fn from_partner(&self, value: Int, mask: usize) -> Int {
        self.int_op("shfl.sync.bfly.b32", &[&value, &mask, &31, &"0xffffffff"])
    }

    /// The value of thread `lane` of the warp.
    pub fn from_lane(&self, value: Int, lane: usize) -> Int {
        self.int_op("shfl.sync.idx.b32", &[&value, &lane, &31, &"0xffffffff"])
    }

    /// Calls a function on both halves of a 64-bit integer.
    fn by_halves(&self, value: Wide, function: impl Fn(Int) -> Int) -> Wide {
        self.join(function(self.low(value)), function(self.high(value)))
    }

    /// The sum of a value over the threads of a warp up to and including this one. The sum must be below 2⁵⁸.
    pub fn warp_prefix_sum(&self, value: Wide) -> Wide {
        // The two sums of 32-bit values do not depend on each other, so they need less time than one sum of 64-bit
        // values.
        let low = self.low(self.wand(value, self.wide((1 << PART_BITS) - 1)));
        let high = self.low(self.wshr(value, self.wide(u64::from(PART_BITS))));
        let [low, high] = [low, high].map(|part| self.widen(self.warp_prefix_sum_of_words(part)));
        self.wadd(low, self.wshl(high, PART_BITS))
    }

    /// Like [`Ptx::warp_prefix_sum`], for 32-bit values. The sums wrap.
    pub fn warp_prefix_sum_of_words(&self, value: Int) -> Int {
        let lane = self.lane();
        (0..WARP.trailing_zeros()).map(|bit| 1 << bit).fold(value, |sum, distance| {
            let has_before = self.le(self.int(distance as i32), lane);
            self.add(sum, self.select(has_before, self.from_before(sum, distance), self.int(0)))
        })
    }

    /// The value of thread `lane` of the warp.
    pub fn wide_from_lane(&self, value: Wide, lane: usize) -> Wide {
        self.by_halves(value, |half| self.from_lane(half, lane))
    }

    /// The sum of a 32-bit value over the threads of a warp. The value is not negative. The sum can exceed 32 bits.
    pub fn warp_sum_of_words(&self, value: Int) -> Wide {
        let low = self.warp_sum(self.and(value, self.int((1 << PART_BITS) - 1)));
        let high = self.warp_sum(self.shr(value, PART_BITS));
        self.wadd(self.widen(low), self.wshl(self.widen(high), PART_BITS))
    }

    /// The sum of a value over the threads of a warp. The sum must be below 2⁶⁴.
    pub fn wide_warp_sum(&self, value: Wide) -> Wide {
        const PART: u64 = (1 << PART_BITS) - 1;
        let part = |by: u64| self.low(self.wand(self.wshr(value, self.wide(by)), self.wide(PART)));
        let sums = [0, 1, 2]
            .map(|part| part * u64::from(PART_BITS))
            .map(|by| (self.widen(self.warp_sum(part(by))), by as u32));
        sums.into_iter().fold(self.wide(0), |total, (sum, by)| self.wadd(total, self.wshl(sum, by)))
    }

    /// The sum of a value over `count` consecutive threads, a power of two. The first of them is at a multiple of
    /// `count`. Each of them gets the sum.
    pub fn wide_group_sum(&self, value: Wide, count: usize) -> Wide {
        (0..count.trailing_zeros()).fold(value, |sum, bit| {
            self.wadd(sum, self.by_halves(sum, |half| self.from_partner(half, 1 << bit)))
        })
    }

    /// Like [`Ptx::wide_group_sum`], for 32-bit values, wrapping.
    pub fn group_sum(&self, value: Int, count: usize) -> Int {
        (0..count.trailing_zeros()).fold(value, |sum, bit| self.add(sum, self.from_partner(sum, 1 << bit)))
    }
}
