//! Gathers the survivors of a threshold into a few registers.
//!
//! Nearly all survivors are the maxima of their groups. The first step gathers those. The second step gathers the
//! survivors of the few crowded groups. A group is crowded if its second largest logit also reaches the threshold.
//!
//! A group register has one group in each lane of each row. A lane of a group register is crowded if its group is
//! crowded in any row. A word is an integer per lane, with one bit per group register. The bit shows whether this lane
//! of the group register is crowded.

use super::context::Context;
use super::keys::{edge_below, EXPONENT};
use super::lane_stack::LaneStack;
use super::prefilter::{index_in_group, Prefilter};
use super::summaries::{cells_together, halves, load};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// The number of crowded lanes that one iteration processes.
const LANES_TOGETHER: usize = 2;
/// If a block has more crowded lanes than this, their survivors are not gathered, because other methods take less time.
const MOST_CROWDED: usize = 256;
/// The number of group registers that one word describes.
const GROUPS_IN_WORD: usize = 32;
/// Represents "no crowded lane". It is larger than the code of every lane.
const NO_CODE: i32 = f32::MAX.to_bits() as i32;

/// The survivors of each lane: logits and their indices in the row, as floats. The stack uses the index as its marker:
/// −1 marks an empty level.
type SurvivorStack = LaneStack<2>;

/// The memory for gathering.
pub(super) struct Gather {
    /// The words of each batch of groups: one register per word. Bit `i` of word `w` is for group register `32 w + i`
    /// of the batch.
    crowded: Memory,
}

/// The survivors of a threshold, in registers.
pub(super) struct Gathered {
    /// The raw logits.
    pub(super) values: Vec<Value>,
    /// The indices in the row. A slot without a survivor contains −1.
    pub(super) indices: Vec<Value>,
    /// A mask: whether a lane had more survivors than space.
    pub(super) overflow: Value,
}

impl Gather {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Gather {
        let width = cx.layout.batches() * words(cx) * LANES;
        Gather { crowded: cx.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem) }
    }

    /// Returns all logits whose key is at least `threshold`. `threshold` is the key of a candidate.
    pub(super) fn survivors(&self, cx: &Context<'_>, prefilter: &Prefilter, threshold: Value) -> Gathered {
        let k = cx.k;
        let edge = edge_below(k, threshold);
        let (stack, crowded) = self.gather_maxima(cx, prefilter, edge);
        let full = k.over_all(Reduce::Max, stack.overflow);
        let count = k.scalar(k.over_lanes(Reduce::Add, k.to_float(crowded)));
        let many = k.above(count, k.f32(MOST_CROWDED as f32));
        let too_many = k.either(many, k.at_least(full, k.f32(0.0)));
        let stack = k.if_else(
            "some groups are crowded",
            k.both(k.above(count, k.f32(0.0)), k.not(too_many)),
            || self.gather_from_crowded(cx, prefilter, edge, count, &stack).flat(),
            || stack.flat(),
        );
        let LaneStack { fields: [values, indices], overflow } =
            balanced(cx, SurvivorStack::from_flat(&stack));
        let overflow = k.either(k.at_least(overflow, k.f32(0.0)), too_many);
        Gathered { values, indices: indices.into_iter().map(|index| k.trunc(index)).collect(), overflow }
    }

    /// Gathers the maxima of the groups that are not crowded, if they are above `edge`. Also returns a register of
    /// integers. The sum of its lanes is the number of crowded lanes of all group registers.
    fn gather_maxima(&self, cx: &Context<'_>, prefilter: &Prefilter, edge: Value) -> (SurvivorStack, Value) {
        let (k, layout, together) = (cx.k, cx.layout, cells_together(cx));
        let batch = layout.groups_in_batch();
        let mut start = empty_stack(k, layout.depth).flat();
        start.push(k.splat(k.i32(0)));
        let state = for_batches(cx, "gather maxima of groups", &start, |number, count, state| {
            let (&crowded, stack) = state.split_last().expect("the state is not empty");
            let mut stack = SurvivorStack::from_flat(stack);
            let at = k.mul(number, k.i32(batch as i32));
            let memories = prefilter.registers(cx, at, count);
            let mut bits: Vec<Option<Value>> = vec![None; words(cx)];
            for first in (0..count).step_by(together) {
                let lane = k.i32((first * LANES) as i32);
                let fields = memories.each_ref().map(|memory| halves(cx, load(cx, memory, lane)));
                for half in 0..together {
                    let [best, second, place] = fields.each_ref().map(|halves| halves[half]);
                    let group = first + half;
                    let index = index_in_groups(cx, at, group, place);
                    let is_crowded = k.above(second, edge);
                    let bit = k.choose(is_crowded, k.i32(1 << (group % GROUPS_IN_WORD)), k.i32(0));
                    let word = &mut bits[group / GROUPS_IN_WORD];
                    *word = Some(word.map_or(bit, |word| k.or(word, bit)));
                    let single = k.choose(is_crowded, k.f32(f32::NEG_INFINITY), best);
                    // Large logits at equal distances can all be in one lane. A rotation by the number of the group
                    // register distributes them.
                    let by = k.and(k.add(at, k.i32(group as i32)), k.i32(LANES as i32 - 1));
                    let [single, index] = [single, index].map(|field| k.rotate(field, by));
                    stack.push_where(k, k.above(single, edge), [single, index]);
                }
            }
            let out = k.registers(&self.crowded, k.mul(number, k.i32(words(cx) as i32)), words(cx));
            let mut crowded = crowded;
            for (word, bits) in bits.into_iter().enumerate() {
                let bits = or_of_sublanes(k, bits.unwrap_or_else(|| k.splat(k.i32(0))));
                k.store(&out, k.i32((word * LANES) as i32), bits);
                crowded = k.add(crowded, count_bits(k, bits));
            }
            [stack.flat(), vec![crowded]].concat()
        });
        let (&crowded, stack) = state.split_last().expect("the state is not empty");
        (SurvivorStack::from_flat(stack), crowded)
    }

    /// Adds the survivors of the crowded groups to a stack. `count` is the number of crowded lanes of all group
    /// registers, as a float.
    fn gather_from_crowded(
        &self,
        cx: &Context<'_>,
        prefilter: &Prefilter,
        edge: Value,
        count: Value,
        stack: &SurvivorStack,
    ) -> SurvivorStack {
        let (k, batches) = (cx.k, cx.layout.batches());
        let state =
            k.for_each_of("batches of groups", k.i32(batches as i32), &stack.flat(), |batch, stack| {
                let registers = k.registers(&self.crowded, k.mul(batch, k.i32(words(cx) as i32)), words(cx));
                let crowded: Vec<Value> =
                    (0..words(cx)).map(|word| k.load(&registers, k.i32((word * LANES) as i32))).collect();
                let count = match batches {
                    1 => count,
                    _ => {
                        let counts = crowded.iter().map(|&word| count_bits(k, word));
                        let count = counts.reduce(|a, b| k.add(a, b)).expect("a batch has a word");
                        k.scalar(k.over_lanes(Reduce::Add, k.to_float(count)))
                    }
                };
                let rounded = k.add(k.truncate_scalar(count), k.i32(LANES_TOGETHER as i32 - 1));
                let iterations = k.shr(rounded, LANES_TOGETHER.trailing_zeros());
                // The search for crowded lanes is a chain of dependent steps. So each iteration searches for the lanes
                // of the next iteration while it processes its own lanes.
                let (codes, crowded) = next_lanes(k, crowded);
                let state = [&codes[..], &crowded, stack].concat();
                let state = k.for_each_of("crowded lanes", iterations, &state, |_, state| {
                    let (codes, rest) = state.split_at(LANES_TOGETHER);
                    let (crowded, stack) = rest.split_at(words(cx));
                    let (next, crowded) = next_lanes(k, crowded.to_vec());
                    let mut stack = SurvivorStack::from_flat(stack);
                    for &code in codes {
                        push_crowded(cx, prefilter, &mut stack, batch, code, edge);
                    }
                    [next, crowded, stack.flat()].concat()
                });
                state[LANES_TOGETHER + words(cx)..].to_vec()
            });
        SurvivorStack::from_flat(&state)
    }
}

/// Returns the number of words of a batch.
fn words(cx: &Context<'_>) -> usize {
    cx.layout.groups_in_batch().div_ceil(GROUPS_IN_WORD)
}

/// Converts places in a group register to indices in the row. `first` is the number of the first group register of a
/// batch, and `group` is the number of the group register in this batch. Places and indices are floats.
fn index_in_groups(cx: &Context<'_>, first: Value, group: usize, places: Value) -> Value {
    let (k, in_chunk) = (cx.k, cx.layout.groups_in_chunk());
    let chunk = k.shr(first, in_chunk.trailing_zeros());
    index_in_group(cx, k.add(chunk, k.i32((group / in_chunk) as i32)), group % in_chunk, places)
}

/// Finds [`LANES_TOGETHER`] crowded lanes in the words of a batch. Returns the codes of these lanes as scalars, and the
/// words without the bits of these lanes. If there are fewer crowded lanes, the other codes are [`NO_CODE`].
fn next_lanes(k: &Kernel, mut crowded: Vec<Value>) -> (Vec<Value>, Vec<Value>) {
    let codes = (0..LANES_TOGETHER).map(|_| next_lane(k, &mut crowded)).collect();
    (codes, crowded)
}

/// Finds a crowded lane, and clears its bit in the words. Returns its code. The lower bits of a code are the number of
/// the lane. The upper bits show the number of the group register in the batch: see [`group_of_code`].
///
/// A code is the bits of a float, because the hardware finds the least lane only among floats. To compute it, the
/// lowest set bit of a word is converted to a float. The exponent of this float shows the number of the bit.
fn next_lane(k: &Kernel, crowded: &mut [Value]) -> Value {
    let lane = k.lane();
    let codes = crowded.iter().enumerate().map(|(word, &bits)| {
        let lowest = k.to_float(k.and(bits, k.sub(k.i32(0), bits)));
        // Bit 31 is the sign of the word, so the float of this bit is negative. The mask removes the sign.
        let group = k.and(k.bits(lowest), k.i32(i32::MAX));
        let code = k.add(group, k.add(lane, k.i32((GROUPS_IN_WORD * word) as i32 * (1 << EXPONENT))));
        k.choose(k.eq(bits, k.i32(0)), k.i32(NO_CODE), code)
    });
    let least = codes.map(|code| k.from_bits(code)).reduce(|a, b| k.fmin(a, b)).expect("a batch has a word");
    let code = k.scalar(k.bits(k.over_lanes(Reduce::Min, least)));
    let group = group_of_code(k, code);
    let here = k.eq(lane, k.and(code, k.i32(LANES as i32 - 1)));
    for (word, bits) in crowded.iter_mut().enumerate() {
        let bit = k.sub(group, k.i32((GROUPS_IN_WORD * word) as i32));
        let inside = k.both(k.ge(bit, k.i32(0)), k.lt(bit, k.i32(GROUPS_IN_WORD as i32)));
        let others = k.xor(k.shift_left(k.i32(1), k.and(bit, k.i32(GROUPS_IN_WORD as i32 - 1))), k.i32(-1));
        let others = k.choose(inside, others, k.i32(-1));
        *bits = k.choose(here, k.and(*bits, others), *bits);
    }
    code
}

/// Returns the number of the group register in its batch, given the code of a lane.
fn group_of_code(k: &Kernel, code: Value) -> Value {
    k.sub(k.shr(code, EXPONENT), k.i32(127))
}

/// Pushes the survivors in one lane of a group register, in the rows in which the group of this lane is crowded. `code`
/// is the code of the lane.
fn push_crowded(
    cx: &Context<'_>,
    prefilter: &Prefilter,
    stack: &mut SurvivorStack,
    batch: Value,
    code: Value,
    edge: Value,
) {
    let (k, layout, together) = (cx.k, cx.layout, cells_together(cx));
    let exists = k.lt(code, k.i32(NO_CODE));
    let lane = k.and(code, k.i32(LANES as i32 - 1));
    let group = k.choose(exists, group_of_code(k, code), k.i32(0));
    let number = k.add(k.mul(batch, k.i32(layout.groups_in_batch() as i32)), group);
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
    let second = k.choose(k.eq(k.lane(), lane), second, k.f32(f32::NEG_INFINITY));
    let edge = k.choose(exists, edge, k.splat(k.f32(f32::INFINITY)));
    let crowded = k.above(k.over_lanes(Reduce::Max, second), edge);

    // Entry `i` of the lane is in register `i` of the group. It moves to lane `lane + i`, so that one register contains
    // all entries of the lane.
    let rows = cx.logits.look_up(first, step * (layout.group() - 1) + 1);
    let moved = |i: usize| {
        let x = k.load(&rows, k.i32((i * step * LANES) as i32));
        match i {
            0 => x,
            _ => k.rotate(x, k.i32(i as i32)),
        }
    };
    let position = |start: Value| k.and(k.sub(k.lane(), start), k.i32(LANES as i32 - 1));
    let entry = position(lane);
    let bits = layout.group().next_power_of_two().trailing_zeros();
    let bit_is_set: Vec<Value> = (0..bits).map(|bit| k.ne(k.and(entry, k.i32(1 << bit)), k.i32(0))).collect();
    let value = selected(k, 0..layout.group(), &bit_is_set, &moved);
    // A second rotation moves the entries of different groups to different lanes.
    let by = k.add(k.shl(k.and(k.shr(number, 1), k.i32(3)), 5), k.and(number, k.i32(1)));
    let value = k.rotate(value, by);
    let entry = position(k.add(lane, by));
    let start = k.add(k.mul(first, k.i32(LANES as i32)), lane);
    let index = k.add(cx.in_stripe(k.mul(entry, k.i32((step * LANES) as i32))), start);
    let inside = k.lt(entry, k.i32(layout.group() as i32));
    let survives = k.both(k.both(crowded, inside), k.above(value, edge));
    stack.push_where(k, survives, [value, k.to_float(index)]);
}

/// Selects one of `numbers` in each lane, and returns the result of `value` for this number. The masks in `bit_is_set`
/// are the bits of the selected number, beginning with the lowest bit. With `n` masks, `numbers` starts at a multiple
/// of 2ⁿ.
fn selected(
    k: &Kernel,
    numbers: std::ops::Range<usize>,
    bit_is_set: &[Value],
    value: &impl Fn(usize) -> Value,
) -> Value {
    let Some((&upper, lower)) = bit_is_set.split_last() else { return value(numbers.start) };
    let middle = numbers.start + (1 << lower.len());
    let first = selected(k, numbers.start..middle.min(numbers.end), lower, value);
    if middle >= numbers.end {
        return first;
    }
    k.choose(upper, selected(k, middle..numbers.end, lower, value), first)
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

/// Reduces the stack to `slots` levels of the layout. The entries of the other levels move by half of the lanes, and
/// are pushed again. The steps after gathering take less time with fewer levels.
fn balanced(cx: &Context<'_>, stack: SurvivorStack) -> SurvivorStack {
    let (k, slots) = (cx.k, cx.layout.slots);
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

/// Returns an empty stack of survivors.
fn empty_stack(k: &Kernel, depth: usize) -> SurvivorStack {
    SurvivorStack::empty(depth, [k.splat(k.f32(0.0)), k.splat(k.f32(-1.0))])
}
