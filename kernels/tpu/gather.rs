//! Gathers the survivors of a threshold into a few registers.
//!
//! Nearly all survivors are the maxima of their cells. The first step gathers those. The second step searches the
//! few cells whose second largest logit also reaches the threshold.

use super::context::Context;
use super::keys::edge_below;
use super::lane_stack::LaneStack;
use super::prefilter::{cells_in_chunk, index_of_place, rotation, Prefilter};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::Arith;

/// The number of cell registers per batch. One branch per batch checks whether a cell in it is crowded.
const BATCH: usize = 32;
/// The number of cell registers whose survivors first go to a short stack, because an insertion into it is cheaper.
const CELLS_PER_SHORT_STACK: usize = 16;
/// The number of levels of a short stack.
const SHORT: usize = 3;

/// The survivors of each lane: logits and their places. A place is the number of a register in the stripe. The stack
/// uses the place as its marker: −1 marks an empty level.
type SurvivorStack = LaneStack<2>;

/// The memory for gathering.
pub(super) struct Gather {
    /// For each batch of cell registers: whether some cell contains a survivor in addition to its maximum.
    crowded: Memory,
    /// The cell registers of a batch that contain an additional survivor.
    crowded_cells: Memory,
    /// The survivors: logits, and places followed by the overflow.
    values: Memory,
    places: Memory,
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
        let (k, depth) = (cx.k, cx.layout.depth);
        Gather {
            crowded: k.scratch(Elem::I32, &[cx.layout.cells().div_ceil(BATCH)], Space::Smem),
            crowded_cells: k.scratch(Elem::I32, &[BATCH + 1], Space::Smem),
            values: k.scratch(Elem::F32, &[SUBLANES, depth * LANES], Space::Vmem),
            places: k.scratch(Elem::I32, &[SUBLANES, (depth + 1) * LANES], Space::Vmem),
        }
    }

    /// Returns all logits whose key is at least `threshold`. `threshold` is the key of a candidate.
    pub(super) fn survivors(&self, cx: &Context<'_>, prefilter: &Prefilter, threshold: Value) -> Gathered {
        let k = cx.k;
        let edge = edge_below(k, threshold);
        let stack = self.gather_maxima(cx, prefilter, edge);
        self.write(cx, &stack);
        // The search for more survivors runs only if there was space for all maxima.
        let overflow = k.any(k.ge(stack.overflow, k.i32(0)));
        k.when("room for survivors besides maxima", k.not(overflow), || {
            for_batches(cx, |number, count| self.gather_from_crowded(cx, prefilter, edge, number, count));
        });
        self.read(cx)
    }

    /// Gathers the maxima of cells above `edge`, and records which batches contain other survivors.
    fn gather_maxima(&self, cx: &Context<'_>, prefilter: &Prefilter, edge: Value) -> SurvivorStack {
        let (k, (batch, full, rest)) = (cx.k, batches(cx));
        let gather = |at: Value, count: usize, number: Value, state: &[Value]| {
            let mut stack = SurvivorStack::from_flat(state);
            let [best, second, place] = prefilter.registers(cx, at, count);
            let mut most = k.splat(k.f32(f32::NEG_INFINITY));
            for first in (0..count).step_by(CELLS_PER_SHORT_STACK) {
                let mut short = empty_stack(k, SHORT);
                for cell in first..count.min(first + CELLS_PER_SHORT_STACK) {
                    let at = k.i32((cell * LANES) as i32);
                    let value = k.load(&best, at);
                    short.push_where(k, k.above(value, edge), [value, k.load(&place, at)]);
                    most = k.fmax(most, k.load(&second, at));
                }
                stack.append(k, &short, 0);
            }
            let crowded = k.any(k.above(most, edge));
            k.set(&self.crowded, number, k.choose(crowded, k.i32(1), k.i32(0)));
            stack.flat()
        };
        let start = empty_stack(k, cx.layout.depth).flat();
        let state = k.for_each_of("gather maxima of cells", k.i32(full as i32), &start, |number, state| {
            gather(k.mul(number, k.i32(batch as i32)), batch, number, state)
        });
        SurvivorStack::from_flat(&match rest {
            0 => state,
            rest => gather(k.i32((full * batch) as i32), rest, k.i32(full as i32), &state),
        })
    }

    /// Gathers the other survivors of a batch of cells, if there are any.
    fn gather_from_crowded(
        &self,
        cx: &Context<'_>,
        prefilter: &Prefilter,
        edge: Value,
        number: Value,
        count: usize,
    ) {
        let k = cx.k;
        let crowded = k.eq(k.get(&self.crowded, number), k.i32(1));
        k.when("a cell holds another survivor", crowded, || {
            let first = k.mul(number, k.i32(batches(cx).0 as i32));
            let second = k.registers(&prefilter.second, first, count);
            // Every cell register is written at the end of the list. The end advances only if the register is
            // crowded.
            let mut length = k.i32(0);
            for cell in 0..count {
                let more = k.any(k.above(k.load(&second, k.i32((cell * LANES) as i32)), edge));
                k.set(&self.crowded_cells, length, k.add(first, k.i32(cell as i32)));
                length = k.add(length, k.choose(more, k.i32(1), k.i32(0)));
            }
            let stack = self.stack(cx).flat();
            let stack = k.for_each_of("crowded cells", length, &stack, |i, stack| {
                let cell = k.get(&self.crowded_cells, i);
                gather_from_cell(cx, prefilter, SurvivorStack::from_flat(stack), cell, edge).flat()
            });
            self.write(cx, &SurvivorStack::from_flat(&stack));
        });
    }

    fn stack(&self, cx: &Context<'_>) -> SurvivorStack {
        let (k, depth) = (cx.k, cx.layout.depth);
        let level = |memory: &Memory, level: usize| k.load(memory, k.i32((level * LANES) as i32));
        SurvivorStack {
            fields: [&self.values, &self.places].map(|memory| (0..depth).map(|i| level(memory, i)).collect()),
            overflow: level(&self.places, depth),
        }
    }

    fn write(&self, cx: &Context<'_>, stack: &SurvivorStack) {
        let k = cx.k;
        let [values, places] = &stack.fields;
        let store = |memory: &Memory, level: usize, value: Value| {
            k.store(memory, k.i32((level * LANES) as i32), value);
        };
        values.iter().enumerate().for_each(|(level, &value)| store(&self.values, level, value));
        let places = places.iter().chain([&stack.overflow]);
        places.enumerate().for_each(|(level, &place)| store(&self.places, level, place));
    }

    fn read(&self, cx: &Context<'_>) -> Gathered {
        let k = cx.k;
        let stack = self.stack(cx);
        let overflow = k.ge(stack.overflow, k.i32(0));
        let [values, places] = stack.fields;
        let indices = places.into_iter().map(|place| index_of_place(cx, place)).collect();
        Gathered { values, indices, overflow }
    }
}

/// Returns the number of cell registers of a full batch, the number of full batches of a row, and the number of
/// remaining cell registers.
fn batches(cx: &Context<'_>) -> (usize, usize, usize) {
    let cells = cx.layout.cells();
    let batch = BATCH.min(cells);
    (batch, cells / batch, cells % batch)
}

/// Calls `each` for every batch: in a loop over the full batches, and then for the rest. `each` receives the number of
/// the batch and the number of cell registers in it.
fn for_batches(cx: &Context<'_>, each: impl Fn(Value, usize)) {
    let (k, (batch, full, rest)) = (cx.k, batches(cx));
    k.for_each("batches of cells", k.i32(full as i32), [], |number, []| {
        each(number, batch);
        []
    });
    if rest > 0 {
        each(k.i32(full as i32), rest);
    }
}

/// Adds the survivors of a cell register to a stack, except the maxima of the cells.
fn gather_from_cell(
    cx: &Context<'_>,
    prefilter: &Prefilter,
    mut stack: SurvivorStack,
    cell: Value,
    edge: Value,
) -> SurvivorStack {
    let (k, layout) = (cx.k, cx.layout);
    let in_chunk = cells_in_chunk(cx) as i32;
    let (chunk, group) = if layout.chunks == 1 {
        (k.i32(0), cell)
    } else {
        let shift = in_chunk.trailing_zeros();
        (k.shr(cell, shift), k.and(cell, k.i32(in_chunk - 1)))
    };
    let by = rotation(cx, chunk, group);
    let back = k.sub(k.i32(LANES as i32), by);
    let place = k.rotate(k.load(&k.registers(&prefilter.place, cell, 1), k.i32(0)), back);
    let at = k.mul(cell, k.i32(layout.cell as i32));
    let rows = cx.logits.look_up(at, layout.cell);
    let mut others = empty_stack(k, SHORT);
    for register in 0..layout.cell {
        let x = k.load(&rows, k.i32((register * LANES) as i32));
        let here = k.add(at, k.i32(register as i32));
        others.push_where(k, k.both(k.above(x, edge), k.ne(place, here)), [x, here]);
    }
    let others = others.rotated(k, by);
    stack.push(k, others.level(0));
    let some = k.any(k.ge(others.level(1)[1], k.i32(0)));
    let stack = k.if_else(
        "a third survivor in a cell",
        some,
        || {
            let mut stack = SurvivorStack::from_flat(&stack.flat());
            stack.append(k, &others, 1);
            stack.flat()
        },
        || stack.flat(),
    );
    SurvivorStack::from_flat(&stack)
}

/// Returns an empty stack of survivors.
fn empty_stack(k: &Kernel, depth: usize) -> SurvivorStack {
    SurvivorStack::empty(depth, [k.splat(k.f32(0.0)), k.splat(k.i32(-1))])
}

impl SurvivorStack {
    /// Pushes a survivor in the lanes where it has a place. A recorded overflow stays recorded.
    fn push(&mut self, k: &Kernel, survivor: [Value; 2]) {
        let recorded = self.overflow;
        self.push_where(k, k.ge(survivor[1], k.i32(0)), survivor);
        self.overflow = k.max(recorded, self.overflow);
    }

    /// Pushes the levels of another stack, from level `from` on.
    fn append(&mut self, k: &Kernel, other: &SurvivorStack, from: usize) {
        for level in from..other.depth() {
            self.push(k, other.level(level));
        }
        self.overflow = k.max(self.overflow, other.overflow);
    }

    /// Returns the stack after a rotation of its lanes by `by`.
    fn rotated(&self, k: &Kernel, by: Value) -> SurvivorStack {
        let rotate = |levels: &Vec<Value>| levels.iter().map(|&value| k.rotate(value, by)).collect();
        SurvivorStack { fields: self.fields.each_ref().map(rotate), overflow: k.rotate(self.overflow, by) }
    }
}
