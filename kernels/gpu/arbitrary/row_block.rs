//! A block of threads that processes a whole row: sums per chunk, and searches for the place at which a running sum
//! reaches a number.

use super::division::{Division, LARGEST_CHUNKS};
use super::weights::{add_in_parts, sum_of_parts, LARGEST_SUM};
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::logits::{Run, SliceLogits};
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of threads of a block that processes a row.
pub(super) const THREADS: usize = 512;
const WARPS: usize = THREADS / WARP;
// `cross_warps` uses `WARPS - 1` as a bit mask, and one lane reads the sum of each warp.
const _: () = assert!(WARPS.is_power_of_two() && WARPS <= WARP);
const _: () = assert!(super::division::LARGEST_CHUNK <= LARGEST_SUM && LARGEST_CHUNKS <= THREADS);
/// The number of logits of each thread in the passes over the whole row.
const PER_THREAD: usize = 4;

/// A block of [`THREADS`] threads and its row. Chunk `i` of the row is called the chunk of thread `i`. If the row has
/// fewer chunks than the block has threads, the last threads have no chunk.
pub(super) struct RowBlock<'k> {
    pub(super) k: &'k Ptx,
    pub(super) block: Block<'k>,
    pub(super) row: Int,
    spec: &'k Spec,
    division: &'k Division,
    logits: Wide,
    row_of_logits: Int,
    warp: Int,
    /// Two words for each chunk: the low and the high parts of the weights that are added to it, or an integer.
    parts: [Shared; 2],
    /// A 64-bit integer for each warp.
    warps: Shared,
    /// A word and two 64-bit integers, which one thread passes to the others.
    passed: [Shared; 3],
}

impl<'k> RowBlock<'k> {
    /// `row_of_logits` is the number of the row in the array at `logits`.
    pub(super) fn new(
        k: &'k Ptx,
        spec: &'k Spec,
        division: &'k Division,
        logits: Wide,
        row_of_logits: Int,
    ) -> RowBlock<'k> {
        let block = Block::new(k);
        RowBlock {
            k,
            block,
            row: k.block(),
            spec,
            division,
            logits,
            row_of_logits,
            warp: k.shr(block.thread, WARP.trailing_zeros()),
            parts: [(); 2].map(|()| k.shared(LARGEST_CHUNKS)),
            warps: k.shared(2 * WARPS),
            passed: [k.shared(1), k.shared(2), k.shared(2)],
        }
    }

    /// Whether this is the first thread.
    pub(super) fn is_first(&self) -> Mask {
        self.block.is_first()
    }

    /// The number of chunks of a row.
    fn chunks(&self) -> usize {
        self.division.chunks()
    }

    /// Returns the result of `value`, or 0 if this thread has no chunk. `value` receives the number of this thread's
    /// chunk among all chunks of the batch.
    pub(super) fn of_chunk(&self, value: impl FnOnce(Int) -> Int) -> Int {
        let k = self.k;
        let result = k.variable(k.int(0));
        k.when(self.is_chunk(), || k.set(result, value(self.chunk_number())));
        k.get(result)
    }

    /// Like [`RowBlock::of_chunk`], for 64-bit integers.
    pub(super) fn wide_of_chunk(&self, value: impl FnOnce(Int) -> Wide) -> Wide {
        let k = self.k;
        let result = k.wide_variable(k.wide(0));
        k.when(self.is_chunk(), || k.set_wide(result, value(self.chunk_number())));
        k.get_wide(result)
    }

    fn is_chunk(&self) -> Mask {
        self.k.lt(self.block.thread, self.k.int(self.chunks() as i32))
    }

    /// Returns the number of this thread's chunk among all chunks of the batch.
    fn chunk_number(&self) -> Int {
        self.k.element(self.row, self.chunks(), self.block.thread)
    }

    /// Sets the sums of the chunks to 0. Call this before [`RowBlock::add_to_chunk`].
    pub(super) fn clear_parts(&self) {
        let k = self.k;
        k.when(k.lt(self.block.thread, k.int(LARGEST_CHUNKS as i32)), || {
            self.parts.iter().for_each(|&array| k.store_shared(array, self.block.thread, k.int(0)));
        });
        k.barrier();
    }

    /// The number of the chunk that contains the logit with index `index` in the row.
    pub(super) fn chunk_of(&self, index: Int) -> Int {
        self.k.divide(index, self.division.chunk_len()).0
    }

    /// Adds a weight to a chunk.
    pub(super) fn add_to_chunk(&self, chunk: Int, weight: Int) {
        add_in_parts(self.k, self.parts, chunk, weight);
    }

    /// Returns the sum of the weights that were added to the chunk of this thread.
    pub(super) fn sum_of_parts(&self) -> Wide {
        let k = self.k;
        k.barrier();
        self.of_parts(|low, high| sum_of_parts(k, low, high))
    }

    /// Stores a 64-bit integer for a chunk. In each warp, only the first thread stores its integer.
    pub(super) fn store_for_chunk(&self, chunk: Int, value: Wide) {
        let k = self.k;
        k.when(k.eq(k.lane(), k.int(0)), || {
            k.store_shared(self.parts[0], chunk, k.low(value));
            k.store_shared(self.parts[1], chunk, k.high(value));
        });
    }

    /// Returns the integer that was stored for the chunk of this thread.
    pub(super) fn stored_for_chunk(&self) -> Wide {
        let k = self.k;
        k.barrier();
        self.of_parts(|low, high| k.wor(low, k.wshl(high, 32)))
    }

    fn of_parts(&self, combine: impl FnOnce(Wide, Wide) -> Wide) -> Wide {
        let k = self.k;
        self.wide_of_chunk(|_| {
            let [low, high] = self.parts.map(|array| k.widen(k.load_shared(array, self.block.thread)));
            combine(low, high)
        })
    }

    /// Finds the first chunk at which the running sum of the chunks' sums reaches `target`. The sum of all chunks must
    /// reach `target`. `sum` is the sum of the chunk of this thread. Returns the number of the chunk that it finds, and
    /// the running sum before this chunk. All threads get the results.
    pub(super) fn locate_chunk(&self, sum: Wide, target: Wide) -> (Int, Wide) {
        let (chunk, before, _) = self.locate_in_all(&[sum], target, 0);
        (chunk, before)
    }

    /// Finds the first warp at which the running sum of [`RowBlock::warps`] reaches `target`. Returns its number, and
    /// the running sum before it.
    fn cross_warps(&self, target: Wide) -> (Int, Wide) {
        let k = self.k;
        // Thread `i` of a warp has the value of warp `i`. A warp has more threads than the block has warps, so the last
        // threads have the value 0.
        let warp = k.and(k.lane(), k.int(WARPS as i32 - 1));
        let is_warp = k.lt(k.lane(), k.int(WARPS as i32));
        let value = k.wselect(is_warp, k.load_shared_wide(self.warps, warp), k.wide(0));
        let is_before = k.wlt(k.warp_prefix_sum(value), target);
        let number = k.warp_sum(k.select(is_before, k.int(1), k.int(0)));
        (number, k.wide_warp_sum(k.wselect(is_before, value, k.wide(0))))
    }

    /// Finds the first value at which the running sum of all values reaches `target`, which is not 0. The values of a
    /// thread are before those of the next thread. Calls `found` in the thread that has the value, with the number of
    /// the value in this thread, the running sum before it, and the value. Calls `found` in no thread if the sum is too
    /// small.
    pub(super) fn locate(&self, values: &[Wide], target: Wide, found: impl FnOnce(Int, Wide, Wide)) {
        let k = self.k;
        let mine = values.iter().copied().reduce(|a, b| k.wadd(a, b)).expect("there are values");
        let upto = k.warp_prefix_sum(mine);
        k.barrier();
        k.when(k.eq(k.lane(), k.int(WARP as i32 - 1)), || k.store_shared_wide(self.warps, self.warp, upto));
        k.barrier();
        let (warp, before) = self.cross_warps(target);
        let after = k.wadd(before, upto);
        let mut running = k.wide_difference(after, mine);
        let is_here = k.both(k.wlt(running, target), k.not(k.wlt(after, target)));
        k.when(k.both(k.eq(self.warp, warp), is_here), || {
            let (mut number, mut before, mut value) = (k.int(0), running, values[0]);
            for (place, &other) in values.iter().enumerate() {
                running = k.wadd(running, other);
                let is_before = k.wlt(running, target);
                number = k.add(number, k.select(is_before, k.int(1), k.int(0)));
                before = k.wselect(is_before, running, before);
                if let Some(&next) = values.get(place + 1) {
                    value = k.wselect(is_before, next, value);
                }
            }
            found(number, before, value);
        });
    }

    /// Like [`RowBlock::locate`], but returns the results in all threads. The results are the number of the value among
    /// the values of all threads, the running sum before the value, and the value. If the sum of all values is too
    /// small, the number is `otherwise`.
    pub(super) fn locate_in_all(&self, values: &[Wide], target: Wide, otherwise: i32) -> (Int, Wide, Wide) {
        let k = self.k;
        let [number, before, value] = self.passed;
        k.when(self.is_first(), || {
            k.store_shared_at(number, 0, k.int(otherwise));
            [before, value].iter().for_each(|&array| k.store_shared_wide(array, k.int(0), k.wide(0)));
        });
        self.locate(values, target, |place, sum_before, found| {
            k.store_shared_at(number, 0, k.add(k.mul(self.block.thread, values.len()), place));
            k.store_shared_wide(before, k.int(0), sum_before);
            k.store_shared_wide(value, k.int(0), found);
        });
        k.barrier();
        let [before, value] = [before, value].map(|array| k.load_shared_wide(array, k.int(0)));
        let number = k.load_shared_at(number, 0);
        k.barrier();
        (number, before, value)
    }

    /// Finds the first index of a chunk at which the running sum of a measure reaches `target`, which is not 0. Calls
    /// `found` with the index, in one thread. `measure` returns the measure of a key at an index.
    pub(super) fn find_in_chunk(
        &self,
        chunk: Int,
        target: Wide,
        measure: impl Fn(Int, Int) -> Int,
        found: impl FnOnce(Int),
    ) {
        let k = self.k;
        let len = self.division.chunk_len();
        let each = len.div_ceil(THREADS).next_power_of_two();
        let vector = self.division.vector.min(each);
        let place = k.mul(self.block.thread, each);
        let first = k.element(chunk, len, place);
        let run = Run { first, vector, count: each / vector, stride: vector };
        let logits = SliceLogits::load_run(k, self.spec, self.logits, self.row_of_logits, run);
        let is_in_chunk = k.lt(place, k.int(len as i32));
        let measured = |number| {
            let value = measure(logits.key(number), logits.index(number));
            k.widen(k.select(is_in_chunk, value, k.int(0)))
        };
        let values: Vec<Wide> = (0..each).map(measured).collect();
        self.locate(&values, target, |number, _, _| found(k.add(first, number)));
    }

    /// Like [`RowBlock::find_in_chunk`], but returns the index in all threads.
    pub(super) fn index_in_chunk(&self, chunk: Int, target: Wide, measure: impl Fn(Int, Int) -> Int) -> Int {
        let k = self.k;
        self.find_in_chunk(chunk, target, measure, |index| k.store_shared_at(self.passed[0], 0, index));
        k.barrier();
        let index = k.load_shared_at(self.passed[0], 0);
        k.barrier();
        index
    }

    /// Calls `body` with the key and the index of every logit of the row, in a loop. Beyond the end of the row, the key
    /// is `i32::MIN`. One warp processes a chunk. It calls `end` after each chunk, with the number of the chunk.
    pub(super) fn for_each_logit(&self, body: impl Fn(Int, Int), end: impl FnOnce(Int)) {
        let k = self.k;
        let len = self.division.chunk_len();
        let vector = self.division.vector.min(PER_THREAD);
        k.for_range(self.warp, k.int(self.chunks() as i32), WARPS, |chunk| {
            let start = k.element(chunk, len, k.mul(k.lane(), vector));
            k.for_range(k.int(0), k.int(len as i32), WARP * PER_THREAD, |distance| {
                let first = k.add(start, distance);
                let run = Run { first, vector, count: PER_THREAD / vector, stride: WARP * vector };
                let logits = SliceLogits::load_run(k, self.spec, self.logits, self.row_of_logits, run);
                (0..PER_THREAD).for_each(|number| body(logits.key(number), logits.index(number)));
            });
            end(chunk);
        });
    }
}
