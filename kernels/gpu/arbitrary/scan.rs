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
use crate::ptx::{Address, Float, Int, Mask, Ptx, Shared, Variable, Wide, WARP};
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
    let (slices, ties) = (Records::argument(k, SCANNED), Records::argument(k, 1));
    let lists = k.argument();
    let state = State::argument(k, slice.row);
    let bound = Bound::load(slice, &sampled);
    let records = plan.records();
    let scan = Scan { k, slice, bound, records, slices, ties, lists, state };
    let Some(group) = &plan.group else { return scan.run() };
    let sums = Records::argument(k, SUM);
    let held = Held::new(slice, group);
    k.when_else(
        held.is_plain(&sampled),
        || {
            held.run(&Arrays { records, slices: &scan.slices, sums: &sums, state: &scan.state });
            scan.store_ties(k.int(0));
        },
        || scan.run(),
    );
}

/// The bound of a row: see [`Sampled`].
struct Bound {
    has_list: Mask,
    has_bins: Mask,
    above: Float,
    at_least: Float,
    value: Float,
    all_reach: Mask,
    /// The number of bins per unit of the difference from the bound.
    bin_scale: Float,
}

impl Bound {
    /// Loads the bound of the row of a slice.
    fn load(slice: &SliceBlock<'_>, sampled: &Records<'_>) -> Bound {
        let k = slice.block.k;
        let word = |word: Sampled| sampled.load(slice.row, word as usize);
        let flags = word(Sampled::Flags);
        let has = |flag| has_flag(k, flags, flag);
        let (has_list, has_bins) = (has(HAS_LIST), has(HAS_BINS));
        let scale = k.from_bits(slice.parameters.get(Column::Scale));
        Bound {
            has_list,
            has_bins,
            above: k.from_bits(word(Sampled::Above)),
            at_least: k.from_bits(word(Sampled::AtLeast)),
            value: k.from_bits(order_key(k, word(Sampled::Bound))),
            all_reach: has(ALL_REACH),
            bin_scale: k.fmul(scale, k.float(1.0 / (1 << BIN_BITS) as f32)),
        }
    }
}

/// The scan of a slice.
struct Scan<'a, 'k> {
    k: &'k Ptx,
    slice: &'a SliceBlock<'k>,
    bound: Bound,
    /// The number of records of the slices of a row.
    records: usize,
    /// The arrays of results.
    slices: Records<'k>,
    ties: Records<'k>,
    lists: Wide,
    state: State<'k>,
}

/// The number of values in a group. [`Scan::collect`] first compares the largest value of a group with the bound.
const GROUP: usize = 4;

impl Scan<'_, '_> {
    fn run(&self) {
        let (k, slice, bound) = (self.k, self.slice, &self.bound);
        let max = Maximum::new(k);
        let at_bound = k.variable(k.int(0));
        let list = Collector::new(
            k,
            ThreadPlaces::new(k),
            (self.lists, capacity(slice.spec)),
            slice.row,
            || self.state.len(),
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
        k.when(k.both(bound.has_list, bound.has_bins), || self.clear_bins(bins));
        slice.for_each_tile(|logits| {
            let of_tile = max.add(&logits);
            k.when(bound.has_list, || {
                self.collect(&logits, of_tile, &list, at_bound);
                k.when(bound.has_bins, || self.count_in_bins(&logits, bins_of_bits));
            });
        });
        // `reserve` starts an atomic operation. The block does other work while this operation runs.
        k.when(bound.has_list, || list.reserve(&reserved));
        self.store_maximum(&max);
        // The block stores the number of entries at the bound for every row, because `decide` loads this number before
        // it knows whether the row has a list.
        self.store_ties(k.warp_sum(k.get(at_bound)));
        k.when(bound.has_list, || {
            list.flush(&reserved);
            k.when(bound.has_bins, || self.add_bins_to_state(bins));
        });
    }

    /// Collects the logits of a tile that are above the bound, and counts those at the bound in `at_bound`. `max` is
    /// the largest of these logits.
    fn collect<L, S, E>(
        &self,
        logits: &SliceLogits<'_>,
        max: Float,
        list: &Collector<'_, L, S, E>,
        at_bound: Variable,
    ) where
        L: Fn() -> Address,
        S: Fn([Int; 2]) -> Mask,
        E: Fn([Int; 2]) -> [Int; 2],
    {
        let (k, bound) = (self.k, &self.bound);
        let values = &logits.values;
        let reaches = |value: Float| k.at_least_or(value, bound.at_least, bound.all_reach);
        let is_above = |value: Float| k.at_least(value, bound.above);
        let words = |number: usize| [k.to_bits(values[number]), logits.index(number)];
        k.when(k.warp_any(reaches(max)), || {
            // The list also collects the logits at the bound, and drops them later. So this code compares each logit
            // only once. Most tiles have few logits at the bound. In the usual case, no thread of a warp waits for
            // other threads at a branch.
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
                    // The values beyond the end of the row are −inf. They reach a bound of −inf, but they are not
                    // entries.
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
    }

    /// Stores the maximum of the slice, its index, and the status bits.
    fn store_maximum(&self, max: &Maximum<'_>) {
        let (k, slice, block) = (self.k, self.slice, &self.slice.block);
        let of_warp = max.words(|body| slice.for_each_tile(|logits| body(&logits)));
        // Each thread of the first warp gets the words of one of the warps of the block.
        let words = block.exchange(0, &of_warp);
        k.when(k.lt(block.thread, k.int(WARP as i32)), || {
            let [max_key, first, status] = combine(k, &[words]);
            let record = k.element(slice.row, self.records, slice.slice);
            self.slices.store_if(block.is_first(), record, &[max_key, first, status, k.int(0)]);
        });
    }

    /// Stores the number of entries at the bound in the chunk of this warp.
    fn store_ties(&self, ties: Int) {
        let k = self.k;
        self.ties.store_if(k.eq(k.lane(), k.int(0)), self.slice.chunk_number(), &[ties]);
    }

    /// Sets the bins in shared memory to 0. Contains a barrier.
    fn clear_bins(&self, bins: Shared) {
        self.for_each_bin(|bin| self.k.store_shared(bins, bin, self.k.int(0)));
        self.k.barrier();
    }

    /// Counts the logits of a tile that are below the bound in bins. The indices of `bins` are the bits of floats that
    /// are at least [`ROUNDING`].
    fn count_in_bins(&self, logits: &SliceLogits<'_>, bins: Shared) {
        const MOST: f32 = ROUNDING + FIRST_ZERO as f32;
        let (k, bound) = (self.k, &self.bound);
        for &value in &logits.values {
            // The assembler would put a branch around an atomic operation with a mask. So the operation has no mask. It
            // counts NaN and the logits at or above the bound in the bin `FIRST_ZERO`, because the entries of this bin
            // change no result.
            let distance = k.fmul(k.fsub(bound.value, value), bound.bin_scale);
            let bin = k.fadd(k.at_most(distance, FIRST_ZERO as f32), k.float(ROUNDING));
            let bin = k.fselect(k.flt(value, bound.at_least), bin, k.float(MOST));
            k.add_shared(bins, k.to_bits(bin), k.int(1));
        }
    }

    /// Adds the numbers of entries in the bins of the slice to those of the row.
    fn add_bins_to_state(&self, bins: Shared) {
        let k = self.k;
        self.for_each_bin(|bin| {
            let count = k.load_shared(bins, bin);
            k.when(k.lt(k.int(0), count), || k.add_global(self.state.bin(bin), count));
        });
    }

    /// Calls `body` with the bins of this thread, in a loop.
    fn for_each_bin(&self, body: impl FnOnce(Int)) {
        let k = self.k;
        k.for_range(self.slice.block.thread, k.int(BINS as i32), k.threads(), body);
    }
}
