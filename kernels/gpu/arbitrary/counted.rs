//! The searches of top-k and top-p in the histogram of a list. A search finds a bin. If the bin has few entries, or all
//! its entries are equal, the search ends there. Otherwise, the search has no result, and the caller searches in
//! another way.

use std::cell::OnceCell;

use super::bin_entries::{EntriesByKey, WeightsOfBin, LARGEST_IN_BIN};
use super::histogram::{self, BinPlace, Histogram, Sums};
use super::list::{Entry, List};
use super::search::Bins;
use crate::ptx::{Int, Mask, Ptx, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};

/// The histogram of a list, and the results of the searches in it.
pub(super) struct Counted<'k> {
    k: &'k Ptx,
    sums: OnceCell<Sums<'k>>,
    /// The bins that the searches of top-k and top-p found.
    places: [BinPlace<'k>; 2],
    by_key: EntriesByKey<'k>,
    weights: WeightsOfBin<'k>,
    /// 1 if the histogram exists, its sums are right, and every search in it had a result. Otherwise 0.
    is_valid: Variable,
    /// The number of the entries of the list that top-k keeps, and the sum of their weights.
    count: Variable,
    total: WideVariable,
    /// The bin of the last entry that top-k keeps; −1 if top-k keeps all entries of the list. The next two variables
    /// are the number of kept entries in this bin, and the sum of their weights.
    last_bin: Variable,
    of_last_bin: Variable,
    weight_of_last_bin: WideVariable,
}

/// The variables that [`Counted::find_top_k`] sets.
#[derive(Clone, Copy)]
pub(super) struct TopK {
    pub(super) threshold: Variable,
    pub(super) last_tie: Variable,
    /// If the search did not find `last_tie`: the number of entries equal to the threshold that top-k keeps. Otherwise,
    /// the variable keeps its value.
    pub(super) missing: Variable,
}

/// The variables that [`Counted::find_top_p`] sets.
#[derive(Clone, Copy)]
pub(super) struct TopP {
    pub(super) threshold: Variable,
    /// The sum of the weights that are larger than the threshold.
    pub(super) above: WideVariable,
    /// The number of weights that are at least the threshold, and their sum.
    pub(super) count: Variable,
    pub(super) kept: WideVariable,
}

impl<'k> Counted<'k> {
    /// Clears the arrays in shared memory. [`Counted::fill`] may be called after the next barrier. The histogram uses
    /// the first words of `bins`.
    pub(super) fn new(bins: &Bins<'_, 'k>) -> Counted<'k> {
        let (k, block) = (bins.block.k, bins.block.block);
        let (by_key, weights) = (EntriesByKey::new(block), WeightsOfBin::new(block));
        Histogram::clear(block, bins.parts);
        by_key.clear();
        weights.clear();
        let zero = || k.variable(k.int(0));
        Counted {
            k,
            sums: OnceCell::new(),
            places: [(); 2].map(|()| BinPlace::new(k)),
            by_key,
            weights,
            is_valid: zero(),
            count: zero(),
            total: k.wide_variable(k.wide(0)),
            last_bin: k.variable(k.int(-1)),
            of_last_bin: zero(),
            weight_of_last_bin: k.wide_variable(k.wide(0)),
        }
    }

    /// Whether the results of searches in the histogram can be used.
    pub(super) fn is_valid(&self) -> Mask {
        self.k.eq(self.k.get(self.is_valid), self.k.int(1))
    }

    /// The number of the entries of the list that top-k keeps.
    pub(super) fn count(&self) -> Int {
        self.k.get(self.count)
    }

    /// The sum of the weights of the entries of the list that top-k keeps.
    pub(super) fn total(&self) -> Wide {
        self.k.get_wide(self.total)
    }

    /// If the mask is true, creates the histogram. `of` returns the weight of an entry without top-k, and its bin.
    pub(super) fn fill(
        &self,
        wanted: Mask,
        list: &List<'k>,
        histogram: &Histogram<'k>,
        of: impl Fn(Entry) -> [Int; 2],
    ) {
        let k = self.k;
        let fits = k.le(list.count(), k.int(histogram::LARGEST_COUNTED as i32));
        k.when(k.both(wanted, fits), || {
            let sums = histogram.fill(list, of);
            k.set(self.is_valid, k.select(sums.is_right(list.count()), k.int(1), k.int(0)));
            k.set_wide(self.total, sums.total());
            k.set(self.count, list.count());
            assert!(self.sums.set(sums).is_ok(), "one histogram");
        });
    }

    fn sums(&self) -> &Sums<'k> {
        self.sums.get().expect("a histogram")
    }

    /// Finds the last entry that top-k keeps: entry number `top_k` of the list. May be called only if
    /// [`Counted::is_valid`] is true. If the search has no result, [`Counted::is_valid`] is false afterwards. `of` is
    /// the function that [`Counted::fill`] got.
    pub(super) fn find_top_k(
        &self,
        list: &List<'k>,
        of: impl Fn(Entry) -> [Int; 2],
        top_k: Int,
        stable: bool,
        found: TopK,
    ) {
        let k = self.k;
        let place = &self.places[0];
        self.sums().find_count(place, top_k);
        let bin = place.get();
        let wanted = k.sub(top_k, bin.count_before);
        let key = |entry: Entry| entry.words[0];
        let is_in_bin = |entry: Entry| k.eq(of(entry)[1], bin.number);
        list.for_few(is_in_bin, |entry| self.by_key.add([key(entry), entry.words[1], of(entry)[0]]));
        k.barrier();
        let set = |[threshold, last_tie, count]: [Int; 3], weight: Wide| {
            k.set(found.threshold, threshold);
            k.set(found.last_tie, last_tie);
            k.set(self.last_bin, bin.number);
            k.set(self.of_last_bin, count);
            k.set_wide(self.weight_of_last_bin, weight);
            k.set(self.count, k.add(bin.count_before, count));
            k.set_wide(self.total, k.wadd(bin.weight_before, weight));
        };
        k.when_else(
            k.le(bin.count, k.int(LARGEST_IN_BIN as i32)),
            || {
                let last = self.by_key.locate(bin.count, wanted, stable);
                set([last.threshold, last.last_tie, last.count], last.weight);
            },
            || {
                let [threshold, weight] = self.by_key.any();
                let differs = |entry| k.both(is_in_bin(entry), k.not(k.eq(key(entry), threshold)));
                k.when_else(
                    self.any(list, differs),
                    || k.set(self.is_valid, k.int(0)),
                    || {
                        if stable {
                            k.when(k.lt(wanted, bin.count), || k.set(found.missing, wanted));
                        }
                        let count = if stable { wanted } else { bin.count };
                        let weight = k.wmul(k.widen(weight), k.widen(count));
                        set([threshold, k.int(i32::MAX), count], weight);
                    },
                );
            },
        );
    }

    /// Finds the threshold of top-p: the largest weight for which the sum of the weights that are at least this weight
    /// reaches `target`. Considers the entries of the list that top-k keeps. The sum of their weights must reach
    /// `target`, which is not 0. May be called only if [`Counted::is_valid`] is true. If the search has no result,
    /// [`Counted::is_valid`] is false afterwards. `weight` returns the weight of an entry. This weight is 0 if top-k
    /// does not keep the entry.
    pub(super) fn find_top_p(
        &self,
        list: &List<'k>,
        bin: impl Fn(Entry) -> Int,
        weight: impl Fn(Entry) -> Int,
        target: Wide,
        found: TopP,
    ) {
        let k = self.k;
        let place = &self.places[1];
        self.sums().find_weight(place, target);
        let found_bin = place.get();
        let is_in_bin = |entry: Entry| k.eq(bin(entry), found_bin.number);
        list.for_few(is_in_bin, |entry| self.weights.add(weight(entry)));
        k.barrier();
        let set = |threshold, above, count, kept| {
            k.set(found.threshold, threshold);
            k.set_wide(found.above, k.wadd(found_bin.weight_before, above));
            k.set(found.count, k.add(found_bin.count_before, count));
            k.set_wide(found.kept, k.wadd(found_bin.weight_before, kept));
        };
        k.when_else(
            k.le(found_bin.count, k.int(LARGEST_IN_BIN as i32)),
            || {
                let rest = k.wide_difference(target, found_bin.weight_before);
                let last = self.weights.locate(found_bin.count, rest);
                set(last.threshold, last.above, last.count, last.weight);
            },
            || {
                let threshold = self.weights.largest();
                let differs = |entry| {
                    let weight = weight(entry);
                    let is_other = k.both(k.lt(k.int(0), weight), k.not(k.eq(weight, threshold)));
                    k.both(is_in_bin(entry), is_other)
                };
                k.when_else(
                    self.any(list, differs),
                    || k.set(self.is_valid, k.int(0)),
                    || {
                        let is_last = k.eq(found_bin.number, k.get(self.last_bin));
                        let count = k.select(is_last, k.get(self.of_last_bin), found_bin.count);
                        let kept = k.wselect(is_last, k.get_wide(self.weight_of_last_bin), found_bin.weight);
                        set(threshold, k.wide(0), count, kept);
                    },
                );
            },
        );
    }

    /// Whether `selects` returns true for an entry of the list. Contains a barrier.
    fn any(&self, list: &List<'k>, selects: impl Fn(Entry) -> Mask) -> Mask {
        let k = self.k;
        let any = k.variable(k.int(0));
        list.in_memory().for_few(selects, |_| k.set(any, k.int(1)));
        k.barrier_any(k.eq(k.get(any), k.int(1)))
    }
}
