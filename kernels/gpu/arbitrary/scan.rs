//! The first pass over the logits: the maximum of each slice, its index, and the status bits. For the rows that have a
//! bound, it also collects the entries above the bound, counts the entries at the bound in each chunk, and counts the
//! entries below the bound by their distance from it.

use super::held::{Arrays, Held};
use super::list::{Collector, Reserved, ThreadPlaces};
use super::maximum::{combine, Maximum};
use super::plan::Plan;
use super::records::{has_flag, Records, Sampled, ALL_REACH, HAS_BINS, HAS_LIST, SAMPLED, SCANNED, SUM};
use super::sample::capacity;
use super::slice_block::SliceBlock;
use super::state::{State, BINS};
use crate::kernels::gpu::logits::{key_of, largest, SliceLogits};
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Address, Float, Int, Mask, Ptx, Shared, Variable, WARP};
use crate::semantics::arith::Arith;
use crate::semantics::clean::order_key;
use crate::semantics::weights::{OCTAVE_BITS, ROUNDING, ZERO_Q};

/// The binary logarithm of the number of units of the distance `q` per bin. The number of the bin of an entry is the
/// distance of the entry from the bound, divided by the width of a bin and rounded to the nearest integer.
pub(super) const BIN_BITS: u32 = OCTAVE_BITS - 6;
/// The last bin that is used. All entries in it have the weight 0, even if their distances have rounding errors: see
/// the assertion in `rest.rs`.
pub(super) const FIRST_ZERO: i32 = (ZERO_Q >> BIN_BITS) + 2;
const _: () = assert!((FIRST_ZERO as usize) < BINS);

/// Writes the kernel, with one block per slice. Its arguments are the logits, the parameters, the sampled records, the
/// initial records of the slices, the initial state, and the results. The results are the records of the slices, the
/// number of entries at the bound in each chunk, the lists, the new state, and the sums of the chunks of plain draws if
/// the plan has groups. The records and the new state use the memory of the initial ones.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan) {
    let slice = &SliceBlock::arguments(k, spec, &plan.division);
    let sampled = Records::argument(k, SAMPLED);
    let [_, _] = [(); 2].map(|()| k.argument());
    let slices = Records::argument(k, SCANNED);
    let ties = Records::argument(k, 1);
    let lists = k.argument();
    let state = State::argument(k, slice.row);
    let (block, row, records) = (&slice.block, slice.row, plan.records());
    let word = |word: Sampled| sampled.load(row, word as usize);
    let flags = word(Sampled::Flags);
    let has = |flag| has_flag(k, flags, flag);
    let (has_list, has_bins) = (has(HAS_LIST), has(HAS_BINS));
    let scale = k.from_bits(slice.parameters.get(Column::Scale));
    let bound = Bound {
        above: k.from_bits(word(Sampled::Above)),
        at_least: k.from_bits(word(Sampled::AtLeast)),
        value: k.from_bits(order_key(k, word(Sampled::Bound))),
        all_reach: has(ALL_REACH),
        has_bins,
        bin_scale: k.fmul(scale, k.float(1.0 / (1 << BIN_BITS) as f32)),
    };
    let scan_slice = || {
        let max = Maximum::new(k);
        let at_bound = k.variable(k.int(0));
        let list = Collector::new(
            k,
            ThreadPlaces::new(k),
            (lists, capacity(spec)),
            row,
            || state.len(),
            |[bits, _]| {
                let is_above = k.at_least(k.from_bits(bits), bound.above);
                k.add_if(k.not(is_above), at_bound, k.int(1));
                is_above
            },
            |[bits, index]| [key_of(k, k.from_bits(bits)), index],
        );
        let reserved = Reserved::new(k);
        let bins = k.shared(BINS);
        let bins_of_bits = k.shifted(bins, ROUNDING.to_bits() as i32);
        k.when(k.both(has_list, has_bins), || {
            k.for_range(block.thread, k.int(BINS as i32), k.threads(), |bin| {
                k.store_shared(bins, bin, k.int(0));
            });
            k.barrier();
        });

        slice.for_each_tile(|logits| {
            let of_tile = max.add(&logits);
            k.when(has_list, || collect(k, (&logits, of_tile), &bound, &list, at_bound, bins_of_bits));
        });
        // `reserve` starts an atomic operation. The block does other work while this operation runs.
        k.when(has_list, || list.reserve(&reserved));
        let of_warp = max.words(|body| slice.for_each_tile(|logits| body(&logits)));
        // Each thread of the first warp gets the words of one of the warps of the block.
        let words = block.exchange(0, &of_warp);
        k.when(k.lt(block.thread, k.int(WARP as i32)), || {
            let [max_key, first, status] = combine(k, &[words]);
            let record = k.element(row, records, slice.slice);
            slices.store_if(block.is_first(), record, &[max_key, first, status, k.int(0)]);
        });

        // The block stores the number of entries at the bound for every row, because `decide` loads this number before
        // it knows whether the row has a list.
        let sum = k.warp_sum(k.get(at_bound));
        ties.store_if(k.eq(k.lane(), k.int(0)), slice.chunk_number(), &[sum]);
        k.when(has_list, || {
            list.flush(&reserved);
            k.when(has_bins, || {
                k.for_range(block.thread, k.int(BINS as i32), k.threads(), |bin| {
                    let count = k.load_shared(bins, bin);
                    k.when(k.lt(k.int(0), count), || k.add_global(state.bin(bin), count));
                });
            });
        });
    };
    let Some(group) = &plan.group else { return scan_slice() };
    let sums = Records::argument(k, SUM);
    let held = Held::new(slice, group);
    k.when_else(
        held.is_plain(&sampled),
        || {
            held.run(&Arrays { records, slices: &slices, sums: &sums, state: &state });
            ties.store_if(k.eq(k.lane(), k.int(0)), slice.chunk_number(), &[k.int(0)]);
        },
        scan_slice,
    );
}

/// The bound of a row: see [`Sampled`].
struct Bound {
    above: Float,
    at_least: Float,
    value: Float,
    all_reach: Mask,
    has_bins: Mask,
    /// The number of bins per unit of the difference from the bound.
    bin_scale: Float,
}

/// The number of values in a group. [`collect`] first compares the largest value of a group with the bound.
const GROUP: usize = 4;

/// Compares the logits of a tile with the bound. `max` is the largest of these logits. The indices of `bins` are the
/// bits of floats that are at least [`ROUNDING`].
fn collect<L, S, E>(
    k: &Ptx,
    (logits, max): (&SliceLogits<'_>, Float),
    bound: &Bound,
    list: &Collector<'_, L, S, E>,
    at_bound: Variable,
    bins: Shared,
) where
    L: Fn() -> Address,
    S: Fn([Int; 2]) -> Mask,
    E: Fn([Int; 2]) -> [Int; 2],
{
    let values = &logits.values;
    let reaches = |value: Float| k.at_least_or(value, bound.at_least, bound.all_reach);
    let is_above = |value: Float| k.at_least(value, bound.above);
    let words = |number: usize| [k.to_bits(values[number]), logits.index(number)];
    k.when(k.warp_any(reaches(max)), || {
        // The list also collects the logits at the bound, and drops them later. So this code compares each logit only
        // once. Most tiles have few logits at the bound. In the usual case, no thread of a warp waits for other threads
        // at a branch.
        let before = list.state();
        for (group, values) in values.chunks(GROUP).enumerate() {
            k.when(k.warp_any(k.at_least(largest(k, values), bound.at_least)), || {
                for (place, &value) in values.iter().enumerate() {
                    list.add_if(k.at_least(value, bound.at_least), words(GROUP * group + place));
                }
            });
        }
        k.when(k.either(list.is_full(), bound.all_reach), || {
            list.restore(before);
            for (number, &value) in values.iter().enumerate() {
                // The values beyond the end of the row are −inf. They reach a bound of −inf, but they are not entries.
                let is_at_bound = k.both(reaches(value), k.not(is_above(value)));
                k.add_if(k.both(is_at_bound, logits.is_in_row(number)), at_bound, k.int(1));
            }
            k.when(is_above(max), || {
                for (number, &value) in values.iter().enumerate() {
                    k.when(is_above(value), || list.add(words(number)));
                }
            });
        });
        list.make_room();
    });
    k.when(bound.has_bins, || {
        const MOST: f32 = ROUNDING + FIRST_ZERO as f32;
        for &value in values {
            // The assembler would put a branch around an atomic operation with a mask. So the operation has no mask. It
            // counts NaN and the logits at or above the bound in the bin `FIRST_ZERO`, because the entries of this bin
            // change no result.
            let distance = k.fmul(k.fsub(bound.value, value), bound.bin_scale);
            let bin = k.fadd(k.at_most(distance, FIRST_ZERO as f32), k.float(ROUNDING));
            let bin = k.fselect(k.flt(value, bound.at_least), bin, k.float(MOST));
            k.add_shared(bins, k.to_bits(bin), k.int(1));
        }
    });
}
