//! The first pass: what a row's cells hold at most, and who of them can matter.
//!
//! A cell is one lane of a few consecutive registers. The pass keeps each cell's largest logit, where it lies, and
//! the second largest. A bound that the k-th largest of 256 maxima of cells gives, or the distance from the maximum
//! at which weights vanish, then leaves few survivors, and nearly all of them are maxima of their cells.

use super::context::Block;
use super::threshold_search::{bisect, count_lanes, just_below, keys, search, Probe};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, is_nan, order_key, NEG_INF_KEY};

/// Bins that the bound is taken from, in registers.
const BINS: usize = 2;
/// Largest k that the bins give a bound for.
pub(super) const LARGEST_BINNED_K: usize = BINS * LANES;
/// Counts that a pass keeps apart, so that they do not wait for one another.
const PARTS: usize = 4;
/// Cells that are looked at between two branches.
const BATCH: usize = 32;
/// Cells whose survivors go through a short stack of their own, which is cheaper to insert into than the whole one.
const FEW_CELLS: usize = 16;
/// Survivors that a lane of it has room for.
const SHORT: usize = 3;

/// Memory of the summary, `[8, cells of a row]` each.
///
/// Every cell register is rotated by an amount of its own, so that logits in one column of many registers (a stride in
/// the vocabulary) do not end up in one lane.
pub(super) struct Cells {
    best: Memory,
    second: Memory,
    place: Memory,
    /// Of each batch of cells, whether one holds more survivors than its maximum.
    crowded: Memory,
    /// The cells of a batch that do.
    list: Memory,
}

/// What the first pass says of each row.
pub(super) struct Summary {
    /// Order key of the maximum.
    pub(super) max_key: Value,
    /// 1 where the row held a NaN.
    pub(super) had_nan: Value,
    /// The bins' maxima, raw.
    bin_maxima: [Value; BINS],
}

/// Survivors of a bound: `depth` registers of logits and of their places, −1 where there is none.
pub(super) struct Survivors {
    values: Memory,
    places: Memory,
}

/// Survivors in registers.
pub(super) struct Gathered {
    /// Raw logits.
    pub(super) values: Vec<Value>,
    /// Their indices in the row; −1 in a slot without.
    pub(super) indices: Vec<Value>,
    /// Whether a lane had more survivors than room: a scalar.
    pub(super) overflow: Value,
}

impl Cells {
    pub(super) fn new(b: &Block<'_>) -> Cells {
        let width = b.layout.cells() * LANES;
        let batches = b.layout.cells().div_ceil(BATCH);
        Cells {
            best: b.k.scratch(Elem::F32, &[SUBLANES, width], Space::Vmem),
            second: b.k.scratch(Elem::F32, &[SUBLANES, width], Space::Vmem),
            place: b.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem),
            crowded: b.k.scratch(Elem::I32, &[batches], Space::Smem),
            list: b.k.scratch(Elem::I32, &[BATCH + 1], Space::Smem),
        }
    }

    /// Cells in a chunk.
    fn in_chunk(b: &Block<'_>) -> usize {
        b.layout.chunk / b.layout.cell
    }

    /// By how many lanes cell register `cell` of chunk `chunk` is rotated.
    fn rotation(b: &Block<'_>, chunk: Value, cell: Value) -> Value {
        let k = b.k;
        k.and(k.add(chunk, k.shl(cell, 4)), k.i32(LANES as i32 - 1))
    }

    /// Reads the block as it arrives.
    pub(super) fn summarize(&self, b: &Block<'_>) -> Summary {
        let k = b.k;
        let start = [k.splat(k.f32(f32::NEG_INFINITY)); BINS];
        let bins = b.rows.first_pass("summary of each cell", &start, |chunk, number, bins| {
            self.chunk(b, chunk, number, bins, false)
        });
        // NaN stays in a maximum. If it did not, the row's status would be wrong, and a NaN in the first register of its
        // cell could be taken for the cell's maximum.
        let suspect = k.any(is_nan(k, k.bits(k.fmax(bins[0], bins[1]))));
        let state = k.if_else(
            "a row holds NaN",
            suspect,
            || {
                let mut start = start.to_vec();
                start.push(k.splat(k.f32(0.0)));
                let mut state = b.rows.pass("summary without NaN", &start, |chunk, number, state| {
                    self.chunk(b, chunk, number, state, true)
                });
                state[BINS] = k.over_lanes(Reduce::Max, state[BINS]);
                state
            },
            || {
                let mut state = bins.clone();
                state.push(k.splat(k.f32(0.0)));
                state
            },
        );
        let bins: [Value; BINS] = std::array::from_fn(|i| state[i]);
        let max = k.over_lanes(Reduce::Max, k.fmax(bins[0], bins[1]));
        Summary { max_key: keys(k, max), had_nan: k.trunc(state[BINS]), bin_maxima: bins }
    }

    /// One chunk of the pass; the state is the bins. With `clean`, NaN counts as −inf and is marked in one more value.
    fn chunk(
        &self,
        b: &Block<'_>,
        chunk: &Memory,
        number: Value,
        state: &[Value],
        clean: bool,
    ) -> Vec<Value> {
        let (k, cell) = (b.k, b.layout.cell);
        let mut state = state.to_vec();
        let count = Self::in_chunk(b);
        let first = k.mul(number, k.i32(count as i32));
        let [best_out, second_out, place_out] =
            [&self.best, &self.second, &self.place].map(|memory| k.registers(memory, first, count));
        for group in 0..count {
            let mut best = k.splat(k.f32(f32::NEG_INFINITY));
            let mut second = best;
            let mut place = k.splat(k.i32((group * cell) as i32));
            for register in group * cell..(group + 1) * cell {
                let mut x = k.load(chunk, k.i32((register * LANES) as i32));
                if clean {
                    let nan = is_nan(k, k.bits(x));
                    state[BINS] = k.choose(nan, k.f32(1.0), state[BINS]);
                    x = k.choose(nan, k.f32(f32::NEG_INFINITY), x);
                }
                if register == group * cell {
                    best = x;
                    continue;
                }
                place = k.choose(k.above(x, best), k.i32(register as i32), place);
                let less = k.fmin(best, x);
                second = if register == group * cell + 1 { less } else { k.fmax(second, less) };
                best = k.fmax(best, x);
            }
            let by = Self::rotation(b, number, k.i32(group as i32));
            let place = k.add(place, k.mul(number, k.i32(b.layout.chunk as i32)));
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

    /// A key that at least `wanted` logits of each row reach: the largest that as many bins reach.
    pub(super) fn bound(&self, b: &Block<'_>, summary: &Summary, wanted: Value) -> Value {
        let k = b.k;
        let bins = summary.bin_maxima.map(|bin| b.short(keys(k, bin)));
        // Every bin reaches the least of them.
        let least = k.over_lanes(
            Reduce::Min,
            summary.bin_maxima.into_iter().reduce(|a, b| k.fmin(a, b)).expect("there are bins"),
        );
        let low = b.short(keys(k, least));
        let high = k.add(b.short(summary.max_key), k.i32(1));
        let found = search(k, "bound by the bins", low, high, b.steps(), |place| {
            let ones = bins.map(|bin| k.choose(k.ge(bin, place), k.f32(1.0), k.f32(0.0)));
            let count = count_lanes(k, k.fadd(ones[0], ones[1]));
            Probe { reaches: k.ge(count, wanted), exact: Some(k.eq(count, wanted)) }
        });
        b.long(found)
    }

    /// [`bound`](Cells::bound) for any `wanted` up to the number of cells: from all of their maxima.
    pub(super) fn bound_by_cells(
        &self,
        b: &Block<'_>,
        summary: &Summary,
        wanted: Value,
        open: Value,
    ) -> Value {
        let k = b.k;
        let low = b.short(k.splat(k.i32(NEG_INF_KEY)));
        let high = k.choose(open, k.add(b.short(summary.max_key), k.i32(1)), low);
        let found = bisect(k, "bound by the cells", low, high, |place| {
            let count = self.count_above(b, just_below(k, b.long(place)));
            // A few more than wanted do as well: it is a bound.
            let near = k.add(wanted, k.shr(wanted, 4));
            Probe { reaches: k.ge(count, wanted), exact: Some(k.ge(near, count)) }
        });
        b.long(found)
    }

    /// How many cells of each row hold a logit above the float `edge`.
    pub(super) fn count_above(&self, b: &Block<'_>, edge: Value) -> Value {
        let k = b.k;
        let start = vec![k.splat(k.f32(0.0)); PARTS];
        let counts = self.pass(b, "cells above", &start, |at, count, state| {
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

    /// The lowest index of each row's maximum; 2²⁴ in a row without a candidate.
    pub(super) fn greedy(&self, b: &Block<'_>, max_key: Value) -> Value {
        let k = b.k;
        let edge = just_below(k, max_key);
        let none = k.splat(k.i32(1 << 24));
        let found = self.pass(b, "first of the maxima", &[none, none], |at, count, state| {
            let [best, place] = [&self.best, &self.place].map(|memory| k.registers(memory, at, count));
            let mut state = state.to_vec();
            for cell in 0..count {
                let lane = k.i32((cell * LANES) as i32);
                let index = index_of(b, k.load(&place, lane));
                let here = k.above(k.load(&best, lane), edge);
                state[cell % 2] = k.min(state[cell % 2], k.choose(here, index, none));
            }
            state
        });
        k.trunc(k.over_lanes(Reduce::Min, k.to_float(k.min(found[0], found[1]))))
    }

    /// One pass over the cells; `each` sees the number of the first of its registers, and how many they are.
    fn pass(
        &self,
        b: &Block<'_>,
        label: &str,
        start: &[Value],
        each: impl Fn(Value, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (k, cells) = (b.k, b.layout.cells());
        let batch = (2 * BATCH).min(cells);
        let state = k.for_each_of(label, k.i32((cells / batch) as i32), start, |turn, state| {
            each(k.mul(turn, k.i32(batch as i32)), batch, state)
        });
        match cells % batch {
            0 => state,
            rest => each(k.i32((cells - rest) as i32), rest, &state),
        }
    }

    /// All logits whose key is at least `threshold`, which is above that of −inf.
    pub(super) fn survivors(&self, b: &Block<'_>, memory: &Survivors, threshold: Value) -> Gathered {
        let (k, depth) = (b.k, b.layout.depth);
        let below = just_below(k, threshold);
        let cells = b.layout.cells();
        let batch = BATCH.min(cells);
        let batches = cells / batch;
        let start = Stack::empty(k, depth).flat();
        let insert_batch = |at: Value, count: usize, number: Value, state: &[Value]| {
            let mut stack = Stack::from_flat(state);
            let [best, second, place] =
                [&self.best, &self.second, &self.place].map(|memory| k.registers(memory, at, count));
            let mut most = k.splat(k.f32(f32::NEG_INFINITY));
            for first in (0..count).step_by(FEW_CELLS) {
                let mut short = Stack::empty(k, SHORT);
                for cell in first..count.min(first + FEW_CELLS) {
                    let at = k.i32((cell * LANES) as i32);
                    let value = k.load(&best, at);
                    short.insert(k, k.above(value, below), value, k.load(&place, at));
                    most = k.fmax(most, k.load(&second, at));
                }
                stack.append(k, &short);
            }
            let crowded = k.any(k.above(most, below));
            k.set(&self.crowded, number, k.choose(crowded, k.i32(1), k.i32(0)));
            stack.flat()
        };
        let mut state = k.for_each_of("maxima of cells", k.i32(batches as i32), &start, |number, state| {
            insert_batch(k.mul(number, k.i32(batch as i32)), batch, number, state)
        });
        let rest = cells - batches * batch;
        if rest > 0 {
            state = insert_batch(k.i32((batches * batch) as i32), rest, k.i32(batches as i32), &state);
        }
        let stack = Stack::from_flat(&state);
        memory.write(b, &stack);
        // More are looked for only where there was room for these.
        let overflow = k.any(k.ge(stack.overflow, k.i32(0)));
        let crowded_batch = |number: Value, count: usize| {
            k.when("a cell holds another survivor", k.eq(k.get(&self.crowded, number), k.i32(1)), || {
                let first = k.mul(number, k.i32(batch as i32));
                let second = k.registers(&self.second, first, count);
                // The list of such cells: each is written at its end, which moves on past those that are one.
                let mut length = k.i32(0);
                for cell in 0..count {
                    let more = k.any(k.above(k.load(&second, k.i32((cell * LANES) as i32)), below));
                    k.set(&self.list, length, k.add(first, k.i32(cell as i32)));
                    length = k.add(length, k.choose(more, k.i32(1), k.i32(0)));
                }
                let stack = memory.stack(b).flat();
                let stack = k.for_each_of("such cells", length, &stack, |i, stack| {
                    self.rescan(b, Stack::from_flat(stack), k.get(&self.list, i), below).flat()
                });
                memory.write(b, &Stack::from_flat(&stack));
            });
        };
        k.when("survivors beside their cell's maximum", k.not(overflow), || {
            k.for_each("batches of cells", k.i32(batches as i32), [], |number, []| {
                crowded_batch(number, batch);
                []
            });
            if rest > 0 {
                crowded_batch(k.i32(batches as i32), rest);
            }
        });
        memory.read(b)
    }

    /// Adds to a stack the survivors of a cell register that are not their cell's maximum.
    fn rescan(&self, b: &Block<'_>, mut stack: Stack, cell: Value, below: Value) -> Stack {
        let (k, layout) = (b.k, b.layout);
        let in_chunk = Self::in_chunk(b) as i32;
        let (chunk, group) = if layout.chunks == 1 {
            (k.i32(0), cell)
        } else {
            let shift = in_chunk.trailing_zeros();
            (k.shr(cell, shift), k.and(cell, k.i32(in_chunk - 1)))
        };
        let by = Self::rotation(b, chunk, group);
        let back = k.sub(k.i32(LANES as i32), by);
        let place = k.rotate(k.load(&k.registers(&self.place, cell, 1), k.i32(0)), back);
        let at = k.mul(cell, k.i32(layout.cell as i32));
        let rows = b.rows.look_up(at, layout.cell);
        let mut extras = Stack::empty(k, SHORT);
        for register in 0..layout.cell {
            let x = k.load(&rows, k.i32((register * LANES) as i32));
            let here = k.add(at, k.i32(register as i32));
            extras.insert(k, k.both(k.above(x, below), k.ne(place, here)), x, here);
        }
        let extras = extras.rotated(k, by);
        stack.push(k, extras.values[0], extras.places[0]);
        let some = k.any(k.ge(extras.places[1], k.i32(0)));
        let stack = k.if_else(
            "a third survivor in a cell",
            some,
            || {
                let mut stack = Stack::from_flat(&stack.flat());
                stack.append_from(k, &extras, 1);
                stack.flat()
            },
            || stack.flat(),
        );
        Stack::from_flat(&stack)
    }
}

/// A few survivors of each lane, the last that came on top; no place is −1.
struct Stack {
    values: Vec<Value>,
    places: Vec<Value>,
    /// A place that there was no room for.
    overflow: Value,
}

impl Stack {
    fn empty(k: &Kernel, depth: usize) -> Stack {
        let none = k.splat(k.i32(-1));
        Stack { values: vec![k.splat(k.f32(0.0)); depth], places: vec![none; depth], overflow: none }
    }

    /// As the state of a loop.
    fn flat(&self) -> Vec<Value> {
        [&self.values[..], &self.places, &[self.overflow]].concat()
    }

    fn from_flat(flat: &[Value]) -> Stack {
        let depth = flat.len() / 2;
        let (values, places) = flat.split_at(depth);
        Stack { values: values.to_vec(), places: places[..depth].to_vec(), overflow: places[depth] }
    }

    /// Puts a logit and its place on top of its lane, where the mask holds. Once a lane has overflowed it does at every
    /// further one, so the last is enough to note.
    fn insert(&mut self, k: &Kernel, mask: Value, value: Value, place: Value) {
        let depth = self.values.len();
        self.overflow = k.choose(mask, self.places[depth - 1], self.overflow);
        for level in (1..depth).rev() {
            self.values[level] = k.choose(mask, self.values[level - 1], self.values[level]);
            self.places[level] = k.choose(mask, self.places[level - 1], self.places[level]);
        }
        self.values[0] = k.choose(mask, value, self.values[0]);
        self.places[0] = k.choose(mask, place, self.places[0]);
    }

    /// Puts on top what has a place. An overflow noted before, of another stack too, stays noted.
    fn push(&mut self, k: &Kernel, value: Value, place: Value) {
        let noted = self.overflow;
        self.insert(k, k.ge(place, k.i32(0)), value, place);
        self.overflow = k.max(noted, self.overflow);
    }

    /// Puts another stack on top.
    fn append(&mut self, k: &Kernel, other: &Stack) {
        self.append_from(k, other, 0);
    }

    /// Puts another stack on top, but for its uppermost levels.
    fn append_from(&mut self, k: &Kernel, other: &Stack, from: usize) {
        for level in from..other.values.len() {
            self.push(k, other.values[level], other.places[level]);
        }
        self.overflow = k.max(self.overflow, other.overflow);
    }

    fn rotated(&self, k: &Kernel, by: Value) -> Stack {
        let rotate = |values: &[Value]| values.iter().map(|&v| k.rotate(v, by)).collect();
        Stack {
            values: rotate(&self.values),
            places: rotate(&self.places),
            overflow: k.rotate(self.overflow, by),
        }
    }
}

impl Survivors {
    pub(super) fn new(b: &Block<'_>) -> Survivors {
        let depth = b.layout.depth;
        Survivors {
            values: b.k.scratch(Elem::F32, &[SUBLANES, depth * LANES], Space::Vmem),
            places: b.k.scratch(Elem::I32, &[SUBLANES, (depth + 1) * LANES], Space::Vmem),
        }
    }

    fn stack(&self, b: &Block<'_>) -> Stack {
        let (k, depth) = (b.k, b.layout.depth);
        let level = |memory: &Memory, level: usize| k.load(memory, k.i32((level * LANES) as i32));
        Stack {
            values: (0..depth).map(|i| level(&self.values, i)).collect(),
            places: (0..depth).map(|i| level(&self.places, i)).collect(),
            overflow: level(&self.places, depth),
        }
    }

    fn write(&self, b: &Block<'_>, stack: &Stack) {
        let k = b.k;
        let places = stack.places.iter().chain([&stack.overflow]);
        for (memory, values) in
            [(&self.values, stack.values.iter().collect()), (&self.places, places.collect::<Vec<_>>())]
        {
            for (level, &value) in values.into_iter().enumerate() {
                k.store(memory, k.i32((level * LANES) as i32), value);
            }
        }
    }

    fn read(&self, b: &Block<'_>) -> Gathered {
        let k = b.k;
        let stack = self.stack(b);
        let overflow = k.any(k.ge(stack.overflow, k.i32(0)));
        Gathered {
            indices: stack.places.iter().map(|&place| index_of(b, place)).collect(),
            values: stack.values,
            overflow,
        }
    }
}

/// The index of the entry whose register a cell's lane, rotated as its cell is, names; −1 where it names none.
fn index_of(b: &Block<'_>, place: Value) -> Value {
    let k = b.k;
    let (chunk, within) = if b.layout.chunks == 1 {
        (k.i32(0), place)
    } else {
        let shift = b.layout.chunk.trailing_zeros();
        (k.shr(place, shift), k.and(place, k.i32(b.layout.chunk as i32 - 1)))
    };
    let group = k.shr(within, b.layout.cell.trailing_zeros());
    let by = Cells::rotation(b, chunk, group);
    let column = k.and(k.sub(k.lane(), by), k.i32(LANES as i32 - 1));
    let index = k.add(k.shl(place, LANES.trailing_zeros()), column);
    k.choose(k.lt(place, k.i32(0)), k.i32(-1), index)
}

/// The order key that a float has after cleaning.
pub(super) fn key_of(b: &Block<'_>, value: Value) -> Value {
    order_key(b.k, clean(b.k, b.k.bits(value)))
}
