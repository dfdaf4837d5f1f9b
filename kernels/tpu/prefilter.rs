//! The first pass. It computes a summary of each cell. The summaries show where the entries are that can affect the
//! result.
//!
//! A cell is one lane of a few consecutive registers. The pass computes the largest logit of each cell, its place, and
//! the second largest logit. It also computes 256 bins per stripe; each contains the largest logit of many cells. The
//! value of the k-th largest bin is a lower bound of the k-th largest logit: each of the k largest bins contains a
//! logit that reaches this value.

use super::context::{Context, NO_INDEX};
use super::interpolation::{End, Probed, Search};
use super::keys::{edge_below, float_of_key, order_keys};
use super::lane_sums::{approximate_log2, count_lanes};
use super::threshold_search::{search, Probe, Question};
use crate::mlir::mosaic::{Elem, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{is_infinity, is_nan, NEG_INF_KEY};

/// The number of registers of bins.
const BINS: usize = 2;
/// The number of independent counts in a pass. With several of them, an addition need not wait for the previous one.
const PARTS: usize = 4;
/// The number of cell registers per iteration of a pass over the cells.
const CELLS_PER_ITERATION: usize = 64;

/// The summaries of all cells, `[8, cells of a row]` each.
///
/// Every cell register is rotated by a different amount. So logits in the same column of many registers (a stride in
/// the vocabulary) are distributed over the lanes.
pub(super) struct Prefilter {
    /// The largest logit of each cell.
    pub(super) best: Memory,
    /// The second largest logit.
    pub(super) second: Memory,
    /// The number of the register in the stripe that contains the largest logit.
    pub(super) place: Memory,
}

/// The results of the first pass for each row.
pub(super) struct Summary {
    /// The order key of the maximum.
    pub(super) max_key: Value,
    /// 1 if the row contains a NaN.
    pub(super) had_nan: Value,
    /// Whether the row contains a +inf.
    pub(super) had_inf: Value,
    /// The raw maximum of each bin.
    bin_maxima: [Value; BINS],
}

impl Summary {
    /// Returns the raw maximum of each bin.
    pub(super) fn bins(&self) -> [Value; BINS] {
        self.bin_maxima
    }
}

impl Prefilter {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Prefilter {
        let width = cx.layout.cells() * LANES;
        Prefilter {
            best: cx.k.scratch(Elem::F32, &[SUBLANES, width], Space::Vmem),
            second: cx.k.scratch(Elem::F32, &[SUBLANES, width], Space::Vmem),
            place: cx.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem),
        }
    }

    /// Reads the block while it arrives.
    pub(super) fn summarize(&self, cx: &Context<'_>) -> Summary {
        let k = cx.k;
        let start = [k.splat(k.f32(f32::NEG_INFINITY)); BINS];
        let bins = cx.logits.first_pass("cell summaries", &start, |chunk, number, bins| {
            self.summarize_chunk(cx, chunk, number, bins, false)
        });
        // The maximum of a bin preserves a NaN. Otherwise the status of the row would be wrong, and a NaN in the
        // first register of a cell could be mistaken for the maximum of the cell.
        let suspect = k.any(is_nan(k, k.bits(k.fmax(bins[0], bins[1]))));
        let no_nan = k.splat(k.f32(0.0));
        let state = k.if_else(
            "a row holds a NaN",
            suspect,
            || {
                let start = [&start[..], &[no_nan]].concat();
                let mut state =
                    cx.logits.pass("cell summaries without NaN", &start, |chunk, number, state| {
                        self.summarize_chunk(cx, chunk, number, state, true)
                    });
                state[BINS] = k.over_row(Reduce::Max, state[BINS]);
                state
            },
            || [&bins[..], &[no_nan]].concat(),
        );
        let bins: [Value; BINS] = std::array::from_fn(|i| state[i]);
        let max = k.over_row(Reduce::Max, k.fmax(bins[0], bins[1]));
        let had_inf = is_infinity(k, k.bits(max));
        Summary { max_key: order_keys(k, max), had_nan: k.trunc(state[BINS]), had_inf, bin_maxima: bins }
    }

    /// Processes one chunk of the pass. The state consists of the bins. If `clean` is set, a NaN counts as −inf, and
    /// one more value of the state records it.
    fn summarize_chunk(
        &self,
        cx: &Context<'_>,
        chunk: &Memory,
        number: Value,
        state: &[Value],
        clean: bool,
    ) -> Vec<Value> {
        let (k, cell) = (cx.k, cx.layout.cell);
        let mut state = state.to_vec();
        let count = cells_in_chunk(cx);
        let first = k.mul(number, k.i32(count as i32));
        let [best_out, second_out, place_out] = self.registers(cx, first, count);
        for group in 0..count {
            let [best, second, place] = summarize_cell(cx, chunk, group * cell, &mut state, clean);
            let by = rotation(cx, number, k.i32(group as i32));
            let place = k.add(place, k.mul(number, k.i32(cx.layout.chunk as i32)));
            let [best, second, place] = [best, second, place].map(|v| k.rotate(v, by));
            let at = k.i32((group * LANES) as i32);
            k.store(&best_out, at, best);
            k.store(&second_out, at, second);
            k.store(&place_out, at, place);
            let bin = group % BINS;
            state[bin] = k.fmax(state[bin], best);
        }
        state
    }

    /// Returns `count` registers of each memory, starting at register `at`. The memories are the largest logits, the
    /// second largest logits, and the places.
    pub(super) fn registers(&self, cx: &Context<'_>, at: Value, count: usize) -> [Memory; 3] {
        [&self.best, &self.second, &self.place].map(|memory| cx.k.registers(memory, at, count))
    }

    /// Returns the largest k for which the bins provide a bound.
    pub(super) fn largest_binned_k(&self, cx: &Context<'_>) -> usize {
        BINS * LANES * cx.k.stripes()
    }

    /// Returns a key that at least `wanted` logits of each row reach. It is the largest key that `wanted` bins reach.
    pub(super) fn bound_from_bins(&self, cx: &Context<'_>, summary: &Summary, wanted: Value) -> Value {
        let k = cx.k;
        let bins = summary.bin_maxima.map(|bin| cx.short_key(order_keys(k, bin)));
        // Every bin reaches the key of the least bin.
        let least = self.least_bin(cx, summary);
        let low = cx.short_key(order_keys(k, least));
        let high = k.add(cx.short_key(summary.max_key), k.i32(1));
        let terms = |place| {
            let ones = bins.map(|bin| k.choose(k.ge(bin, place), k.f32(1.0), k.f32(0.0)));
            vec![k.fadd(ones[0], ones[1])]
        };
        let decide = |sums: &[Value]| Probe::count(k, k.trunc(sums[0]), wanted);
        let found = search(k, "bound from the bins", low, high, &Question { terms, decide });
        cx.full_key(found)
    }

    /// Like [`bound_from_bins`](Prefilter::bound_from_bins), but uses the maxima of all cells. `wanted` can be any
    /// number up to the number of cells. Only rows where `open` is true are searched.
    pub(super) fn bound_from_cells(
        &self,
        cx: &Context<'_>,
        summary: &Summary,
        wanted: Value,
        open: Value,
    ) -> Value {
        let k = cx.k;
        let low = cx.short_key(k.splat(k.i32(NEG_INF_KEY)));
        let high = k.choose(open, k.add(cx.short_key(summary.max_key), k.i32(1)), low);
        let aim = approximate_log2(k, k.widen(k.add(wanted, k.shr(wanted, 5))));
        // If the logits are independent, about this number of cells reach the value of the least bin.
        let (cells, bins) = (cx.cells() as f64, self.largest_binned_k(cx) as f64);
        let reach_least_bin = k.f32((cells * (1.0 - bins.powf(-bins / cells))).log2() as f32);
        let max = float_of_key(k, summary.max_key);
        let least = float_of_key(k, order_keys(k, self.least_bin(cx, summary)));
        let below = k.fsub(least, k.fmul(k.fsub(max, least), k.f32(0.5)));
        let few = k.above(reach_least_bin, aim);
        let ends = [
            End {
                logit: k.choose(few, least, below),
                log: k.choose(few, reach_least_bin, k.f32((cells * 0.4).log2() as f32)),
            },
            End { logit: k.choose(few, max, least), log: k.choose(few, k.f32(0.0), reach_least_bin) },
        ];
        // The result is only a bound, so it may be reached by a few more cells than wanted.
        let near = k.add(wanted, k.shr(wanted, 4));
        let search = Search {
            label: "bound from the cells",
            places: [low, high],
            values: [k.i32(i32::MAX), k.i32(0)],
            ends,
            aim,
            open: |count, _| k.lt(near, count),
            most_steps: None,
            probe: |key, _| {
                let count = self.count_above(cx, edge_below(k, key));
                let log = approximate_log2(k, k.widen(count));
                Probed { reaches: k.ge(count, wanted), value: count, log, neighbors: None }
            },
        };
        cx.full_key(search.run(cx).low)
    }

    /// Returns the raw logit of the least bin of each row.
    fn least_bin(&self, cx: &Context<'_>, summary: &Summary) -> Value {
        cx.k.over_row(Reduce::Min, cx.k.fmin(summary.bin_maxima[0], summary.bin_maxima[1]))
    }

    /// Returns the number of cells of each row that contain a logit above the float `edge`.
    pub(super) fn count_above(&self, cx: &Context<'_>, edge: Value) -> Value {
        let k = cx.k;
        let start = vec![k.splat(k.f32(0.0)); PARTS];
        let counts = self.pass(cx, "count cells above an edge", &start, |at, count, state| {
            let best = k.registers(&self.best, at, count);
            let mut state = state.to_vec();
            for cell in 0..count {
                let best = k.load(&best, k.i32((cell * LANES) as i32));
                let one = k.choose(k.above(best, edge), k.f32(1.0), k.f32(0.0));
                state[cell % PARTS] = k.fadd(state[cell % PARTS], one);
            }
            state
        });
        count_lanes(k, counts.into_iter().reduce(|a, b| k.fadd(a, b)).expect("there are parts"))
    }

    /// Returns the lowest index of each row's maximum. The result is [`NO_INDEX`] in a row without a candidate.
    pub(super) fn greedy(&self, cx: &Context<'_>, max_key: Value) -> Value {
        let k = cx.k;
        let edge = edge_below(k, max_key);
        let none = k.splat(k.i32(NO_INDEX));
        // The first maximum of a stripe is in the first register that contains a maximum. So only the places in this
        // register are converted to indices.
        let found = self.pass(cx, "first maximum, in the cells", &[none; PARTS], |at, count, state| {
            let [best, place] = [&self.best, &self.place].map(|memory| k.registers(memory, at, count));
            let mut state = state.to_vec();
            for cell in 0..count {
                let lane = k.i32((cell * LANES) as i32);
                let here = k.above(k.load(&best, lane), edge);
                let least = &mut state[cell % PARTS];
                *least = k.min(*least, k.choose(here, k.load(&place, lane), none));
            }
            state
        });
        let place = found.into_iter().reduce(|a, b| k.min(a, b)).expect("there are parts");
        let first = k.trunc(k.over_lanes(Reduce::Min, k.to_float(place)));
        let here = k.both(k.eq(place, first), k.lt(place, none));
        let index = k.choose(here, index_of_place(cx, place), none);
        k.trunc(k.over_row(Reduce::Min, k.to_float(index)))
    }

    /// Makes one pass over the cells. `each` receives the number of the first cell register and the number of
    /// registers.
    fn pass(
        &self,
        cx: &Context<'_>,
        label: &str,
        start: &[Value],
        each: impl Fn(Value, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (k, cells) = (cx.k, cx.layout.cells());
        let batch = CELLS_PER_ITERATION.min(cells);
        let state = k.for_each_of(label, k.i32((cells / batch) as i32), start, |iteration, state| {
            each(k.mul(iteration, k.i32(batch as i32)), batch, state)
        });
        match cells % batch {
            0 => state,
            rest => each(k.i32((cells - rest) as i32), rest, &state),
        }
    }
}

/// Returns the summary of a cell that starts at register `first` of a chunk: the largest logit, the second largest
/// logit, and the register of the largest. See [`Prefilter::summarize_chunk`] for `state` and `clean`.
fn summarize_cell(
    cx: &Context<'_>,
    chunk: &Memory,
    first: usize,
    state: &mut [Value],
    clean: bool,
) -> [Value; 3] {
    let k = cx.k;
    let mut best = k.splat(k.f32(f32::NEG_INFINITY));
    let mut second = best;
    let mut place = k.splat(k.i32(first as i32));
    for register in first..first + cx.layout.cell {
        let mut x = k.load(chunk, k.i32((register * LANES) as i32));
        if clean {
            let nan = is_nan(k, k.bits(x));
            state[BINS] = k.choose(nan, k.f32(1.0), state[BINS]);
            x = k.choose(nan, k.f32(f32::NEG_INFINITY), x);
        }
        if register == first {
            best = x;
            continue;
        }
        place = k.choose(k.above(x, best), k.i32(register as i32), place);
        let less = k.fmin(best, x);
        second = if register == first + 1 { less } else { k.fmax(second, less) };
        best = k.fmax(best, x);
    }
    [best, second, place]
}

/// Returns the number of cell registers of a chunk.
pub(super) fn cells_in_chunk(cx: &Context<'_>) -> usize {
    cx.layout.chunk / cx.layout.cell
}

/// Returns the number of lanes by which cell register `cell` of chunk `chunk` is rotated.
pub(super) fn rotation(cx: &Context<'_>, chunk: Value, cell: Value) -> Value {
    let k = cx.k;
    k.and(k.add(chunk, k.shl(cell, 4)), k.i32(LANES as i32 - 1))
}

/// Returns the index of an entry from its place, which is the number of its register in the stripe. The lanes of
/// `place` are rotated like those of the cell that contains the entry. The index is −1 where the place is −1.
pub(super) fn index_of_place(cx: &Context<'_>, place: Value) -> Value {
    let k = cx.k;
    let (chunk, within) = if cx.layout.chunks == 1 {
        (k.i32(0), place)
    } else {
        let shift = cx.layout.chunk.trailing_zeros();
        (k.shr(place, shift), k.and(place, k.i32(cx.layout.chunk as i32 - 1)))
    };
    let group = k.shr(within, cx.layout.cell.trailing_zeros());
    let by = rotation(cx, chunk, group);
    let column = k.and(k.sub(k.lane(), by), k.i32(LANES as i32 - 1));
    let index = k.add(k.shl(place, LANES.trailing_zeros()), cx.in_stripe(column));
    k.choose(k.lt(place, k.i32(0)), k.i32(-1), index)
}
