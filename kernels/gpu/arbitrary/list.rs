//! The list of a row: entries that several blocks collect, in any order.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Address, Int, Mask, Ptx, Shared, Variable, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The largest number of places of a thread in shared memory.
const LARGEST_PLACES: usize = 11;
/// The largest number of entries that a thread keeps in registers. Each loop over a list contains code for each of
/// these entries, except after [`List::in_memory`]. If the code of `decide` is long, its warps wait for instructions.
const LARGEST_KEPT: usize = 5;
/// The number of entries that a thread loads in each round of a loop over the entries that it does not keep. These
/// loads overlap. After [`List::in_memory`], a thread loads one entry in each round.
const FURTHER: usize = 3;
/// The size of an entry: two words.
const ENTRY_BYTES: usize = 8;

/// The list of a row, for a block that adds entries. An entry has two words.
///
/// Each thread collects candidates in its own places in shared memory. So it needs no atomic operation to add a
/// candidate. Later, the threads of a warp together store the candidates that are entries. If a thread has no place for
/// an entry, it stores this entry alone.
pub(super) struct Collector<'k, L, S, E> {
    k: &'k Ptx,
    places: ThreadPlaces,
    /// The addresses of the first and the last place of this thread. A candidate in the last place is lost.
    first: Int,
    last: Int,
    /// The address of the next place of this thread.
    next: Variable,
    /// Returns the address of the number of entries of the row. The number can exceed the capacity.
    len: L,
    /// Returns whether a candidate is an entry. This function is called once for each candidate that is stored or
    /// dropped. So it can also count candidates or sum their weights.
    selects: S,
    /// Computes the words of an entry from the words of the candidate.
    entry: E,
    lists: Wide,
    row: Int,
    capacity: usize,
}

/// The places in the list of a row that a warp has reserved for its entries.
pub(super) struct Reserved {
    /// The number of entries of this thread.
    count: Variable,
    /// The number of entries of the threads before this thread in the warp.
    before: Variable,
    /// The place of the first entry of the warp. Only the last thread of the warp has this value.
    first: Variable,
}

/// The places of all threads of a block in shared memory.
#[derive(Clone, Copy)]
pub(super) struct ThreadPlaces {
    array: Shared,
    /// The number of places of a thread. A candidate in the last place is lost.
    count: usize,
}

impl ThreadPlaces {
    /// Returns the largest number of places, in a new array.
    pub(super) fn new(k: &Ptx) -> ThreadPlaces {
        ThreadPlaces::of(k, k.shared(2 * LARGEST_PLACES * k.threads()))
    }

    /// Returns as many places as fit in an array.
    pub(super) fn of(k: &Ptx, array: Shared) -> ThreadPlaces {
        let count = array.len() / (2 * k.threads());
        assert!(count > 1, "a thread needs a place for a candidate, and the last place");
        ThreadPlaces { array, count: count.min(LARGEST_PLACES) }
    }
}

impl<'k, L, S, E> Collector<'k, L, S, E>
where
    L: Fn() -> Address,
    S: Fn([Int; 2]) -> Mask,
    E: Fn([Int; 2]) -> [Int; 2],
{
    /// `lists` contains space for `capacity` entries of each row. `len` returns the address of the number of entries of
    /// the row. The address is computed where it is needed, so it occupies no registers. `selects` returns whether a
    /// candidate is an entry, and `entry` returns the words of the entry.
    pub(super) fn new(
        k: &'k Ptx,
        places: ThreadPlaces,
        (lists, capacity): (Wide, usize),
        row: Int,
        len: L,
        selects: S,
        entry: E,
    ) -> Collector<'k, L, S, E> {
        let first = k.shared_address(places.array, k.shl(k.thread(), 1));
        let last = k.add(first, k.int(((places.count - 1) * Self::step(k)) as i32));
        let next = k.variable(first);
        Collector { k, places, first, last, next, len, selects, entry, lists, row, capacity }
    }

    /// The distance in bytes between two places of a thread.
    fn step(k: &Ptx) -> usize {
        ENTRY_BYTES * k.threads()
    }

    /// If the mask is true, adds a candidate. The instructions contain no branch. If [`Collector::is_full`] is true
    /// afterwards, some candidates may be lost.
    pub(super) fn add_if(&self, mask: Mask, words: [Int; 2]) {
        self.k.push_shared_if(mask, self.next, words, Self::step(self.k), self.last);
    }

    /// Whether this thread has no place for another candidate.
    pub(super) fn is_full(&self) -> Mask {
        self.k.eq(self.k.get(self.next), self.last)
    }

    /// Returns the state of the places of this thread. [`Collector::restore`] needs it to remove the candidates that
    /// are added later.
    pub(super) fn state(&self) -> Int {
        self.k.get(self.next)
    }

    /// Removes the candidates that were added since [`Collector::state`] returned `state`.
    pub(super) fn restore(&self, state: Int) {
        self.k.set(self.next, state);
    }

    /// Adds a candidate. If the thread has no place for it, stores it in the list.
    pub(super) fn add(&self, words: [Int; 2]) {
        let k = self.k;
        k.when_else(
            self.is_full(),
            || {
                k.when((self.selects)(words), || {
                    self.store(k.fetch_add_global((self.len)(), k.int(1)), words);
                });
            },
            || self.add_if(k.always(), words),
        );
    }

    /// If a thread of the warp has few places left, stores the entries of the warp in the list.
    pub(super) fn make_room(&self) {
        let k = self.k;
        // If a thread has more candidates than this, the next ones may have too few places.
        let most = self.places.count / 2;
        let most = k.add(self.first, k.int((most * Self::step(k)) as i32));
        k.when(k.warp_any(k.lt(most, k.get(self.next))), || {
            let reserved = Reserved::new(k);
            self.reserve(&reserved);
            self.flush(&reserved);
            k.set(self.next, self.first);
        });
    }

    /// Drops the candidates that are not entries. Reserves places in the list for the entries of the warp. One atomic
    /// operation reserves all places.
    pub(super) fn reserve(&self, reserved: &Reserved) {
        let k = self.k;
        let candidates = self.count();
        k.set(self.next, self.first);
        k.for_range(k.int(0), candidates, 1, |number| {
            let words = self.candidate(number);
            self.add_if((self.selects)(words), words);
        });
        let count = self.count();
        let upto = k.warp_prefix_sum_of_words(count);
        k.set(reserved.count, count);
        k.set(reserved.before, k.sub(upto, count));
        let is_last = k.eq(k.lane(), k.int(WARP as i32 - 1));
        k.when(k.both(is_last, k.lt(k.int(0), upto)), || {
            k.set(reserved.first, k.fetch_add_global((self.len)(), upto));
        });
    }

    /// Stores the entries of the warp in the places that [`Collector::reserve`] has reserved.
    pub(super) fn flush(&self, reserved: &Reserved) {
        let k = self.k;
        let first = k.add(k.from_lane(k.get(reserved.first), WARP - 1), k.get(reserved.before));
        k.for_range(k.int(0), k.get(reserved.count), 1, |number| {
            self.store(k.add(first, number), self.candidate(number));
        });
    }

    /// The number of candidates of this thread.
    fn count(&self) -> Int {
        let k = self.k;
        k.shr(k.sub(k.get(self.next), self.first), Self::step(k).trailing_zeros())
    }

    fn candidate(&self, number: Int) -> [Int; 2] {
        let k = self.k;
        k.load_shared_words(self.places.array, k.shl(k.element(number, k.threads(), k.thread()), 1))
    }

    fn store(&self, at: Int, words: [Int; 2]) {
        let k = self.k;
        k.when(k.lt(at, k.int(self.capacity as i32)), || {
            let address = k.address(self.lists, k.element(self.row, self.capacity, at), ENTRY_BYTES);
            k.store(address, 0, &(self.entry)(words));
        });
    }
}

impl Reserved {
    /// Creates the variables that [`Collector::reserve`] sets.
    pub(super) fn new(k: &Ptx) -> Reserved {
        let [count, before, first] = [0; 3].map(|value| k.variable(k.int(value)));
        Reserved { count, before, first }
    }
}

/// The list of a row, for a block that reads it. Each thread keeps its first entries in registers. Several passes over
/// a list read the other entries from the L1 cache.
pub(super) struct List<'k> {
    block: Block<'k>,
    lists: Wide,
    capacity: usize,
    row: Int,
    count: Int,
    /// The number of entries from the first entry of this thread to the end of the list.
    rest: Int,
    /// The first entries of this thread. If the list is too short, some of these values are not entries.
    kept: Vec<[Int; 2]>,
    /// The number of further entries in a round of a loop.
    further: usize,
    /// Whether blocks of this kernel have stored the list. Then a load must see what other blocks store.
    is_new: bool,
}

/// An entry of a list.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) words: [Int; 2],
    /// The number of the entry among those that the thread keeps in registers; `None` if it is not one of them.
    kept: Option<usize>,
}

/// A function that computes `N` results from the two words of an entry, and the results for the entries that the thread
/// keeps in registers.
pub(super) struct Kept<F, const N: usize> {
    of: F,
    results: Vec<[Int; N]>,
}

impl<F: Fn([Int; 2]) -> [Int; N], const N: usize> Kept<F, N> {
    pub(super) fn of(&self, entry: Entry) -> [Int; N] {
        entry.kept.map_or_else(|| (self.of)(entry.words), |number| self.results[number])
    }
}

impl<'k> List<'k> {
    /// Loads the first entries of a list. `lists` contains space for `capacity` entries of each row. `count` is the
    /// number of entries. If it exceeds the capacity, only [`List::count`] and [`List::is_too_long`] may be called.
    pub(super) fn load(block: Block<'k>, lists: Wide, capacity: usize, row: Int, count: Int) -> List<'k> {
        let k = block.k;
        let first = k.address(lists, k.element(row, capacity, block.thread), ENTRY_BYTES);
        let mut list = List { is_new: false, ..List::stored(block, lists, capacity, row, count) };
        let load = |number: usize| {
            let place = number * k.threads();
            // The places after the capacity are not loaded. If the list is too long, no thread uses its entries.
            let exists = list.has_kept(number);
            let is_in_list = if place + k.threads() <= capacity {
                exists
            } else {
                k.both(exists, k.lt(block.thread, k.int(capacity as i32 - place as i32)))
            };
            let words = k.load_words_if(is_in_list, first, place * ENTRY_BYTES, 2, k.int(0));
            [words[0], words[1]]
        };
        let largest = capacity.div_ceil(k.threads()).min(LARGEST_KEPT);
        list.kept = (0..largest).map(load).collect();
        list
    }

    /// Returns a list that blocks of this kernel have stored: see [`Ptx::load_stored_if`]. The thread keeps no entries
    /// in registers. The arguments are those of [`List::load`].
    pub(super) fn stored(block: Block<'k>, lists: Wide, capacity: usize, row: Int, count: Int) -> List<'k> {
        let rest = block.k.sub(count, block.thread);
        List { block, lists, capacity, row, count, rest, kept: Vec::new(), further: FURTHER, is_new: true }
    }

    /// Returns the same list, but without entries in registers. A loop over the returned list has little code. Use it
    /// for loops that few rows need.
    pub(super) fn in_memory(&self) -> List<'k> {
        List { kept: Vec::new(), further: 1, ..*self }
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

    /// Calls `of` with each entry that this thread keeps in registers, and keeps the results. `of` must not have side
    /// effects, because a thread can also call it for places that are not in the list.
    pub(super) fn keep<F: Fn([Int; 2]) -> [Int; N], const N: usize>(&self, of: F) -> Kept<F, N> {
        // There is no branch around an entry. So the computations for several entries overlap.
        let results = self.kept.iter().map(|&words| of(words)).collect();
        Kept { of, results }
    }

    /// Calls `prepare` with each entry. Then calls `consume` with the result of `prepare` and with a mask, which is
    /// false if the place is not in the list. There is no branch around an entry, so the computations for several
    /// entries overlap.
    pub(super) fn for_each_place<T>(&self, prepare: impl Fn(Entry) -> T, consume: impl Fn(Mask, T)) {
        let run = |round: Vec<(Mask, Entry)>| {
            let prepared: Vec<(Mask, T)> =
                round.into_iter().map(|(exists, entry)| (exists, prepare(entry))).collect();
            prepared.into_iter().for_each(|(exists, value)| consume(exists, value));
        };
        self.for_each_round(run);
    }

    /// Calls `prepare` with each entry. Then calls `consume` with the result of `prepare`. A thread executes `consume`
    /// only for entries of the list. It can execute `prepare` for other places too, so `prepare` must not have side
    /// effects.
    pub(super) fn for_each<T>(&self, prepare: impl Fn(Entry) -> T, consume: impl Fn(T)) {
        let k = self.block.k;
        // Most lists have fewer entries than the registers can keep. So a warp skips the entries that do not exist.
        for (exists, entry) in self.kept_round() {
            k.when(exists, || consume(prepare(entry)));
        }
        self.for_further_rounds(|round| {
            let prepared: Vec<(Mask, T)> =
                round.into_iter().map(|(exists, entry)| (exists, prepare(entry))).collect();
            prepared.into_iter().for_each(|(exists, value)| k.when(exists, || consume(value)));
        });
    }

    /// Calls `consume` with the entries that `selects` selects. This method is for few such entries: in most rounds, no
    /// thread of a warp has one, and the warp skips `consume`.
    pub(super) fn for_few(&self, selects: impl Fn(Entry) -> Mask, consume: impl Fn(Entry)) {
        let k = self.block.k;
        let run = |round: Vec<(Mask, Entry)>| {
            let selected: Vec<(Mask, Entry)> =
                round.into_iter().map(|(exists, entry)| (k.both(exists, selects(entry)), entry)).collect();
            let any = selected.iter().map(|&(mask, _)| mask).reduce(|a, b| k.either(a, b));
            k.when(any.expect("a round has entries"), || {
                selected.into_iter().for_each(|(mask, entry)| k.when(mask, || consume(entry)));
            });
        };
        self.for_each_round(run);
    }

    /// Calls `body` with the entries that the thread keeps in registers, and then with each further round.
    fn for_each_round(&self, body: impl Fn(Vec<(Mask, Entry)>)) {
        if !self.kept.is_empty() {
            body(self.kept_round());
        }
        self.for_further_rounds(body);
    }

    /// The entries that the thread keeps in registers. The mask of an entry is false if its place is not in the list.
    fn kept_round(&self) -> Vec<(Mask, Entry)> {
        let entry = |(number, &words)| (self.has_kept(number), Entry { words, kept: Some(number) });
        self.kept.iter().enumerate().map(entry).collect()
    }

    /// Whether the list contains entry `number` of those that the thread keeps in registers.
    fn has_kept(&self, number: usize) -> Mask {
        let k = self.block.k;
        k.lt(k.int((number * k.threads()) as i32), self.rest)
    }

    /// Calls `body` with the entries that the thread does not keep in registers. A round can have several entries, so
    /// that their loads overlap. The mask of an entry is false if its place is not in the list.
    fn for_further_rounds(&self, body: impl FnOnce(Vec<(Mask, Entry)>)) {
        let k = self.block.k;
        let last = k.sub(self.count, k.int(1));
        let kept = self.kept.len() * k.threads();
        if kept >= self.capacity {
            return;
        }
        let start = k.add(self.block.thread, k.int(kept as i32));
        k.for_range(start, self.count, self.further * k.threads(), |first| {
            let load = |number: usize| {
                let place = k.min(self.place(first, number), last);
                let address = k.address(self.lists, k.element(self.row, self.capacity, place), ENTRY_BYTES);
                let words = if self.is_new {
                    let words = k.load_stored_if(k.always(), address, 0, 2, k.int(0));
                    [words[0], words[1]]
                } else {
                    k.load_pair(address)
                };
                Entry { words, kept: None }
            };
            body((0..self.further).map(|number| (self.exists(first, number), load(number))).collect());
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

    /// The sum of a value over the entries. The sum is below 2⁶⁴.
    pub(super) fn sum(&self, value: impl Fn(Entry) -> Wide) -> Wide {
        let k = self.block.k;
        let sum = k.wide_variable(k.wide(0));
        self.for_each(value, |value| k.set_wide(sum, k.wadd(k.get_wide(sum), value)));
        self.block.wide_sum(k.get_wide(sum))
    }
}
