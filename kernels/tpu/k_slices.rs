//! The k-slices of the bounded path: the entries that top-k keeps, by ascending index.

use super::context::{Context, NO_INDEX};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Value, LANES};
use crate::semantics::arith::Arith;

/// The memories for the k-slices: indices, order keys and weights. Each lane of a memory is one slot. With up to 128
/// slots, each memory is one register.
pub(super) struct KSlices {
    indices: Memory,
    keys: Memory,
    weights: Memory,
}

/// The content of a slot.
pub(super) struct Slot {
    /// The index of an entry, or [`NO_INDEX`].
    pub(super) index: Value,
    pub(super) key: Value,
    pub(super) weight: Value,
}

impl KSlices {
    /// Declares the memory. It forms the last results of the kernel.
    pub(super) fn new(k: &Kernel, slots: usize) -> KSlices {
        let window = || k.window(Elem::I32, width_of_slices(slots));
        KSlices { indices: window(), keys: window(), weights: window() }
    }

    /// Returns the number of registers of each memory.
    pub(super) fn registers(&self) -> usize {
        self.indices.dims()[1] / LANES
    }

    /// Returns the indices and the keys of a register.
    pub(super) fn load(&self, k: &Kernel, register: usize) -> [Value; 2] {
        [&self.indices, &self.keys].map(|memory| k.load(memory, k.i32((register * LANES) as i32)))
    }

    /// Writes the indices and the keys of a register.
    pub(super) fn store_entries(&self, k: &Kernel, register: usize, entries: [Value; 2]) {
        for (memory, value) in [&self.indices, &self.keys].into_iter().zip(entries) {
            k.store(memory, k.i32((register * LANES) as i32), value);
        }
    }

    /// Writes the indices, the keys and the weights of a register.
    pub(super) fn store(&self, k: &Kernel, register: usize, [indices, keys, weights]: [Value; 3]) {
        self.store_entries(k, register, [indices, keys]);
        k.store(&self.weights, k.i32((register * LANES) as i32), weights);
    }

    /// Writes up to 128 slots. `next` receives an index of each row. It returns the kept entry with the next larger
    /// index in the row.
    pub(super) fn write(&self, cx: &Context<'_>, next: impl FnOnce(Value) -> Slot) {
        let k = cx.k;
        let lane = k.lane();
        let start = [k.splat(k.i32(-1)), k.splat(k.i32(-1)), k.splat(k.i32(0)), k.splat(k.i32(0))];
        let [_, indices, keys, weights] =
            k.for_each("slots of the k-slices", k.i32(cx.spec.slots() as i32), start, |slot, state| {
                let [previous, indices, keys, weights] = state;
                let entry = next(previous);
                let found = k.both(k.eq(lane, slot), k.lt(entry.index, k.i32(NO_INDEX)));
                [
                    entry.index,
                    k.choose(found, entry.index, indices),
                    k.choose(found, entry.key, keys),
                    k.choose(found, entry.weight, weights),
                ]
            });
        self.store(k, 0, [indices, keys, weights]);
    }
}

/// Returns the number of lanes of each memory.
pub(super) fn width_of_slices(slots: usize) -> usize {
    slots.next_multiple_of(LANES)
}
