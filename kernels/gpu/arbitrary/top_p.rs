//! Top-p and min-p: find the least weight to keep, in two passes. The first pass sums the weights in bins. If the bin
//! that contains the least weight has more than one weight, the second pass counts the distances in that bin.

use super::division::Division;
use super::records::{Narrowed, Records, Scanned, Selected, NARROWED, SCANNED, SELECTED, WIDE};
use super::row_block::RowBlock;
use super::slice_block::SliceBlock;
use super::table::{Bins, RowTables};
use super::weigh::{
    bin_of, has_top_p, is_drawn, single_weight, weight_at, Weights, BY_DISTANCE, BY_WEIGHT, FIRST_SINGLE,
    NO_BIN,
};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Address, Int, Ptx, Wide};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::order_key;
use crate::semantics::rules::{kept_weight, least_weight};
use crate::semantics::top_p::target;

/// A weight is summed in two parts, because a sum of weights exceeds 32 bits. The low part has this number of bits.
const LOW_BITS: u32 = 14;
const _: () = assert!((super::division::LARGEST_SLICE << LOW_BITS) <= u32::MAX as usize);
/// The value of [`Narrowed::First`] of a row whose second pass has nothing to do.
const NOT_NEEDED: i32 = -1;

/// The arrays that determine the weights of a row.
pub(super) struct RowArrays<'k> {
    pub(super) rows: Records<'k>,
    pub(super) selected: Records<'k>,
}

impl<'k> RowArrays<'k> {
    /// Declares the arrays as the next arguments of the kernel.
    pub(super) fn arguments(k: &'k Ptx) -> RowArrays<'k> {
        RowArrays { rows: Records::argument(k, SCANNED), selected: Records::argument(k, SELECTED) }
    }

    pub(super) fn max_key(&self, row: Int) -> Int {
        self.rows.load(row, Scanned::MaxKey as usize)
    }

    /// The threshold and the last tie of top-k.
    pub(super) fn top_k(&self, row: Int) -> [Int; 2] {
        [Selected::Threshold, Selected::LastTie].map(|word| self.selected.load(row, word as usize))
    }

    pub(super) fn weights(&self, parameters: &Parameters<'_>, row: Int) -> Weights<'k> {
        Weights::new(self.rows.k, parameters, self.max_key(row), self.top_k(row))
    }
}

/// Writes the first pass, with one block per slice. Its arguments are the logits, the parameters, the row arrays, and
/// the results: the sum of the weights that min-p keeps, if the row has no top-p, else the table of weights.
pub(super) fn write_weigh(k: &Ptx, spec: &Spec, division: &Division) {
    let slice = SliceBlock::arguments(k, spec, division);
    let arrays = RowArrays::arguments(k);
    let sums = Records::argument(k, WIDE);
    let table = [(); 2].map(|()| k.argument());
    let (block, parameters, row) = (&slice.block, &slice.parameters, slice.row);
    let max_key = arrays.max_key(row);
    k.when(is_drawn(k, parameters, max_key), || {
        let with_bins = has_top_p(k, parameters, max_key);
        let weights = arrays.weights(parameters, row);
        let (with_top_k, bound) = (weights.has_top_k(), weights.raw_bound());
        let least = parameters.get(Column::MinWeight);
        let bins = Bins::new(k, BY_WEIGHT);
        k.when(with_bins, || bins.clear(block));
        let sum = k.wide_variable(k.wide(0));
        let add = |weights: &[Int]| {
            k.when_else(
                with_bins,
                || weights.iter().for_each(|&weight| add_weight(k, &bins, weight)),
                || {
                    let kept = weights.iter().map(|&weight| k.widen(kept_weight(k, weight, least)));
                    k.set_wide(sum, kept.fold(k.get_wide(sum), |a, b| k.wadd(a, b)));
                },
            );
        };
        slice.for_each_tile(|logits| {
            let weight = |number| weights.of(logits.cleaned(number), logits.index(number));
            let numbers = 0..logits.values.len();
            // Top-k usually removes most entries. It is then faster to skip entries one by one.
            k.when_else(
                with_top_k,
                || {
                    for number in numbers.clone() {
                        k.when(k.at_least(logits.values[number], bound), || add(&[weight(number)]));
                    }
                },
                || add(&numbers.clone().map(weight).collect::<Vec<_>>()),
            );
        });
        k.when_else(
            with_bins,
            || {
                bins.store(block, table, |_, parts| {
                    let sum = k.wadd(k.widen(parts[0]), k.wshl(k.widen(parts[1]), LOW_BITS));
                    (vec![k.low(sum), k.high(sum)], sum)
                });
            },
            || {
                let sum = block.wide_sum(k.get_wide(sum));
                k.when(block.is_first(), || sums.store_wide(k.block(), sum));
            },
        );
    });
}

/// Adds a weight to its bin.
fn add_weight(k: &Ptx, bins: &Bins, weight: Int) {
    k.when(k.lt(k.int(0), weight), || {
        let parts = [k.and(weight, k.int((1 << LOW_BITS) - 1)), k.shr(weight, LOW_BITS)];
        bins.add(k, bin_of(k, weight), &parts);
    });
}

/// Writes the kernel that finds the bin of the least weight to keep, with one block per row. Its arguments are the
/// parameters, the rows, the table of weights, and the results: the [`Narrowed`] rows, and the sum of the weights of
/// each slice that are kept whatever the second pass finds.
pub(super) fn write_narrow(k: &Ptx, division: &Division) {
    let parameters = k.argument();
    let rows = Records::argument(k, SCANNED);
    let table = [(); 2].map(|()| k.argument());
    let (narrowed, above) = (Records::argument(k, NARROWED), Records::argument(k, WIDE));
    let block = RowBlock::new(k, division);
    let parameters = Parameters::new(k, parameters, block.row);
    let max_key = rows.load(block.row, Scanned::MaxKey as usize);
    k.when(has_top_p(k, &parameters, max_key), || {
        let load = |_, address| k.load_wide(address);
        let tables = RowTables { block: &block, shape: BY_WEIGHT, arrays: table, load };
        let (mantissa, shift) = (parameters.get(Column::TopPMantissa), parameters.get(Column::TopPShift));
        let target = target(k, tables.total(), mantissa, shift);
        let (of_top_p, before) = tables.locate(target);
        let min_weight = parameters.get(Column::MinWeight);
        let has_min_p = k.lt(k.int(0), min_weight);
        let bin = k.min(of_top_p, k.select(has_min_p, bin_of(k, min_weight), k.int(NO_BIN)));
        let by_top_p = k.eq(bin, of_top_p);

        let is_single = k.le(k.int(FIRST_SINGLE), bin);
        let end = k.add(bin, k.int(1));
        let first = distances_before(&block, bin);
        let distances = k.sub(distances_before(&block, end), first);
        let threshold = k.select(by_top_p, single_weight(k, bin), k.int(0));
        let least = least_weight(k, threshold, min_weight);
        let rest = k.wselect(by_top_p, k.wide_difference(target, before), k.wide(0));
        let words = [k.select(is_single, k.int(NOT_NEEDED), first), least, distances, k.int(0)];
        k.when(block.is_first(), || {
            let address = k.address(narrowed.array, block.row, NARROWED * 4);
            k.store(address, 0, &words);
            k.store(address, Narrowed::Target as usize * 4, &[k.low(rest), k.high(rest), k.int(0), k.int(0)]);
        });
        let end = k.select(is_single, end, bin);
        block.fill_slices(|slice| tables.part_before(slice, end));
        let slice = block.block.thread;
        k.when(block.is_slice(slice), || above.store_wide(block.number(slice), block.sum(slice)));
    });
}

/// The number of distances whose weight is in a bin before `bin`.
fn distances_before(block: &RowBlock<'_>, bin: Int) -> Int {
    let k = block.k;
    block.count_from_zero(|q| {
        let weight = weight_at(k, q);
        k.both(k.lt(k.int(0), weight), k.lt(bin_of(k, weight), bin))
    })
}

/// Writes the second pass, with one block per slice. Its arguments are the logits, the parameters, the row arrays, the
/// [`Narrowed`] rows, and the table of distances.
pub(super) fn write_refine(k: &Ptx, spec: &Spec, division: &Division) {
    let slice = SliceBlock::arguments(k, spec, division);
    let arrays = RowArrays::arguments(k);
    let narrowed = Records::argument(k, NARROWED);
    let table = [(); 2].map(|()| k.argument());
    let (block, parameters, row) = (&slice.block, &slice.parameters, slice.row);
    let first = k.variable(k.int(NOT_NEEDED));
    k.when(has_top_p(k, parameters, arrays.max_key(row)), || {
        k.set(first, narrowed.load(row, Narrowed::First as usize));
    });
    let first = k.get(first);
    k.when(k.le(k.int(0), first), || {
        let weights = arrays.weights(parameters, row);
        let distances = narrowed.load(row, Narrowed::Distances as usize);
        let bins = Bins::new(k, BY_DISTANCE);
        bins.clear(block);
        slice.for_each_tile(|logits| {
            for number in 0..logits.values.len() {
                let bits = logits.cleaned(number);
                let distance = k.sub(weights.q(bits), first);
                let is_in_bin = k.both(k.le(k.int(0), distance), k.lt(distance, distances));
                k.when(is_in_bin, || {
                    let survives = weights.survives(order_key(k, bits), logits.index(number));
                    bins.add(k, distance, &[k.select(survives, k.int(1), k.int(0))]);
                });
            }
        });
        bins.store(block, table, |bin, words| (words.to_vec(), sum_at(k, k.add(first, bin), words[0])));
    });
}

/// The sum of `count` weights at a distance.
fn sum_at(k: &Ptx, q: Int, count: Int) -> Wide {
    let sum = k.wide_variable(k.wide(0));
    // Most counts are 0.
    k.when(k.lt(k.int(0), count), || k.set_wide(sum, k.wmul(k.widen(count), k.widen(weight_at(k, q)))));
    k.get_wide(sum)
}

/// Finishes the search of a row with top-p, after the second pass. Returns the least weight to keep. Afterwards, the
/// sums of the block are the sums of the kept weights of each slice.
pub(super) fn finish(
    block: &RowBlock<'_>,
    parameters: &Parameters<'_>,
    narrowed: &Records<'_>,
    above: &Records<'_>,
    table: [Wide; 2],
) -> Int {
    let k = block.k;
    let row = block.row;
    let first = narrowed.load(row, Narrowed::First as usize);
    let least = k.variable(narrowed.load(row, Narrowed::Least as usize));
    let end = k.variable(k.int(0));
    let load = |bin, address: Address| sum_at(k, k.add(first, bin), k.load(address, 0));
    let tables = RowTables { block, shape: BY_DISTANCE, arrays: table, load };
    let is_open = k.le(k.int(0), first);
    k.when(is_open, || {
        let target = narrowed.load_wide(row, Narrowed::Target as usize);
        let (bin, _) = tables.locate(target);
        let threshold = k.select(k.weq(target, k.wide(0)), k.int(0), weight_at(k, k.add(first, bin)));
        k.set(least, least_weight(k, threshold, parameters.get(Column::MinWeight)));
        // Several distances may have the least weight.
        let kept = block.count_from_zero(|q| k.le(k.get(least), weight_at(k, q)));
        k.set(end, k.sub(kept, first));
    });
    block.fill_slices(|slice| {
        let sum = k.wide_variable(block.once(|| above.load_wide(block.number(slice), 0)));
        k.when(is_open, || k.set_wide(sum, k.wadd(k.get_wide(sum), tables.part_before(slice, k.get(end)))));
        k.get_wide(sum)
    });
    k.get(least)
}
