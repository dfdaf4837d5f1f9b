//! Searches among the entries of a list. A search finds the first position at which a running sum reaches a number. A
//! position is an unsigned integer. Each search first counts by the leading bits of the positions.

use super::few::{Few, LARGEST_FEW};
use super::list::{Entry, List};
use super::row_block::{join_parts, Place, RowBlock, THREADS};
use super::weights::{add_in_parts, LARGEST_SUM};
use crate::ptx::{Int, Mask, Shared, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};

/// The number of bits of a position that one step of a search finds.
const BITS: u32 = 12;
pub(super) const BINS: usize = 1 << BITS;
const _: () = assert!(super::sample::LARGEST_LIST <= LARGEST_SUM);
/// The bins of a thread.
const BINS_PER_THREAD: usize = BINS / THREADS;
/// The number of bins that a thread loads or stores with one instruction.
const VECTOR: usize = 4;

/// The bins of the searches, in shared memory.
pub(super) struct Bins<'a, 'k> {
    pub(super) block: &'a RowBlock<'k>,
    /// The low and the high parts of the sums.
    pub(super) parts: [Shared; 2],
}

impl<'a, 'k> Bins<'a, 'k> {
    pub(super) fn new(block: &'a RowBlock<'k>) -> Bins<'a, 'k> {
        let k = block.k;
        Bins { block, parts: [(); 2].map(|()| k.shared(BINS)) }
    }

    /// Bins in an array of at least two times [`BINS`] words.
    pub(super) fn of(block: &'a RowBlock<'k>, array: Shared) -> Bins<'a, 'k> {
        Bins { block, parts: [array, block.k.part(array, BINS)] }
    }

    /// Finds the first position for which the number of entries at or before it reaches `wanted`. The result can also
    /// be a later position if no entry is between the two positions. Returns three results: the position, `wanted`
    /// minus the number of entries before this position, and whether the number of entries at this position is larger
    /// than the second result.
    ///
    /// No entry may have a position after `largest`. The result is at most `largest`. `distance` returns the position
    /// of an entry minus its first argument. The search does not separate positions that differ only in the low
    /// `unused` bits.
    pub(super) fn by_count(
        &self,
        list: &List<'k>,
        distance: impl Fn(Int, Entry) -> Int,
        (largest, unused): (Int, u32),
        wanted: Int,
    ) -> (Int, Int, Mask) {
        let k = self.block.k;
        let search = Search::new(self, list, (largest, unused), distance, |_| k.int(1), Kind::Count);
        let [position, before, at] = search.find(k.widen(wanted));
        // The last position of a bin can be after `largest`.
        let position = k.low(position);
        let position = k.select(k.unsigned_lt(largest, position), largest, position);
        let wanted_at = k.sub(wanted, k.low(before));
        (position, wanted_at, k.lt(wanted_at, k.low(at)))
    }

    /// Starts a search by the weights of entries. Adds these weights to the bins of the first step. No entry may have a
    /// position after `largest`. `distance` returns the position of an entry minus its first argument. The search does
    /// not separate positions that differ only in the low `unused` bits. The bins must not be used for anything else
    /// before the end of the search.
    pub(super) fn by_weight<'s, D: Fn(Int, Entry) -> Int, W: Fn(Entry) -> Int>(
        &'s self,
        list: &'s List<'k>,
        (largest, unused): (Int, u32),
        distance: D,
        weight: W,
    ) -> Search<'s, 'a, 'k, D, W> {
        Search::new(self, list, (largest, unused), distance, weight, Kind::Weight)
    }
}

/// What a search adds up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Every weight is 1. The search uses one array of bins. It can end early, at the last position of a bin, if the
    /// running sum there is equal to the target.
    Count,
    /// The search uses two arrays of bins: one for the low parts of the sums and one for the high parts.
    Weight,
}

/// A search. The bins contain the sums of its first step.
pub(super) struct Search<'s, 'a, 'k, D, W> {
    bins: &'s Bins<'a, 'k>,
    list: &'s List<'k>,
    /// Returns the position of an entry minus the first argument.
    distance: D,
    weight: W,
    kind: Kind,
    /// The number of low bits of a position that the search ignores.
    unused: u32,
    /// The number of low bits of a position that are still unknown after the first step.
    shift: Int,
    /// The running sums before the first bin of this thread and up to the last one. They do not include the entries
    /// before the first bin.
    sums: [WideVariable; 2],
    /// The bin that a step found.
    found: Place<'k>,
    /// The entries of this bin: their distances from the first position of the bin, and their weights.
    few: Few<'k>,
}

impl<'s, 'a, 'k, D: Fn(Int, Entry) -> Int, W: Fn(Entry) -> Int> Search<'s, 'a, 'k, D, W> {
    fn new(
        bins: &'s Bins<'a, 'k>,
        list: &'s List<'k>,
        (largest, unused): (Int, u32),
        distance: D,
        weight: W,
        kind: Kind,
    ) -> Search<'s, 'a, 'k, D, W> {
        let k = bins.block.k;
        let shift = k.max(k.sub(k.int(32 - BITS as i32), k.leading_zeros(largest)), k.int(unused as i32));
        let sums = [(); 2].map(|()| k.wide_variable(k.wide(0)));
        let (found, few) = (Place::new(bins.block.block), Few::new(bins.block.block));
        let search = Search { bins, list, distance, weight, kind, unused, shift, sums, found, few };
        // No barrier is needed here. An earlier search has other places and entries. A barrier follows its last access
        // to the bins.
        search.fill(k.int(0), shift);
        search
    }

    /// The arrays of bins that the search uses.
    fn arrays(&self) -> usize {
        match self.kind {
            Kind::Count => 1,
            Kind::Weight => 2,
        }
    }

    /// The number of the first bin of this thread.
    fn first_bin(&self) -> Int {
        let block = self.bins.block;
        block.k.mul(block.block.thread, BINS_PER_THREAD)
    }

    /// Sets the bins to 0, and adds the weights of the entries to them. The first bin begins at position `start`. Each
    /// bin has `2^by` positions. Stores the running sums of the bins in [`Search::sums`].
    fn fill(&self, start: Int, by: Int) {
        let (k, bins) = (self.bins.block.k, self.bins);
        for array in &bins.parts[..self.arrays()] {
            for vector in (0..BINS_PER_THREAD).step_by(VECTOR) {
                let bin = k.add(self.first_bin(), k.int(vector as i32));
                k.store_shared_words(*array, bin, [k.int(0); VECTOR]);
            }
        }
        self.few.clear();
        self.found.prepare(0);
        k.barrier();
        // If an entry is before `start`, its distance from `start` wraps. The distance is then at least 2³² − `start`.
        // `start` is a multiple of the size of the bin that this step divides, so the distance is at least this size.
        // So the entry is counted after all entries of the divided bin, or in no bin. The running sum reaches the
        // target before it reaches this entry.
        let prepare = |entry| (k.shr_by((self.distance)(start, entry), by), (self.weight)(entry));
        self.list.for_each(prepare, |(bin, weight)| {
            let is_in_bins = k.unsigned_lt(bin, k.int(BINS as i32));
            if self.kind == Kind::Count {
                k.when(is_in_bins, || k.add_shared(bins.parts[0], bin, weight));
            } else {
                k.when(k.both(is_in_bins, k.lt(k.int(0), weight)), || {
                    add_in_parts(k, bins.parts, bin, weight);
                });
            }
        });
        k.barrier();
        let sum = |part: Vec<Int>| part.into_iter().reduce(|a, b| k.add(a, b)).expect("a thread has bins");
        let parts: Vec<Int> = self.parts().into_iter().map(sum).collect();
        let sums = bins.block.running_sums_of_parts(&parts);
        self.sums.iter().zip(sums).for_each(|(&variable, sum)| k.set_wide(variable, sum));
    }

    /// The parts of the sums of the bins of this thread: the low parts, and the high parts if the search uses them.
    fn parts(&self) -> Vec<Vec<Int>> {
        let (k, first) = (self.bins.block.k, self.first_bin());
        let part = |&array: &Shared| {
            let vector = |bin: usize| k.load_shared_words::<VECTOR>(array, k.add(first, k.int(bin as i32)));
            (0..BINS_PER_THREAD).step_by(VECTOR).flat_map(vector).collect()
        };
        self.bins.parts[..self.arrays()].iter().map(part).collect()
    }

    /// The sums of the bins of this thread.
    fn values(&self) -> Vec<Wide> {
        let k = self.bins.block.k;
        let parts = self.parts();
        let value = |bin: usize| join_parts(k, &parts.iter().map(|part| part[bin]).collect::<Vec<Int>>());
        (0..BINS_PER_THREAD).map(value).collect()
    }

    /// Finds the first position at which the running sum of the weights reaches `target`. Returns this position, the
    /// sum of the weights before it, and the sum of the weights at it. A search that counts can also return the last
    /// position of a bin if the running sum is equal to `target` there. The third result is then the sum of the bin.
    /// In the low [`Search::unused`] bits, the result can differ from the position of the entry. This method can be
    /// called once, because it overwrites the bins.
    pub(super) fn find(&self, target: Wide) -> [Wide; 3] {
        let k = self.bins.block.k;
        let (first, shift) = (k.variable(k.int(0)), k.variable(self.shift));
        let [before, at] = [(); 2].map(|()| k.wide_variable(k.wide(0)));
        let is_open = k.variable(k.int(1));
        k.repeat_while(
            || k.eq(k.get(is_open), k.int(1)),
            || {
                let (start, by) = (k.get(first), k.get(shift));
                let rest = k.wide_difference(target, k.get_wide(before));
                let sums = self.sums.map(|sum| k.get_wide(sum));
                self.found.find(sums, || self.values(), rest);
                k.barrier();
                let (bin, before_bin, of_bin) = self.found.get();
                k.set_wide(before, k.wadd(k.get_wide(before), before_bin));
                k.set_wide(at, of_bin);
                let rest = k.wide_difference(rest, before_bin);
                let is_last_step = k.eq(by, k.int(self.unused as i32));
                let last = match self.kind {
                    Kind::Count => k.either(k.not(k.wlt(rest, of_bin)), is_last_step),
                    Kind::Weight => is_last_step,
                };
                // If the search ends before the last bits, the position is the last one of the bin.
                let next = k.add(start, k.shl_by(bin, by));
                let end = k.add(next, k.sub(k.shl_by(k.int(1), by), k.int(1)));
                k.set(first, k.select(last, end, next));
                k.set(is_open, k.select(last, k.int(0), k.int(1)));
                k.when(k.not(last), || {
                    let count = self.collect_few(next, by);
                    k.when_else(
                        k.le(count, k.int(LARGEST_FEW as i32)),
                        || {
                            let [position, sum, of_position] = self.few.locate(count, rest);
                            k.set(first, k.add(next, k.low(position)));
                            k.set_wide(before, k.wadd(k.get_wide(before), sum));
                            k.set_wide(at, of_position);
                            k.set(is_open, k.int(0));
                        },
                        || {
                            let by = k.max(k.sub(by, k.int(BITS as i32)), k.int(self.unused as i32));
                            k.set(shift, by);
                            // Before this barrier, some threads can still read the results of this step.
                            k.barrier();
                            self.fill(next, by);
                        },
                    );
                });
            },
        );
        [k.widen(k.get(first)), k.get_wide(before), k.get_wide(at)]
    }

    /// Stores the entries of one bin in [`Search::few`]. The bin begins at position `start` and has `2^by` positions.
    /// Entries of weight 0 are left out. Returns the number of entries, which can exceed [`LARGEST_FEW`].
    fn collect_few(&self, start: Int, by: Int) -> Int {
        let k = self.bins.block.k;
        let is_in_bin = |entry| k.eq(k.shr_by((self.distance)(start, entry), by), k.int(0));
        self.list.for_few(is_in_bin, |entry| {
            let weight = (self.weight)(entry);
            k.when(k.lt(k.int(0), weight), || self.few.entries.add([(self.distance)(start, entry), weight]));
        });
        self.few.entries.count()
    }
}
