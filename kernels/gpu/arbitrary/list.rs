//! The list of a row: entries that the blocks of its slices collect, in any order.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Address, Int, Mask, Ptx, Shared, Variable, Wide};
use crate::semantics::arith::{Arith, WideArith};

/// The number of entries that a block collects in shared memory. It stores further entries one by one.
const STAGED: usize = 2048;
/// The number of entries that a thread handles in each round of a loop over a list. The thread keeps the entries of its
/// first round in registers.
const UNROLLED: usize = 5;
/// The size of an entry: two words.
const ENTRY_BYTES: usize = 8;

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
    /// `lists` contains space for `capacity` entries of each row. `len` returns the address of the number of entries of
    /// the row. It is computed where it is needed, so it needs no registers.
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
            k.store(k.address(self.lists, k.element(self.row, self.capacity, at), ENTRY_BYTES), 0, &words);
        });
    }
}

/// The list of a row, for a block that reads it. Each thread keeps its first entries in registers. Several passes over
/// a list read the other entries from the L1 cache.
#[derive(Clone, Copy)]
pub(super) struct List<'k> {
    block: Block<'k>,
    lists: Wide,
    capacity: usize,
    row: Int,
    count: Int,
    /// The first entries of this thread. If the list is too short, some of these values are not entries.
    kept: [[Int; 2]; UNROLLED],
}

/// An entry of a list.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) words: [Int; 2],
    /// The number of the entry among those that the thread keeps in registers; `None` if it is not one of them.
    kept: Option<usize>,
}

/// A function of the two words of an entry with `N` results, and its results for the entries that the thread keeps in
/// registers.
pub(super) struct Kept<F, const N: usize> {
    of: F,
    values: [[Int; N]; UNROLLED],
}

impl<F: Fn([Int; 2]) -> [Int; N], const N: usize> Kept<F, N> {
    pub(super) fn of(&self, entry: Entry) -> [Int; N] {
        entry.kept.map_or_else(|| (self.of)(entry.words), |number| self.values[number])
    }
}

impl<'k> List<'k> {
    /// Loads the first entries of a list. `lists` contains space for `capacity` entries of each row. `count` is the
    /// number of entries. If it exceeds the capacity, only [`List::count`] and [`List::is_too_long`] may be called.
    pub(super) fn load(block: Block<'k>, lists: Wide, capacity: usize, row: Int, count: Int) -> List<'k> {
        let k = block.k;
        let first = k.address(lists, k.element(row, capacity, block.thread), ENTRY_BYTES);
        let kept = std::array::from_fn(|number| {
            let place = number * k.threads();
            // The places after the capacity are not loaded. If the list is too long, no thread uses its entries.
            let exists = k.lt(block.thread, k.sub(count, k.int(place as i32)));
            let is_in_list = if place + k.threads() <= capacity {
                exists
            } else {
                k.both(exists, k.lt(block.thread, k.int(capacity as i32 - place as i32)))
            };
            let words = k.load_words_if(is_in_list, first, place * ENTRY_BYTES, 2, k.int(0));
            [words[0], words[1]]
        });
        List { block, lists, capacity, row, count, kept }
    }

    /// The number of entries. It can exceed the capacity.
    pub(super) fn count(&self) -> Int {
        self.count
    }

    /// Whether the number of entries exceeds the capacity.
    pub(super) fn is_too_long(&self) -> Mask {
        let k = self.block.k;
        k.lt(k.int(self.capacity as i32), self.count)
    }

    /// Computes a function of the entries that this thread keeps in registers. `of` must not have side effects.
    pub(super) fn keep<F: Fn([Int; 2]) -> [Int; N], const N: usize>(&self, of: F) -> Kept<F, N> {
        let k = self.block.k;
        let values = std::array::from_fn(|number| {
            let values = [(); N].map(|()| k.variable(k.int(0)));
            k.when(self.exists(self.block.thread, number), || {
                let results = of(self.kept[number]);
                values.iter().zip(results).for_each(|(&value, result)| k.set(value, result));
            });
            values.map(|value| k.get(value))
        });
        Kept { of, values }
    }

    /// Calls `prepare` with each entry. Then calls `consume` with the result of `prepare`. `prepare` must not have side
    /// effects. A thread executes `consume` only for the entries of the list.
    pub(super) fn for_each<T>(&self, prepare: impl Fn(Entry) -> T, consume: impl Fn(T)) {
        let k = self.block.k;
        self.for_each_kept(|entry| consume(prepare(entry)));
        self.for_further_rounds(|round| {
            let prepared: Vec<(Mask, T)> =
                round.into_iter().map(|(exists, entry)| (exists, prepare(entry))).collect();
            prepared.into_iter().for_each(|(exists, value)| k.when(exists, || consume(value)));
        });
    }

    /// Calls `consume` with the entries that `selects` selects. In most rounds, a warp has no such entry.
    pub(super) fn for_few(&self, selects: impl Fn(Entry) -> Mask, consume: impl Fn(Entry)) {
        let k = self.block.k;
        self.for_each_kept(|entry| k.when(selects(entry), || consume(entry)));
        self.for_further_rounds(|round| {
            let selected: Vec<(Mask, Entry)> =
                round.into_iter().map(|(exists, entry)| (k.both(exists, selects(entry)), entry)).collect();
            let any = selected.iter().map(|&(mask, _)| mask).reduce(|a, b| k.either(a, b));
            k.when(any.expect("a round has entries"), || {
                selected.into_iter().for_each(|(mask, entry)| k.when(mask, || consume(entry)));
            });
        });
    }

    /// Calls `body` with the entries that the thread keeps in registers. Most lists are shorter than the registers
    /// allow. So a warp skips the entries that do not exist.
    fn for_each_kept(&self, body: impl Fn(Entry)) {
        for (number, &words) in self.kept.iter().enumerate() {
            let entry = Entry { words, kept: Some(number) };
            self.block.k.when(self.exists(self.block.thread, number), || body(entry));
        }
    }

    /// Calls `body` with the further entries, several in each round, so that their loads overlap. The mask of an entry
    /// is false if its place is not in the list.
    fn for_further_rounds(&self, body: impl FnOnce(Vec<(Mask, Entry)>)) {
        let k = self.block.k;
        let last = k.sub(self.count, k.int(1));
        let step = UNROLLED * k.threads();
        k.for_range(k.add(self.block.thread, k.int(step as i32)), self.count, step, |first| {
            let load = |number: usize| {
                let place = k.min(self.place(first, number), last);
                let address = k.address(self.lists, k.element(self.row, self.capacity, place), ENTRY_BYTES);
                Entry { words: k.load_pair(address), kept: None }
            };
            body((0..UNROLLED).map(|number| (self.exists(first, number), load(number))).collect());
        });
    }

    /// Whether the list contains entry `number` of a round. `first` is the place of the first entry of the round.
    fn exists(&self, first: Int, number: usize) -> Mask {
        self.block.k.lt(self.place(first, number), self.count)
    }

    /// The place in the list of entry `number` of this thread in a round. `first` is the place of the first entry of
    /// the round.
    fn place(&self, first: Int, number: usize) -> Int {
        let k = self.block.k;
        k.add(first, k.int((number * k.threads()) as i32))
    }

    /// The sum over the entries of values that are not negative.
    pub(super) fn sum(&self, value: impl Fn(Entry) -> Int) -> Wide {
        let k = self.block.k;
        let sum = k.wide_variable(k.wide(0));
        self.for_each(value, |value| k.set_wide(sum, k.wadd(k.get_wide(sum), k.widen(value))));
        self.block.wide_sum(k.get_wide(sum))
    }
}
