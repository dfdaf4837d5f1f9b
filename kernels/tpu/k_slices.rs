//! The k-slices of the bounded path: the entries that top-k keeps, by ascending index.

use super::context::{Context, NO_INDEX};
use crate::mlir::mosaic::{Elem, Kernel, Memory, Value, LANES};
use crate::semantics::arith::Arith;

/// The memory for the k-slices: indices, order keys and weights, `[8, 128]` each. One slot per lane.
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
    pub(super) fn new(k: &Kernel) -> KSlices {
        let window = || k.window(Elem::I32, LANES);
        KSlices { indices: window(), keys: window(), weights: window() }
    }

    /// Writes the slots. `next` receives an index of each row and returns the kept entry with the next larger index.
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
        let start = k.i32(0);
        k.store(&self.indices, start, indices);
        k.store(&self.keys, start, keys);
        k.store(&self.weights, start, weights);
    }
}
