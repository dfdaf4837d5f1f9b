//! The list of a row: entries that the blocks of its slices collect, in any order.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Address, Int, Ptx, Shared, Variable, Wide};
use crate::semantics::arith::{Arith, WideArith};

/// The number of entries that a block collects in shared memory. It stores further entries one by one.
const STAGED: usize = 2048;
/// The number of entries that a thread reads in each round of a loop over a list.
const UNROLLED: usize = 5;

/// The list of a row, for a block that adds entries. An entry has two words.
pub(super) struct Collector<'k, L> {
    k: &'k Ptx,
    staged: Shared,
    /// The number of entries of the block, then the place of its first entry in the list.
    counters: Shared,
    /// Returns the address of the number of entries of the row. The number can exceed the capacity.
    len: L,
    lists: Wide,
    row: Int,
    capacity: usize,
}

impl<'k, L: Fn() -> Address> Collector<'k, L> {
    /// `lists` contains a list of `capacity` entries for each row. `len` returns the address of the number of entries
    /// of the row. It is computed where it is needed, so it needs no registers.
    pub(super) fn new(k: &'k Ptx, lists: Wide, capacity: usize, row: Int, len: L) -> Collector<'k, L> {
        let (staged, counters) = (k.shared(2 * STAGED), k.shared(2));
        Collector { k, staged, counters, len, lists, row, capacity }
    }

    /// Prepares the list. Entries can be added after the next barrier.
    pub(super) fn clear(&self, block: &Block<'_>) {
        let k = self.k;
        k.when(block.is_first(), || k.store_shared_at(self.counters, 0, k.int(0)));
    }

    /// Reserves `count` consecutive places for entries of this thread. Returns the first place, for
    /// [`Collector::put`]. One atomic operation reserves all places, because each atomic operation delays the warp.
    pub(super) fn reserve(&self, count: Int) -> Variable {
        self.k.variable(self.k.fetch_add_shared(self.counters, 0, count))
    }

    /// Stores an entry in the place `reserved`. Then sets `reserved` to the next place.
    pub(super) fn put(&self, reserved: Variable, words: [Int; 2]) {
        let k = self.k;
        let place = k.get(reserved);
        k.set(reserved, k.add(place, k.int(1)));
        // If the entries of this block alone exceed the capacity, the list is too long in any case. So the block
        // does not store further entries, and does not add them to the number of entries of the row.
        k.when(k.le(place, k.int(self.capacity as i32)), || {
            k.when_else(
                k.lt(place, k.int(STAGED as i32)),
                || k.store_shared_words(self.staged, k.shl(place, 1), words),
                || self.store(k.fetch_add_global((self.len)(), k.int(1)), words),
            );
        });
    }

    /// Stores the entries that are in shared memory. All threads call this after the last entry.
    pub(super) fn flush(&self, block: &Block<'_>) {
        let k = self.k;
        k.barrier();
        let count = k.min(k.load_shared_at(self.counters, 0), k.int(STAGED as i32));
        k.when(k.lt(k.int(0), count), || {
            k.when(block.is_first(), || {
                k.store_shared_at(self.counters, 1, k.fetch_add_global((self.len)(), count));
            });
            k.barrier();
            let first = k.load_shared_at(self.counters, 1);
            k.for_range(block.thread, count, k.threads(), |number| {
                self.store(k.add(first, number), k.load_shared_words(self.staged, k.shl(number, 1)));
            });
        });
    }

    fn store(&self, at: Int, words: [Int; 2]) {
        let k = self.k;
        k.when(k.lt(at, k.int(self.capacity as i32)), || {
            k.store(k.address(self.lists, k.element(self.row, self.capacity, at), 8), 0, &words);
        });
    }
}

/// The list of a row, for a block that reads it. Several passes over a list read it from the L1 cache.
#[derive(Clone, Copy)]
pub(super) struct List<'k> {
    pub(super) block: Block<'k>,
    pub(super) lists: Wide,
    pub(super) capacity: usize,
    pub(super) row: Int,
    /// The number of entries. It can exceed the capacity. No method may be called in this case.
    pub(super) count: Int,
}

impl List<'_> {
    /// Calls `prepare` with the two words of each entry. Then calls `consume` with the result of `prepare`. Each round
    /// of the loop first loads and prepares several entries, and then consumes them. So the loads of these entries
    /// overlap. `prepare` must not have side effects, because the last round can call it again for the last entry.
    pub(super) fn for_each<T>(&self, prepare: impl Fn([Int; 2]) -> T, consume: impl Fn(T)) {
        let k = self.block.k;
        let last = k.sub(self.count, k.int(1));
        k.for_range(self.block.thread, self.count, UNROLLED * k.threads(), |first| {
            let place = |number: usize| k.add(first, k.int((number * k.threads()) as i32));
            let places: Vec<Int> = (0..UNROLLED).map(place).collect();
            let load = |&place: &Int| {
                let place = k.min(place, last);
                k.load_pair(k.address(self.lists, k.element(self.row, self.capacity, place), 8))
            };
            let entries: Vec<[Int; 2]> = places.iter().map(load).collect();
            let prepared: Vec<T> = entries.into_iter().map(&prepare).collect();
            for (place, value) in places.into_iter().zip(prepared) {
                k.when(k.lt(place, self.count), || consume(value));
            }
        });
    }

    /// The sum over the entries of values that are not negative.
    pub(super) fn sum(&self, value: impl Fn([Int; 2]) -> Int) -> Wide {
        let k = self.block.k;
        let sum = k.wide_variable(k.wide(0));
        self.for_each(value, |value| k.set_wide(sum, k.wadd(k.get_wide(sum), k.widen(value))));
        self.block.wide_sum(k.get_wide(sum))
    }
}
