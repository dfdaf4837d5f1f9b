//! The kernel after the scan. It stores the results of a row if the list of the row determines them. These are the
//! greedy rows, the rows with top-k, and the rows in which top-p or min-p keeps only entries of the list. For each
//! other row, it finds two weights that enclose the threshold of top-p.

use super::counted::{Counted, TopK, TopP};
use super::draw::{self, Outcome};
use super::drawn::{Drawn, LARGEST_DRAWN};
use super::histogram::Histogram;
use super::list::{Entry, List};
use super::maximum;
use super::plan::Plan;
use super::positions::Positions;
use super::records::{
    has_flag, Records, Sampled, COUNTERS, DECIDED, DONE, FAILED, HAS_BINS, HAS_LIST, SAMPLED, SCANNED,
    SUMMED, WEIGH,
};
use super::rest::{self, Rest};
use super::row_block::{RowBlock, THREADS};
use super::sample::{capacity, needs_top_k, LARGEST_LIST};
use super::search::Bins;
use super::state::State;
use super::ties::Ties;
use super::weights::{has_top_p, is_drawn, weight_at, Weights};
use crate::dtype::Dtype;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::Results;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Variable, Wide, WideVariable, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::{is_candidate, kept_weight};
use crate::semantics::top_p::target;
use crate::semantics::weights::MAX_WEIGHT;

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
    /// The numbers of entries in the bins of the scan.
    counts_of_rest: [Int; rest::BINS_PER_THREAD],
    bins: &'a Bins<'a, 'k>,
    counted: Counted<'k>,
    /// The kept entries of the drawn chunk.
    drawn: Drawn<'k>,
    /// The array of random words.
    words: Shared,
    results: &'a Results<'k>,
    found: &'a Found<'k>,
}

/// Writes the kernel, with one block per row. Its arguments are the logits, the parameters, the sampled records, the
/// slices, the number of entries at the bound in each chunk, the lists, the state, the step if `seeded`, the arrays of
/// [`Results`], the decided records, and the counters of the last kernel, which this kernel sets to 0.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan, seeded: bool) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let row = k.block();
    let (sampled, slices) = (Records::argument(k, SAMPLED), Records::argument(k, SCANNED));
    let ties = Records::argument(k, 1);
    let lists = k.argument();
    let state = State::argument(k, row);
    let step = seeded.then(|| k.argument());
    let results = Results::arguments(k, spec, row);
    let (decided, counters) = (Records::argument(k, DECIDED), Records::argument(k, COUNTERS));
    // The block starts all these loads before it computes with loaded values, so that the loads overlap. Only the loads
    // of the list need a loaded value: the number of entries. So they are the last loads.
    let parameters = Parameters::load(k, parameters, row);
    let block = RowBlock::new(k, row, spec, &plan.division, logits, parameters.row_of_logits(spec));
    let word = |word: Sampled| sampled.load(row, word as usize);
    let (flags, bound, count) = (word(Sampled::Flags), word(Sampled::Bound), k.load(state.len(), 0));
    let of_slices = maximum::load(k, &slices, row, plan.records());
    let summed = plan.group.as_ref().map(|group| (group, k.load(state.summed(), 0)));
    let ties_of_chunk = block.load_of_chunk(&ties)[0];
    let list = List::load(block.block, lists, capacity(spec), row, count);
    let has = |flag| has_flag(k, flags, flag);
    let counts_of_rest = Rest::counts(&block, &state, has(HAS_BINS));
    // The block clears its arrays while it waits for the loads.
    let bins = Bins::new(&block);
    let (counted, ties_of_list) = (Counted::new(&bins), Ties::new(&bins, spec.vocab));
    let drawn = Drawn::new(block.block);
    drawn.entries.clear();
    block.clear_parts();
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
        k.when_else(
            has(HAS_LIST),
            || {
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
                    ties_of_list,
                    ties_of_chunk,
                    // This sum contains a barrier. After it, the threads can add entries to the cleared arrays.
                    ties: block.block.sum_once(ties_of_chunk),
                    counts_of_rest,
                    bins: &bins,
                    counted,
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
    counters.store_if(block.is_first(), row, &[zero; COUNTERS]);
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
        let (k, counted) = (self.block.k, &self.counted);
        // The number of entries at the bound that top-k keeps.
        let kept_ties = k.variable(self.ties);
        // The number of the chunk of the last tie, and the number of kept ties in it.
        let (last_chunk, of_last) = (k.variable(k.int(i32::MAX)), k.variable(k.int(0)));
        let is_last_in_list = k.both(self.with_top_k, k.le(self.top_k, self.list.count()));
        let weights = Weights::without_top_k(k, self.parameters, self.max_key);
        let scale = self.parameters.get(Column::Scale);
        let histogram = Histogram::new(self.block.block, self.bins.parts, [self.max_key, self.bound], scale);
        let kept = self.list.keep(|[key, _]| [weights.of_kept(key), histogram.bin(key)]);
        let of_list = |entry: Entry| kept.of(entry);
        let searches = k.either(is_last_in_list, has_top_p(k, self.parameters, self.max_key));
        counted.fill(k.both(self.is_drawn, searches), &self.list, &histogram, of_list);
        k.when_else(
            is_last_in_list,
            || {
                self.select_in_list(&of_list);
                k.set(kept_ties, k.int(0));
                k.set(last_chunk, k.int(-1));
            },
            || k.when(self.with_top_k, || self.select_at_bound(kept_ties, [last_chunk, of_last])),
        );
        k.when(self.is_drawn, || {
            let chunk = self.block.block.thread;
            let ties = k.select(k.lt(chunk, k.get(last_chunk)), self.ties_of_chunk, k.int(0));
            let ties = k.select(k.eq(chunk, k.get(last_chunk)), k.get(of_last), ties);
            self.sample(&of_list, k.get(kept_ties), ties);
        });
    }

    /// Finds the threshold and the last tie of top-k, which are in the list. `of_list` returns the weight of an entry
    /// without top-k, and its bin.
    fn select_in_list(&self, of_list: &dyn Fn(Entry) -> [Int; 2]) {
        let (k, counted) = (self.block.k, &self.counted);
        // If top-k keeps only some of the entries that are equal to the threshold, and the last kept entry is not
        // known, this variable is the number of these entries that top-k keeps. Otherwise, it is 0.
        let tie = k.variable(k.int(0));
        let list = self.list.in_memory();
        k.when(counted.is_valid(), || {
            let Found { threshold, last_tie, .. } = *self.found;
            let found = TopK { threshold, last_tie, missing: tie };
            counted.find_top_k(&self.list, of_list, self.top_k, self.spec.stable, found);
        });
        k.when(k.not(counted.is_valid()), || {
            let from = |first, entry: Entry| self.positions.from(first, entry.words[0]);
            let range = (self.positions.of(self.bound), self.positions.unused());
            let (position, missing, has_more) = self.bins.by_count(&list, from, range, self.top_k);
            // The entries at the bound are not in the list. So the least key in the list is at least the bound plus 1.
            let threshold = k.max(self.positions.key_at(position), k.add(self.bound, k.int(1)));
            k.set(self.found.threshold, threshold);
            k.when(has_more, || k.set(tie, missing));
        });
        if self.spec.stable {
            let wanted = k.get(tie);
            k.when(k.lt(k.int(0), wanted), || {
                let (threshold, largest) = (k.get(self.found.threshold), k.int(self.spec.vocab as i32 - 1));
                k.set(self.found.last_tie, self.ties_of_list.find(&list, threshold, wanted, largest));
            });
        }
    }

    /// Finds the threshold and the last tie of top-k if the list has fewer entries than top-k keeps.
    fn select_at_bound(&self, kept_ties: Variable, last: [Variable; 2]) {
        let k = self.block.k;
        k.set(self.found.threshold, self.bound);
        if self.spec.stable {
            let missing = k.sub(self.top_k, self.list.count());
            k.when(k.lt(missing, self.ties), || self.select_tie(missing, kept_ties, last));
        }
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

    /// Finds the least weight to keep, and draws the token. `of_list` returns the weight of an entry without top-k, and
    /// its bin. `ties` is the number of entries at the bound that top-k keeps. `ties_of_chunk` is the number of these
    /// entries in the chunk of this thread.
    fn sample(&self, of_list: &dyn Fn(Entry) -> [Int; 2], ties: Int, ties_of_chunk: Int) {
        let (k, counted) = (self.block.k, &self.counted);
        let parameters = self.parameters;
        let weights = Weights::new(k, parameters, self.max_key, self.found.top_k());
        let farthest = weights.q(self.bound);
        let of_tie = k.select(is_candidate(k, self.bound), weight_at(k, farthest), k.int(0));
        let all_ties = k.wmul(k.widen(of_tie), k.widen(ties));
        let weight = |entry: Entry| {
            let [key, index] = entry.words;
            k.select(weights.survives(key, index), of_list(entry)[0], k.int(0))
        };
        let if_kept = |mask, value| k.wselect(mask, value, k.wide(0));
        let min_weight = parameters.get(Column::MinWeight);
        let alone = k.not(self.with_top_k);
        // Entries below the bound have at most the weight of the bound.
        let min_p_decides = k.lt(of_tie, min_weight);
        let is_decided = k.variable(k.int(0));
        let decide = |mask| k.set(is_decided, k.select(mask, k.int(1), k.get(is_decided)));
        let kept = KeptInList {
            k,
            is_known: k.variable(k.int(0)),
            count: k.variable(counted.count()),
            sum: k.wide_variable(counted.total()),
        };
        k.when_else(
            has_top_p(k, parameters, self.max_key),
            || {
                let total = k.wide_variable(counted.total());
                k.when(k.not(counted.is_valid()), || {
                    k.set_wide(total, self.list.in_memory().sum(|entry| k.widen(weight(entry))));
                });
                let total = k.get_wide(total);
                let sum = k.wadd(total, all_ties);
                let rest = Rest::new(self.block, self.counts_of_rest, farthest, alone);
                let (mantissa, shift) =
                    (parameters.get(Column::TopPMantissa), parameters.get(Column::TopPShift));
                let targets = [rest.least, rest.most]
                    .map(|rest| target(k, k.wadd(sum, k.get_wide(rest)), mantissa, shift));
                let is_reached = k.not(k.wlt(sum, targets[1]));
                let threshold = k.variable(of_tie);
                k.when(is_reached, || {
                    // The sum of the weights above the threshold. If the threshold is the weight of the ties, this
                    // variable can also contain weights that are equal to the threshold.
                    let above = k.wide_variable(total);
                    k.when(k.not(k.wlt(total, targets[1])), || {
                        let found = TopP { threshold, above, count: kept.count, kept: kept.sum };
                        self.find_top_p(of_list, &weight, targets[1], found);
                    });
                    // The threshold is the same for every possible target, and all entries that reach it are known.
                    let least = k.max(k.get(threshold), min_weight);
                    let is_certain = k.wlt(k.get_wide(above), targets[0]);
                    k.when(k.both(is_certain, k.lt(k.get(rest.highest), least)), || {
                        k.set(self.found.least, least);
                        k.set(is_decided, k.int(1));
                        kept.set_known(k.both(counted.is_valid(), k.le(min_weight, k.get(threshold))));
                    });
                });
                k.when(k.both(min_p_decides, k.eq(k.get(is_decided), k.int(0))), || {
                    // If the sum of the weights that are at least `min_weight` is less than the target, the threshold
                    // of top-p is below `min_weight`. Then min-p decides.
                    let reaches = |entry| k.widen(kept_weight(k, weight(entry), min_weight));
                    let of_list = self.list.in_memory().sum(reaches);
                    let reaching = k.wadd(of_list, if_kept(k.le(min_weight, of_tie), all_ties));
                    decide(k.wlt(reaching, targets[0]));
                });
                k.when(k.eq(k.get(is_decided), k.int(0)), || {
                    let [low, high] = rest.interval(sum, targets, k.get(threshold));
                    k.set(self.found.low, k.select(k.le(high, min_weight), min_weight, low));
                    k.set(self.found.high, k.max(high, min_weight));
                });
            },
            || {
                decide(k.either(self.with_top_k, min_p_decides));
                let has_min_p = k.lt(k.int(0), min_weight);
                kept.set_known(k.both(counted.is_valid(), k.not(has_min_p)));
                for variable in [self.found.low, self.found.high] {
                    k.set(variable, k.max(min_weight, k.int(1)));
                }
            },
        );
        k.when_else(
            k.eq(k.get(is_decided), k.int(1)),
            || {
                let of_tie = k.select(k.lt(of_tie, k.get(self.found.least)), k.int(0), of_tie);
                self.draw(&weight, &kept, of_tie, [ties, ties_of_chunk]);
            },
            || k.set(self.found.state, k.int(WEIGH)),
        );
    }

    /// Finds the threshold of top-p, which is in the list. `of_list` returns the weight of an entry without top-k, and
    /// its bin. `weight` returns its weight.
    fn find_top_p(
        &self,
        of_list: &dyn Fn(Entry) -> [Int; 2],
        weight: &dyn Fn(Entry) -> Int,
        target: Wide,
        found: TopP,
    ) {
        let (k, counted) = (self.block.k, &self.counted);
        k.when(counted.is_valid(), || {
            counted.find_top_p(&self.list, |entry| of_list(entry)[1], weight, target, found);
        });
        k.when(k.not(counted.is_valid()), || {
            let weights = Weights::new(k, self.parameters, self.max_key, self.found.top_k());
            // A 16-bit type has fewer values than there are distances. So a search by value needs fewer steps.
            let is_by_distance = self.spec.dtype == Dtype::F32;
            let place_of = |key| if is_by_distance { weights.q(key) } else { self.positions.of(key) };
            let from = |first, entry: Entry| k.sub(place_of(entry.words[0]), first);
            let unused = if is_by_distance { 0 } else { self.positions.unused() };
            let range = (place_of(self.bound), unused);
            let list = self.list.in_memory();
            let search = self.bins.by_weight(&list, range, from, weight);
            let [place, above, _] = search.find(target);
            let place = k.low(place);
            let q = if is_by_distance { place } else { weights.q(self.positions.key_at(place)) };
            k.set(found.threshold, weight_at(k, q));
            k.set_wide(found.above, above);
        });
    }

    /// Draws the token. `weight` returns the weight of an entry of the list. `of_tie` is the weight of an entry at the
    /// bound, or 0 if it is not kept. `ties` and `ties_of_chunk` are those of [`Row::sample`].
    fn draw(
        &self,
        weight: &dyn Fn(Entry) -> Int,
        kept: &KeptInList<'_>,
        of_tie: Int,
        [ties, ties_of_chunk]: [Int; 2],
    ) {
        let (k, block) = (self.block.k, self.block);
        let outcome =
            Outcome { scanned: self.scanned, top_k: self.found.top_k(), least: k.get(self.found.least) };
        let is_kept = |weight| k.both(k.lt(k.int(0), weight), k.le(outcome.least, weight));
        k.when(k.eq(k.get(kept.is_known), k.int(0)), || {
            // The high bits of the sum are the number of entries.
            let value = |entry: Entry| {
                let weight = weight(entry);
                let one = k.wide(1 << LIST_SUM_BITS);
                k.wselect(is_kept(weight), k.wadd(k.widen(weight), one), k.wide(0))
            };
            let sum = self.list.in_memory().sum(value);
            k.set_wide(kept.sum, k.wand(sum, k.wide((1 << LIST_SUM_BITS) - 1)));
            k.set(kept.count, k.low(k.wshr(sum, k.wide(u64::from(LIST_SUM_BITS)))));
        });
        let total = k.wadd(k.get_wide(kept.sum), k.wmul(k.widen(of_tie), k.widen(ties)));
        // The last warp has the fewest entries. It computes the remainder while the other warps go on.
        let is_last_warp = k.le(k.int((THREADS - WARP) as i32), block.block.thread);
        let remainder = draw::store_remainder(block, self.words, total, is_last_warp);
        let remainder = || k.load_shared_wide(remainder, k.int(0));
        // The entries at the bound are not in the list.
        let are_in_list = k.either(k.eq(of_tie, k.int(0)), k.eq(ties, k.int(0)));
        let are_few = k.le(k.get(kept.count), k.int(LARGEST_DRAWN as i32));
        let add = |entry: Entry| self.drawn.entries.add([entry.words[1], weight(entry)]);
        k.when_else(
            k.both(are_in_list, are_few),
            || {
                self.list.for_few(|entry| is_kept(weight(entry)), add);
                let count = self.drawn.entries.count();
                let target = k.wadd(remainder(), k.wide(1));
                self.drawn.find(count, target, |index| self.results.token(index));
            },
            || {
                let prepare = |entry: Entry| (block.chunk_of(entry.words[1]), weight(entry));
                self.list.for_each(prepare, |(chunk, weight)| {
                    k.when(is_kept(weight), || block.add_to_chunk(chunk, weight));
                });
                let of_ties = k.wmul(k.widen(of_tie), k.widen(ties_of_chunk));
                let sum = k.wadd(block.sum_of_parts(), of_ties);
                draw::draw(
                    block,
                    sum,
                    |_| remainder(),
                    |drawn, target| {
                        // If no entry at the bound is kept, the list contains all kept entries of the chunk.
                        let count = k.variable(k.int(i32::MAX));
                        k.when(are_in_list, || {
                            // Few entries are in the chunk. Only for these entries, the block computes the weight.
                            let is_in_chunk = |entry: Entry| block.is_in_chunk(drawn, entry.words[1]);
                            self.list.for_few(is_in_chunk, |entry| {
                                k.when(is_kept(weight(entry)), || add(entry));
                            });
                            k.set(count, self.drawn.entries.count());
                        });
                        let count = k.get(count);
                        k.when_else(
                            k.le(count, k.int(LARGEST_DRAWN as i32)),
                            || self.drawn.find(count, target, |index| self.results.token(index)),
                            || {
                                draw::read_chunk(
                                    block,
                                    self.parameters,
                                    self.results,
                                    &outcome,
                                    (drawn, target),
                                )
                            },
                        );
                    },
                );
            },
        );
        k.set_wide(self.found.remainder, remainder());
    }
}

/// The number of bits of a sum of weights of a list.
const LIST_SUM_BITS: u32 = 48;
const _: () = assert!(LARGEST_LIST * MAX_WEIGHT as usize <= 1 << LIST_SUM_BITS);

/// The kept entries of the list.
struct KeptInList<'k> {
    k: &'k Ptx,
    /// 1 if `count` and `sum` are known.
    is_known: Variable,
    /// The number of kept entries. It can include entries of weight 0.
    count: Variable,
    /// The sum of their weights.
    sum: WideVariable,
}

impl KeptInList<'_> {
    fn set_known(&self, mask: Mask) {
        self.k.set(self.is_known, self.k.select(mask, self.k.int(1), self.k.int(0)));
    }
}
