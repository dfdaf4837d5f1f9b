//! The data that every step of a kernel uses: the builder, the logits of a block, and the parameters of its rows.

use super::layout::Layout;
use super::stream::LogitStream;
use crate::batch::LARGEST_VOCAB;
use crate::dtype::Dtype;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Memory, Value, LANES};
use crate::semantics::arith::Arith;
use crate::semantics::narrow_keys::{full_key, short_key};

/// Represents "no entry" in a search for the least index. It is larger than every index, and a float represents it
/// exactly.
pub(super) const NO_INDEX: i32 = LARGEST_VOCAB as i32;

/// One block of rows.
///
/// A value per row is a register that contains the value in all lanes of all stripes of the row.
pub(super) struct Context<'a> {
    /// The builder.
    pub(super) k: &'a Kernel,
    pub(super) spec: Spec,
    pub(super) layout: Layout,
    pub(super) logits: LogitStream<'a>,
    /// The parameters, `[8, 128]`. Lane `i` of every stripe contains column `i` of the parameter array.
    pub(super) params: Memory,
}

impl Context<'_> {
    /// Returns the number of cells of a row.
    pub(super) fn cells(&self) -> usize {
        self.layout.cells() * LANES * self.k.stripes()
    }

    /// Adds the index of the first entry of a stripe to places in the stripe.
    pub(super) fn in_stripe(&self, place: Value) -> Value {
        let k = self.k;
        match k.stripes() {
            1 => place,
            _ => k.add(place, k.mul(k.stripe(), k.i32(self.layout.stripe() as i32))),
        }
    }

    /// Adds operations on survivors. If the layout has copies, all stripes of a row have the same survivors.
    pub(super) fn among_survivors<R>(&self, operations: impl FnOnce() -> R) -> R {
        match self.layout.copies {
            Some(_) => self.k.in_copies(operations),
            None => operations(),
        }
    }

    /// Returns a parameter of each row.
    pub(super) fn param(&self, column: Column) -> Value {
        self.k.lane_of(&self.params, column as usize)
    }

    /// Shortens an order key to the bits that logits of this type need. Short keys have the same order as full keys.
    pub(super) fn short_key(&self, key: Value) -> Value {
        match self.spec.dtype {
            Dtype::Bf16 => short_key(self.k, key, Dtype::Bf16.unused_key_bits()),
            Dtype::F32 | Dtype::F16 => key,
        }
    }

    /// Returns the order key that [`short_key`](Context::short_key) shortened.
    pub(super) fn full_key(&self, short: Value) -> Value {
        match self.spec.dtype {
            Dtype::Bf16 => full_key(self.k, short, Dtype::Bf16.unused_key_bits()),
            Dtype::F32 | Dtype::F16 => short,
        }
    }
}

/// The results of a block's rows.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) next: Value,
    pub(super) greedy: Value,
    pub(super) remainder: Wide,
    /// The least order key that top-k keeps.
    pub(super) threshold: Value,
    /// The last index at which top-k keeps that key.
    pub(super) last_tie: Value,
    /// The least weight that survives both top-p and min-p.
    pub(super) least_weight: Value,
}

impl Outcome {
    /// The number of values that an outcome flattens to.
    pub(super) const VALUES: usize = 7;

    /// Returns the values of the outcome, in the form that a branch returns.
    pub(super) fn flat(self) -> Vec<Value> {
        let Outcome { next, greedy, remainder, threshold, last_tie, least_weight } = self;
        vec![next, greedy, remainder.low, remainder.high, threshold, last_tie, least_weight]
    }

    pub(super) fn from_flat(flat: &[Value]) -> Outcome {
        let [next, greedy, low, high, threshold, last_tie, least_weight] =
            flat.try_into().expect("as many values as an outcome flattens to");
        Outcome { next, greedy, remainder: Wide { low, high }, threshold, last_tie, least_weight }
    }
}
