//! The first pass: the maximum of each slice, its index, and the status bits. Also counts the first digits of the order
//! keys, for the rows that need top-k.

use super::digit::{needs_top_k, Digit};
use super::division::Division;
use super::records::{Records, Scanned, SCANNED};
use super::slice_block::SliceBlock;
use super::table::Bins;
use crate::kernels::gpu::block::Block;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Ptx};
use crate::semantics::arith::{Arith, WideArith};

/// Writes the kernel, with one block per slice. Its arguments are the logits, the parameters, and the results: a record
/// per slice, and the table of the first digit.
pub(super) fn write(k: &Ptx, spec: &Spec, division: &Division) {
    let slice = SliceBlock::arguments(k, spec, division);
    let slices = Records::argument(k, SCANNED);
    let table = [(); 2].map(|()| k.argument());
    let block = &slice.block;
    let counts = needs_top_k(k, spec, &slice.parameters);
    let bins = Bins::new(k, Digit::First.shape());
    bins.clear(block);

    let [max, index, had_nan, had_inf] = [i32::MIN, 0, 0, 0].map(|value| k.variable(k.int(value)));
    slice.for_each_tile(|logits| {
        let is_inf = k.at_least(logits.max(), k.float(f32::INFINITY));
        for (flag, mask) in [(had_nan, logits.had_nan()), (had_inf, is_inf)] {
            k.set(flag, k.select(mask, k.int(1), k.get(flag)));
        }
        let keys: Vec<Int> = (0..logits.values.len()).map(|number| logits.key(number)).collect();
        for (number, &key) in keys.iter().enumerate() {
            let is_larger = k.lt(k.get(max), key);
            k.set(max, k.max(k.get(max), key));
            k.set(index, k.select(is_larger, logits.index(number), k.get(index)));
        }
        // The elements beyond the end of the row are counted in the last bin.
        k.when(counts, || {
            for &key in &keys {
                bins.add(k, Digit::First.of(k, key), &[k.int(1)]);
            }
        });
    });
    let max_key = block.max(k.get(max));
    let first = block.min(k.select(k.eq(k.get(max), max_key), k.get(index), k.int(i32::MAX)));
    let is_set = |flag| k.eq(k.get(flag), k.int(1));
    let status = block.status(is_set(had_nan), is_set(had_inf));
    let words = [max_key, first, status, k.int(0)];
    slices.store_if(block.is_first(), k.block(), &words);
    k.when(counts, || bins.store(block, table, |_, words| (words.to_vec(), k.widen(words[0]))));
}

/// Combines the records of the slices of a row: the words of [`Scanned`].
pub(super) fn combine(block: &Block<'_>, slices: &Records<'_>, row: Int, count: usize) -> [Int; 3] {
    let k = block.k;
    let [key, index, status] = [i32::MIN, i32::MAX, 0].map(|value| k.variable(k.int(value)));
    k.when(k.lt(block.thread, k.int(count as i32)), || {
        let number = k.element(row, count, block.thread);
        k.set(key, slices.load(number, Scanned::MaxKey as usize));
        k.set(index, slices.load(number, Scanned::Greedy as usize));
        k.set(status, slices.load(number, Scanned::Status as usize));
    });
    let max_key = block.max(k.get(key));
    let first = block.min(k.select(k.eq(k.get(key), max_key), k.get(index), k.int(i32::MAX)));
    [max_key, first, block.status_of_slices(k.get(status))]
}
