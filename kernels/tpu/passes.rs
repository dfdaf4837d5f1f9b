//! Passes over the entries of a block. They compute counts, sums, and the index where a running sum exceeds a bound.
//!
//! A pass processes all logits or the candidate list. The list has the same form as the logits, but fewer registers.

use super::candidate_list::CandidateList;
use super::context::{Context, NO_INDEX};
use super::keys::edge_below;
use super::lane_sums::{count_lanes, inclusive_sums, sum_lanes, sum_stripe, Halves};
use super::layout::CANDIDATE_DEPTH;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Elem, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};

/// The number of independent counts in a pass. With several counts, an addition does not wait for the previous
/// one.
const PARTS: usize = 4;

/// The memory that passes use.
pub(super) struct Passes {
    /// The weights of the block's logits, if the layout has space for them.
    weights: Option<Memory>,
    /// One chunk of each stripe. The rows can have different chunks.
    focus: Memory,
}

/// The entries that a pass processes.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// All logits.
    AllLogits,
    /// The entries at or above a bound, grouped by chunk. Within a chunk they have no order. Unused places contain
    /// −inf.
    Candidates(&'a CandidateList),
}

/// The registers of one iteration of a pass.
pub(super) struct Iteration<'a> {
    logits: &'a Memory,
    /// The weights of these logits, if the layout has space for them. The first pass over weights writes them.
    weights: Option<Memory>,
    /// The number of the first chunk of the iteration.
    chunk: Value,
    chunks: usize,
    registers_per_chunk: usize,
}

/// The name of a pass, and the largest number of chunks that it processes per iteration.
pub(super) type Label<'a> = (&'a str, usize);

impl Passes {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Passes {
        let width = cx.layout.padded() * LANES;
        let weights =
            cx.layout.keep_weights.then(|| cx.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem));
        let focus = cx.k.scratch(Elem::F32, &[SUBLANES, cx.layout.chunk * LANES], Space::Vmem);
        Passes { weights, focus }
    }

    /// Makes one pass over the source.
    fn pass(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        (label, together): Label<'_>,
        start: &[Value],
        each: impl Fn(&Iteration<'_>, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let k = cx.k;
        match source {
            Source::AllLogits => cx.logits.pass_by(label, together, start, |logits, chunk, chunks, state| {
                let registers_per_chunk = cx.layout.chunk;
                let at = k.mul(chunk, k.i32(registers_per_chunk as i32));
                let registers = |all| k.registers(all, at, chunks * registers_per_chunk);
                let weights = self.weights.as_ref().map(registers);
                each(&Iteration { logits, weights, chunk, chunks, registers_per_chunk }, state)
            }),
            Source::Candidates(list) => {
                list.pass(cx, label, start, |logits, weights, chunk, chunks, state| {
                    let weights = Some(weights.clone());
                    let registers_per_chunk = CANDIDATE_DEPTH;
                    each(&Iteration { logits, weights, chunk, chunks, registers_per_chunk }, state)
                })
            }
        }
    }

    /// Counts the logits of each row above each of the floats `edges`. This takes one pass.
    pub(super) fn count<const N: usize>(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: &str,
        edges: [Value; N],
    ) -> [Value; N] {
        let k = cx.k;
        let start = vec![k.splat(k.f32(0.0)); N * PARTS];
        let counts = self.pass(cx, source, (label, 2), &start, |iteration, state| {
            let mut state = state.to_vec();
            for register in iteration.all() {
                let x = iteration.logit(cx, register);
                for (i, &edge) in edges.iter().enumerate() {
                    let part = i * PARTS + register % PARTS;
                    let one = k.choose(k.above(x, edge), k.f32(1.0), k.f32(0.0));
                    state[part] = k.fadd(state[part], one);
                }
            }
            state
        });
        std::array::from_fn(|i| {
            let parts = &counts[i * PARTS..(i + 1) * PARTS];
            let sum = parts[1..].iter().fold(parts[0], |sum, &part| k.fadd(sum, part));
            count_lanes(k, sum)
        })
    }

    /// Returns the sum over all entries of the values that `value` returns for each register.
    pub(super) fn sum(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: Label<'_>,
        value: impl Fn(&Iteration<'_>, usize) -> Value,
    ) -> Wide {
        let k = cx.k;
        let start = [k.splat(k.i32(0)); 2];
        let sums = self.pass(cx, source, label, &start, |iteration, state| {
            let sum = iteration.sum(cx, iteration.all(), &value);
            // The sums of the 16-bit halves do not overflow over all iterations.
            let Halves { low, high } = sum.plus(k, Halves { low: state[0], high: state[1] });
            vec![low, high]
        });
        Halves { low: sums[0], high: sums[1] }.total(k)
    }

    /// Computes [`sum`](Passes::sum) for each chunk. The sum of chunk `i` of a stripe is in lane `i` of the stripe.
    pub(super) fn chunk_sums(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: &str,
        value: impl Fn(&Iteration<'_>, usize) -> Value,
    ) -> Wide {
        let k = cx.k;
        let lane = k.lane();
        let start = [k.splat(k.i32(0)); 2];
        let sums = self.pass(cx, source, (label, 1), &start, |iteration, state| {
            let mut sums = Wide { low: state[0], high: state[1] };
            for chunk in 0..iteration.chunks {
                let sum = iteration.sum(cx, iteration.of_chunk(chunk), &value).over_stripe(k);
                let here = k.eq(lane, k.add(iteration.chunk, k.i32(chunk as i32)));
                sums = k.wselect(here, sum, sums);
            }
            vec![sums.low, sums.high]
        });
        Wide { low: sums[0], high: sums[1] }
    }

    /// Returns the lowest index of each row's maximum.
    pub(super) fn greedy(&self, cx: &Context<'_>, max_key: Value) -> Value {
        let k = cx.k;
        let edge = edge_below(k, max_key);
        let none = k.splat(k.i32(NO_INDEX));
        let found = cx.logits.pass("first maximum, in the logits", &[none], |chunk, number, state| {
            let first = k.add(cx.in_stripe(k.lane()), k.mul(number, k.i32((cx.layout.chunk * LANES) as i32)));
            let mut least = state[0];
            for register in 0..cx.layout.chunk {
                let at = k.i32((register * LANES) as i32);
                let here = k.above(k.load(chunk, at), edge);
                least = k.min(least, k.choose(here, k.add(first, at), none));
            }
            vec![least]
        });
        k.trunc(k.over_row(Reduce::Min, k.to_float(found[0])))
    }

    /// Finds the first index at which the running sum of values exceeds `bound`. If the sum never exceeds it, the
    /// result can be any index.
    ///
    /// `value` receives raw logits and their indices. `sums` are the chunk sums of these values. The search descends
    /// from the chunks to the registers of one chunk and then to the lanes of one register.
    pub(super) fn locate(
        &self,
        cx: &Context<'_>,
        sums: Wide,
        bound: Wide,
        value: impl Fn(Value, Value) -> Value,
    ) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let (place, bound) = first_lane_beyond(cx, sums, bound);
        let chunk = k.min(lane_of(cx, place), k.i32(layout.chunks as i32 - 1));
        self.focus_on(cx, chunk);
        match k.stripes() {
            1 => self.locate_in_chunk(cx, chunk, bound, value),
            _ => self.locate_in_stripe(cx, k.shr(place, LANES.trailing_zeros()), chunk, bound, value),
        }
    }

    /// Finds the index in a chunk at which the running sum of the values exceeds `bound`. This is for rows that have
    /// one stripe.
    fn locate_in_chunk(
        &self,
        cx: &Context<'_>,
        chunk: Value,
        bound: Wide,
        value: impl Fn(Value, Value) -> Value,
    ) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let lane = k.lane();
        let first = k.mul(chunk, k.i32((layout.chunk * LANES) as i32));
        let zero = k.splat(k.i32(0));
        let mut sums = Wide { low: zero, high: zero };
        let at = |register: usize| k.i32((register * LANES) as i32);
        // The value of each entry replaces its logit. It is an integer, stored as the bits of a float.
        let values: Vec<Value> = (0..layout.chunk)
            .map(|register| {
                let x = k.load(&self.focus, at(register));
                let value = value(x, k.add(first, k.add(lane, at(register))));
                k.store(&self.focus, at(register), k.from_bits(value));
                value
            })
            .collect();
        for (number, &register) in values.iter().enumerate() {
            let sum = sum_lanes(k, register);
            let here = k.eq(lane, k.i32(number as i32));
            sums = k.wselect(here, sum, sums);
        }
        let (register, bound) = first_lane_beyond(cx, sums, bound);
        let mut values = zero;
        for number in 0..layout.chunk {
            let content = k.bits(k.load(&self.focus, at(number)));
            values = k.choose(k.eq(register, k.i32(number as i32)), content, values);
        }
        let (column, _) = first_lane_beyond(cx, k.widen(values), bound);
        k.add(first, k.add(k.shl(register, LANES.trailing_zeros()), column))
    }

    /// Like [`locate_in_chunk`](Passes::locate_in_chunk), for a chunk of one stripe. This is for rows that have several
    /// stripes.
    fn locate_in_stripe(
        &self,
        cx: &Context<'_>,
        stripe: Value,
        chunk: Value,
        bound: Wide,
        value: impl Fn(Value, Value) -> Value,
    ) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let (lane, zero) = (k.lane(), k.splat(k.i32(0)));
        let first = k.mul(chunk, k.i32((layout.chunk * LANES) as i32));
        let first = k.add(first, k.mul(stripe, k.i32(layout.stripe() as i32)));
        // The chunk is distributed over all stripes, in groups of one register per stripe. Stripe `s` receives the
        // registers `s · groups` to `(s + 1) · groups - 1`.
        let (stripes, groups) = (k.stripes(), layout.chunk / k.stripes());
        let own = k.eq(k.stripe(), stripe);
        let first_of_stripe = k.add(first, k.add(lane, k.mul(k.stripe(), k.i32((groups * LANES) as i32))));
        let mut sums = Wide { low: zero, high: zero };
        let mut values = Vec::new();
        for group in 0..groups {
            let register = |s: usize| {
                let x = k.load(&self.focus, k.i32(((s * groups + group) * LANES) as i32));
                k.choose(own, k.bits(x), zero)
            };
            let x = k.from_bits(k.over_stripes_of(Reduce::Or, (0..stripes).map(register).collect()));
            let value = value(x, k.add(first_of_stripe, k.i32((group * LANES) as i32)));
            sums = k.wselect(k.eq(lane, k.i32(group as i32)), sum_stripe(k, value), sums);
            values.push(value);
        }
        let (place, bound) = first_lane_beyond(cx, sums, bound);
        let (stripe, group) = (k.shr(place, LANES.trailing_zeros()), lane_of(cx, place));
        let chosen = values
            .into_iter()
            .enumerate()
            .fold(zero, |chosen, (number, value)| k.choose(k.eq(group, k.i32(number as i32)), value, chosen));
        let chosen = k.choose(k.eq(k.stripe(), stripe), chosen, zero);
        let (place, _) = first_lane_beyond(cx, k.widen(chosen), bound);
        let register = k.add(k.mul(stripe, k.i32(groups as i32)), group);
        k.add(first, k.add(k.shl(register, LANES.trailing_zeros()), lane_of(cx, place)))
    }

    /// Copies one chunk of each stripe to `focus`. `chunk` contains the number of the chunk for each row.
    fn focus_on(&self, cx: &Context<'_>, chunk: Value) {
        let (k, layout) = (cx.k, cx.layout);
        let rows = layout.rows as i32;
        let row_of_sublane = match k.stripes() {
            1 => k.sublane(),
            _ => k.and(k.sublane(), k.i32(rows - 1)),
        };
        k.for_each("copy a chunk of each row", k.i32(rows), [], |row, []| {
            let this = k.eq(row_of_sublane, row);
            let number = k.over_all(Reduce::Max, k.choose(this, k.to_float(chunk), k.f32(0.0)));
            let number = k.truncate_scalar(number);
            let rows = cx.logits.look_up(k.mul(number, k.i32(layout.chunk as i32)), layout.chunk);
            for register in 0..layout.chunk {
                let at = k.i32((register * LANES) as i32);
                let copied = k.load(&rows, at);
                let kept = match layout.rows {
                    1 => copied,
                    _ => k.choose(this, copied, k.load(&self.focus, at)),
                };
                k.store(&self.focus, at, kept);
            }
            []
        });
    }
}

/// Returns the first place at which the running sum of a row's values exceeds `bound`, and `bound` minus the sum of the
/// values before this place. A place is the number of a lane, counted through all stripes of the row.
fn first_lane_beyond(cx: &Context<'_>, values: Wide, bound: Wide) -> (Value, Wide) {
    let k = cx.k;
    let sums = inclusive_sums(k, values);
    let passed = k.not(k.wlt(bound, sums));
    let lane = count_lanes(k, k.choose(passed, k.f32(1.0), k.f32(0.0)));
    let before = |part: Value| sum_lanes(k, k.choose(passed, part, k.i32(0)));
    let low = before(values.low);
    let before = match values.is_short() {
        true => low,
        false => k.wadd(low, k.wshl(k.wshl(before(values.high), 16), 16)),
    };
    (lane, k.wsub(bound, before))
}

/// Returns the lane of a place that [`first_lane_beyond`] returned.
fn lane_of(cx: &Context<'_>, place: Value) -> Value {
    match cx.k.stripes() {
        1 => place,
        _ => cx.k.and(place, cx.k.i32(LANES as i32 - 1)),
    }
}

/// Returns the sum of chunk sums.
pub(super) fn total(cx: &Context<'_>, sums: Wide) -> Wide {
    let k = cx.k;
    k.wadd(sum_lanes(k, sums.low), k.wshl(k.wshl(sum_lanes(k, sums.high), 16), 16))
}

impl Iteration<'_> {
    /// Returns all registers of the iteration.
    fn all(&self) -> std::ops::Range<usize> {
        0..self.chunks * self.registers_per_chunk
    }

    /// Returns the registers of one chunk of the iteration.
    fn of_chunk(&self, chunk: usize) -> std::ops::Range<usize> {
        chunk * self.registers_per_chunk..(chunk + 1) * self.registers_per_chunk
    }

    /// Returns the raw logits of a register.
    pub(super) fn logit(&self, cx: &Context<'_>, register: usize) -> Value {
        cx.k.load(self.logits, cx.k.i32((register * LANES) as i32))
    }

    /// Returns the weights of a register, if they are stored.
    pub(super) fn kept_weight(&self, cx: &Context<'_>, register: usize) -> Option<Value> {
        self.weights.as_ref().map(|weights| cx.k.load(weights, cx.k.i32((register * LANES) as i32)))
    }

    /// Stores the weights of a register, if there is space.
    pub(super) fn keep_weight(&self, cx: &Context<'_>, register: usize, weight: Value) {
        if let Some(weights) = &self.weights {
            cx.k.store(weights, cx.k.i32((register * LANES) as i32), weight);
        }
    }

    /// Returns the sum over registers of the values that `value` returns. Each lane has its own sum.
    fn sum(
        &self,
        cx: &Context<'_>,
        registers: std::ops::Range<usize>,
        value: impl Fn(&Self, usize) -> Value,
    ) -> Halves {
        Halves::sum_of(cx.k, registers, |register| value(self, register))
    }
}
