//! The kernel after the scan. It stores the results of a row if the list of the row determines them. These are the
//! greedy rows, the rows with top-k, and the rows in which top-p or min-p keeps only entries of the list. For each
//! other row, it finds two weights that enclose the threshold of top-p.

use super::draw::{self, Outcome};
use super::drawn::{Drawn, LARGEST_DRAWN};
use super::list::{Entry, List};
use super::maximum;
use super::plan::Plan;
use super::positions::Positions;
use super::records::{Records, Sampled, DECIDED, DONE, FAILED, HAS_LIST, SAMPLED, SCANNED, SUMMED, WEIGH};
use super::row_block::{sum_of, Place, RowBlock, THREADS};
use super::sample::{capacity, needs_top_k};
use super::scan::{BIN_BITS, FIRST_ZERO};
use super::search::Bins;
use super::state::{State, BINS};
use super::ties::Ties;
use super::weights::{has_top_p, is_drawn, weight_at, Weights};
use crate::dtype::Dtype;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::Results;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::{is_candidate, kept_weight};
use crate::semantics::top_p::target;
use crate::semantics::weights::{MAX_WEIGHT, ZERO_Q};

/// A limit on a rounding error. The distance of an entry from the maximum is approximately the distance of the bound
/// from the maximum plus the distance of the entry from the bound. Each of the three distances is below 2²³ and has an
/// error of at most 1.5. The difference and the product each contribute 0.5 to this error, because their relative
/// errors are at most 2⁻²⁴. The rounding to an integer also contributes 0.5. So the error of the sum is at most 4.5. A
/// distance that is limited to 29.5 octaves can have a larger error, but the weight at this distance is 0 in any case.
/// The kernel knows only the bin of the distance of the entry from the bound: see [`Rest::limits`].
const LARGEST_ERROR: i32 = 16;
// The scan also counts entries that are not below the bound in the bin `FIRST_ZERO`. So the weight of this bin must be
// 0. Then the number of its entries does not change a sum.
const _: () = assert!((FIRST_ZERO << BIN_BITS) - (1 << (BIN_BITS - 1)) - LARGEST_ERROR >= ZERO_Q);

/// The outcome of a row, in variables that the kernel sets step by step.
struct Found<'k> {
    k: &'k Ptx,
    state: Variable,
    threshold: Variable,
    last_tie: Variable,
    least: Variable,
    low: Variable,
    high: Variable,
    /// The remainder of the draw.
    remainder: WideVariable,
}

impl Found<'_> {
    fn top_k(&self) -> [Int; 2] {
        [self.threshold, self.last_tie].map(|variable| self.k.get(variable))
    }
}

/// The data of a row on which the decision depends.
struct Row<'a, 'k> {
    block: &'a RowBlock<'k>,
    parameters: &'a Parameters<'k>,
    spec: &'a Spec,
    /// The words of [`Scanned`](super::records::Scanned).
    scanned: [Int; 3],
    max_key: Int,
    positions: Positions<'k>,
    is_drawn: Mask,
    with_top_k: Mask,
    top_k: Int,
    /// The order key of the bound.
    bound: Int,
    /// The keys and the indices of the entries above the bound. Their number can exceed the capacity.
    list: List<'k>,
    /// The search for the last entry of the list that top-k keeps.
    ties_of_list: Ties<'a, 'k>,
    /// The number of entries at the bound in the chunk of this thread.
    ties_of_chunk: Int,
    /// The number of entries at the bound in the row.
    ties: Int,
    state: &'a State<'k>,
    bins: &'a Bins<'a, 'k>,
    /// The kept entries of the drawn chunk.
    drawn: Drawn<'k>,
    /// The array of random words.
    words: Shared,
    results: &'a Results<'k>,
    found: &'a Found<'k>,
}

/// Writes the kernel, with one block per row. Its arguments are the logits, the parameters, the sampled records, the
/// slices, the number of entries at the bound in each chunk, the lists, the state, the step if `seeded`, the arrays of
/// [`Results`], the decided records, and the lengths of the lists of the next pass. The kernel sets these lengths to 0.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan, seeded: bool) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let row = k.block();
    let (sampled, slices) = (Records::argument(k, SAMPLED), Records::argument(k, SCANNED));
    let ties = Records::argument(k, 1);
    let lists = k.argument();
    let state = State::argument(k, row);
    let step = seeded.then(|| k.argument());
    let results = Results::arguments(k, spec, row);
    let (decided, lens) = (Records::argument(k, DECIDED), Records::argument(k, 1));
    // The block starts all these loads before it computes with loaded values, so that the loads overlap. Only the loads
    // of the list need a loaded value: the number of entries. So they are the last loads.
    let parameters = Parameters::load(k, parameters, row);
    let block = RowBlock::new(k, spec, &plan.division, logits, parameters.row_of_logits(spec));
    let word = |word: Sampled| sampled.load(row, word as usize);
    let (flags, bound, count) = (word(Sampled::Flags), word(Sampled::Bound), k.load(state.len(), 0));
    let of_slices = maximum::load(k, &slices, row, plan.records());
    let summed = plan.group.as_ref().map(|group| (group, k.load(state.summed(), 0)));
    let ties_of_chunk = block.load_of_chunk(&ties)[0];
    let list = List::load(block.block, lists, capacity(spec), row, count);
    let bins = Bins::new(&block);
    let words = parameters.share_random_words(step);
    let scanned = maximum::combine(k, &of_slices);
    let [max_key, greedy, status] = scanned;
    let is_drawn = is_drawn(k, &parameters, max_key);
    let with_top_k = needs_top_k(k, spec, &parameters);
    let variable = |value| k.variable(k.int(value));
    let found = Found {
        k,
        state: variable(DONE),
        threshold: variable(NEG_INF_KEY),
        last_tie: variable(i32::MAX),
        least: k.variable(parameters.get(Column::MinWeight)),
        low: variable(1),
        high: variable(1),
        remainder: k.wide_variable(k.wide(0)),
    };
    k.when(k.either(is_drawn, with_top_k), || {
        let has_list = k.lt(k.int(0), k.and(flags, k.int(HAS_LIST)));
        k.when_else(
            has_list,
            || {
                // The sum of the ties contains a barrier. After it, the threads can add entries.
                let drawn = Drawn::new(block.block);
                drawn.entries.clear();
                block.clear_parts();
                let row = Row {
                    block: &block,
                    parameters: &parameters,
                    spec,
                    scanned,
                    max_key,
                    positions: Positions::new(k, spec.dtype, max_key),
                    is_drawn,
                    with_top_k,
                    top_k: parameters.get(Column::K),
                    bound,
                    list,
                    ties_of_list: Ties::new(&bins, spec.vocab),
                    ties_of_chunk,
                    ties: block.block.sum(ties_of_chunk),
                    state: &state,
                    bins: &bins,
                    drawn,
                    words,
                    results: &results,
                    found: &found,
                };
                row.decide();
            },
            // A row without a list has a large k, or no top-k, top-p and min-p.
            || {
                k.set(found.state, k.select(with_top_k, k.int(FAILED), k.int(WEIGH)));
                // Only the slices of plain draws are summed.
                if let Some((group, summed)) = summed {
                    let is_summed = k.eq(summed, k.int(group.division.slices as i32));
                    k.set(found.state, k.select(is_summed, k.int(SUMMED), k.get(found.state)));
                }
            },
        );
    });
    let state = k.get(found.state);
    k.when(k.eq(state, k.int(DONE)), || {
        let outcome = Outcome { scanned, top_k: found.top_k(), least: k.get(found.least) };
        draw::report(&block, words, &results, &outcome, is_drawn, || k.get_wide(found.remainder));
    });
    let zero = k.int(0);
    let words = [max_key, greedy, status, state, k.get(found.low), k.get(found.high), zero, zero];
    decided.store_if(block.is_first(), row, &words);
    lens.store_if(block.is_first(), row, &[zero]);
}

impl Row<'_, '_> {
    fn decide(&self) {
        let k = self.block.k;
        let too_few = k.both(self.with_top_k, k.lt(k.add(self.list.count(), self.ties), self.top_k));
        k.when_else(
            k.either(too_few, self.list.is_too_long()),
            || k.set(self.found.state, k.int(FAILED)),
            || self.decide_by_list(),
        );
    }

    fn decide_by_list(&self) {
        let k = self.block.k;
        // The number of entries at the bound that top-k keeps.
        let kept_ties = k.variable(self.ties);
        // The number of the chunk of the last tie, and the number of kept ties in it.
        let (last_chunk, of_last) = (k.variable(k.int(i32::MAX)), k.variable(k.int(0)));
        k.when(self.with_top_k, || self.select_top_k(kept_ties, [last_chunk, of_last]));
        k.when(self.is_drawn, || {
            let chunk = self.block.block.thread;
            let ties = k.select(k.lt(chunk, k.get(last_chunk)), self.ties_of_chunk, k.int(0));
            let ties = k.select(k.eq(chunk, k.get(last_chunk)), k.get(of_last), ties);
            self.sample(k.get(kept_ties), ties);
        });
    }

    /// Finds the threshold and the last tie of top-k.
    fn select_top_k(&self, kept_ties: Variable, last: [Variable; 2]) {
        let k = self.block.k;
        k.when_else(
            k.le(self.top_k, self.list.count()),
            || {
                let from = |first, entry: Entry| self.positions.from(first, entry.words[0]);
                let range = (self.positions.of(self.bound), self.positions.unused());
                let (position, missing, has_more) = self.bins.by_count(&self.list, from, range, self.top_k);
                // The entries at the bound are not in the list. So the least key in the list is at least the bound plus
                // 1.
                let threshold = k.max(self.positions.key_at(position), k.add(self.bound, k.int(1)));
                k.set(self.found.threshold, threshold);
                k.set(kept_ties, k.int(0));
                k.set(last[0], k.int(-1));
                if self.spec.stable {
                    k.when(has_more, || {
                        let largest = k.int(self.spec.vocab as i32 - 1);
                        k.set(
                            self.found.last_tie,
                            self.ties_of_list.find(&self.list, threshold, missing, largest),
                        );
                    });
                }
            },
            || {
                k.set(self.found.threshold, self.bound);
                if self.spec.stable {
                    let missing = k.sub(self.top_k, self.list.count());
                    k.when(k.lt(missing, self.ties), || self.select_tie(missing, kept_ties, last));
                }
            },
        );
    }

    /// Finds tie number `missing` among the entries at the bound.
    fn select_tie(&self, missing: Int, kept_ties: Variable, [last_chunk, of_last]: [Variable; 2]) {
        let k = self.block.k;
        let (chunk, before) = self.block.locate_chunk(k.widen(self.ties_of_chunk), k.widen(missing));
        let rest = k.sub(missing, k.low(before));
        let tie = |key, _| k.select(k.eq(key, self.bound), k.int(1), k.int(0));
        k.set(self.found.last_tie, self.block.index_in_chunk(chunk, k.widen(rest), tie));
        k.set(kept_ties, missing);
        k.set(last_chunk, chunk);
        k.set(of_last, rest);
    }

    /// Finds the least weight to keep, and draws the token. `ties` is the number of entries at the bound that
    /// top-k keeps. `ties_of_chunk` is the number of these entries in the chunk of this thread.
    fn sample(&self, ties: Int, ties_of_chunk: Int) {
        let k = self.block.k;
        let parameters = self.parameters;
        let weights = Weights::new(k, parameters, self.max_key, self.found.top_k());
        let farthest = weights.q(self.bound);
        let of_tie = k.select(is_candidate(k, self.bound), weight_at(k, farthest), k.int(0));
        let all_ties = k.wmul(k.widen(of_tie), k.widen(ties));
        // A 16-bit type has fewer values than there are distances. So a search by value needs fewer steps.
        let is_by_distance = self.spec.dtype == Dtype::F32;
        let place_of = |key| if is_by_distance { weights.q(key) } else { self.positions.of(key) };
        let of_list = self.list.keep(|[key, index]| [weights.of(key, index), place_of(key)]);
        let weight = |entry: Entry| of_list.of(entry)[0];
        let sum_of_list = |least: Int| self.list.sum(|entry| kept_weight(k, weight(entry), least));
        // The sum of the weights of the list and of the ties that are at least `least`.
        let reaching =
            |least: Int| k.wadd(sum_of_list(least), k.wselect(k.lt(of_tie, least), k.wide(0), all_ties));
        let min_weight = parameters.get(Column::MinWeight);
        let alone = k.not(self.with_top_k);
        // Entries below the bound have at most the weight of the bound.
        let min_p_decides = k.lt(of_tie, min_weight);
        let is_decided = k.variable(k.int(0));
        let decide = |mask| k.set(is_decided, k.select(mask, k.int(1), k.get(is_decided)));
        k.when_else(
            has_top_p(k, parameters, self.max_key),
            || {
                // The search adds the weights of the list to bins. The sum of the bins is the sum of these weights, so
                // no other loop over the list is needed.
                let from = |first, entry| k.sub(of_list.of(entry)[1], first);
                let unused = if is_by_distance { 0 } else { self.positions.unused() };
                let range = (place_of(self.bound), unused);
                let counts = Rest::counts(self, alone);
                let search = self.bins.by_weight(&self.list, range, from, weight);
                let total = search.total();
                let sum = k.wadd(total, all_ties);
                let rest = Rest::new(self, counts, farthest, alone);
                let (mantissa, shift) =
                    (parameters.get(Column::TopPMantissa), parameters.get(Column::TopPShift));
                let targets = [rest.least, rest.most]
                    .map(|rest| target(k, k.wadd(sum, k.get_wide(rest)), mantissa, shift));
                let is_reached = k.not(k.wlt(sum, targets[1]));
                let threshold = k.variable(of_tie);
                k.when(is_reached, || {
                    let before = k.wide_variable(k.wide(0));
                    k.when_else(
                        k.wlt(total, targets[1]),
                        || k.set_wide(before, sum_of_list(k.add(of_tie, k.int(1)))),
                        || {
                            let [place, sum, _] = search.find(targets[1]);
                            let place = k.low(place);
                            let q =
                                if is_by_distance { place } else { weights.q(self.positions.key_at(place)) };
                            k.set(threshold, weight_at(k, q));
                            k.set_wide(before, sum);
                        },
                    );
                    // The threshold is the same for every possible target, and all entries that reach it are known.
                    let least = k.max(k.get(threshold), min_weight);
                    let is_certain = k.wlt(k.get_wide(before), targets[0]);
                    k.when(k.both(is_certain, k.lt(k.get(rest.highest), least)), || {
                        k.set(self.found.least, least);
                        k.set(is_decided, k.int(1));
                    });
                });
                k.when(k.both(min_p_decides, k.eq(k.get(is_decided), k.int(0))), || {
                    // If the sum of the weights that are at least `min_weight` is less than the target, the threshold
                    // of top-p is below `min_weight`. Then min-p decides.
                    decide(k.wlt(reaching(min_weight), targets[0]));
                });
                k.when(k.eq(k.get(is_decided), k.int(0)), || {
                    let [low, high] = rest.interval(sum, targets, k.get(threshold));
                    k.set(self.found.low, k.select(k.le(high, min_weight), min_weight, low));
                    k.set(self.found.high, k.max(high, min_weight));
                });
            },
            || {
                decide(k.either(self.with_top_k, min_p_decides));
                for variable in [self.found.low, self.found.high] {
                    k.set(variable, k.max(min_weight, k.int(1)));
                }
            },
        );
        k.when_else(
            k.eq(k.get(is_decided), k.int(1)),
            || {
                let of_tie = k.select(k.lt(of_tie, k.get(self.found.least)), k.int(0), of_tie);
                self.draw(&weight, of_tie, [ties, ties_of_chunk]);
            },
            || k.set(self.found.state, k.int(WEIGH)),
        );
    }

    /// Draws the token. `weight` returns the weight of an entry of the list. `of_tie` is the weight of an entry at the
    /// bound, or 0 if it is not kept. `ties` and `ties_of_chunk` are those of [`Row::sample`].
    fn draw(&self, weight: &dyn Fn(Entry) -> Int, of_tie: Int, [ties, ties_of_chunk]: [Int; 2]) {
        let (k, block) = (self.block.k, self.block);
        let outcome =
            Outcome { scanned: self.scanned, top_k: self.found.top_k(), least: k.get(self.found.least) };
        let is_kept = |weight| k.both(k.lt(k.int(0), weight), k.le(outcome.least, weight));
        let prepare = |entry: Entry| (block.chunk_of(entry.words[1]), weight(entry));
        self.list.for_each(prepare, |(chunk, weight)| {
            k.when(is_kept(weight), || block.add_to_chunk(chunk, weight));
        });
        let of_ties = k.wmul(k.widen(of_tie), k.widen(ties_of_chunk));
        let sum = k.wadd(block.sum_of_parts(), of_ties);
        let remainder = draw::draw(block, self.words, sum, |drawn, target| {
            // The entries at the bound are not in the list. If none of them is kept, the list contains all kept entries
            // of the chunk.
            let count = k.variable(k.int(i32::MAX));
            k.when(k.either(k.eq(of_tie, k.int(0)), k.eq(ties, k.int(0))), || {
                // Few entries are in the chunk. The weight is computed only for them.
                let is_in_chunk = |entry: Entry| block.is_in_chunk(drawn, entry.words[1]);
                self.list.for_few(is_in_chunk, |entry| {
                    let weight = weight(entry);
                    k.when(is_kept(weight), || self.drawn.entries.add([entry.words[1], weight]));
                });
                k.set(count, self.drawn.entries.count());
            });
            let count = k.get(count);
            k.when_else(
                k.le(count, k.int(LARGEST_DRAWN as i32)),
                || self.drawn.find(count, target, |index| self.results.token(index)),
                || draw::read_chunk(block, self.parameters, self.results, &outcome, (drawn, target)),
            );
        });
        k.set_wide(self.found.remainder, remainder);
    }
}

/// The number of bins of each thread.
const BINS_PER_THREAD: usize = BINS / THREADS;

/// Limits of the weights of the entries below the bound, from the bins. A bin contains entries in a known interval of
/// distances.
struct Rest<'k> {
    k: &'k Ptx,
    thread: Int,
    /// The numbers of entries in the bins of this thread.
    counts: [Int; BINS_PER_THREAD],
    /// The least and the largest possible sum of all weights.
    least: WideVariable,
    most: WideVariable,
    /// The running sums of the least (0) and of the largest possible sums of the bins (1), before the first bin of this
    /// thread and up to the last one.
    running: [[WideVariable; 2]; 2],
    /// The places that [`Rest::interval`] finds, one for each of the two running sums.
    places: [Place<'k>; 2],
    /// The largest possible weight of an entry; 0 if there is no entry.
    highest: Variable,
    /// The distance of the bound from the maximum.
    distance: Int,
}

impl<'k> Rest<'k> {
    /// Loads the numbers of entries in the bins of this thread. They are 0 unless `has_bins` is true.
    fn counts(row: &Row<'_, 'k>, has_bins: Mask) -> [Int; BINS_PER_THREAD] {
        row.state.load_bins_if(has_bins, row.block.k.mul(row.block.block.thread, BINS_PER_THREAD))
    }

    /// `counts` is the result of [`Rest::counts`]. The sums are 0 unless `has_bins` is true.
    fn new(row: &Row<'_, 'k>, counts: [Int; BINS_PER_THREAD], distance: Int, has_bins: Mask) -> Rest<'k> {
        let (k, block) = (row.block.k, &row.block.block);
        let (zero, thread) = (|| k.wide_variable(k.wide(0)), block.thread);
        let (least, most, highest) = (zero(), zero(), k.variable(k.int(0)));
        let running = [[zero(), zero()], [zero(), zero()]];
        let places = [Place::new(*block), Place::new(*block)];
        let rest = Rest { k, thread, counts, least, most, running, places, highest, distance };
        k.when(has_bins, || {
            let sums = [0, 1].map(|side| sum_of(k, &rest.sums(side)));
            let of_bin = |(bin, count)| {
                let is_empty = k.eq(count, k.int(0));
                k.select(is_empty, k.int(0), rest.limits(bin)[1])
            };
            let weights = rest.bins().into_iter().map(of_bin);
            let highest = weights.reduce(|a, b| k.max(a, b)).expect("there are bins");
            // After the barrier of the running sums, the threads can find the places.
            rest.places.iter().for_each(|place| place.prepare(BINS as i32));
            let (sums, [highest]) = row.block.running_sums_of(sums, [highest]);
            for ((sums, running), total) in sums.iter().zip(&rest.running).zip([rest.least, rest.most]) {
                k.set_wide(running[0], sums.before);
                k.set_wide(running[1], sums.upto);
                k.set_wide(total, sums.total());
            }
            k.set(rest.highest, highest);
        });
        rest
    }

    /// The bins of this thread, and the numbers of their entries.
    fn bins(&self) -> Vec<(Int, Int)> {
        let k = self.k;
        let bin = |number| k.element(self.thread, BINS_PER_THREAD, k.int(number as i32));
        (0..BINS_PER_THREAD).map(bin).zip(self.counts).collect()
    }

    /// The least possible sums of the weights of each bin of this thread (`side` 0), or the largest ones (1).
    fn sums(&self, side: usize) -> Vec<Wide> {
        let k = self.k;
        let sum = |(bin, count)| k.wmul(k.widen(count), k.widen(self.limits(bin)[side]));
        self.bins().into_iter().map(sum).collect()
    }

    /// The least and the largest possible weight of an entry in a bin.
    fn limits(&self, bin: Int) -> [Int; 2] {
        let k = self.k;
        // The largest distance of an entry from the middle of its bin.
        const MOST: i32 = (1 << (BIN_BITS - 1)) + LARGEST_ERROR;
        let middle = k.add(self.distance, k.shl(bin, BIN_BITS));
        let farthest = k.add(middle, k.int(MOST));
        // An entry is below the bound, so its distance from the maximum is at least the distance of the bound.
        let least = k.max(k.sub(self.distance, k.int(LARGEST_ERROR)), k.int(0));
        let nearest = k.max(k.sub(middle, k.int(MOST)), least);
        [weight_at(k, farthest), weight_at(k, nearest)]
    }

    /// Returns the interval that contains the threshold of top-p: the first weight in the interval, and the first
    /// weight after it. `sum` is the sum of the weights that are not in the bins. If `sum` reaches the larger target,
    /// `threshold` is the threshold for the larger target.
    fn interval(&self, sum: Wide, targets: [Wide; 2], threshold: Int) -> [Int; 2] {
        let k = self.k;
        // Only bounds of the sums of the bins are known. The largest sums give the earliest bin that can contain the
        // threshold. The least sums give the latest bin that can contain the threshold.
        let searches = [(1, targets[0]), (0, targets[1])];
        let is_after = searches.map(|(side, target)| {
            let is_after = k.wlt(sum, target);
            let rest = k.wselect(is_after, k.wide_difference(target, sum), k.wide(1));
            let running = self.running[side].map(|variable| k.get_wide(variable));
            self.places[side].find(running, || self.sums(side), rest);
            is_after
        });
        k.barrier();
        let [first, last] = searches.map(|(side, _)| self.places[side].get().0);
        let above = k.add(self.limits(first)[1], k.int(1));
        let high = k.select(is_after[0], above, k.int(MAX_WEIGHT + 1));
        let low = k.select(is_after[1], self.limits(last)[0], threshold);
        [k.max(low, k.int(1)), high]
    }
}
