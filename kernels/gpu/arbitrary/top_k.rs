//! Top-k: finds the key of the k-th entry digit by digit, starting with the leading bits. Then finds the last tie.

use super::digit::{needs_top_k, reversed, Digit};
use super::division::Division;
use super::records::{Records, Search, SCANNED, SEARCH, SELECTED};
use super::row_block::RowBlock;
use super::scan;
use super::slice_block::SliceBlock;
use super::table::{Bins, RowTables};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Address, Int, Ptx, Wide};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;

/// Writes the kernel that counts the second or third digits of the keys that have the digits found so far, with one
/// block per slice. Its arguments are the logits, the parameters, the search records, and the table of the digit.
pub(super) fn write_count(k: &Ptx, spec: &Spec, division: &Division, digit: Digit) {
    let slice = SliceBlock::arguments(k, spec, division);
    let search = Records::argument(k, SEARCH);
    let table = [(); 2].map(|()| k.argument());
    let block = &slice.block;
    k.when(needs_top_k(k, spec, &slice.parameters), || {
        let digits = search.load(slice.row, Search::Digits as usize);
        let bins = Bins::new(k, digit.shape());
        bins.clear(block);
        slice.for_each_tile(|logits| {
            for number in 0..logits.values.len() {
                let key = logits.key(number);
                k.when(k.eq(digit.before(k, key), digits), || {
                    bins.add(k, digit.of(k, key), &[k.int(1)]);
                });
            }
        });
        bins.store(block, table, |_, words| (words.to_vec(), k.widen(words[0])));
    });
}

/// Writes the kernel that combines the slices of the first pass and finds the first digit, with one block per row. Its
/// arguments are the parameters, the slices, the table, and the results: the rows and the search records.
pub(super) fn write_first(k: &Ptx, spec: &Spec, division: &Division) {
    let parameters = k.argument();
    let slices = Records::argument(k, SCANNED);
    let table = [(); 2].map(|()| k.argument());
    let (rows, search) = (Records::argument(k, SCANNED), Records::argument(k, SEARCH));
    let block = RowBlock::new(k, division);
    let parameters = Parameters::new(k, parameters, block.row);
    let [max_key, greedy, status] = scan::combine(&block.block, &slices, block.row, division.slices);
    rows.store_if(block.is_first(), block.row, &[max_key, greedy, status, k.int(0)]);
    k.when(needs_top_k(k, spec, &parameters), || {
        let (digit, missing) = find_digit(&block, Digit::First, table, parameters.get(Column::K));
        search.store_if(block.is_first(), block.row, &[digit, missing]);
    });
}

/// Writes the kernel that finds the second digit, with one block per row. Its arguments are the parameters, the search
/// records, the table, and the new search records.
pub(super) fn write_second(k: &Ptx, spec: &Spec, division: &Division) {
    let parameters = k.argument();
    let search = Records::argument(k, SEARCH);
    let table = [(); 2].map(|()| k.argument());
    let found = Records::argument(k, SEARCH);
    let block = RowBlock::new(k, division);
    let parameters = Parameters::new(k, parameters, block.row);
    k.when(needs_top_k(k, spec, &parameters), || {
        let (digits, missing) = next_digit(&block, Digit::Second, &search, table);
        found.store_if(block.is_first(), block.row, &[digits, missing]);
    });
}

/// Writes the kernel that finds the third digit and the last tie, with one block per row. Its arguments are the logits,
/// the parameters, the search records, the table, and the result of top-k.
pub(super) fn write_third(k: &Ptx, spec: &Spec, division: &Division) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let search = Records::argument(k, SEARCH);
    let table = [(); 2].map(|()| k.argument());
    let selected = Records::argument(k, SELECTED);
    let block = RowBlock::new(k, division);
    let parameters = Parameters::new(k, parameters, block.row);
    k.when_else(
        needs_top_k(k, spec, &parameters),
        || {
            let (digits, missing) = next_digit(&block, Digit::Third, &search, table);
            let threshold = reversed(k, digits);
            selected.store_if(block.is_first(), block.row, &[threshold, k.int(i32::MAX)]);
            if spec.stable {
                let rows = (spec, logits, parameters.row_of_logits(spec));
                let tables = counts(&block, Digit::Third, table);
                last_tie(&block, rows, &tables, threshold, missing, |index| {
                    let address = k.address(selected.array, block.row, SELECTED * 4);
                    k.store(address, 4, &[index]);
                });
            }
        },
        || selected.store_if(block.is_first(), block.row, &[k.int(NEG_INF_KEY), k.int(i32::MAX)]),
    );
}

fn counts<'a, 'k>(
    block: &'a RowBlock<'k>,
    digit: Digit,
    arrays: [Wide; 2],
) -> RowTables<'a, 'k, impl Fn(Int, Address) -> Wide + use<'k>> {
    let k = block.k;
    let load = move |_, address| k.widen(k.load(address, 0));
    RowTables { block, shape: digit.shape(), arrays, load }
}

/// Finds a digit of the key of entry `missing`, counted from 1 in descending order. Returns the digit, and the number
/// of the entry among the entries with this digit.
fn find_digit(block: &RowBlock<'_>, digit: Digit, table: [Wide; 2], missing: Int) -> (Int, Int) {
    let k = block.k;
    let (found, before) = counts(block, digit, table).locate(k.widen(missing));
    (found, k.sub(missing, k.low(before)))
}

/// Like [`find_digit`], but returns all digits found so far.
fn next_digit(block: &RowBlock<'_>, digit: Digit, search: &Records<'_>, table: [Wide; 2]) -> (Int, Int) {
    let k = block.k;
    let missing = search.load(block.row, Search::Missing as usize);
    let (found, missing) = find_digit(block, digit, table, missing);
    let digits = k.shl(search.load(block.row, Search::Digits as usize), digit.bits().0);
    (k.or(digits, found), missing)
}

/// Calls `found` with the index of tie number `missing`, in one thread. Does not call it if there are no ties after
/// this one, because all ties are then kept.
fn last_tie(
    block: &RowBlock<'_>,
    rows: (&Spec, Wide, Int),
    tables: &RowTables<'_, '_, impl Fn(Int, Address) -> Wide>,
    threshold: Int,
    missing: Int,
    found: impl FnOnce(Int),
) {
    let k = block.k;
    let digit = Digit::Third.of(k, threshold);
    let count = block.fill_slices(|slice| block.once(|| tables.bin(slice, digit)));
    let missing = k.widen(missing);
    k.when(k.wlt(missing, block.total(count)), || {
        let (slice, before) = block.cross(count, missing);
        let tie = |key, _| k.select(k.eq(key, threshold), k.int(1), k.int(0));
        block.find_in_slice(rows, slice, k.wide_difference(missing, before), tie, found);
    });
}
