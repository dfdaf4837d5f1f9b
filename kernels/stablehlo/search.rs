//! Searches over rows without sorting. Bisection finds thresholds. Prefix sums of tiles find positions.

use crate::mlir::stablehlo::{Elem, Hlo, Reduce, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::survives_top_k;

/// The parameters of [`survives_top_k`], `[batch]` each. They determine the entries that top-k keeps.
pub(in crate::kernels) struct TopK {
    pub(in crate::kernels) threshold: Value,
    pub(in crate::kernels) last_tie: Value,
}

impl TopK {
    /// Whether top-k keeps each entry of `keys [batch, n]`, which are the keys that were searched.
    pub(in crate::kernels) fn keeps(&self, h: &Hlo, keys: Value) -> Value {
        survives_top_k(h, keys, h.iota(&h.dims(keys), 1), self.threshold, self.last_tie)
    }
}

/// Finds the `k [batch]` largest of `keys [batch, n]` in the order (key descending, index ascending). `k` must be in
/// `1..=n`. Every key is at least `least`.
pub(in crate::kernels) fn top_k(
    h: &Hlo,
    keys: Value,
    max_key: Value,
    k: Value,
    least: i32,
    stable: bool,
) -> TopK {
    let Threshold { key: threshold, reached, above } = top_k_threshold(h, keys, max_key, k, least);
    let all = h.broadcast(h.int(i32::MAX), &[h.dims(keys)[0]]);
    if !stable {
        return TopK { threshold, last_tie: all };
    }
    // If more than k keys reach the threshold, top-k keeps the first k − above of the ties. The loop runs at most
    // once. It is a loop so that a batch without ties skips the passes.
    let crowded = h.not(h.eq(reached, k));
    let [_, last_tie] = h.while_loop(
        [h.any(crowded), all],
        |[go, _]| go,
        |[_, last]| {
            let ties = h.count_mask(h.eq(keys, threshold));
            let before_last = h.sub(h.sub(k, above), h.int(1));
            let position = first_beyond(h, ties, h.widen(before_last));
            [h.constant_false(), h.select(crowded, position, last)]
        },
    );
    TopK { threshold, last_tie }
}

/// A threshold of top-k, `[batch]` each.
struct Threshold {
    /// The largest key that at least k keys reach.
    key: Value,
    /// The number of keys that reach it.
    reached: Value,
    /// The number of keys above it, if more than k reach it.
    above: Value,
}

/// Bisects for the threshold of [`top_k`].
///
/// A row is done when exactly k keys reach its lower bound. So a row needs few passes if the k-th key is much larger
/// than the next key. The number of passes is about the number of leading zeros of the difference of these two keys.
fn top_k_threshold(h: &Hlo, keys: Value, max_key: Value, k: Value, least: i32) -> Threshold {
    let dims = h.dims(keys);
    let (batch, n) = (dims[0], dims[1]);
    let everything = h.broadcast(h.int(n as i32), &[batch]);
    let lowest = h.broadcast(h.int(least), &[batch]);
    let beyond = h.add(max_key, h.int(1));
    let nothing = h.broadcast(h.int(0), &[batch]);

    // In every row: count(keys ≥ low) = at_low ≥ k > at_high = count(keys ≥ high).
    let open =
        |[low, high, at_low, _]: [Value; 4]| h.both(h.not(h.eq(at_low, k)), h.lt(h.add(low, h.int(1)), high));
    let [key, _, reached, above] = h.while_loop(
        [lowest, beyond, everything, nothing],
        |state| h.any(open(state)),
        |state| {
            let [low, high, at_low, at_high] = state;
            // The floor of the average. It cannot overflow.
            let middle = h.add(h.and(low, high), h.shr(h.xor(low, high), 1));
            let count = h.count(h.le(middle, keys));
            let open = open(state);
            let up = h.both(open, h.le(k, count));
            let down = h.both(open, h.lt(count, k));
            [
                h.select(up, middle, low),
                h.select(down, middle, high),
                h.select(up, count, at_low),
                h.select(down, count, at_high),
            ]
        },
    );
    Threshold { key, reached, above }
}

/// Returns the lowest index at which the inclusive prefix sum of `values [batch, n]` exceeds `bound [batch]` (64 bits).
/// `values` must not be negative. The result is at least n if no prefix sum exceeds the bound.
///
/// Sums whole tiles first, so the row is read once.
pub(in crate::kernels) fn first_beyond(h: &Hlo, values: Value, bound: Value) -> Value {
    let dims = h.dims(values);
    let (batch, n) = (dims[0], dims[1]);
    let width = tile_width(n);
    let tiles = n.div_ceil(width);
    let tiled = h.reshape(h.pad(values, 1, 0, tiles * width - n, "0"), &[batch, tiles, width]);

    let sums = h.prefix_sum(h.wide_sum(tiled));
    let passed = h.not(h.wlt(bound, sums));
    let tile = h.count(passed);
    let before = h.reduce(h.wselect(passed, sums, h.wide(0)), Reduce::Max);

    // If the total of a row does not exceed the bound, the search passes every tile. The gather is then clamped, and
    // the result is at least n.
    let last_tile = h.int(tiles as i32 - 1);
    let clamped = h.select(h.lt(last_tile, tile), last_tile, tile);
    let starts = scale_by(h, h.iota(&[batch], 0), tiles);
    let inner = h.gather_rows(h.reshape(tiled, &[batch * tiles, width]), h.add(starts, clamped));
    let inner_sums = h.wadd(h.prefix_sum(h.convert(inner, Elem::U64)), before);
    let offset = h.count(h.not(h.wlt(bound, inner_sums)));
    let found = h.add(scale_by(h, tile, width), offset);
    h.select(h.lt(last_tile, tile), h.int(n as i32), found)
}

/// Returns the ascending positions `[batch, slots]` of the first true entries of `mask [batch, n]`. Every row must have
/// at least `slots` true entries.
pub(in crate::kernels) fn positions(h: &Hlo, mask: Value, slots: usize) -> Value {
    let dims = h.dims(mask);
    let (batch, n) = (dims[0], dims[1]);
    let width = tile_width(n);
    let tiles = n.div_ceil(width);
    let ones = h.pad(h.count_mask(mask), 1, 0, tiles * width - n, "0");
    let tiled = h.reshape(ones, &[batch, tiles, width]);

    let sums = h.prefix_sum(h.reduce(tiled, Reduce::Add));
    let slot = h.iota(&[batch, slots], 1);
    let across = |values: Value, n: usize| h.broadcast_in_dim(values, &[batch, slots, n], &[0, 2]);
    let passed = h.le(across(sums, tiles), slot);
    let tile = h.count(passed);
    let before = h.reduce(h.select(passed, across(sums, tiles), h.int(0)), Reduce::Max);

    let starts = h.broadcast(scale_by(h, h.iota(&[batch], 0), tiles), &[batch, slots]);
    let inner = h.prefix_sum(h.gather_rows(h.reshape(tiled, &[batch * tiles, width]), h.add(starts, tile)));
    let offset = h.count(h.le(inner, h.sub(slot, before)));
    h.add(scale_by(h, tile, width), offset)
}

/// Returns `values [batch, n]` at `positions [batch, m]` of each row.
pub(in crate::kernels) fn gather_in_rows(h: &Hlo, values: Value, positions: Value) -> Value {
    let (dims, wanted) = (h.dims(values), h.dims(positions));
    let (batch, n) = (dims[0], dims[1]);
    let starts = h.broadcast(scale_by(h, h.iota(&[batch], 0), n), &wanted);
    let column = h.reshape(values, &[batch * n, 1]);
    h.reshape(h.gather_rows(column, h.add(starts, positions)), &wanted)
}

/// Returns `value · by`.
pub(in crate::kernels) fn scale_by(h: &Hlo, value: Value, by: usize) -> Value {
    h.mul_int(value, h.int(by as i32))
}

/// Returns a power of two near the square root of `n`, so that the number of tiles and their width are about equal.
fn tile_width(n: usize) -> usize {
    let mut width = 1;
    while width * width < n {
        width *= 2;
    }
    width
}
