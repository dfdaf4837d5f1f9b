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
    let inner = gather_tiles(h, tiled, width, clamped);
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

    let inner = h.prefix_sum(gather_tiles(h, tiled, width, tile));
    let offset = h.count(h.le(inner, h.sub(slot, before)));
    h.add(scale_by(h, tile, width), offset)
}

/// Returns `values [batch, n]` at `positions [batch, m]` of each row.
pub(in crate::kernels) fn gather_in_rows(h: &Hlo, values: Value, positions: Value) -> Value {
    h.reshape(gather_tiles(h, values, 1, positions), &h.dims(positions))
}

/// Returns the tiles `[.., width]` at `positions [batch, ..]` of each row of `values`. The first dimension of `values`
/// is the batch. The elements of a row are tiles of `width` elements. Positions must be in range.
pub(in crate::kernels) fn gather_tiles(h: &Hlo, values: Value, width: usize, positions: Value) -> Value {
    let (dims, wanted) = (h.dims(values), h.dims(positions));
    let tiles = dims[1..].iter().product::<usize>() / width;
    let (row, table) = (h.iota(&[dims[0]], 0), [dims[0] * tiles, width]);
    // The index of a tile counts the tiles of all previous rows too. In a large batch of long rows, the index does not
    // fit 32 bits.
    // Other programs use 32 bits, because their indices then need less memory.
    if table[0] > 1 << 31 {
        let starts = h.broadcast(h.wmul(h.widen(row), h.wide(tiles as u64)), &wanted);
        return h.gather_rows(h.reshape(values, &table), h.wadd(starts, h.widen(positions)));
    }
    let starts = h.broadcast(scale_by(h, row, tiles), &wanted);
    h.gather_rows(h.reshape(values, &table), h.add(starts, positions))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the operations of a program that gathers elements of rows, without the operands and results.
    fn gather(batch: usize, n: usize) -> Vec<String> {
        let h = &Hlo::new();
        let (values, positions) = (h.argument(Elem::I32, &[batch, n]), h.argument(Elem::I32, &[batch, 2]));
        gather_in_rows(h, values, positions);
        let text = h.finish("name", &[]);
        let operations = text.lines().filter_map(|line| line.trim().strip_prefix('%')?.split_once(" = "));
        operations.map(|(_, operation)| operation.to_owned()).collect()
    }

    #[test]
    fn the_indices_in_a_large_batch_have_64_bits() {
        let types = |operations: &[String], name: &str| -> Vec<String> {
            let named = operations.iter().filter(|operation| operation.contains(name));
            named.map(|operation| operation.rsplit_once(" : ").expect("a type").1.to_owned()).collect()
        };
        let (fits, large) = (gather(2, 1 << 30), gather(3, 1 << 30));
        for name in ["stablehlo.multiply", "stablehlo.add"] {
            assert!(types(&fits, name).iter().all(|ty| ty.ends_with("xi32>")), "{fits:#?}");
            assert!(types(&large, name).iter().all(|ty| ty.ends_with("xui64>")), "{large:#?}");
        }
        let gathers = [&fits, &large].map(|operations| types(operations, "stablehlo.gather"));
        assert_eq!(
            gathers.concat(),
            [
                "(tensor<2147483648x1xi32>, tensor<4x1xi32>) -> tensor<4x1xi32>",
                "(tensor<3221225472x1xi32>, tensor<6x1xui64>) -> tensor<6x1xi32>",
            ]
        );
    }
}
