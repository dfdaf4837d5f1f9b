//! The bounded-k kernel: divides the row into tiles, filters to the tiles that can hold a survivor, and finishes
//! on a slice of `slots` entries. Exact for any input; the row itself is read once.
//!
//! The `slots` largest entries lie in the `slots` tiles whose maxima are largest (ties by lowest index): if an
//! entry's tile is not among them, each of them holds an entry that comes before it.

use super::rows::Row;
use super::sampling::{and_min_p, draw_remainder, top_p_target, weights, Draw};
use super::search::{gather_in_rows, positions, scale_by, top_k, TopK};
use crate::kernels::{Column, Spec};
use crate::mlir::stablehlo::{Elem, Hlo, Reduce, Value};
use crate::semantics::arith::{Arith, WideArith};

/// Entries of a tile. Small tiles leave fewer candidates to search, large ones fewer tile maxima.
const TILE: usize = 64;

pub(super) fn kernel(h: &Hlo, spec: &Spec, row: &Row, slots: usize) -> Vec<Value> {
    let batch = spec.batch;
    let index = survivors(h, spec, row, slots);
    let keys = gather_in_rows(h, row.keys, index);

    // [batch, this, other]
    let pairs = [batch, slots, slots];
    let this = |values: Value| h.broadcast_in_dim(values, &pairs, &[0, 1]);
    let other = |values: Value| h.broadcast_in_dim(values, &pairs, &[0, 2]);

    // A slot's rank in (key descending, index ascending); slots are in index order.
    let earlier = h.lt(h.iota(&pairs, 2), h.iota(&pairs, 1));
    let before = h.either(h.lt(this(keys), other(keys)), h.both(h.eq(this(keys), other(keys)), earlier));
    let rank = h.count(before);
    let first = h.eq(rank, h.int(0));
    let only = |mask: Value, values: Value| h.reduce(h.select(mask, values, h.int(0)), Reduce::Add);
    let greedy = only(first, index);

    // k is 0 where the whole row is kept, and then the row has no more entries than there are slots.
    let asked = row.param(h, Column::K);
    let k = h.select(h.eq(asked, h.int(0)), h.int(slots as i32), asked);
    let kept = h.lt(rank, k);
    let weights_k = weights(h, row, keys, kept, first);

    let least = least_weight(h, row, weights_k, &this, &other);
    let nucleus_k = h.select(h.lt(weights_k, least), h.int(0), weights_k);

    let sums = h.prefix_sum(h.convert(nucleus_k, Elem::U64));
    let total = h.reduce(sums, Reduce::Max);
    let remainder = draw_remainder(h, row, total);
    let slot = h.count(h.not(h.wlt(remainder, sums)));
    let next = only(h.eq(h.iota(&[batch, slots], 1), slot), index);

    let mut results = vec![super::outcome(h, row, greedy, &Draw { remainder, next })];
    if spec.wanted.topk_logits || spec.wanted.weights {
        let last = h.eq(rank, h.sub(k, h.int(1)));
        let kept = TopK { threshold: only(last, keys), last_tie: only(last, index) }.mask(h, row.keys);
        if spec.wanted.topk_logits {
            results.push(row.masked_logits(h, kept));
        }
        if spec.wanted.weights {
            let is_greedy = h.eq(h.iota(&[batch, spec.vocab], 1), greedy);
            let wide = weights(h, row, row.keys, kept, is_greedy);
            results.push(h.select(h.lt(wide, least), h.int(0), wide));
        }
    }
    if spec.wanted.slices {
        // Kept entries move to the front, in index order.
        let place = h.prefix_sum(h.count_mask(kept));
        let wanted_place = h.add(h.iota(&[batch, slots], 1), h.int(1));
        let is_here = h.both(h.eq(this(wanted_place), other(place)), other(kept));
        let moved = |values: Value| h.reduce(h.select(is_here, other(values), h.int(0)), Reduce::Add);
        let used = h.not(h.lt(h.count(kept), wanted_place));
        results.push(h.select(used, moved(index), h.int(-1)));
        results.push(row.replace_masked(h, used, moved(row.cleaned_at(h, index))));
        results.push(h.select(used, moved(nucleus_k), h.int(0)));
    }
    results
}

/// Indices `[batch, slots]`, ascending, of the `slots` largest entries of each row.
fn survivors(h: &Hlo, spec: &Spec, row: &Row, slots: usize) -> Value {
    let (batch, vocab) = (spec.batch, spec.vocab);
    let all = h.broadcast(h.int(slots as i32), &[batch]);
    if vocab == slots {
        return h.iota(&[batch, slots], 1);
    }
    let tiles = vocab.div_ceil(TILE);
    if tiles <= slots {
        let mask = top_k(h, row.keys, row.max_key, all, i32::MIN, true).mask(h, row.keys);
        return positions(h, mask, slots);
    }
    // Padding must lose against −inf, which top-k may keep.
    let padded = h.pad(row.keys, 1, 0, tiles * TILE - vocab, "-2147483648");
    let maxima = h.reduce(h.reshape(padded, &[batch, tiles, TILE]), Reduce::Max);
    let tile_mask = top_k(h, maxima, row.max_key, all, i32::MIN, true).mask(h, maxima);
    let tile = positions(h, tile_mask, slots);

    let starts = h.broadcast(scale_by(h, h.iota(&[batch], 0), tiles), &[batch, slots]);
    let gathered = h.gather_rows(h.reshape(padded, &[batch * tiles, TILE]), h.add(starts, tile));
    let candidates = h.reshape(gathered, &[batch, slots * TILE]);
    let mask = top_k(h, candidates, row.max_key, all, i32::MIN, true).mask(h, candidates);
    let place = positions(h, mask, slots);
    let chosen_tile = gather_in_rows(h, tile, h.shr(place, TILE.trailing_zeros()));
    h.add(scale_by(h, chosen_tile, TILE), h.and(place, h.int(TILE as i32 - 1)))
}

/// The least weight that top-p and min-p keep, from the sums of all weights of at least each weight.
fn least_weight(
    h: &Hlo,
    row: &Row,
    weights: Value,
    this: &dyn Fn(Value) -> Value,
    other: &dyn Fn(Value) -> Value,
) -> Value {
    let (off, target) = top_p_target(h, row, weights);
    let reach = h.select(h.lt(other(weights), this(weights)), h.int(0), other(weights));
    let enough = h.not(h.wlt(h.wide_sum(reach), target));
    let threshold = h.reduce(h.select(enough, weights, h.int(0)), Reduce::Max);
    and_min_p(h, row, h.select(off, h.int(0), threshold))
}
