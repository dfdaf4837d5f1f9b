//! The list of a row: entries that the blocks of its slices collect, in any order.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Address, Int, Ptx, Shared, Wide};
use crate::semantics::arith::Arith;

/// The number of entries that a block collects in shared memory. It stores further entries one by one.
const STAGED: usize = 2048;

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

    /// Adds an entry.
    pub(super) fn push(&self, words: [Int; 2]) {
        let k = self.k;
        let at = k.count_up_shared(self.counters, 0);
        k.when_else(
            k.lt(at, k.int(STAGED as i32)),
            || k.store_shared_words(self.staged, k.shl(at, 1), words),
            || self.store(k.fetch_add_global((self.len)(), k.int(1)), words),
        );
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

/// Loads the entries of a list of `count` entries, `per_thread` in each thread. Returns the first words and the second
/// words. Both are `otherwise` beyond the end of the list.
pub(super) fn load(
    block: &Block<'_>,
    (lists, capacity): (Wide, usize),
    (row, count): (Int, Int),
    per_thread: usize,
    otherwise: i32,
) -> [Vec<Int>; 2] {
    let k = block.k;
    let start = k.address(lists, k.element(row, capacity, block.thread), 8);
    let mut words = [Vec::new(), Vec::new()];
    for number in 0..per_thread {
        let place = k.add(block.thread, k.int((number * k.threads()) as i32));
        let entry =
            k.load_words_if(k.lt(place, count), start, number * k.threads() * 8, 2, k.int(otherwise));
        words[0].push(entry[0]);
        words[1].push(entry[1]);
    }
    words
}
