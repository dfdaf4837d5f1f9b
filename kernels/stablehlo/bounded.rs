//! The bounded-k kernel. It divides each row into tiles, selects the tiles that can contain a kept entry, and processes
//! a slice of `slots` entries. It is exact for any input. It reads the row only once.
//!
//! The `slots` largest entries are in the `slots` tiles with the largest maxima (ties by lowest index). Proof: take an
//! entry in another tile, and the order by descending value and ascending index. In this order, the maximum of each of
//! the `slots` tiles precedes the entry. So the entry is not one of the `slots` largest.

use super::inputs::Inputs;
use super::sampling::{self, draw_remainder, row_results, top_p_target, weights, Draw};
use super::search::{gather_in_rows, gather_tiles, positions, scale_by, top_k, TopK};
use super::wide_outputs::{full_width, Thresholds};
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::mlir::stablehlo::{Elem, Hlo, Reduce, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::{kept_weight, survives_top_k};

/// The number of entries per tile. Smaller tiles leave fewer candidates to search, but there are more maxima.
const TILE: usize = 64;

pub(super) fn kernel(h: &Hlo, spec: &Spec, inputs: &Inputs) -> Vec<Value> {
    let slots = spec.slots();
    let pairs = Pairs { h, dims: [spec.batch, slots, slots] };
    let index = largest_entries(h, spec, inputs, slots);
    let keys = gather_in_rows(h, inputs.keys, index);
    let rank = pairs.ranks(keys);
    let first = h.eq(rank, h.int(1));
    let only = |mask: Value, values: Value| h.reduce(h.select(mask, values, h.int(0)), Reduce::Add);
    let greedy = only(first, index);

    // k is 0 if top-k keeps the whole row. The row then has at most as many entries as there are slots.
    let asked = inputs.param(h, Column::K);
    let k = h.select(h.eq(asked, h.int(0)), h.int(slots as i32), asked);
    let kept = h.le(rank, k);
    let all_weights = weights(h, inputs, keys, kept, first);
    let least_weight = least_weight(h, inputs, all_weights, &pairs);
    let kept_weights = kept_weight(h, all_weights, least_weight);

    let sums = h.prefix_sum(h.convert(kept_weights, Elem::U64));
    let remainder = draw_remainder(h, inputs, h.reduce(sums, Reduce::Max));
    let slot = h.count(h.not(h.wlt(remainder, sums)));
    let next = only(h.eq(h.iota(&[spec.batch, slots], 1), slot), index);

    let mut results = vec![row_results(h, inputs, greedy, &Draw { remainder, next })];
    if spec.wanted.full_width() {
        let last = h.eq(rank, k);
        let top_k = TopK { threshold: only(last, keys), last_tie: only(last, index) };
        results.extend(full_width(h, spec, inputs, &Thresholds { top_k, greedy, least_weight }));
    }
    if spec.wanted.slices {
        results.extend(k_slices(h, inputs, &pairs, kept, index, kept_weights));
    }
    results
}

/// Comparisons of every slot with every slot, `[batch, this, other]`.
struct Pairs<'a> {
    h: &'a Hlo,
    dims: [usize; 3],
}

impl Pairs<'_> {
    /// Repeats the values `[batch, slots]` of this slot for every other slot.
    fn this(&self, values: Value) -> Value {
        self.h.broadcast_in_dim(values, &self.dims, &[0, 1])
    }

    /// Repeats the values `[batch, slots]` of the other slot for every slot.
    fn other(&self, values: Value) -> Value {
        self.h.broadcast_in_dim(values, &self.dims, &[0, 2])
    }

    /// Returns the rank of each slot in the order (key descending, index ascending), counted from 1. Slots are in index
    /// order.
    fn ranks(&self, keys: Value) -> Value {
        let h = self.h;
        let (this, other) = (h.iota(&self.dims, 1), h.iota(&self.dims, 2));
        // Counts the slots that top-k would keep if this slot were the last kept one.
        h.count(survives_top_k(h, self.other(keys), other, self.this(keys), this))
    }
}

/// Returns the ascending indices `[batch, slots]` of the `slots` largest entries of each row.
fn largest_entries(h: &Hlo, spec: &Spec, inputs: &Inputs, slots: usize) -> Value {
    let (batch, vocab) = (spec.batch, spec.vocab);
    let all = h.broadcast(h.int(slots as i32), &[batch]);
    if vocab == slots {
        return h.iota(&[batch, slots], 1);
    }
    let largest = |keys: Value| {
        let mask = top_k(h, keys, inputs.max_key, all, i32::MIN, true).keeps(h, keys);
        positions(h, mask, slots)
    };
    let tiles = vocab.div_ceil(TILE);
    if tiles <= slots {
        return largest(inputs.keys);
    }
    // The padding must rank below −inf, because top-k may keep −inf.
    let padded = h.pad(inputs.keys, 1, 0, tiles * TILE - vocab, "-2147483648");
    let tile = largest(h.reduce(h.reshape(padded, &[batch, tiles, TILE]), Reduce::Max));

    let gathered = gather_tiles(h, padded, TILE, tile);
    let place = largest(h.reshape(gathered, &[batch, slots * TILE]));
    let chosen_tile = gather_in_rows(h, tile, h.shr(place, TILE.trailing_zeros()));
    h.add(scale_by(h, chosen_tile, TILE), h.and(place, h.int(TILE as i32 - 1)))
}

/// Returns the least weight that top-p and min-p keep. The sum for a weight includes all weights that are at least as
/// large.
fn least_weight(h: &Hlo, inputs: &Inputs, weights: Value, pairs: &Pairs<'_>) -> Value {
    let (off, target) = top_p_target(h, inputs, weights);
    let at_least_as_large = kept_weight(h, pairs.other(weights), pairs.this(weights));
    let enough = h.not(h.wlt(h.wide_sum(at_least_as_large), target));
    let threshold = h.reduce(h.select(enough, weights, h.int(0)), Reduce::Max);
    sampling::least_weight(h, inputs, h.select(off, h.int(0), threshold))
}

/// Returns the k-slices. Kept entries move to the front, in index order.
fn k_slices(
    h: &Hlo,
    inputs: &Inputs,
    pairs: &Pairs<'_>,
    kept: Value,
    index: Value,
    weights: Value,
) -> [Value; 3] {
    let place = h.prefix_sum(h.count_mask(kept));
    let wanted_place = h.add(h.iota(&h.dims(index), 1), h.int(1));
    let is_here = h.both(h.eq(pairs.this(wanted_place), pairs.other(place)), pairs.other(kept));
    let moved = |values: Value| h.reduce(h.select(is_here, pairs.other(values), h.int(0)), Reduce::Add);
    let used = h.le(wanted_place, h.count(kept));
    [
        h.select(used, moved(index), h.int(-1)),
        inputs.replace_masked(h, used, moved(inputs.cleaned_at(h, index))),
        h.select(used, moved(weights), h.int(0)),
    ]
}
