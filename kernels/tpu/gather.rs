//! Gathers the survivors of a threshold into a few registers.
//!
//! Nearly all survivors are the maxima of their groups. The first step gathers those. The second step gathers the
//! survivors of the few crowded groups. A group is crowded if its second largest logit also reaches the threshold.
//!
//! A group register has one group in each lane of each row. A lane of a group register is crowded if its group is
//! crowded in any row. A word is an integer per lane, with one bit per group register. The bit shows whether this lane
//! of the group register is crowded.

use super::context::Context;
use super::entry_words::{self, empty_words};
use super::keys::{edge_below, EXPONENT};
use super::lane_stack::{empty_stack, LaneStack, SurvivorStack};
use super::prefilter::{index_in_group, Prefilter};
use super::summaries::{cells_together, halves, load};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// The number of crowded lanes that one iteration processes if there are many. Their rotations do not depend on each
/// other, so they fill the cross-lane units.
const MANY_TOGETHER: usize = 8;
/// The number of crowded lanes that one iteration processes if at least three are left, but fewer than
/// [`MANY_TOGETHER`]. One iteration with four lanes takes less time than two iterations with two lanes each.
const SOME_TOGETHER: usize = 4;
/// The number of crowded lanes that one iteration processes if one or two are left.
const FEW_TOGETHER: usize = 2;
/// The number of crowded lanes of a word that one step of the search finds.
const LANES_FOUND: usize = 2;
/// If a block has more crowded lanes than this, their survivors are not gathered, because other methods take less time.
const MOST_CROWDED: usize = 256;
/// The element of the list of crowded lanes that receives the values that are not needed. No step reads it.
const UNUSED: usize = MOST_CROWDED + SOME_TOGETHER;
/// The number of group registers that one word describes.
const GROUPS_IN_WORD: usize = 32;

/// The maximum of a group.
struct Maximum {
    /// The logit, or −inf if the group is crowded.
    logit: Value,
    chunk: Value,
    /// The number of the group register in the chunk.
    group: usize,
    /// See [`Prefilter::place`].
    place: Value,
}

/// The memory for gathering.
pub(super) struct Gather {
    /// The words of each batch of groups: one register per word. Bit `i` of word `w` is for group register `32 w + i`
    /// of the batch.
    crowded: Memory,
    /// The list of crowded lanes, in SMEM: [`LANES`] times the number of the group register, plus the number of the
    /// lane. The last element is for values that are not needed.
    list: Memory,
}

/// The survivors of a threshold, in registers.
pub(super) struct Gathered {
    /// The raw logits.
    pub(super) values: Vec<Value>,
    /// The indices in the row, as floats. A slot without a survivor contains −1.
    pub(super) indices: Vec<Value>,
    /// A mask: whether a lane had more survivors than space.
    pub(super) overflow: Value,
}

impl Gather {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Gather {
        let width = cx.layout.batches() * words(cx) * LANES;
        Gather {
            crowded: cx.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem),
            list: cx.k.scratch(Elem::I32, &[UNUSED + 1], Space::Smem),
        }
    }

    /// Returns all logits whose key is at least `threshold`. `threshold` is the key of a candidate.
    pub(super) fn survivors(&self, cx: &Context<'_>, prefilter: &Prefilter, threshold: Value) -> Gathered {
        let k = cx.k;
        let edge = edge_below(k, threshold);
        let (stack, crowded) = self.gather_maxima(cx, prefilter, edge);
        let full = k.over_all(Reduce::Max, stack.overflow);
        let counts: Vec<Value> = crowded.iter().map(|&count| sum_of_counts(k, count)).collect();
        let count = counts.iter().copied().reduce(|a, b| k.fadd(a, b)).expect("a batch has a word");
        let many = k.above(count, k.f32(MOST_CROWDED as f32));
        let too_many = k.either(many, k.at_least(full, k.f32(0.0)));
        let stack = k.if_else(
            "some groups are crowded",
            k.both(k.above(count, k.f32(0.0)), k.not(too_many)),
            || self.gather_from_crowded(cx, prefilter, edge, &counts, &stack).flat(),
            || stack.flat(),
        );
        let stack = copied(cx, balanced(k, SurvivorStack::from_flat(&stack), cx.layout.slots));
        let LaneStack { fields: [values, indices], overflow } = stack;
        let overflow = k.either(k.at_least(overflow, k.f32(0.0)), too_many);
        Gathered { values, indices, overflow }
    }

    /// Gathers the maxima of the groups that are not crowded, if they are above `edge`. Also returns a register of
    /// integers for each word. The sum of its lanes is the number of crowded lanes that this word of all batches
    /// describes.
    fn gather_maxima(
        &self,
        cx: &Context<'_>,
        prefilter: &Prefilter,
        edge: Value,
    ) -> (SurvivorStack, Vec<Value>) {
        let k = cx.k;
        if !entry_words::fits(cx) {
            let entry = |maximum: Maximum| {
                let Maximum { logit, chunk, group, place } = maximum;
                [logit, index_in_group(cx, chunk, group, place)]
            };
            let pushed = |[logit, _]: [Value; 2]| k.above(logit, edge);
            return self.gather_entries(cx, prefilter, edge, empty_stack(k, cx.layout.depth), entry, pushed);
        }
        let entry = |maximum: Maximum| {
            let Maximum { logit, chunk, group, place } = maximum;
            let survives = k.above(logit, edge);
            [entry_words::word(cx, survives, logit, [chunk, k.i32(group as i32)], place)]
        };
        let pushed = |[word]: [Value; 1]| entry_words::is_entry(cx, word);
        let (words, counts) = self.gather_entries(cx, prefilter, edge, empty_words(cx), entry, pushed);
        (entry_words::unpacked(cx, &words), counts)
    }

    /// Like [`gather_maxima`](Gather::gather_maxima), with entries of any form. `entry` returns the fields of an entry.
    /// `is_pushed` receives the fields after a rotation, and returns a mask: whether the entry is pushed.
    fn gather_entries<const N: usize>(
        &self,
        cx: &Context<'_>,
        prefilter: &Prefilter,
        edge: Value,
        empty: LaneStack<N>,
        entry: impl Fn(Maximum) -> [Value; N],
        is_pushed: impl Fn([Value; N]) -> Value,
    ) -> (LaneStack<N>, Vec<Value>) {
        let (k, layout, together) = (cx.k, cx.layout, cells_together(cx));
        let (batch, in_chunk) = (layout.groups_in_batch(), layout.groups_in_chunk());
        let no_lanes = vec![k.splat(k.i32(0)); words(cx)];
        let start = [no_lanes, empty.flat()].concat();
        let state = for_batches(cx, "gather maxima of groups", &start, |number, count, state| {
            let (counts, stack) = state.split_at(words(cx));
            let mut stack = LaneStack::<N>::from_flat(stack);
            let at = k.mul(number, k.i32(batch as i32));
            let first_chunk = k.shr(at, in_chunk.trailing_zeros());
            let memories = prefilter.registers(cx, at, count);
            let mut bits: Vec<Option<Value>> = vec![None; words(cx)];
            for first in (0..count).step_by(together) {
                let lane = k.i32((first * LANES) as i32);
                let fields = memories.each_ref().map(|memory| halves(cx, load(cx, memory, lane)));
                for half in 0..together {
                    let [best, second, place] = fields.each_ref().map(|halves| halves[half]);
                    let group = first + half;
                    let is_crowded = k.above(second, edge);
                    let bit = k.choose(is_crowded, k.i32(1 << (group % GROUPS_IN_WORD)), k.i32(0));
                    let word = &mut bits[group / GROUPS_IN_WORD];
                    *word = Some(word.map_or(bit, |word| k.or(word, bit)));
                    let logit = k.choose(is_crowded, k.f32(f32::NEG_INFINITY), best);
                    let chunk = k.add(first_chunk, k.i32((group / in_chunk) as i32));
                    let entry = entry(Maximum { logit, chunk, group: group % in_chunk, place });
                    // Large logits at equal distances can all be in one lane. A rotation by the number of the group
                    // register distributes them.
                    let by = k.and(k.add(at, k.i32(group as i32)), k.i32(LANES as i32 - 1));
                    let entry = entry.map(|field| k.rotate(field, by));
                    stack.push_where(k, is_pushed(entry), entry);
                }
            }
            let out = k.registers(&self.crowded, k.mul(number, k.i32(words(cx) as i32)), words(cx));
            let mut counts = counts.to_vec();
            for (word, bits) in bits.into_iter().enumerate() {
                let bits = or_of_sublanes(k, bits.unwrap_or_else(|| k.splat(k.i32(0))));
                k.store(&out, k.i32((word * LANES) as i32), bits);
                counts[word] = k.add(counts[word], count_bits(k, bits));
            }
            [counts, stack.flat()].concat()
        });
        let (counts, stack) = state.split_at(words(cx));
        (LaneStack::from_flat(stack), counts.to_vec())
    }

    /// Adds the survivors of the crowded groups to a stack. `counts` are the numbers of crowded lanes that the words of
    /// all batches describe, as floats.
    fn gather_from_crowded(
        &self,
        cx: &Context<'_>,
        prefilter: &Prefilter,
        edge: Value,
        counts: &[Value],
        stack: &SurvivorStack,
    ) -> SurvivorStack {
        let k = cx.k;
        let count = self.list_crowded_lanes(cx, counts);
        let full = k.shr(count, MANY_TOGETHER.trailing_zeros());
        let done = k.mul(full, k.i32(MANY_TOGETHER as i32));
        // If only three lanes are left, one iteration for four lanes still takes less time than two iterations for two
        // lanes.
        let rest = k.sub(count, done);
        let some = k.shr(k.add(rest, k.i32(1)), SOME_TOGETHER.trailing_zeros());
        let done_by_some = k.mul(some, k.i32(SOME_TOGETHER as i32));
        let steps = divided_up(k, k.sub(rest, done_by_some), FEW_TOGETHER);
        let each = |together: usize, first: Value, stack: &[Value]| {
            let mut stack = SurvivorStack::from_flat(stack);
            // The number of different rotations.
            let apart = if together == MANY_TOGETHER { MANY_TOGETHER } else { FEW_TOGETHER };
            for i in 0..together {
                let at = k.add(first, k.i32(i as i32));
                let place = k.load_scalar(&self.list, at);
                let (place, edge) = match together {
                    MANY_TOGETHER => (place, edge),
                    _ => {
                        // In the last iteration, the last lane can be after the end of the list.
                        let exists = k.lt(at, count);
                        let nothing = k.splat(k.f32(f32::INFINITY));
                        (k.choose(exists, place, k.i32(0)), k.choose(exists, edge, nothing))
                    }
                };
                // Large logits at equal distances are in one lane of many group registers. So consecutive lanes of the
                // list are rotated by different amounts. Four lanes are rotated like two times two lanes: with four
                // amounts, the stack of a lane would overflow in one of the tested rows.
                push_crowded(cx, prefilter, &mut stack, place, i % apart * LANES / apart, edge);
            }
            stack.flat()
        };
        let state = k.for_each_of("many crowded lanes", full, &stack.flat(), |iteration, stack| {
            each(MANY_TOGETHER, k.mul(iteration, k.i32(MANY_TOGETHER as i32)), stack)
        });
        let state = k.for_each_of("some crowded lanes", some, &state, |iteration, stack| {
            each(SOME_TOGETHER, k.add(done, k.mul(iteration, k.i32(SOME_TOGETHER as i32))), stack)
        });
        let first = k.add(done, done_by_some);
        let state = k.for_each_of("crowded lanes", steps, &state, |iteration, stack| {
            each(FEW_TOGETHER, k.add(first, k.mul(iteration, k.i32(FEW_TOGETHER as i32))), stack)
        });
        SurvivorStack::from_flat(&state)
    }

    /// Writes the list of crowded lanes, and returns its length. `counts` are the numbers of crowded lanes that the
    /// words of all batches describe, as floats.
    fn list_crowded_lanes(&self, cx: &Context<'_>, counts: &[Value]) -> Value {
        let (k, batches) = (cx.k, cx.layout.batches());
        let [length] =
            k.for_each("batches of groups", k.i32(batches as i32), [k.i32(0)], |batch, [length]| {
                let registers = k.registers(&self.crowded, k.mul(batch, k.i32(words(cx) as i32)), words(cx));
                let crowded: Vec<Value> =
                    (0..words(cx)).map(|word| k.load(&registers, k.i32((word * LANES) as i32))).collect();
                let counts: Vec<Value> = match batches {
                    1 => counts.to_vec(),
                    _ => crowded.iter().map(|&word| sum_of_counts(k, count_bits(k, word))).collect(),
                };
                let counts: Vec<Value> = counts.iter().map(|&count| k.truncate_scalar(count)).collect();
                let mut starts = vec![length];
                for &count in &counts {
                    starts.push(k.add(starts[starts.len() - 1], count));
                }
                let most = counts.iter().copied().reduce(|a, b| k.choose(k.lt(a, b), b, a));
                let steps = divided_up(k, most.expect("a batch has a word"), LANES_FOUND);
                let first_group = k.mul(batch, k.i32(cx.layout.groups_in_batch() as i32));
                k.for_each_of("list of crowded lanes", steps, &crowded, |step, crowded| {
                    let find = |(word, &bits): (usize, &Value)| {
                        let (codes, rest) = next_lanes(k, bits);
                        for (i, code) in codes.into_iter().enumerate() {
                            let code = k.scalar(code);
                            let group = k.add(first_group, k.i32((GROUPS_IN_WORD * word) as i32));
                            let group = k.add(group, bit_of_code(k, code));
                            let place = k.add(k.mul(group, k.i32(LANES as i32)), lane_of_code(k, code));
                            let number = k.add(k.mul(step, k.i32(LANES_FOUND as i32)), k.i32(i as i32));
                            let exists = k.lt(number, counts[word]);
                            let at = k.choose(exists, k.add(starts[word], number), k.i32(UNUSED as i32));
                            k.store_scalar(&self.list, at, place);
                        }
                        rest
                    };
                    crowded.iter().enumerate().map(find).collect()
                });
                [starts[counts.len()]]
            });
        length
    }
}

/// Returns a scalar divided by a power of two, rounded up.
fn divided_up(k: &Kernel, value: Value, by: usize) -> Value {
    k.shr(k.add(value, k.i32(by as i32 - 1)), by.trailing_zeros())
}

/// Returns the number of words of a batch.
fn words(cx: &Context<'_>) -> usize {
    cx.layout.groups_in_batch().div_ceil(GROUPS_IN_WORD)
}

/// Finds [`LANES_FOUND`] crowded lanes in a word. Returns the codes of these lanes, and the word without their bits. If
/// there is only one crowded lane, both codes are the code of this lane. If there is none, the codes have no meaning.
///
/// The lower bits of a code are the number of the lane. The upper bits show the number of the bit: see [`bit_of_code`].
/// A code is the bits of a float, because the hardware finds the least lane only among floats. To compute it, a set bit
/// of a word is converted to a float. The exponent of this float shows the number of the bit.
///
/// The function finds the lanes with the least and with the largest code. These two reductions do not depend on each
/// other, so they take about as long as one.
fn next_lanes(k: &Kernel, bits: Value) -> ([Value; LANES_FOUND], Value) {
    let lane = k.lane();
    let none = k.eq(bits, k.i32(0));
    let code = |bit: Value, otherwise: f32| {
        // Only the exponent shows the number of the bit. Bit 31 is the sign of the word, so its float is negative.
        let exponent = k.and(k.bits(k.to_float(bit)), k.i32(0xff << EXPONENT));
        k.choose(none, k.f32(otherwise), k.from_bits(k.or(exponent, lane)))
    };
    let lowest = k.and(bits, k.sub(k.i32(0), bits));
    // After this step, no two consecutive bits are set. So the conversion cannot round up to the next power of two.
    let alone = k.and(bits, k.xor(k.shift_right_zero(bits, k.i32(1)), k.i32(-1)));
    let highest = k.choose(k.lt(bits, k.i32(0)), k.i32(i32::MIN), alone);
    let least = k.over_lanes(Reduce::Min, code(lowest, f32::MAX));
    let largest = k.over_lanes(Reduce::Max, code(highest, 0.0));
    let codes = [least, largest].map(|code| k.bits(code));
    let rest = codes.iter().fold(bits, |bits, &code| {
        let bit = k.shift_left(k.i32(1), k.and(bit_of_code(k, code), k.i32(GROUPS_IN_WORD as i32 - 1)));
        let others = k.xor(k.splat(bit), k.i32(-1));
        k.choose(k.eq(lane, lane_of_code(k, code)), k.and(bits, others), bits)
    });
    (codes, rest)
}

/// Returns the number of the lane, given its code.
fn lane_of_code(k: &Kernel, code: Value) -> Value {
    k.and(code, k.i32(LANES as i32 - 1))
}

/// Returns the number of the bit in its word, given the code of a lane.
fn bit_of_code(k: &Kernel, code: Value) -> Value {
    k.sub(k.shr(code, EXPONENT), k.i32(127))
}

/// Returns the sum of a register's lanes, as a scalar float. The lanes are small integers.
fn sum_of_counts(k: &Kernel, counts: Value) -> Value {
    k.scalar(k.over_lanes(Reduce::Add, k.to_float(counts)))
}

/// Pushes the entries above `edge` in one lane of a group register, in the rows in which the group of this lane is
/// crowded. `place` is the element of the list of crowded lanes that describes this lane. Entry `i` goes to the stack
/// of the lane that is `by + i` lanes after this lane.
fn push_crowded(
    cx: &Context<'_>,
    prefilter: &Prefilter,
    stack: &mut SurvivorStack,
    place: Value,
    by: usize,
    edge: Value,
) {
    let (k, layout, together) = (cx.k, cx.layout, cells_together(cx));
    let (number, lane) = (k.shr(place, LANES.trailing_zeros()), k.and(place, k.i32(LANES as i32 - 1)));
    let (chunk, group) = match layout.groups_in_chunk() {
        1 => (number, k.i32(0)),
        _ => (k.shr(number, 1), k.and(number, k.i32(1))),
    };
    let (_, step) = layout.registers_of_group(0);
    let (next, _) = layout.registers_of_group(layout.groups_in_chunk() - 1);
    let first = k.add(k.mul(chunk, k.i32(layout.chunk as i32)), k.mul(group, k.i32(next as i32)));

    // A word does not show in which rows the group is crowded. So the second largest logits are compared again.
    let summary = match together {
        1 => number,
        _ => k.and(number, k.i32(!1)),
    };
    let seconds = halves(cx, load(cx, &k.registers(&prefilter.second, summary, together), k.i32(0)));
    let second = match seconds[..] {
        [even, odd] => k.choose(k.eq(group, k.i32(0)), even, odd),
        _ => seconds[0],
    };
    let crowded = k.both(k.eq(k.lane(), lane), k.above(second, edge));

    // Entry `i` of the lane is in register `i` of the group. After the rotations, all entries of the lane are in
    // different lanes, so that one register can contain them.
    let rows = cx.logits.look_up(first, step * (layout.group() - 1) + 1);
    let moved = |i: usize| {
        let x = k.load(&rows, k.i32((i * step * LANES) as i32));
        let x = k.choose(crowded, x, k.f32(f32::NEG_INFINITY));
        match (by + i) % LANES {
            0 => x,
            by => k.rotate(x, k.i32(by as i32)),
        }
    };
    // With several partial results, an operation need not wait for the previous one.
    let mut parts: [Option<Value>; 4] = [None; 4];
    for i in 0..layout.group() {
        let (part, x) = (&mut parts[i % 4], moved(i));
        *part = Some(part.map_or(x, |part| k.fmax(part, x)));
    }
    let value = parts.into_iter().flatten().reduce(|a, b| k.fmax(a, b)).expect("a group has a register");
    let entry = k.and(k.sub(k.lane(), k.add(lane, k.i32(by as i32))), k.i32(LANES as i32 - 1));
    let start = k.add(k.mul(first, k.i32(LANES as i32)), lane);
    let index = k.add(cx.in_stripe(k.mul(entry, k.i32((step * LANES) as i32))), start);
    let survives = k.above(value, edge);
    stack.push_where(k, survives, [value, k.to_float(index)]);
}

/// Combines the sublanes of a register by bitwise OR. Every sublane of the result contains the combination.
fn or_of_sublanes(k: &Kernel, value: Value) -> Value {
    [1, 2, 4].into_iter().fold(value, |value, by| k.or(value, k.rotate_sublanes(value, by)))
}

/// Returns the number of set bits of each element.
fn count_bits(k: &Kernel, value: Value) -> Value {
    let pairs = k.sub(value, k.and(k.shift_right_zero(value, k.i32(1)), k.i32(0x5555_5555)));
    let quads = k.add(
        k.and(pairs, k.i32(0x3333_3333)),
        k.and(k.shift_right_zero(pairs, k.i32(2)), k.i32(0x3333_3333)),
    );
    let bytes = k.and(k.add(quads, k.shift_right_zero(quads, k.i32(4))), k.i32(0x0f0f_0f0f));
    let halves = k.add(bytes, k.shift_right_zero(bytes, k.i32(8)));
    k.and(k.add(halves, k.shift_right_zero(halves, k.i32(16))), k.i32(0x3f))
}

/// Reduces the stack to `slots` levels. The entries of the other levels move by half of the lanes, and are pushed
/// again. The steps after gathering take less time with fewer levels.
fn balanced(k: &Kernel, stack: SurvivorStack, slots: usize) -> SurvivorStack {
    let mut few = LaneStack {
        fields: stack.fields.each_ref().map(|levels| levels[..slots].to_vec()),
        overflow: stack.overflow,
    };
    for level in slots..stack.depth() {
        let recorded = few.overflow;
        let [value, index] = stack.level(level).map(|field| k.rotate(field, k.i32(LANES as i32 / 2)));
        few.push_where(k, k.at_least(index, k.f32(0.0)), [value, index]);
        few.overflow = k.fmax(recorded, few.overflow);
    }
    few
}

/// Copies the entries of each row to all stripes of the row, if the layout has space for copies. Afterwards, a
/// reduction over the row need not combine the stripes, and a step of a search can probe other places in each stripe.
fn copied(cx: &Context<'_>, stack: SurvivorStack) -> SurvivorStack {
    let (k, layout) = (cx.k, cx.layout);
    let Some(slots) = layout.copies else { return stack };
    let mut stack = stack;
    let mut by = k.stripes() / 2;
    while by > 0 {
        // Each step doubles the number of stripes whose entries a lane contains. So the earlier steps need fewer
        // levels. The last step has one level more than the result, because `balanced` then moves the entries of this
        // level to other lanes.
        let most = slots + 1 - by.ilog2() as usize;
        let mut both = empty_stack(k, most.min(2 * stack.depth()));
        for level in 0..stack.depth() {
            for (levels, value) in both.fields.iter_mut().zip(stack.level(level)) {
                levels[level] = value;
            }
        }
        // Large logits at equal distances can be in the same lane of all stripes. A rotation distributes them.
        let lanes = k.i32((by * LANES / k.stripes()) as i32);
        for level in 0..stack.depth() {
            let [value, index] = stack.level(level).map(|field| k.rotate(k.rotate_stripes(field, by), lanes));
            both.push_where(k, k.at_least(index, k.f32(0.0)), [value, index]);
        }
        both.overflow = k.fmax(stack.overflow, both.overflow);
        (stack, by) = (both, by / 2);
    }
    balanced(k, stack, slots)
}

/// Makes one pass over all batches. A loop processes the full batches. If the last batch is shorter, it is processed
/// after the loop. `each` receives the number of the batch, the number of group registers in it, and the state.
fn for_batches(
    cx: &Context<'_>,
    label: &str,
    start: &[Value],
    each: impl Fn(Value, usize, &[Value]) -> Vec<Value>,
) -> Vec<Value> {
    let (k, batch, groups) = (cx.k, cx.layout.groups_in_batch(), cx.layout.groups());
    let full = k.i32((groups / batch) as i32);
    let state = k.for_each_of(label, full, start, |number, state| each(number, batch, state));
    match groups % batch {
        0 => state,
        rest => each(full, rest, &state),
    }
}
