//! The first pass. It computes summaries of each row. The summaries show where the kernel can find the entries that can
//! affect the result.
//!
//! A group is one lane of up to 56 registers of a chunk. The pass computes the largest logit of each group, its place,
//! and the second largest logit. For this, it arranges the registers of the group in a table with [`COLUMNS`] columns.
//! It computes the maximum of each row and of each column of the table. This takes two operations per register. All
//! later operations process only these maxima. The row and the column that contain the largest logit give its place.
//!
//! The pass also computes 256 bins per stripe. Each bin contains the largest logit of many entries. The value of the
//! k-th largest bin is a lower bound of the k-th largest logit: each of the k largest bins contains a logit that
//! reaches this value.
//!
//! A cell is one lane of a few registers: usually those of one row of the table. On the path for any k, the pass also
//! stores the maximum of each cell.

use super::context::{Context, NO_INDEX};
use super::interpolation::{End, Probed, Search};
use super::keys::{edge_below, float_of_key, order_keys};
use super::lane_sums::{approximate_log2, count_lanes, ones};
use super::layout::has_few_slots;
use super::summaries::{cell_elem, cells_together, halves, load};
use super::threshold_search::{search_after_steps, Probe, Question};
use crate::mlir::mosaic::{Kernel, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{is_infinity, is_nan, NEG_INF_KEY};

/// The number of columns of the table of a group.
const COLUMNS: usize = 8;
/// The number of registers of bins.
const BINS: usize = 2;
/// The number of bin registers to which a chunk contributes during the pass. A short chunk contributes to fewer.
const BINS_OF_CHUNK: usize = 4;
/// The number of independent counts in a pass. With several of them, an addition need not wait for the previous one.
const PARTS: usize = 4;
/// The number of cell registers per iteration of a pass over the cells.
const CELLS_PER_ITERATION: usize = 64;

/// The summaries of all groups, `[8, groups of a row]` each, and the maxima of all cells.
pub(super) struct Prefilter {
    /// The largest logit of each group.
    pub(super) best: Memory,
    /// The second largest logit of each group. It equals the largest logit if several entries have the largest value.
    pub(super) second: Memory,
    /// The place of the largest logit of each group, as a float: [`LANES`] times the number of the register in the
    /// chunk that contains the logit. For the second of two packed groups, this number is too small by 1, and
    /// [`index_in_group`] corrects it. The place has no meaning if several registers contain the largest logit.
    pub(super) place: Memory,
    /// The largest logit of each cell, `[8, cells of a row]`, on the path for any k.
    cells: Option<Memory>,
}

/// The summary of a group, or of two groups if groups are packed.
struct GroupSummary {
    /// The largest logit, the second largest logit, and the place of the largest logit.
    fields: [Value; 3],
    /// The maximum of each row of the table.
    rows: Vec<Value>,
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
    /// The bins. They rotate by one lane in each chunk. Large logits at equal distances in the vocabulary can be in the
    /// same lane of many registers. The rotation distributes them over the bins.
    bins: Vec<Value>,
    /// 1 in the lanes that contained a NaN, if the pass looks for NaNs. Then a NaN counts as −inf.
    had_nan: Option<Value>,
}

impl State {
    fn flat(&self) -> Vec<Value> {
        [&self.bins[..], self.had_nan.as_slice()].concat()
    }

    /// Returns the state with other values, in the order of [`flat`](State::flat).
    fn with(&self, flat: &[Value]) -> State {
        let (bins, had_nan) = flat.split_at(self.bins.len());
        State { bins: bins.to_vec(), had_nan: had_nan.first().copied() }
    }
}

impl Prefilter {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Prefilter {
        let memory =
            |registers: usize| cx.k.scratch(cell_elem(cx), &[SUBLANES, registers * LANES], Space::Vmem);
        let groups = cx.layout.groups();
        let cells = (!has_few_slots(&cx.spec)).then(|| memory(cx.layout.cells()));
        Prefilter { best: memory(groups), second: memory(groups), place: memory(groups), cells }
    }

    /// Reads the block while it arrives.
    pub(super) fn summarize(&self, cx: &Context<'_>) -> Summary {
        let k = cx.k;
        let nothing = k.splat(k.f32(f32::NEG_INFINITY));
        let start = State {
            bins: vec![nothing; self.bins_of_group(cx) * cx.layout.groups_in_chunk() / cells_together(cx)],
            had_nan: None,
        };
        let state = cx.logits.first_pass("summaries", &start.flat(), |chunk, number, state| {
            self.summarize_chunk(cx, chunk, number, start.with(state)).flat()
        });
        let bins = folded_bins(cx, &start.with(&state).bins);
        // The maximum of a bin preserves a NaN. Otherwise the status of the row would be wrong, and a NaN in the first
        // row or column of the table of a group could be mistaken for the maximum of the group.
        let suspect = k.any(is_nan(k, k.bits(k.fmax(bins[0], bins[1]))));
        let no_nan = k.splat(k.f32(0.0));
        let state = k.if_else(
            "a row holds a NaN",
            suspect,
            || {
                let start = State { had_nan: Some(no_nan), ..start.clone() };
                let state = cx.logits.pass("summaries without NaN", &start.flat(), |chunk, number, state| {
                    self.summarize_chunk(cx, chunk, number, start.with(state)).flat()
                });
                let state = start.with(&state);
                let had_nan = k.over_row(Reduce::Max, state.had_nan.expect("this pass finds NaNs"));
                [&folded_bins(cx, &state.bins)[..], &[had_nan]].concat()
            },
            || [&bins[..], &[no_nan]].concat(),
        );
        let (had_nan, bins) = state.split_last().expect("the state is not empty");
        let bins: [Value; BINS] = bins.try_into().expect("the other values of the state are the bins");
        let max = k.over_row(Reduce::Max, k.fmax(bins[0], bins[1]));
        let had_inf = is_infinity(k, k.bits(max));
        Summary { max_key: order_keys(k, max), had_nan: k.rounded(*had_nan), had_inf, bin_maxima: bins }
    }

    /// Returns the number of bin registers to which one [`GroupSummary`] contributes. If groups are packed, it is the
    /// summary of both groups of a chunk.
    fn bins_of_group(&self, cx: &Context<'_>) -> usize {
        let bins = BINS_OF_CHUNK * cells_together(cx) / cx.layout.groups_in_chunk();
        bins.min(cx.layout.group() / COLUMNS)
    }

    /// Processes one chunk of the pass.
    fn summarize_chunk(&self, cx: &Context<'_>, chunk: &Memory, number: Value, mut state: State) -> State {
        let (k, layout) = (cx.k, cx.layout);
        if layout.chunks > 1 {
            state.bins = state.bins.iter().map(|&bin| k.rotate(bin, k.i32(1))).collect();
        }
        let groups = layout.groups_in_chunk();
        let together = cells_together(cx);
        let [mut maxima, mut rows] = [Vec::new(), Vec::new()];
        for group in (0..groups).step_by(together) {
            let summary = summarize_group(cx, chunk, group, &mut state.had_nan);
            let out = self.registers(cx, k.mul(number, k.i32(groups as i32)), groups);
            for (memory, value) in out.iter().zip(summary.fields) {
                k.store(memory, k.i32((group * LANES) as i32), value);
            }
            let parts = self.bins_of_group(cx);
            for part in 0..parts {
                let maximum =
                    summary.rows.iter().skip(part).step_by(parts).copied().reduce(|a, b| k.fmax(a, b));
                let maximum = maximum.expect("a group has a row for each part");
                maxima.push(
                    halves(cx, maximum).into_iter().reduce(|a, b| k.fmax(a, b)).expect("there is a half"),
                );
            }
            rows.extend(summary.rows);
        }
        state.bins = state.bins.iter().zip(maxima).map(|(&bin, maximum)| k.fmax(bin, maximum)).collect();
        if let Some(cells) = &self.cells {
            let count = layout.cells_in_chunk();
            let out = k.registers(cells, k.mul(number, k.i32(count as i32)), count);
            let rows_of_cell = layout.cell / COLUMNS;
            for (cell, rows) in rows.chunks(rows_of_cell).enumerate() {
                let maximum = rows.iter().copied().reduce(|a, b| k.fmax(a, b)).expect("a cell has a row");
                k.store(&out, k.i32((cell * together * LANES) as i32), maximum);
            }
        }
        state
    }

    /// Returns `count` registers of each memory of groups, starting at register `at`. The memories are the largest
    /// logits, the second largest logits, and the places.
    pub(super) fn registers(&self, cx: &Context<'_>, at: Value, count: usize) -> [Memory; 3] {
        [&self.best, &self.second, &self.place].map(|memory| cx.k.registers(memory, at, count))
    }

    /// Returns the maxima of the cells.
    fn cells(&self) -> &Memory {
        self.cells.as_ref().expect("the path for any k has the maxima of the cells")
    }

    /// Returns the largest k for which the bins provide a bound.
    pub(super) fn largest_binned_k(&self, cx: &Context<'_>) -> usize {
        match cx.layout.copies {
            Some(_) => 2 * BINS * LANES,
            None => bins_of_row(cx),
        }
    }

    /// Returns a key that at least `wanted` logits of each row reach. It is near the largest key that `wanted` bins
    /// reach. Rows where `closed` is true are not searched.
    pub(super) fn bound_from_bins(
        &self,
        cx: &Context<'_>,
        summary: &Summary,
        wanted: Value,
        closed: Option<Value>,
    ) -> Value {
        let k = cx.k;
        let bins: Vec<Value> = match cx.layout.copies {
            Some(_) => copies_of_bins(k, summary.bin_maxima),
            None => summary.bin_maxima.to_vec(),
        };
        cx.among_survivors(|| self.bound_from(cx, summary, &bins, wanted, closed))
    }

    /// Like [`bound_from_bins`](Prefilter::bound_from_bins), given the raw maxima of the bins.
    fn bound_from(
        &self,
        cx: &Context<'_>,
        summary: &Summary,
        bins: &[Value],
        wanted: Value,
        closed: Option<Value>,
    ) -> Value {
        let k = cx.k;
        let keys: Vec<Value> = bins.iter().map(|&bin| cx.short_key(order_keys(k, bin))).collect();
        // Every bin reaches the key of the least bin.
        let least = bins.iter().copied().reduce(|a, b| k.fmin(a, b)).expect("there are bins");
        let least = k.over_row(Reduce::Min, least);
        let low = cx.short_key(order_keys(k, least));
        let high = k.add(cx.short_key(summary.max_key), k.i32(1));
        let high = closed.map_or(high, |closed| k.choose(closed, k.add(low, k.i32(1)), high));
        let terms = |place| vec![ones(k, keys.iter().map(|&key| k.ge(key, place)))];
        // The result is only a bound, so a few more bins than wanted may reach it.
        let near = k.add(wanted, k.shr(wanted, 4));
        let decide = |sums: &[Value]| {
            let count = k.rounded(sums[0]);
            let few = k.any_is_correct(k.ge(near, count), "every place that the row reaches is a bound");
            Probe { reaches: k.ge(count, wanted), exact: Some(few) }
        };
        let found = search_after_steps(k, "bound from the bins", [low, high], &Question { terms, decide });
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
        let (cells, bins) = (cx.cells() as f64, bins_of_row(cx) as f64);
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
            open: |count, _| {
                k.any_is_correct(k.lt(near, count), "every place that the row reaches is a bound")
            },
            most_steps: None,
            narrow: None,
            probe: |key| {
                let count = self.count_above(cx, edge_below(k, key));
                let log = approximate_log2(k, k.widen(count));
                Probed { reaches: k.ge(count, wanted), value: count, log, neighbors: None, sum: None }
            },
        };
        cx.full_key(search.run(cx).low.place)
    }

    /// Returns, for each row, a float that about `wanted` logits of the row reach. About `few` logits reach the key
    /// `bound`. The estimate is exact enough if the logits are independent.
    ///
    /// About `bins · ln(bins)` logits reach the least bin that is not −inf. The logarithm of the number of logits that
    /// reach a place is nearly a linear function of the place. So the function interpolates between this bin and
    /// `bound`.
    pub(super) fn estimated_place(
        &self,
        cx: &Context<'_>,
        summary: &Summary,
        (few, bound): (usize, Value),
        wanted: usize,
    ) -> Value {
        let k = cx.k;
        let bins = bins_of_row(cx) as f64;
        let of_least_bin = bins * bins.ln();
        let part = (wanted as f64 / of_least_bin).ln() / (of_least_bin / few as f64).ln();
        // The padding of a row can fill whole bins with −inf.
        let [first, second] = summary
            .bin_maxima
            .map(|bin| k.choose(k.above(bin, k.f32(f32::NEG_INFINITY)), bin, k.f32(f32::INFINITY)));
        let least = float_of_key(k, order_keys(k, k.over_row(Reduce::Min, k.fmin(first, second))));
        k.fsub(least, k.fmul(k.fsub(float_of_key(k, bound), least), k.f32(part as f32)))
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
            let best = k.registers(self.cells(), at, count);
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

    /// Returns the lowest index of each row's maximum. The result is [`NO_INDEX`] in a row without a candidate. Also
    /// returns a mask: whether a group contains several maxima of the row. Then the index of this row has no meaning.
    pub(super) fn greedy(&self, cx: &Context<'_>, max_key: Value) -> [Value; 2] {
        let k = cx.k;
        let edge = edge_below(k, max_key);
        let none = k.splat(k.f32(NO_INDEX as f32));
        let start = [none, k.splat(k.f32(f32::NEG_INFINITY))];
        let groups = cx.layout.groups_in_chunk();
        let found = k.for_each(
            "first maximum, in the groups",
            k.i32(cx.layout.chunks as i32),
            start,
            |chunk, state| {
                let [mut least, mut largest_second] = state;
                let memories = self.registers(cx, k.mul(chunk, k.i32(groups as i32)), groups);
                for first in (0..groups).step_by(cells_together(cx)) {
                    let lane = k.i32((first * LANES) as i32);
                    let fields = memories.each_ref().map(|memory| halves(cx, load(cx, memory, lane)));
                    for half in 0..cells_together(cx) {
                        let [best, second, place] = fields.each_ref().map(|halves| halves[half]);
                        let index = index_in_group(cx, chunk, first + half, place);
                        least = k.fmin(least, k.choose(k.above(best, edge), index, none));
                        largest_second = k.fmax(largest_second, second);
                    }
                }
                [least, largest_second]
            },
        );
        let index = k.rounded(k.over_row(Reduce::Min, found[0]));
        [index, k.above(found[1], edge)]
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

/// Returns the number of bins of a row.
fn bins_of_row(cx: &Context<'_>) -> usize {
    BINS * LANES * cx.k.stripes()
}

/// Combines the bins of every second stripe of a row. Returns the combined bins in registers whose stripes are copies.
fn copies_of_bins(k: &Kernel, bins: [Value; BINS]) -> Vec<Value> {
    let in_second = |by: usize| k.ne(k.and(k.stripe(), k.i32(by as i32)), k.i32(0));
    let odd = in_second(1);
    let copies = bins.map(|mut bin| {
        let mut by = k.stripes() / 2;
        while by > 1 {
            // Large logits at equal distances can be in the same lane of all stripes. A rotation of one stripe of each
            // pair distributes them. It is not by half of the lanes, because the pass has already rotated bins by
            // this number.
            let lanes = k.i32((by * LANES / SUBLANES / 2) as i32);
            let apart = k.choose(in_second(by), k.rotate(bin, lanes), bin);
            bin = k.fmax(apart, k.rotate_stripes(apart, by));
            by /= 2;
        }
        let other = k.rotate_stripes(bin, 1);
        [k.choose(odd, other, bin), k.choose(odd, bin, other)]
    });
    copies.concat()
}

/// Combines the bin registers of the pass into [`BINS`] registers. Before this, the bin registers are rotated by
/// different numbers of lanes. So large logits of the same lane stay in different bins.
fn folded_bins(cx: &Context<'_>, bins: &[Value]) -> [Value; BINS] {
    let k = cx.k;
    let nothing = k.splat(k.f32(f32::NEG_INFINITY));
    std::array::from_fn(|number| {
        let parts = bins.iter().skip(number).step_by(BINS).enumerate();
        let apart = |(i, &bin): (usize, &Value)| match i * BINS * LANES / bins.len().max(BINS) {
            0 => bin,
            by => k.rotate(bin, k.i32(by as i32)),
        };
        parts.map(apart).reduce(|a, b| k.fmax(a, b)).unwrap_or(nothing)
    })
}

/// Returns the summary of a group register of a chunk. If groups are packed, the summary also describes the next group
/// register. See [`State`] for `had_nan`.
fn summarize_group(
    cx: &Context<'_>,
    chunk: &Memory,
    group: usize,
    had_nan: &mut Option<Value>,
) -> GroupSummary {
    let (k, elem, layout) = (cx.k, cell_elem(cx), cx.layout);
    let (first, step) = layout.registers_of_group(group);
    let mut nans: Option<Value> = None;
    let mut logits = |number: usize| {
        let x = load(cx, chunk, k.i32(((first + step * number) * LANES) as i32));
        if had_nan.is_none() {
            return x;
        }
        let is_number = k.at_least(x, k.negative_infinity(elem));
        let nan = k.choose(is_number, k.whole(elem, 0), k.whole(elem, 1));
        nans = Some(nans.map_or(nan, |nans| k.fmax(nans, nan)));
        k.choose(is_number, x, k.negative_infinity(elem))
    };
    let larger = |larger: Option<Value>, x: Value| Some(larger.map_or(x, |larger| k.fmax(larger, x)));
    let [mut rows, mut columns] = [vec![None; layout.group() / COLUMNS], vec![None; COLUMNS]];
    for number in 0..layout.group() {
        let x = logits(number);
        let (row, column) = (&mut rows[number / COLUMNS], &mut columns[number % COLUMNS]);
        (*row, *column) = (larger(*row, x), larger(*column, x));
    }
    let [rows, columns] = [rows, columns].map(|maxima| maxima.into_iter().flatten().collect::<Vec<_>>());
    let place = |number: usize| step * number * LANES;
    let (best, row, second_row) = largest(cx, &rows, |number| first * LANES + place(COLUMNS * number));
    let (_, column, second_column) = largest(cx, &columns, place);
    // Every other entry is in another row or in another column of the table than the largest entry. So the second
    // largest logit is the second largest maximum of the rows or of the columns.
    let second = second_row.into_iter().chain(second_column).reduce(|a, b| k.fmax(a, b));
    if let (Some(had_nan), Some(nan)) = (had_nan, nans) {
        *had_nan = halves(cx, nan).into_iter().fold(*had_nan, |had_nan, half| k.fmax(had_nan, half));
    }
    let place = k.fadd(row, column);
    GroupSummary { fields: [best, second.expect("a group has several columns"), place], rows }
}

/// Returns the largest of `values`, the place of the first value that equals it, and the second largest value.
fn largest(
    cx: &Context<'_>,
    values: &[Value],
    place_of: impl Fn(usize) -> usize,
) -> (Value, Value, Option<Value>) {
    let (k, elem) = (cx.k, cell_elem(cx));
    let place_of = |number: usize| k.whole(elem, place_of(number) as i16);
    let (mut best, mut place, mut second) = (values[0], place_of(0), None);
    for (number, &x) in values.iter().enumerate().skip(1) {
        place = k.choose(k.above(x, best), place_of(number), place);
        let less = k.fmin(best, x);
        second = Some(second.map_or(less, |second| k.fmax(second, less)));
        best = k.fmax(best, x);
    }
    (best, place, second)
}

/// Converts places, in the form of [`Prefilter::place`], to indices in the row. Both are floats. The places are in
/// group register `group` of chunk `chunk`.
pub(super) fn index_in_group(cx: &Context<'_>, chunk: Value, group: usize, places: Value) -> Value {
    let (k, layout) = (cx.k, cx.layout);
    let half = if layout.packed { group * LANES } else { 0 };
    let start = k.add(k.mul(chunk, k.i32((layout.chunk * LANES) as i32)), k.i32(half as i32));
    k.fadd(places, k.to_float(k.add(cx.in_stripe(k.lane()), start)))
}
