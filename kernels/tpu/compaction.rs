//! The k-slices of programs with more slots than lanes. One pass over the logits moves the entries that top-k keeps to
//! the slots.
//!
//! The pass skips a chunk if no row of the block needs it. A row needs a chunk in which an entry reaches the threshold
//! of top-k, unless the slots of the row already contain all kept entries. In the other chunks, the pass moves the kept
//! entries of each register twice:
//!
//! 1. In each sublane, the kept entries move to the first lanes. They keep their order.
//! 2. These entries are rotated to the lane of the first free slot.
//!
//! Each movement has seven steps: one for each bit of a distance in lanes. The step for a bit moves the entries whose
//! distance has this bit.

use super::context::{Context, Outcome};
use super::k_slices::KSlices;
use super::keys::{edge_below, float_of_key, order_keys};
use super::lane_sums::sum_of_stripes_before;
use super::sampling::Sampling;
use crate::kernels::program_arrays::Column;
use crate::mlir::mosaic::{Kernel, Memory, Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::{has_weight, kept_weight, survives_top_k};

/// The number of registers per iteration. The movements of one register are a chain of dependent rotations. With
/// several registers, their chains overlap.
const TOGETHER: usize = 4;

/// The entries of one register.
struct Entries {
    keys: Value,
    /// The index of the entry in lane 0 of stripe 0.
    first: Value,
    /// Whether top-k keeps each entry.
    kept: Value,
}

/// The kept entries of one register, after the movement to the lanes of their slots.
struct Moved {
    /// The index of each entry plus 1.
    index: Value,
    keys: Value,
    /// The number of the register that contains the slot of the entry. It is −1 in a lane without an entry.
    register: Value,
    /// The number of kept entries in each sublane.
    count: Value,
}

/// Writes the k-slices of a block.
pub(super) fn write(cx: &Context<'_>, slices: &KSlices, sampling: &Sampling, outcome: &Outcome) {
    let (k, layout) = (cx.k, cx.layout);
    k.comment("k-slices");
    let registers = slices.registers();
    // During the pass, a used slot contains the index of its entry plus 1, and a free slot contains 0. Each stripe
    // fills different slots, so a bitwise OR combines the stripes of a row.
    for register in 0..registers {
        slices.store(k, register, [k.i32(0); 3]);
    }
    let before = match k.stripes() {
        1 => k.splat(k.i32(0)),
        _ => kept_in_stripes_before(cx, outcome),
    };
    let edge = edge_below(k, outcome.threshold);
    let all = k.eq(outcome.threshold, k.i32(NEG_INF_KEY));
    // Ties that top-k does not keep also reach the threshold. So the pass also counts the kept entries: a row needs no
    // chunk after its last kept entry.
    let slots = k.i32(cx.spec.slots() as i32);
    let most = k.choose(k.eq(cx.param(Column::K), k.i32(0)), slots, cx.param(Column::K));
    cx.logits.pass("chunks of the k-slices", &[before], |chunk, number, state| {
        let reaches = (0..layout.chunk).map(|register| {
            let x = k.load(chunk, k.i32((register * LANES) as i32));
            k.above(x, edge)
        });
        let reaches = reaches.reduce(|a, b| k.either(a, b)).expect("a chunk has registers");
        let missing = k.lt(state[0], most);
        let needed = k.any(k.both(k.either(reaches, all), missing));
        let move_entries = || {
            let iterations = k.i32((layout.chunk / TOGETHER) as i32);
            k.for_each_of("registers of the k-slices", iterations, state, |iteration, state| {
                let mut filled = state[0];
                let moved: Vec<Moved> = (0..TOGETHER)
                    .map(|next| {
                        let register = k.add(k.mul(iteration, k.i32(TOGETHER as i32)), k.i32(next as i32));
                        let moved = move_to_slots(cx, &entries(cx, chunk, number, register, outcome), filled);
                        filled = k.add(filled, moved.count);
                        moved
                    })
                    .collect();
                store(k, slices, &moved);
                vec![filled]
            })
        };
        k.if_else("a chunk can have kept entries", needed, move_entries, || state.to_vec())
    });
    for register in 0..registers {
        let [indices, keys] = slices.load(k, register).map(|value| k.over_stripes(Reduce::Or, value));
        let (used, index) = (k.lt(k.i32(0), indices), k.sub(indices, k.i32(1)));
        let is_greedy = k.eq(index, outcome.greedy);
        let weighed = has_weight(k, used, k.not(sampling.greedy_row), is_greedy);
        let weight = k.choose(weighed, sampling.weight_of(cx, float_of_key(k, keys)), k.i32(0));
        slices.store(k, register, [index, keys, kept_weight(k, weight, outcome.least_weight)]);
    }
}

/// Returns the entries of a register of a chunk. `number` is the number of the chunk.
fn entries(cx: &Context<'_>, chunk: &Memory, number: Value, register: Value, outcome: &Outcome) -> Entries {
    let k = cx.k;
    let keys = order_keys(k, k.load(&k.registers(chunk, register, 1), k.i32(0)));
    let first = k.add(k.mul(number, k.i32(cx.layout.chunk as i32)), register);
    let first = k.mul(first, k.i32(LANES as i32));
    let index = k.add(cx.in_stripe(k.lane()), first);
    let kept = survives_top_k(k, keys, index, outcome.threshold, outcome.last_tie);
    Entries { keys, first, kept: k.both(kept, k.lt(index, k.i32(cx.spec.vocab as i32))) }
}

/// Returns a number for each stripe: the number of kept entries in the earlier stripes of the row.
fn kept_in_stripes_before(cx: &Context<'_>, outcome: &Outcome) -> Value {
    let k = cx.k;
    let start = [k.splat(k.i32(0))];
    let counts = cx.logits.pass("kept entries of the stripes", &start, |chunk, number, state| {
        k.for_each_of("registers of a chunk", k.i32(cx.layout.chunk as i32), state, |register, state| {
            let kept = entries(cx, chunk, number, register, outcome).kept;
            vec![k.add(state[0], k.one_where(kept))]
        })
    });
    sum_of_stripes_before(k, k.widen(counts[0])).low
}

/// Moves the kept entries of a register to the lanes of their slots. The first `filled` slots are already used.
fn move_to_slots(cx: &Context<'_>, entries: &Entries, filled: Value) -> Moved {
    let (k, lane, last_lane) = (cx.k, cx.k.lane(), LANES as i32 - 1);
    let one = k.one_where(entries.kept);
    let through = inclusive_counts(k, one);
    let count = k.trunc(k.over_lanes(Reduce::Add, k.to_float(one)));

    let distance = k.choose(entries.kept, k.add(k.sub(lane, through), k.i32(1)), k.i32(0));
    let [distance, keys] = compacted(k, distance, entries.keys);
    let start = k.and(filled, k.i32(last_lane));
    let [source, keys] = rotated(k, start, [k.add(lane, distance), keys]);

    let rank = k.and(k.sub(lane, start), k.i32(last_lane));
    let register = k.shr(k.add(filled, rank), LANES.trailing_zeros());
    let index = k.add(cx.in_stripe(source), k.add(entries.first, k.i32(1)));
    Moved { index, keys, register: k.choose(k.lt(rank, count), register, k.i32(-1)), count }
}

/// Writes moved entries to their slots. Drops entries without a slot: only the padding rows of a block can have more
/// kept entries than slots.
fn store(k: &Kernel, slices: &KSlices, moved: &[Moved]) {
    for register in 0..slices.registers() {
        let entries = moved.iter().fold(slices.load(k, register), |[indices, keys], moved| {
            let here = k.eq(moved.register, k.i32(register as i32));
            [k.choose(here, moved.index, indices), k.choose(here, moved.keys, keys)]
        });
        slices.store_entries(k, register, entries);
    }
}

/// Returns the inclusive prefix sums over the lanes of each sublane.
fn inclusive_counts(k: &Kernel, ones: Value) -> Value {
    let lane = k.lane();
    bits_of_lanes().fold(ones, |sums, bit| {
        let earlier = k.choose(k.ge(lane, k.i32(bit)), k.rotate(sums, k.i32(bit)), k.i32(0));
        k.add(sums, earlier)
    })
}

/// Moves each value to a lower lane. `distance` contains the number of lanes. Returns the distances and the values in
/// their new lanes. A value with distance 0 does not move, but a moved value can overwrite it.
///
/// The caller chooses the distances so that the kept values fill the first lanes, in their order and without gaps.
fn compacted(k: &Kernel, distance: Value, values: Value) -> [Value; 2] {
    // The steps begin with the lowest bit. In this order, two kept entries are never in the same lane.
    bits_of_lanes().fold([distance, values], |[distance, values], bit| {
        let by = k.i32(LANES as i32 - bit);
        let [arriving, other] = [distance, values].map(|value| k.rotate(value, by));
        let has_bit = |distance: Value| k.ne(k.and(distance, k.i32(bit)), k.i32(0));
        let arrives = has_bit(arriving);
        let stays = k.choose(has_bit(distance), k.i32(0), distance);
        [k.choose(arrives, arriving, stays), k.choose(arrives, other, values)]
    })
}

/// Rotates the values of each sublane towards higher lanes. `by` contains the number of lanes for each sublane.
fn rotated(k: &Kernel, by: Value, values: [Value; 2]) -> [Value; 2] {
    bits_of_lanes().fold(values, |values, bit| {
        let moves = k.ne(k.and(by, k.i32(bit)), k.i32(0));
        values.map(|value| k.choose(moves, k.rotate(value, k.i32(bit)), value))
    })
}

/// Returns the powers of two below the number of lanes.
fn bits_of_lanes() -> impl Iterator<Item = i32> {
    (0..LANES.trailing_zeros()).map(|bit| 1 << bit)
}
