//! Gathers the survivors of a threshold into a few registers.
//!
//! Nearly all survivors are the maxima of their cells. The first step gathers those. The second step searches the few
//! crowded cells. A cell is crowded if its second largest logit also reaches the threshold.

use super::context::Context;
use super::keys::{bf16_edge, edge_below};
use super::lane_stack::LaneStack;
use super::prefilter::{index_of_place, rotation, Prefilter};
use super::summaries::{
    cell_elem, cells_together, constant, halves, largest_half, load, load_summary, store_summary,
};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Space, Value, LANES, PACKED_LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// The number of batches that are searched for crowded cells together. The search of one batch is a chain of dependent
/// steps, so the chains of several batches overlap.
const BATCHES_TOGETHER: usize = 8;
/// The number of cell registers whose survivors first go to a short stack, because an insertion into it is cheaper.
const CELLS_PER_SHORT_STACK: usize = 16;
/// The number of crowded cell registers whose survivors go to a short stack together.
const CROWDED_PER_SHORT_STACK: usize = 4;
/// The number of levels of a short stack.
const SHORT: usize = 3;
/// The number of levels of a short stack for crowded packed cells. If the large logits of a row have a stride of 256,
/// all logits of a packed cell can be large.
const SHORT_PACKED: usize = 5;

/// The survivors of each lane: logits and their places. A place is the number of a register in the stripe, as a float.
/// The stack uses the place as its marker: −1 marks an empty level.
type SurvivorStack = LaneStack<2>;

/// The memory for gathering.
pub(super) struct Gather {
    /// For each batch, the maximum of the second largest logits of its cells.
    seconds: Memory,
    /// The numbers of the batches with crowded cells.
    batches: Memory,
    /// A register for each of these batches. Bit `i` is set in the lanes in which cell register `i` has a crowded cell.
    crowded: Memory,
    /// The crowded cell registers of each of these batches, as bits.
    cells_of_batch: Memory,
    /// The numbers of the crowded cell registers.
    list: Memory,
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
        let (k, cells) = (cx.k, cx.layout.cells());
        let (together, groups) = batches_together(cx);
        let batches = together * groups;
        let register = if cx.layout.packed { PACKED_LANES } else { LANES };
        Gather {
            seconds: k.scratch(cell_elem(cx), &[SUBLANES, batches * register], Space::Vmem),
            crowded: k.scratch(Elem::I32, &[SUBLANES, batches * LANES], Space::Vmem),
            batches: k.scratch(Elem::I32, &[batches + 1], Space::Smem),
            cells_of_batch: k.scratch(Elem::I32, &[batches], Space::Smem),
            list: k.scratch(Elem::I32, &[cells + CROWDED_PER_SHORT_STACK], Space::Smem),
        }
    }

    /// Returns all logits whose key is at least `threshold`. `threshold` is the key of a candidate.
    pub(super) fn survivors(&self, cx: &Context<'_>, prefilter: &Prefilter, threshold: Value) -> Gathered {
        let k = cx.k;
        let edge = edge_below(k, threshold);
        let (stack, second) = self.gather_maxima(cx, prefilter, edge);
        // The search for more survivors runs only if there was space for all maxima.
        let room = k.not(k.any(k.at_least(stack.overflow, k.f32(0.0))));
        let crowded = k.both(room, k.any(k.above(second, edge)));
        let stack = k.if_else(
            "a cell holds another survivor",
            crowded,
            || {
                let batches = self.find_crowded(cx, prefilter, edge);
                let length = self.list_crowded(cx, batches);
                self.gather_from_crowded(cx, prefilter, edge, length, &stack).flat()
            },
            || stack.flat(),
        );
        let stack = SurvivorStack::from_flat(&stack);
        let overflow = k.choose(k.at_least(stack.overflow, k.f32(0.0)), k.i32(0), k.i32(-1));
        let [values, places] = stack.fields;
        let indices = places.into_iter().map(|place| index_of_place(cx, k.trunc(place))).collect();
        let LaneStack { fields: [values, indices], overflow } =
            balanced(cx, LaneStack { fields: [values, indices], overflow });
        Gathered { values, indices, overflow: k.ge(overflow, k.i32(0)) }
    }

    /// Finds the batches with crowded cells, and these cells. Returns the number of these batches.
    fn find_crowded(&self, cx: &Context<'_>, prefilter: &Prefilter, edge: Value) -> Value {
        let (k, layout, batch) = (cx.k, cx.layout, cx.layout.cells_in_batch());
        let (batches, (together, groups)) = (layout.batches(), batches_together(cx));
        let nothing = k.negative_infinity(cell_elem(cx));
        // Cell registers after the end of the row are not crowded.
        for unused in (layout.cells()..batches * batch).step_by(cells_together(cx)) {
            k.store(&prefilter.second, k.i32((unused * LANES) as i32), constant(cx, nothing));
        }
        for unused in batches..together * groups {
            store_summary(cx, &self.seconds, k.i32(unused as i32), constant(cx, nothing));
        }
        let groups = k.i32(groups as i32);
        let [found] = k.for_each("groups of batches", groups, [k.i32(0)], |group, [mut found]| {
            let first = k.mul(group, k.i32(together as i32));
            let batches: Vec<Value> = (0..together).map(|i| k.add(first, k.i32(i as i32))).collect();
            let second = |&batch: &Value| largest_half(cx, load_summary(cx, &self.seconds, batch));
            let crowded: Vec<Value> =
                batches.iter().map(|batch| k.any(k.above(second(batch), edge))).collect();
            // Every batch is written at the end of the list. The end advances only if the batch has crowded cells.
            for (number, crowded) in batches.into_iter().zip(crowded) {
                k.set(&self.batches, found, number);
                found = k.add(found, k.choose(crowded, k.i32(1), k.i32(0)));
            }
            [found]
        });
        k.for_each("crowded batches", found, [], |number, []| {
            let first = k.mul(k.get(&self.batches, number), k.i32(batch as i32));
            let [_, second, _] = prefilter.registers(cx, first, batch);
            let bit = |cell: usize| {
                let crowded = k.above(k.load(&second, k.i32((cell * LANES) as i32)), edge);
                k.choose(crowded, k.i32(1 << cell), k.i32(0))
            };
            // The bits are combined in a tree, so that few operations wait for the previous one.
            let mut bits: Vec<Value> = (0..batch).map(bit).collect();
            while bits.len() > 1 {
                bits =
                    bits.chunks(2).map(|pair| pair[1..].iter().fold(pair[0], |a, &b| k.or(a, b))).collect();
            }
            let bits = bits[0];
            k.store(&k.registers(&self.crowded, number, 1), k.i32(0), bits);
            []
        });
        found
    }

    /// Lists the crowded cell registers of the batches that [`find_crowded`](Gather::find_crowded) found. Returns their
    /// number.
    fn list_crowded(&self, cx: &Context<'_>, batches: Value) -> Value {
        let (k, (together, _)) = (cx.k, batches_together(cx));
        let groups = k.shr(k.add(batches, k.i32(together as i32 - 1)), together.trailing_zeros());
        k.for_each("crowded cells of batches", groups, [], |group, []| {
            let first = k.mul(group, k.i32(together as i32));
            let registers = k.registers(&self.crowded, first, together);
            for i in 0..together {
                let cells = k.or_of_all(k.load(&registers, k.i32((i * LANES) as i32)));
                k.set(&self.cells_of_batch, k.add(first, k.i32(i as i32)), cells);
            }
            []
        });
        let [length] = k.for_each("list of crowded cells", batches, [k.i32(0)], |number, [mut length]| {
            let cells = k.get(&self.cells_of_batch, number);
            let first = k.mul(k.get(&self.batches, number), k.i32(cx.layout.cells_in_batch() as i32));
            for cell in 0..cx.layout.cells_in_batch() {
                k.set(&self.list, length, k.add(first, k.i32(cell as i32)));
                length = k.add(length, k.and(k.shift_right_zero(cells, k.i32(cell as i32)), k.i32(1)));
            }
            [length]
        });
        // The last iteration over the list can include entries after its end. They must be cell registers too.
        for i in 0..CROWDED_PER_SHORT_STACK {
            k.set(&self.list, k.add(length, k.i32(i as i32)), k.i32(0));
        }
        length
    }

    /// Gathers the maxima of cells above `edge`. Also returns the maximum of the second largest logits of all cells.
    fn gather_maxima(&self, cx: &Context<'_>, prefilter: &Prefilter, edge: Value) -> (SurvivorStack, Value) {
        let (k, layout) = (cx.k, cx.layout);
        // Packed cell registers are compared, and go to the short stack, two at a time.
        let together = cells_together(cx);
        let edge = match layout.packed {
            true => k.packed([bf16_edge(k, edge); 2]),
            false => edge,
        };
        let elem = cell_elem(cx);
        let nothing = constant(cx, k.negative_infinity(elem));
        let none = constant(cx, k.whole(elem, -1));
        let mut start = empty_stack(k, layout.depth).flat();
        start.push(nothing);
        let state = for_batches(cx, "gather maxima of cells", &start, |number, count, state| {
            let (&seconds, stack) = state.split_last().expect("the state is not empty");
            let mut stack = SurvivorStack::from_flat(stack);
            let at = k.mul(number, k.i32(cx.layout.cells_in_batch() as i32));
            let register = k.to_float(k.splat(k.mul(at, k.i32(layout.cell as i32))));
            let memories = prefilter.registers(cx, at, count);
            let mut seconds_of_batch = nothing;
            for first in (0..count).step_by(together * CELLS_PER_SHORT_STACK) {
                let mut short = SurvivorStack::empty(SHORT, [nothing, none]);
                // Places in the short stack count from the chunk of its first cell.
                let start = layout.place_offset(first);
                let last = count.min(first + together * CELLS_PER_SHORT_STACK);
                for cell in (first..last).step_by(together) {
                    let lane = k.i32((cell * LANES) as i32);
                    let [best, second, place] = memories.each_ref().map(|memory| load(cx, memory, lane));
                    let place = match layout.place_offset(cell) - start {
                        0 => place,
                        offset => k.fadd(place, k.whole(elem, offset as i16)),
                    };
                    short.push_where(k, k.above(best, edge), [best, place]);
                    seconds_of_batch = k.fmax(seconds_of_batch, second);
                }
                for (half, overflow) in halves(cx, short.overflow).into_iter().enumerate() {
                    let levels = |levels: &Vec<Value>| levels.iter().map(|&v| halves(cx, v)[half]).collect();
                    let fields = short.fields.each_ref().map(levels);
                    let first = k.fadd(register, k.f32((start + half) as f32));
                    stack.append(k, &SurvivorStack { fields, overflow }, first);
                }
            }
            store_summary(cx, &self.seconds, number, seconds_of_batch);
            [stack.flat(), vec![k.fmax(seconds, seconds_of_batch)]].concat()
        });
        let (&seconds, stack) = state.split_last().expect("the state is not empty");
        (SurvivorStack::from_flat(stack), largest_half(cx, seconds))
    }

    /// Adds the survivors of the first `length` cell registers of the list to a stack, except the maxima of the cells.
    fn gather_from_crowded(
        &self,
        cx: &Context<'_>,
        prefilter: &Prefilter,
        edge: Value,
        length: Value,
        stack: &SurvivorStack,
    ) -> SurvivorStack {
        let k = cx.k;
        let together = CROWDED_PER_SHORT_STACK.trailing_zeros();
        let iterations = k.shr(k.add(length, k.i32(CROWDED_PER_SHORT_STACK as i32 - 1)), together);
        let state = k.for_each_of("crowded cells", iterations, &stack.flat(), |iteration, state| {
            let mut stack = SurvivorStack::from_flat(state);
            let mut short = empty_stack(k, if cx.layout.packed { SHORT_PACKED } else { SHORT });
            for i in 0..CROWDED_PER_SHORT_STACK {
                let number = k.add(k.shl(iteration, together), k.i32(i as i32));
                let listed = k.lt(number, length);
                let edge = k.choose(listed, edge, k.splat(k.f32(f32::INFINITY)));
                push_from_cell(cx, prefilter, &mut short, k.get(&self.list, number), edge);
            }
            stack.append(k, &short, k.f32(0.0));
            stack.flat()
        });
        SurvivorStack::from_flat(&state)
    }
}

/// Reduces the number of levels to that of the layout's slots: the entries of the other levels move by half of the
/// lanes. The steps after gathering take less time with fewer slots. The markers are indices.
fn balanced(cx: &Context<'_>, stack: LaneStack<2>) -> LaneStack<2> {
    let (k, slots) = (cx.k, cx.layout.slots);
    let mut few = LaneStack {
        fields: stack.fields.each_ref().map(|levels| levels[..slots].to_vec()),
        overflow: stack.overflow,
    };
    for level in slots..stack.depth() {
        let recorded = few.overflow;
        let [value, index] = stack.level(level).map(|field| k.rotate(field, k.i32(LANES as i32 / 2)));
        few.push_where(k, k.ge(index, k.i32(0)), [value, index]);
        few.overflow = k.max(recorded, few.overflow);
    }
    few
}

/// Returns the number of batches in a group of batches, a power of two, and the number of groups.
fn batches_together(cx: &Context<'_>) -> (usize, usize) {
    let batches = cx.layout.batches();
    let together = BATCHES_TOGETHER.min(batches.next_power_of_two());
    (together, batches.div_ceil(together))
}

/// Makes one pass over all batches: in a loop over the full batches, and then for the rest. `each` receives the number
/// of the batch, the number of cell registers in it, and the state.
fn for_batches(
    cx: &Context<'_>,
    label: &str,
    start: &[Value],
    each: impl Fn(Value, usize, &[Value]) -> Vec<Value>,
) -> Vec<Value> {
    let (k, batch, cells) = (cx.k, cx.layout.cells_in_batch(), cx.layout.cells());
    let full = k.i32((cells / batch) as i32);
    let state = k.for_each_of(label, full, start, |number, state| each(number, batch, state));
    match cells % batch {
        0 => state,
        rest => each(full, rest, &state),
    }
}

/// Pushes the survivors of a cell register, except the maxima of the cells. `cell` is a scalar.
fn push_from_cell(
    cx: &Context<'_>,
    prefilter: &Prefilter,
    stack: &mut SurvivorStack,
    cell: Value,
    edge: Value,
) {
    let (k, layout) = (cx.k, cx.layout);
    let in_chunk = layout.cells_in_chunk();
    let (chunk, group) = match layout.chunks {
        1 => (k.i32(0), cell),
        _ => (k.shr(cell, in_chunk.trailing_zeros()), k.and(cell, k.i32(in_chunk as i32 - 1))),
    };
    // Packed cell registers alternate, and a lookup must cover both. `first` is the first one.
    let together = cells_together(cx);
    let (first, group) = match layout.packed {
        true => (k.and(cell, k.i32(!1)), k.and(group, k.i32(!1))),
        false => (cell, group),
    };
    let by = rotation(cx, chunk, group);
    let half = if layout.packed { k.and(cell, k.i32(1)) } else { k.i32(0) };
    let of_cell = |value: Value| match halves(cx, value)[..] {
        [even, odd] => k.choose(k.eq(half, k.i32(0)), even, odd),
        _ => value,
    };
    let at = k.mul(first, k.i32(layout.cell as i32));
    let rows = cx.logits.look_up(at, together * layout.cell);
    let start = k.add(k.mul(chunk, k.i32(layout.chunk as i32)), half);
    let start = k.to_float(k.splat(start));
    let place = of_cell(load(cx, &k.registers(&prefilter.place, first, together), k.i32(0)));
    let place = k.fadd(place, start);
    let first = k.to_float(k.splat(k.add(at, half)));
    for number in 0..layout.cell {
        let step = together * number;
        let x = of_cell(load(cx, &rows, k.i32((step * LANES) as i32)));
        let x = k.rotate(x, by);
        let here = k.fadd(first, k.f32(step as f32));
        let other = k.choose(k.eq(place, here), k.f32(f32::NEG_INFINITY), x);
        stack.push_where(k, k.above(other, edge), [x, here]);
    }
}

/// Returns an empty stack of survivors.
fn empty_stack(k: &Kernel, depth: usize) -> SurvivorStack {
    SurvivorStack::empty(depth, [k.splat(k.f32(0.0)), k.splat(k.f32(-1.0))])
}

impl SurvivorStack {
    /// Pushes all levels of another stack, whose places count from register `first`. A recorded overflow stays
    /// recorded.
    fn append(&mut self, k: &Kernel, other: &SurvivorStack, first: Value) {
        let mut overflow = k.fmax(self.overflow, other.overflow);
        for level in 0..other.depth() {
            let [value, place] = other.level(level);
            self.push_where(k, k.at_least(place, k.f32(0.0)), [value, k.fadd(place, first)]);
            overflow = k.fmax(overflow, self.overflow);
        }
        self.overflow = overflow;
    }
}
