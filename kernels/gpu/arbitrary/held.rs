//! The scan of plain draws. The weights of a row depend on the maximum of the row. The blocks that read a row keep its
//! logits in registers while they exchange their maxima. So the logits are read only once.
//!
//! The blocks of all slices of the rows of a group belong to the group. If all rows of the group are plain draws, all
//! blocks of the group together process one row after the other. So a thread has few logits of each row. For each row,
//! a block stores the record of its slice, waits for the records of the other slices, and sums the weights of its
//! logits.
//!
//! The wait ends after a limited number of polls. So no order of the blocks can stop the kernel. A block that has not
//! found the maximum of the row does not sum the weights. Each block that sums its weights adds 1 to a counter of the
//! row. [`decide`](super::decide) compares this counter with the number of slices. If the counter is smaller,
//! [`finish`](super::finish) reads the row again.

use super::maximum::{combine, Maximum};
use super::plan::Group;
use super::records::{Records, Sampled, Scanned, IS_PLAIN, NO_RECORD};
use super::slice_block::SliceBlock;
use super::state::State;
use super::weights::{add_all, Weights};
use crate::kernels::gpu::logits::SliceLogits;
use crate::ptx::{Int, Mask, Shared, Variable, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of times that a block polls the records of other blocks, in all rows together. By an estimate, a poll
/// takes 0.7 µs on an H100.
const POLLS: i32 = 256;

/// A block of a group of rows.
pub(super) struct Held<'a, 'k> {
    slice: &'a SliceBlock<'k>,
    group: &'k Group,
    /// The first row of the group.
    first: Int,
    /// The number of this block in the group. It is also the number of its slice in each row.
    number: Int,
}

/// The arrays to which the blocks of a group write.
pub(super) struct Arrays<'a, 'k> {
    /// The number of records of each row.
    pub(super) records: usize,
    /// The records of the slices.
    pub(super) slices: &'a Records<'k>,
    /// The sum of the weights of each chunk.
    pub(super) sums: &'a Records<'k>,
    pub(super) state: &'a State<'k>,
}

impl<'a, 'k> Held<'a, 'k> {
    pub(super) fn new(slice: &'a SliceBlock<'k>, group: &'k Group) -> Held<'a, 'k> {
        let k = slice.block.k;
        let (of_group, number) = k.divide(k.block(), group.rows * slice.division.slices);
        Held { slice, group, first: k.mul(of_group, group.rows), number }
    }

    /// Whether all rows of the group are plain draws.
    pub(super) fn is_plain(&self, sampled: &Records<'_>) -> Mask {
        let (k, rows) = (self.slice.block.k, self.group.rows);
        // The first lanes of each warp load the flags of the rows: one row per lane.
        let row = k.add(self.first, k.lane());
        let is_needed = k.lt(k.lane(), k.int(rows as i32));
        let exists = k.both(is_needed, k.lt(row, k.int(self.slice.spec.batch as i32)));
        let flags = sampled.load_if(exists, row, Sampled::Flags as usize);
        let is_other = k.eq(k.and(flags, k.int(IS_PLAIN)), k.int(0));
        k.not(k.warp_any(k.both(is_needed, is_other)))
    }

    /// Processes the rows of the group.
    pub(super) fn run(&self, arrays: &Arrays<'_, 'k>) {
        let k = self.slice.block.k;
        let (polls, max) = (k.variable(k.int(POLLS)), k.shared(1));
        // The group can have more blocks than a row has slices.
        k.when(k.lt(self.number, k.int(self.group.division.slices as i32)), || {
            k.for_range(k.int(0), k.int(self.group.rows as i32), 1, |number| {
                self.process(k.add(self.first, number), arrays, (polls, max));
            });
        });
    }

    fn process(&self, row: Int, arrays: &Arrays<'_, 'k>, (polls, max): (Variable, Shared)) {
        let (k, slice, division) = (self.slice.block.k, self.slice, &self.group.division);
        let block = &slice.block;
        // All columns of the parameters are loaded here, so that the weights do not wait for a column later.
        let parameters = slice.parameters_of(row);
        let chunk = division.chunk(k, self.number);
        slice.for_each_tile_of(division, chunk, parameters.row_of_logits(slice.spec), |logits| {
            let maximum = Maximum::new(k);
            maximum.add(&logits);
            let words = block.exchange(0, &maximum.words(|body| body(&logits)));
            let record = |number| k.element(row, arrays.records, number);
            k.when(k.lt(block.thread, k.int(WARP as i32)), || {
                let [max_key, first, status] = combine(k, &[words]);
                k.when(block.is_first(), || {
                    let words = [max_key, first, status, k.int(0)];
                    k.publish(arrays.slices.address(record(self.number)), 0, &words);
                });
                let found = self.wait(polls, |number| {
                    k.poll(arrays.slices.address(record(number)), Scanned::MaxKey as usize * 4)
                });
                k.when(block.is_first(), || k.store_shared_at(max, 0, found));
            });
            k.barrier();
            let max_key = k.load_shared_at(max, 0);
            k.when(k.lt(k.int(NO_RECORD), max_key), || {
                let weights = Weights::without_top_k(k, &parameters, max_key);
                self.sum(&weights, &logits, arrays, k.element(row, division.chunks(), chunk));
                k.when(block.is_first(), || k.add_global(arrays.state.of_row(row).summed(), k.int(1)));
            });
        });
    }

    /// Waits for the records of all slices of a row. `poll` returns the order key of the maximum in the record of a
    /// slice, or [`NO_RECORD`]. This method returns the largest order key, or [`NO_RECORD`] if a record is missing when
    /// the wait ends. The threads of one warp call this method.
    fn wait(&self, polls: Variable, poll: impl Fn(Int) -> Int) -> Int {
        let k = self.slice.block.k;
        let slices = self.group.division.slices;
        let found = k.variable(k.int(NO_RECORD));
        let is_open = |found| k.eq(found, k.int(NO_RECORD));
        k.repeat_while(
            || k.both(is_open(k.get(found)), k.lt(k.int(0), k.get(polls))),
            || {
                let last = k.int(slices as i32 - 1);
                let keys: Vec<Int> = (0..slices)
                    .step_by(WARP)
                    // A lane without a slice polls the last slice.
                    .map(|first| poll(k.min(k.add(k.lane(), k.int(first as i32)), last)))
                    .collect();
                let missing = keys.iter().map(|&key| is_open(key)).reduce(|a, b| k.either(a, b));
                let is_missing = k.warp_any(missing.expect("a row has slices"));
                let max = k.warp_max(keys.into_iter().reduce(|a, b| k.max(a, b)).expect("a row has slices"));
                k.set(found, k.select(is_missing, k.int(NO_RECORD), max));
                k.set(polls, k.sub(k.get(polls), k.int(1)));
            },
        );
        k.get(found)
    }

    /// Stores the sum of the weights of the chunk of this warp. `number` is the number of the chunk in the array.
    fn sum(&self, weights: &Weights<'_>, logits: &SliceLogits<'_>, arrays: &Arrays<'_, '_>, number: Int) {
        let k = self.slice.block.k;
        let total = k.wide_variable(k.wide(0));
        weights.of_tile(logits, weights.accepts_raw(), |_, weights| {
            add_all(k, total, weights.iter().copied());
        });
        let sum = k.wide_warp_sum(k.get_wide(total));
        arrays.sums.store_if(k.eq(k.lane(), k.int(0)), number, &[k.low(sum), k.high(sum)]);
    }
}
