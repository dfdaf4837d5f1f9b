//! Top-p and min-p in a row with a list. If the list and the bins of the scan determine the least weight to keep, the
//! block draws the token. Otherwise, the block finds two weights that enclose the threshold of top-p.

use super::counted::TopP;
use super::decide_row::Row;
use super::list::Entry;
use super::list_draw::{KeptInList, ListDraw, TiesAtBound};
use super::list_top_k::KeptTies;
use super::positions::Positions;
use super::records::WEIGH;
use super::rest::Rest;
use super::weights::{has_top_p, top_p_target, weight_at, Weights};
use crate::dtype::Dtype;
use crate::kernels::program_arrays::Column;
use crate::ptx::{Int, Mask, Variable, Wide};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::{is_candidate, kept_weight};

/// The application of top-p and min-p to the entries of a row that top-k keeps.
pub(super) struct ListTopP<'r, 'a, 'k> {
    row: &'r Row<'a, 'k>,
    positions: &'r Positions<'k>,
    /// Returns the weight that an entry of the list has without top-k, and the bin of the entry.
    weight_and_bin: &'r dyn Fn(Entry) -> [Int; 2],
    weights: Weights<'k>,
    /// The distance of the bound from the maximum.
    distance: Int,
    ties: TiesAtBound,
    /// The sum of the weights of `ties`.
    sum_of_ties: Wide,
    without_top_k: Mask,
    /// Whether min-p removes the entries below the bound. These entries have at most the weight of the bound.
    min_p_removes_rest: Mask,
    /// 1 if the least weight to keep is known.
    is_decided: Variable,
    kept: KeptInList<'k>,
}

/// The sums of weights that the search for the threshold of top-p uses.
struct Sums {
    /// The sum of the weights of the entries of the list that top-k keeps.
    list: Wide,
    /// The least and the largest possible sum that top-p must reach.
    targets: [Wide; 2],
}

impl<'r, 'a, 'k> ListTopP<'r, 'a, 'k> {
    /// `weight_and_bin` returns the weight that an entry of the list has without top-k, and the bin of the entry.
    pub(super) fn new(
        row: &'r Row<'a, 'k>,
        positions: &'r Positions<'k>,
        weight_and_bin: &'r dyn Fn(Entry) -> [Int; 2],
        kept_ties: &KeptTies,
    ) -> ListTopP<'r, 'a, 'k> {
        let (k, bound) = (row.k, row.stored.bound);
        let (in_chunk, count) = (kept_ties.in_chunk(row), kept_ties.count(k));
        let weights = Weights::new(k, row.parameters, row.max_key(), row.found_top_k());
        let distance = weights.q(bound);
        let weight = k.select(is_candidate(k, bound), weight_at(k, distance), k.int(0));
        ListTopP {
            row,
            positions,
            weight_and_bin,
            weights,
            distance,
            ties: TiesAtBound { weight, count, in_chunk },
            sum_of_ties: k.wmul(k.widen(weight), k.widen(count)),
            without_top_k: k.not(row.with_top_k),
            min_p_removes_rest: k.lt(weight, row.parameters.get(Column::MinWeight)),
            is_decided: k.variable(k.int(0)),
            kept: KeptInList::of_top_k(k, &row.arrays.counted),
        }
    }

    /// Finds the least weight to keep, and draws the token.
    pub(super) fn sample(&self) {
        let (k, row) = (self.row.k, self.row);
        k.when_else(
            has_top_p(k, row.parameters, row.max_key()),
            || self.apply_top_p(),
            || self.apply_min_p_alone(),
        );
        k.when_else(
            k.eq(k.get(self.is_decided), k.int(1)),
            || {
                let is_removed = k.lt(self.ties.weight, k.get(row.found.least));
                let weight = k.select(is_removed, k.int(0), self.ties.weight);
                let ties = TiesAtBound { weight, ..self.ties };
                ListDraw::new(row, &|entry| self.weight(entry), &self.kept, ties).draw();
            },
            || k.set(row.found.state, k.int(WEIGH)),
        );
    }

    /// The weight of an entry of the list; 0 if top-k does not keep it.
    fn weight(&self, entry: Entry) -> Int {
        let (k, [key, index]) = (self.row.k, entry.words);
        k.select(self.weights.survives(key, index), (self.weight_and_bin)(entry)[0], k.int(0))
    }

    /// The weight below which min-p removes an entry.
    fn min_weight(&self) -> Int {
        self.row.parameters.get(Column::MinWeight)
    }

    /// If the mask is true, marks the least weight to keep as known.
    fn decide_if(&self, mask: Mask) {
        let k = self.row.k;
        k.set(self.is_decided, k.select(mask, k.int(1), k.get(self.is_decided)));
    }

    fn is_undecided(&self) -> Mask {
        self.row.k.eq(self.row.k.get(self.is_decided), self.row.k.int(0))
    }

    /// Applies min-p in a row without top-p.
    fn apply_min_p_alone(&self) {
        let (k, row, min_weight) = (self.row.k, self.row, self.min_weight());
        self.decide_if(k.either(row.with_top_k, self.min_p_removes_rest));
        let has_min_p = k.lt(k.int(0), min_weight);
        self.kept.set_known(k.both(row.arrays.counted.is_valid(), k.not(has_min_p)));
        for variable in [row.found.low, row.found.high] {
            k.set(variable, k.max(min_weight, k.int(1)));
        }
    }

    /// Applies top-p and min-p. If the least weight to keep is not known afterwards, finds the weights that enclose the
    /// threshold of top-p.
    fn apply_top_p(&self) {
        let (k, row, min_weight) = (self.row.k, self.row, self.min_weight());
        let list = self.sum_of_list();
        let known = k.wadd(list, self.sum_of_ties);
        let rest = Rest::new(row.block, row.stored.counts_of_rest, self.distance, self.without_top_k);
        let targets = [rest.least, rest.most]
            .map(|rest| top_p_target(k, row.parameters, k.wadd(known, k.get_wide(rest))));
        let sums = Sums { list, targets };
        let is_reached = k.not(k.wlt(known, targets[1]));
        let threshold = k.variable(self.ties.weight);
        k.when(is_reached, || self.find_threshold(&sums, &rest, threshold));
        k.when(k.both(self.min_p_removes_rest, self.is_undecided()), || self.decide_by_min_p(&sums));
        k.when(self.is_undecided(), || {
            let [low, high] = rest.interval(known, targets, k.get(threshold));
            k.set(row.found.low, k.select(k.le(high, min_weight), min_weight, low));
            k.set(row.found.high, k.max(high, min_weight));
        });
    }

    /// The sum of the weights of the kept entries of the list.
    fn sum_of_list(&self) -> Wide {
        let (k, counted) = (self.row.k, &self.row.arrays.counted);
        let total = k.wide_variable(counted.total());
        k.when(k.not(counted.is_valid()), || {
            let list = self.row.stored.list.in_memory();
            k.set_wide(total, list.sum(|entry| k.widen(self.weight(entry))));
        });
        k.get_wide(total)
    }

    /// Finds the threshold of top-p for the larger target, and stores it in `threshold`, which first contains the
    /// weight of an entry at the bound. The known weights reach this target. If all possible targets have this
    /// threshold, and all entries that reach it are known, also sets the least weight to keep.
    fn find_threshold(&self, sums: &Sums, rest: &Rest<'_>, threshold: Variable) {
        let (k, row, min_weight) = (self.row.k, self.row, self.min_weight());
        let [least_target, largest_target] = sums.targets;
        // The sum of the weights above the threshold. If the threshold is the weight of the ties, this variable can
        // also contain weights that are equal to the threshold.
        let above = k.wide_variable(sums.list);
        k.when(k.not(k.wlt(sums.list, largest_target)), || {
            let found = TopP { threshold, above, count: self.kept.count, kept: self.kept.sum };
            self.search_list(largest_target, found);
        });
        let least = k.max(k.get(threshold), min_weight);
        let is_certain = k.wlt(k.get_wide(above), least_target);
        k.when(k.both(is_certain, k.lt(k.get(rest.highest), least)), || {
            k.set(row.found.least, least);
            k.set(self.is_decided, k.int(1));
            let is_counted = row.arrays.counted.is_valid();
            self.kept.set_known(k.both(is_counted, k.le(min_weight, k.get(threshold))));
        });
    }

    /// Finds the threshold of top-p, which is in the list.
    fn search_list(&self, target: Wide, found: TopP) {
        let (k, row) = (self.row.k, self.row);
        let counted = &row.arrays.counted;
        let bin = |entry: Entry| (self.weight_and_bin)(entry)[1];
        let weight = |entry: Entry| self.weight(entry);
        k.when(counted.is_valid(), || counted.find_top_p(&row.stored.list, bin, weight, target, found));
        k.when(k.not(counted.is_valid()), || {
            let weights = Weights::new(k, row.parameters, row.max_key(), row.found_top_k());
            // A 16-bit type has fewer values than there are distances. So a search by value needs fewer steps.
            let is_by_distance = row.spec.dtype == Dtype::F32;
            let place_of = |key| if is_by_distance { weights.q(key) } else { self.positions.of(key) };
            let from = |first, entry: Entry| k.sub(place_of(entry.words[0]), first);
            let unused = if is_by_distance { 0 } else { self.positions.unused() };
            let range = (place_of(row.stored.bound), unused);
            let list = row.stored.list.in_memory();
            let search = row.arrays.bins.by_weight(&list, range, from, weight);
            let [place, above, _] = search.find(target);
            let place = k.low(place);
            let q = if is_by_distance { place } else { weights.q(self.positions.key_at(place)) };
            k.set(found.threshold, weight_at(k, q));
            k.set_wide(found.above, above);
        });
    }

    /// If the sum of the weights that min-p keeps is less than the target, the threshold of top-p is below the least
    /// weight that min-p keeps. Then min-p decides.
    fn decide_by_min_p(&self, sums: &Sums) {
        let (k, min_weight) = (self.row.k, self.min_weight());
        let reaches = |entry| k.widen(kept_weight(k, self.weight(entry), min_weight));
        let of_list = self.row.stored.list.in_memory().sum(reaches);
        let of_ties = k.wselect(k.le(min_weight, self.ties.weight), self.sum_of_ties, k.wide(0));
        self.decide_if(k.wlt(k.wadd(of_list, of_ties), sums.targets[0]));
    }
}
