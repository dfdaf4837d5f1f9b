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
use super::summaries::{cell_elem, cells_together, constant, halves, load, map_halves};
use super::threshold_search::{search, Probe, Question};
use crate::mlir::mosaic::{Memory, Reduce, Space, Value, LANES, SUBLANES};
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
/// The largest logits and their places are rotated. Each cell register is rotated by a different number of lanes. If
/// the large logits have a stride in the vocabulary, they are in the same lane of many registers. The rotation
/// distributes them over the lanes.
pub(super) struct Prefilter {
    /// The largest logit of each cell.
    pub(super) best: Memory,
    /// The second largest logit. It is not rotated.
    pub(super) second: Memory,
    /// The number of the register in the chunk that contains the largest logit, as a float, without
    /// [`Layout::place_offset`](super::layout::Layout::place_offset).
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

/// The state of the first pass.
#[derive(Clone)]
struct State {
    bins: Vec<Value>,
    /// The largest logits of the previous chunk's cells and their places, which are not rotated yet.
    waiting: Vec<[Value; 2]>,
    /// 1 in the lanes that contained a NaN, if the pass looks for NaNs. Then a NaN counts as −inf.
    had_nan: Option<Value>,
}

impl State {
    fn flat(&self) -> Vec<Value> {
        [&self.bins[..], &self.waiting.concat(), self.had_nan.as_slice()].concat()
    }

    /// Returns the state with other values, in the order of [`flat`](State::flat).
    fn with(&self, flat: &[Value]) -> State {
        let (bins, rest) = flat.split_at(self.bins.len());
        let (waiting, had_nan) = rest.split_at(2 * self.waiting.len());
        State {
            bins: bins.to_vec(),
            waiting: waiting.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect(),
            had_nan: had_nan.first().copied(),
        }
    }
}

impl Prefilter {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Prefilter {
        let width = cx.layout.batches() * cx.layout.cells_in_batch() * LANES;
        let memory = || cx.k.scratch(cell_elem(cx), &[SUBLANES, width], Space::Vmem);
        Prefilter { best: memory(), second: memory(), place: memory() }
    }

    /// Reads the block while it arrives.
    pub(super) fn summarize(&self, cx: &Context<'_>) -> Summary {
        let k = cx.k;
        let nothing = constant(cx, k.negative_infinity(cell_elem(cx)));
        let bins = BINS / cells_together(cx);
        let halves = |bins: &[Value]| -> [Value; BINS] {
            let all: Vec<Value> = bins.iter().flat_map(|&bin| halves(cx, bin)).collect();
            all.try_into().expect("the halves of all registers are the bins")
        };
        let start =
            State { bins: vec![nothing; bins], waiting: vec![[nothing; 2]; self.waiting(cx)], had_nan: None };
        let finished = |mut state: State| {
            self.finish_chunk(cx, k.i32(cx.layout.chunks as i32 - 1), &mut state);
            state
        };
        let state = cx.logits.first_pass("cell summaries", &start.flat(), |chunk, number, state| {
            self.summarize_chunk(cx, chunk, number, start.with(state)).flat()
        });
        let bins = finished(start.with(&state)).bins;
        // The maximum of a bin preserves a NaN. Otherwise the status of the row would be wrong, and a NaN in the
        // first register of a cell could be mistaken for the maximum of the cell.
        let [first, second] = halves(&bins);
        let suspect = k.any(is_nan(k, k.bits(k.fmax(first, second))));
        let no_nan = k.splat(k.f32(0.0));
        let state = k.if_else(
            "a row holds a NaN",
            suspect,
            || {
                let start = State { had_nan: Some(no_nan), ..start.clone() };
                let state =
                    cx.logits.pass("cell summaries without NaN", &start.flat(), |chunk, number, state| {
                        self.summarize_chunk(cx, chunk, number, start.with(state)).flat()
                    });
                let state = finished(start.with(&state));
                let had_nan = k.over_row(Reduce::Max, state.had_nan.expect("this pass finds NaNs"));
                [&state.bins[..], &[had_nan]].concat()
            },
            || [&bins[..], &[no_nan]].concat(),
        );
        let (had_nan, bins) = state.split_last().expect("the state is not empty");
        let bins = halves(bins);
        let max = k.over_row(Reduce::Max, k.fmax(bins[0], bins[1]));
        let had_inf = is_infinity(k, k.bits(max));
        Summary { max_key: order_keys(k, max), had_nan: k.trunc(*had_nan), had_inf, bin_maxima: bins }
    }

    /// Returns the number of registers, or packed registers, of a chunk's summaries.
    fn waiting(&self, cx: &Context<'_>) -> usize {
        cx.layout.cells_in_chunk() / cells_together(cx)
    }

    /// Processes one chunk of the pass, and finishes the previous one.
    fn summarize_chunk(&self, cx: &Context<'_>, chunk: &Memory, number: Value, mut state: State) -> State {
        let k = cx.k;
        // The first iteration has no previous chunk. It writes meaningless summaries for the first chunk. The correct
        // summaries overwrite them later.
        self.finish_chunk(cx, k.max(k.sub(number, k.i32(1)), k.i32(0)), &mut state);
        let count = cx.layout.cells_in_chunk();
        let second_out = k.registers(&self.second, k.mul(number, k.i32(count as i32)), count);
        for (i, group) in (0..count).step_by(cells_together(cx)).enumerate() {
            let [best, second, place] = summarize_cells(cx, chunk, group, &mut state.had_nan);
            k.store(&second_out, k.i32((group * LANES) as i32), second);
            state.waiting[i] = [best, place];
        }
        state
    }

    /// Rotates the summaries of a chunk, stores them, and adds them to the bins. A rotation has a long latency. So
    /// the next iteration of the pass does this, together with its other work.
    fn finish_chunk(&self, cx: &Context<'_>, number: Value, state: &mut State) {
        let (k, layout) = (cx.k, cx.layout);
        let first = k.mul(number, k.i32(layout.cells_in_chunk() as i32));
        let [best_out, _, place_out] = self.registers(cx, first, layout.cells_in_chunk());
        for (i, &waiting) in state.waiting.iter().enumerate() {
            let group = i * cells_together(cx);
            let by = rotation(cx, number, k.i32(group as i32));
            let [best, place] = waiting.map(|value| map_halves(cx, value, |half| k.rotate(half, by)));
            let at = k.i32((group * LANES) as i32);
            k.store(&best_out, at, best);
            k.store(&place_out, at, place);
            let bin = i % state.bins.len();
            state.bins[bin] = k.fmax(state.bins[bin], best);
        }
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
        // The result is only a bound, so a few more cells than wanted may reach it.
        let near = k.add(wanted, k.shr(wanted, 4));
        let search = Search {
            label: "bound from the cells",
            places: [low, high],
            values: [k.i32(i32::MAX), k.i32(0)],
            ends,
            aim,
            open: |count, _| k.lt(near, count),
            most_steps: None,
            narrow: None,
            probe: |key, _| {
                let count = self.count_above(cx, edge_below(k, key));
                let log = approximate_log2(k, k.widen(count));
                Probed { reaches: k.ge(count, wanted), value: count, log, neighbors: None, sum: None }
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
            let [best, _, place] = self.registers(cx, at, count);
            let first = k.mul(at, k.i32(cx.layout.cell as i32));
            let mut state = state.to_vec();
            for cell in 0..count {
                let lane = k.i32((cell * LANES) as i32);
                let place = k.add(first, k.trunc(k.load(&place, lane)));
                let place = k.add(place, k.i32(cx.layout.place_offset(cell) as i32));
                let here = k.above(k.load(&best, lane), edge);
                let least = &mut state[cell % PARTS];
                *least = k.min(*least, k.choose(here, place, none));
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

/// Returns the summary of a cell register of a chunk: the largest logit, the second largest logit, and the number of
/// the register in the chunk that contains the largest logit. If cells are packed, the summary also contains the next
/// cell register. See [`State`] for `had_nan`.
fn summarize_cells(cx: &Context<'_>, chunk: &Memory, cell: usize, had_nan: &mut Option<Value>) -> [Value; 3] {
    let (k, elem) = (cx.k, cell_elem(cx));
    let mut nans = Vec::new();
    let mut registers = cx.layout.registers_of_cell(cell).map(|register| {
        let lane = k.i32((register * LANES) as i32);
        let x = load(cx, chunk, lane);
        // In a packed register, the number is that of the first half.
        let place = k.whole(elem, register as i16);
        if had_nan.is_none() {
            return (x, place);
        }
        let number = k.at_least(x, k.negative_infinity(elem));
        nans.push(k.choose(number, k.whole(elem, 0), k.whole(elem, 1)));
        (k.choose(number, x, k.negative_infinity(elem)), place)
    });
    let (mut best, mut place) = registers.next().expect("a cell has registers");
    let mut second = None;
    for (x, here) in registers {
        place = k.choose(k.above(x, best), here, place);
        let less = k.fmin(best, x);
        second = Some(second.map_or(less, |second| k.fmax(second, less)));
        best = k.fmax(best, x);
    }
    if let Some(had_nan) = had_nan {
        let nan = nans.into_iter().reduce(|a, b| k.fmax(a, b)).expect("a cell has registers");
        *had_nan = halves(cx, nan).into_iter().fold(*had_nan, |had_nan, half| k.fmax(had_nan, half));
    }
    [best, second.expect("a cell has several registers"), place]
}

/// Returns the number of lanes by which cell register `cell` of chunk `chunk` is rotated. Packed cell registers are
/// rotated together, by the rotation of the first one.
pub(super) fn rotation(cx: &Context<'_>, chunk: Value, cell: Value) -> Value {
    let k = cx.k;
    k.and(k.add(chunk, k.shl(cell, 4)), k.i32(LANES as i32 - 1))
}

/// Returns the index of an entry from its place, which is the number of its register in the stripe. The lanes of
/// `place` are rotated by the [`rotation`] of the cell that contains the entry. The index is −1 where the place is −1.
pub(super) fn index_of_place(cx: &Context<'_>, place: Value) -> Value {
    let (k, layout) = (cx.k, cx.layout);
    let (chunk, within) = if layout.chunks == 1 {
        (k.i32(0), place)
    } else {
        let shift = layout.chunk.trailing_zeros();
        (k.shr(place, shift), k.and(place, k.i32(layout.chunk as i32 - 1)))
    };
    let shift = layout.cell.trailing_zeros();
    let group = match layout.packed {
        true => k.shl(k.shr(within, shift + 1), 1),
        false => k.shr(within, shift),
    };
    let by = rotation(cx, chunk, group);
    let column = k.and(k.sub(k.lane(), by), k.i32(LANES as i32 - 1));
    let index = k.add(k.shl(place, LANES.trailing_zeros()), cx.in_stripe(column));
    k.choose(k.lt(place, k.i32(0)), k.i32(-1), index)
}
