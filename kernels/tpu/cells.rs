//! The first pass: what a row's cells hold at most, and who of them can matter.
//!
//! A cell is one lane of a few consecutive registers. The pass keeps each cell's largest logit, where it lies, and
//! the second largest. A bound that the k-th largest of 256 maxima of cells gives, or the distance from the maximum
//! at which weights vanish, then leaves few survivors, and nearly all of them are maxima of their cells.

use super::block::Block;
use super::threshold::{count_lanes, just_below, keys, search, Probe};
use crate::mosaic::{Elem, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, is_nan, order_key, NEG_INF_KEY};

/// Bins that the bound is taken from, in registers.
const BINS: usize = 2;
/// Largest k that the bins give a bound for.
pub(super) const LARGEST_BINNED_K: usize = BINS * LANES;
/// Cells that are looked at between two branches.
const BATCH: usize = 32;

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
    /// Order keys of the bins' maxima.
    bins: [Value; BINS],
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
        // NaN stays in a maximum. A maximum that let it go would cost the row's status, and no more: a NaN is never
        // taken for a survivor.
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
        Summary { max_key: keys(k, max), had_nan: k.trunc(state[BINS]), bins: bins.map(|bin| keys(k, bin)) }
    }

    /// One chunk of the pass; the state is the bins. With `clean`, NaN counts as −inf and is marked in one more value.
    fn chunk(&self, b: &Block<'_>, chunk: &Memory, number: Value, state: &[Value], clean: bool) -> Vec<Value> {
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
        let bins = summary.bins.map(|bin| b.short(bin));
        let low = b.short(k.splat(k.i32(NEG_INF_KEY)));
        let high = k.add(b.short(summary.max_key), k.i32(1));
        let found = search(k, "bound by the bins", low, high, b.steps(), |place| {
            let ones = bins.map(|bin| k.choose(k.ge(bin, place), k.f32(1.0), k.f32(0.0)));
            let count = count_lanes(k, k.fadd(ones[0], ones[1]));
            Probe { reaches: k.ge(count, wanted), exact: Some(k.eq(count, wanted)) }
        });
        b.long(found)
    }

    /// All logits whose key is at least `threshold`, which is above that of −inf.
    pub(super) fn survivors(&self, b: &Block<'_>, memory: &Survivors, threshold: Value) -> Gathered {
        let (k, depth) = (b.k, b.layout.depth);
        let below = just_below(k, threshold);
        let cells = b.layout.cells();
        let batch = BATCH.min(cells);
        let batches = cells / batch;
        // One place more than there is room for tells an overflow.
        let start: Vec<Value> = (0..2 * depth + 1)
            .map(|i| k.splat(if i < depth { k.f32(0.0) } else { k.i32(-1) }))
            .collect();
        let insert_batch = |at: Value, count: usize, number: Value, state: &[Value]| {
            let mut state = state.to_vec();
            let [best, second, place] =
                [&self.best, &self.second, &self.place].map(|memory| k.registers(memory, at, count));
            let mut most = k.splat(k.f32(f32::NEG_INFINITY));
            for cell in 0..count {
                let at = k.i32((cell * LANES) as i32);
                let value = k.load(&best, at);
                insert(b, &mut state, k.above(value, below), value, k.load(&place, at));
                most = k.fmax(most, k.load(&second, at));
            }
            let crowded = k.any(k.above(most, below));
            k.set(&self.crowded, number, k.choose(crowded, k.i32(1), k.i32(0)));
            state
        };
        let mut state = k.for_each_of("maxima of cells", k.i32(batches as i32), &start, |number, state| {
            insert_batch(k.mul(number, k.i32(batch as i32)), batch, number, state)
        });
        let rest = cells - batches * batch;
        if rest > 0 {
            state = insert_batch(k.i32((batches * batch) as i32), rest, k.i32(batches as i32), &state);
        }
        memory.write(b, &state);
        // Room for more is needed only where there is room for these.
        let overflow = k.any(k.ge(state[2 * depth], k.i32(0)));
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
                k.for_each("such cells", length, [], |i, []| {
                    self.rescan(b, memory, k.get(&self.list, i), below);
                    []
                });
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

    /// Adds the survivors of a cell register that are not their cell's maximum.
    fn rescan(&self, b: &Block<'_>, memory: &Survivors, cell: Value, below: Value) {
        const EXTRAS: usize = 3;
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
        let mut values = vec![k.splat(k.f32(0.0)); EXTRAS];
        let mut places = vec![k.splat(k.i32(-1)); EXTRAS + 1];
        for register in 0..layout.cell {
            let x = k.load(&rows, k.i32((register * LANES) as i32));
            let here = k.add(at, k.i32(register as i32));
            let extra = k.both(k.above(x, below), k.ne(place, here));
            for level in (1..=EXTRAS).rev() {
                places[level] = k.choose(extra, places[level - 1], places[level]);
            }
            for level in (1..EXTRAS).rev() {
                values[level] = k.choose(extra, values[level - 1], values[level]);
            }
            places[0] = k.choose(extra, here, places[0]);
            values[0] = k.choose(extra, x, values[0]);
        }
        let add = |level: usize| {
            let mut state = memory.state(b);
            let place = k.rotate(places[level], by);
            insert(b, &mut state, k.ge(place, k.i32(0)), k.rotate(values[level], by), place);
            memory.write(b, &state);
        };
        add(0);
        let some = |level: usize| {
            let ones = k.choose(k.ge(places[level], k.i32(0)), k.f32(1.0), k.f32(0.0));
            k.above(k.over_all(Reduce::Max, ones), k.f32(0.0))
        };
        k.when("a third survivor", some(1), || {
            add(1);
            k.when("a fourth", some(2), || add(2));
            // More than that in one cell: as if a lane had overflowed.
            k.when("more", some(EXTRAS), || {
                let at = k.i32((layout.depth * LANES) as i32);
                k.store(&memory.places, at, k.splat(k.i32(0)));
            });
        });
    }
}

/// Puts a logit and its place on top of the survivors of its lane, where the mask holds.
fn insert(b: &Block<'_>, state: &mut [Value], mask: Value, value: Value, place: Value) {
    let (k, depth) = (b.k, b.layout.depth);
    let (values, places) = state.split_at_mut(depth);
    for level in (1..=depth).rev() {
        places[level] = k.choose(mask, places[level - 1], places[level]);
    }
    for level in (1..depth).rev() {
        values[level] = k.choose(mask, values[level - 1], values[level]);
    }
    values[0] = k.choose(mask, value, values[0]);
    places[0] = k.choose(mask, place, places[0]);
}

impl Survivors {
    pub(super) fn new(b: &Block<'_>) -> Survivors {
        let depth = b.layout.depth;
        Survivors {
            values: b.k.scratch(Elem::F32, &[SUBLANES, depth * LANES], Space::Vmem),
            places: b.k.scratch(Elem::I32, &[SUBLANES, (depth + 1) * LANES], Space::Vmem),
        }
    }

    /// Every level: `depth` of logits, one more of places.
    fn state(&self, b: &Block<'_>) -> Vec<Value> {
        let (k, depth) = (b.k, b.layout.depth);
        let at = |level: usize| k.i32((level * LANES) as i32);
        let mut state: Vec<Value> = (0..depth).map(|level| k.load(&self.values, at(level))).collect();
        state.extend((0..=depth).map(|level| k.load(&self.places, at(level))));
        state
    }

    fn write(&self, b: &Block<'_>, state: &[Value]) {
        let (k, depth) = (b.k, b.layout.depth);
        for (i, &value) in state.iter().enumerate() {
            let (memory, level) = if i < depth { (&self.values, i) } else { (&self.places, i - depth) };
            k.store(memory, k.i32((level * LANES) as i32), value);
        }
    }

    fn read(&self, b: &Block<'_>) -> Gathered {
        let (k, depth) = (b.k, b.layout.depth);
        let state = self.state(b);
        let overflow = k.any(k.ge(state[2 * depth], k.i32(0)));
        let lane = k.lane();
        let index = |place: Value| {
            let (chunk, within) = if b.layout.chunks == 1 {
                (k.i32(0), place)
            } else {
                let shift = b.layout.chunk.trailing_zeros();
                (k.shr(place, shift), k.and(place, k.i32(b.layout.chunk as i32 - 1)))
            };
            let group = k.shr(within, b.layout.cell.trailing_zeros());
            let by = Cells::rotation(b, chunk, group);
            let column = k.and(k.sub(lane, by), k.i32(LANES as i32 - 1));
            let index = k.add(k.shl(place, LANES.trailing_zeros()), column);
            k.choose(k.lt(place, k.i32(0)), k.i32(-1), index)
        };
        Gathered {
            values: state[..depth].to_vec(),
            indices: state[depth..2 * depth].iter().map(|&place| index(place)).collect(),
            overflow,
        }
    }
}

/// The order key that a float has after cleaning.
pub(super) fn key_of(b: &Block<'_>, value: Value) -> Value {
    order_key(b.k, clean(b.k, b.k.bits(value)))
}
