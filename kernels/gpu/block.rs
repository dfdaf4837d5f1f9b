//! Operations of all threads of a block.

use crate::ptx::{Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::{row_status, ROW_HAD_INF, ROW_HAD_NAN};

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

    /// Whether this is the first thread of the block.
    pub(super) fn is_first(&self) -> Mask {
        self.k.eq(self.thread, self.k.int(0))
    }

    /// The sum of a value over the threads.
    pub(super) fn sum(&self, value: Int) -> Int {
        self.reduce(value, Operation::Sum)
    }

    /// The largest value of the threads.
    pub(super) fn max(&self, value: Int) -> Int {
        self.reduce(value, Operation::Max)
    }

    /// The least value of the threads.
    pub(super) fn min(&self, value: Int) -> Int {
        self.reduce(value, Operation::Min)
    }

    /// The sum of a value over the threads. The sum must be below 2⁶⁴. Do not call this in a loop: see
    /// [`Block::together`].
    pub(super) fn wide_sum(&self, value: Wide) -> Wide {
        self.together([value], []).0[0]
    }

    /// The sum of a value over the threads. Other reductions may follow at once. But no thread may execute the same sum
    /// again before another barrier.
    pub(super) fn sum_once(&self, value: Int) -> Int {
        self.sum_of_warps(self.exchange(0, &[self.k.warp_sum(value)])[0])
    }

    /// The sum of the words that [`Block::exchange`] returned.
    pub(super) fn sum_of_warps(&self, of_warp: Int) -> Int {
        let k = self.k;
        let is_warp = k.lt(k.lane(), k.int((k.threads() / WARP) as i32));
        k.warp_sum(k.select(is_warp, of_warp, k.int(0)))
    }

    /// The sums of some values over the threads, and the largest of some other values. The sums must be below 2⁶⁴. All
    /// these reductions share one barrier. They have their own partial results, so other reductions may follow at once.
    /// But no thread may execute the same reductions again before another barrier.
    pub(super) fn together<const SUMS: usize, const LARGEST: usize>(
        &self,
        sums: [Wide; SUMS],
        largest: [Int; LARGEST],
    ) -> ([Wide; SUMS], [Int; LARGEST]) {
        let k = self.k;
        let words: Vec<Int> = sums
            .iter()
            .flat_map(|&value| {
                let sum = k.wide_warp_sum(value);
                [k.low(sum), k.high(sum)]
            })
            .chain(largest.map(|value| k.warp_max(value)))
            .collect();
        let words = self.exchange(0, &words);
        let sum = |number: usize| k.wide_warp_sum(self.if_warp([words[2 * number], words[2 * number + 1]]));
        let max = |number: usize| k.warp_max(words[2 * SUMS + number]);
        (std::array::from_fn(sum), std::array::from_fn(max))
    }

    /// Passes words between the warps. Lane `sender` of warp `i` gives the words, and lane `i` of every warp gets them.
    /// A lane whose number is not the number of a warp gets the words of the last warp. The words have their own
    /// arrays, so other reductions may follow at once. But no thread may execute the same exchange again before another
    /// barrier.
    pub(super) fn exchange(&self, sender: usize, words: &[Int]) -> Vec<Int> {
        let k = self.k;
        let warps = k.threads() / WARP;
        let arrays: Vec<Shared> = words.iter().map(|_| k.shared(warps)).collect();
        k.when(k.eq(k.lane(), k.int(sender as i32)), || {
            let warp = k.shr(self.thread, WARP.trailing_zeros());
            arrays.iter().zip(words).for_each(|(&array, &word)| k.store_shared(array, warp, word));
        });
        k.barrier();
        let warp = k.min(k.lane(), k.int(warps as i32 - 1));
        arrays.iter().map(|&array| k.load_shared(array, warp)).collect()
    }

    /// A 64-bit integer from its halves; 0 in a lane whose number is not the number of a warp.
    pub(super) fn if_warp(&self, [low, high]: [Int; 2]) -> Wide {
        let k = self.k;
        let is_warp = k.lt(k.lane(), k.int((k.threads() / WARP) as i32));
        k.join(k.select(is_warp, low, k.int(0)), k.select(is_warp, high, k.int(0)))
    }

    /// The least and the largest value of the threads. The partial results stay in use: no other reduction may follow
    /// before the next barrier.
    pub(super) fn range(&self, value: Int) -> (Int, Int) {
        let k = self.k;
        self.share([k.warp_min(value), k.warp_max(value)]);
        (self.combine(0, Operation::Min), self.combine(1, Operation::Max))
    }

    fn reduce(&self, value: Int, operation: Operation) -> Int {
        self.share([operation.over_warp(self.k, value)]);
        let result = self.combine(0, operation);
        self.k.barrier();
        result
    }

    /// The status bits of a slice. The masks say whether a logit of this thread is NaN or +inf.
    pub(super) fn status(&self, had_nan: Mask, had_inf: Mask) -> Int {
        let k = self.k;
        row_status(k, k.never(), k.barrier_any(had_nan), k.barrier_any(had_inf))
    }

    /// Makes the values of the first lane of each warp visible to all threads.
    fn share<const N: usize>(&self, of_warp: [Int; N]) {
        let k = self.k;
        let is_first_lane = k.eq(k.and(self.thread, k.int(WARP as i32 - 1)), k.int(0));
        k.when(is_first_lane, || {
            for (array, value) in self.partial.into_iter().zip(of_warp) {
                k.store_shared(array, k.shr(self.thread, WARP.trailing_zeros()), value);
            }
        });
        k.barrier();
    }

    fn combine(&self, number: usize, operation: Operation) -> Int {
        let (k, array) = (self.k, self.partial[number]);
        if array.len() <= 8 {
            let fours = (0..array.len()).step_by(4).map(|index| k.load_shared_words_at::<4>(array, index));
            return fours.flatten().reduce(|a, b| operation.of_two(k, a, b)).expect("a block has warps");
        }
        // If every thread loaded all partial results, these loads would take longer than the reduction over a warp.
        let warps = k.int(array.len() as i32);
        let lane = k.min(k.lane(), k.sub(warps, k.int(1)));
        let exists = k.lt(k.lane(), warps);
        let mine = k.select(exists, k.load_shared(array, lane), k.int(operation.neutral()));
        operation.over_warp(k, mine)
    }

    /// Finds the largest threshold in `low..=high` for which [`Verdict::enough`] is true, by bisection. The search ends
    /// earlier at a threshold for which [`Verdict::close`] is true too. `low` is not tested; it is the result if no
    /// tested threshold is enough. All threads call `test` with the same value and get the same result.
    fn largest_threshold(&self, (low, high): (Int, Int), test: impl FnOnce(Int) -> Verdict) -> Int {
        let k = self.k;
        self.bisect(low, high, |from, to| k.shr_by(k.sub(to, from), k.int(1)), test)
    }

    /// Like [`Block::largest_threshold`], but tests `low + 1` first. If `low` is a value with many ties, the search
    /// then ends after one step.
    fn largest_threshold_near_low(&self, (low, high): (Int, Int), test: impl FnOnce(Int) -> Verdict) -> Int {
        let k = self.k;
        let is_first = k.variable(k.int(1));
        let distance = |from, to| {
            let half = k.shr_by(k.sub(to, from), k.int(1));
            let distance = k.select(k.eq(k.get(is_first), k.int(1)), k.int(0), half);
            k.set(is_first, k.int(0));
            distance
        };
        self.bisect(low, high, distance, test)
    }

    /// An order key that at least `top_k` of the threads' maxima reach, and few more, unless many maxima are equal.
    pub(super) fn bound_from_maxima(&self, range: (Int, Int), max: Int, top_k: Int) -> Bound {
        let k = self.k;
        let most = k.add(top_k, k.shr(top_k, 3));
        // All maxima reach the lower end of the range, which is not tested.
        let reaching = k.variable(k.int(k.threads() as i32));
        let key = self.largest_threshold(range, |threshold| {
            let count = k.barrier_count(k.le(threshold, max));
            let enough = k.le(top_k, count);
            k.set(reaching, k.select(enough, count, k.get(reaching)));
            Verdict { enough, close: Some(k.le(count, most)) }
        });
        Bound { key, reaching: k.get(reaching) }
    }

    /// Finds the key of the last of the `wanted` first entries in the order (key descending, index ascending). Returns
    /// this key, and the number of entries with this key that belong to the first entries. `keys` is the range that
    /// contains the key. `reaching` counts the entries whose keys are at least its argument.
    pub(super) fn last_key(
        &self,
        wanted: Int,
        keys: (Int, Int),
        reaching: impl Fn(Int) -> Int,
    ) -> (Int, Int) {
        let k = self.k;
        // The usual reason for this search is that many keys are equal to the lower end of the range.
        let threshold = self.largest_threshold_near_low(keys, |threshold| Verdict {
            enough: k.le(wanted, reaching(threshold)),
            close: None,
        });
        (threshold, k.sub(wanted, reaching(k.add(threshold, k.int(1)))))
    }

    /// Returns the largest place in a range before which there are fewer than `wanted` ties. `before` counts the ties
    /// before a place.
    pub(super) fn place_of_tie(
        &self,
        wanted: Int,
        places: (Int, Int),
        before: impl FnOnce(Int) -> Int,
    ) -> Int {
        let k = self.k;
        self.largest_threshold(places, |place| Verdict { enough: k.lt(before(place), wanted), close: None })
    }

    /// The sum of a value over the threads before this thread. Other reductions may follow at once. But no thread may
    /// execute the same sum again before another barrier.
    pub(super) fn sum_before(&self, value: Int) -> Int {
        self.sums_of_words(&[value]).before[0]
    }

    /// Like [`Block::sum_before`], for several values of each thread. All these sums share one barrier.
    pub(super) fn sums_of_words(&self, mine: &[Int]) -> SumsOfWords {
        let k = self.k;
        let of_warp: Vec<Int> = mine.iter().map(|&value| k.warp_prefix_sum_of_words(value)).collect();
        let of_warps = self.exchange(WARP - 1, &of_warp);
        let is_earlier = k.lt(k.lane(), k.shr(self.thread, WARP.trailing_zeros()));
        let earlier = |&sum: &Int| k.warp_sum(k.select(is_earlier, sum, k.int(0)));
        let upto: Vec<Int> =
            of_warps.iter().zip(&of_warp).map(|(sum, &own)| k.add(earlier(sum), own)).collect();
        let before = upto.iter().zip(mine).map(|(&upto, &mine)| k.sub(upto, mine)).collect();
        SumsOfWords { before, upto, of_warps }
    }

    /// Each step tests the value that is `distance` + 1 above the lower end of the range.
    fn bisect(
        &self,
        low: Int,
        high: Int,
        distance: impl FnOnce(Int, Int) -> Int,
        test: impl FnOnce(Int) -> Verdict,
    ) -> Int {
        let k = self.k;
        let (low, high) = (k.variable(low), k.variable(high));
        k.repeat_while(
            || k.lt(k.get(low), k.get(high)),
            || {
                let (from, to) = (k.get(low), k.get(high));
                let middle = k.add(k.add(from, distance(from, to)), k.int(1));
                let verdict = test(middle);
                k.set(low, k.select(verdict.enough, middle, from));
                let end = verdict.close.map_or(to, |close| k.select(close, middle, to));
                k.set(high, k.select(verdict.enough, end, k.sub(middle, k.int(1))));
            },
        );
        k.get(low)
    }
}

/// Loads the records of the `count` slices of a row. A record has `N` words, and `N` is 2 or 4. Each warp loads all
/// records, so a reduction over the slices needs no barrier. Each thread of the warp loads the records of some slices.
/// If a thread has no slice, it gets a record whose words are `i32::MIN`.
pub(super) fn load_records<const N: usize>(k: &Ptx, records: Wide, row: Int, count: usize) -> Vec<Vec<Int>> {
    let start = k.address(records, k.element(row, count, k.lane()), N * 4);
    let load = |first: usize| {
        let exists = k.lt(k.lane(), k.int(count as i32 - first as i32));
        k.load_words_if(exists, start, first * N * 4, N, k.int(i32::MIN))
    };
    (0..count).step_by(WARP).map(load).collect()
}

/// Returns the largest key of a row. `keys` contains the keys from the records that [`load_records`] returned to this
/// thread.
pub(super) fn max_of_slices(k: &Ptx, keys: impl Iterator<Item = Int>) -> Int {
    k.warp_max(keys.reduce(|a, b| k.max(a, b)).expect("a row has slices"))
}

/// Returns the largest key of a row and its lowest index. `keys` and `indices` contain the largest key of each slice
/// and its lowest index, from the records that [`load_records`] returned to this thread.
pub(super) fn maximum_of_slices(
    k: &Ptx,
    keys: impl Iterator<Item = Int> + Clone,
    indices: impl Iterator<Item = Int>,
) -> [Int; 2] {
    let max_key = max_of_slices(k, keys.clone());
    let of_max = |(key, index)| k.select(k.eq(key, max_key), index, k.int(i32::MAX));
    let first = keys.zip(indices).map(of_max).reduce(|a, b| k.min(a, b)).expect("a row has slices");
    [max_key, k.warp_min(first)]
}

/// Returns the status bits of a row. `words` contains the words with the status bits, from the records that
/// [`load_records`] returned to this thread. The other bits of the words are ignored. `i32::MIN` has no status bit.
pub(super) fn status_of_slices(k: &Ptx, words: impl Iterator<Item = Int>) -> Int {
    let mine = words.reduce(|a, b| k.or(a, b)).expect("a row has slices");
    let has = |bit: u32| k.lt(k.int(0), k.warp_max(k.and(mine, k.int(bit as i32))));
    row_status(k, k.never(), has(ROW_HAD_NAN), has(ROW_HAD_INF))
}

/// The running sums of some words over the threads of a block.
pub(super) struct SumsOfWords {
    /// The sums over the threads before this one.
    pub(super) before: Vec<Int>,
    /// The sums over the threads up to this one.
    pub(super) upto: Vec<Int>,
    /// The sums of the warps. Lane `i` has those of warp `i`. A lane whose number is not the number of a warp has the
    /// sums of the last warp.
    pub(super) of_warps: Vec<Int>,
}

/// A bound that [`Block::bound_from_maxima`] found.
pub(super) struct Bound {
    pub(super) key: Int,
    /// The number of threads whose maxima reach the key.
    pub(super) reaching: Int,
}

/// How a reduction combines values.
#[derive(Clone, Copy)]
enum Operation {
    Sum,
    Max,
    Min,
}

impl Operation {
    fn of_two(self, k: &Ptx, a: Int, b: Int) -> Int {
        match self {
            Operation::Sum => k.add(a, b),
            Operation::Max => k.max(a, b),
            Operation::Min => k.min(a, b),
        }
    }

    fn over_warp(self, k: &Ptx, value: Int) -> Int {
        match self {
            Operation::Sum => k.warp_sum(value),
            Operation::Max => k.warp_max(value),
            Operation::Min => k.warp_min(value),
        }
    }

    /// The value that changes no result.
    fn neutral(self) -> i32 {
        match self {
            Operation::Sum => 0,
            Operation::Max => i32::MIN,
            Operation::Min => i32::MAX,
        }
    }
}

/// The result of testing a threshold.
struct Verdict {
    /// Whether enough values are at least the threshold.
    enough: Mask,
    /// Whether the search may end at this threshold, if it is enough.
    close: Option<Mask>,
}
