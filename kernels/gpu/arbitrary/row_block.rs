//! A block of threads that processes a whole row: sums per chunk, and searches for the place at which a running sum
//! reaches a number.

use super::division::{Division, LARGEST_CHUNKS};
use super::records::Records;
use super::weights::{add_in_parts, sum_of_parts, LARGEST_SUM};
use crate::kernels::gpu::block::{Block, SumsOfWords};
use crate::kernels::gpu::logits::{Run, SliceLogits};
use crate::kernels::spec::Spec;
use crate::ptx::{Address, Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of threads of a block that processes a row.
pub(super) const THREADS: usize = 512;
pub(super) const WARPS: usize = THREADS / WARP;
// Lane `i` of a warp reads the value of warp `i`, so each warp of the block needs a lane.
const _: () = assert!(WARPS <= WARP);
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
    passed: Place<'k>,
}

impl<'k> RowBlock<'k> {
    /// `row_of_logits` is the number of row `row` in the array at `logits`.
    pub(super) fn new(
        k: &'k Ptx,
        row: Int,
        spec: &'k Spec,
        division: &'k Division,
        logits: Wide,
        row_of_logits: Int,
    ) -> RowBlock<'k> {
        let block = Block::new(k);
        RowBlock {
            k,
            block,
            row,
            spec,
            division,
            logits,
            row_of_logits,
            warp: k.shr(block.thread, WARP.trailing_zeros()),
            parts: [(); 2].map(|()| k.shared(LARGEST_CHUNKS)),
            passed: Place::new(block),
        }
    }

    /// The same block, with another division of its row.
    pub(super) fn divided(&self, division: &'k Division) -> RowBlock<'k> {
        RowBlock { division, ..*self }
    }

    /// Whether this is the first thread.
    pub(super) fn is_first(&self) -> Mask {
        self.block.is_first()
    }

    /// The number of logits of a chunk.
    pub(super) fn chunk_len(&self) -> usize {
        self.division.chunk_len()
    }

    /// The number of chunks of a row.
    fn chunks(&self) -> usize {
        self.division.chunks()
    }

    /// Loads the record of this thread's chunk from an array with one record for each chunk of the batch. The words are
    /// 0 if this thread has no chunk.
    pub(super) fn load_of_chunk(&self, records: &Records<'_>) -> Vec<Int> {
        self.load_record(records, |address, offset, count| {
            self.k.load_words_if(self.is_chunk(), address, offset, count, self.k.int(0))
        })
    }

    /// Like [`RowBlock::load_of_chunk`], for records that blocks of this kernel have stored: see
    /// [`Ptx::load_stored_if`].
    pub(super) fn load_stored_of_chunk(&self, records: &Records<'_>) -> Vec<Int> {
        self.load_record(records, |address, offset, count| {
            self.k.load_stored_if(self.is_chunk(), address, offset, count, self.k.int(0))
        })
    }

    /// `load` loads some words of the record at an address.
    fn load_record(
        &self,
        records: &Records<'_>,
        load: impl Fn(Address, usize, usize) -> Vec<Int>,
    ) -> Vec<Int> {
        let address = self.k.address(records.array, self.chunk_number(), records.len * 4);
        let load = |first: usize| load(address, first * 4, (records.len - first).min(4));
        (0..records.len).step_by(4).flat_map(load).collect()
    }

    fn is_chunk(&self) -> Mask {
        self.k.lt(self.block.thread, self.k.int(self.chunks() as i32))
    }

    /// Returns the number of this thread's chunk among all chunks of the batch.
    fn chunk_number(&self) -> Int {
        self.k.element(self.row, self.chunks(), self.block.thread)
    }

    /// Sets the sums of the chunks to 0. All threads call this before a barrier, and [`RowBlock::add_to_chunk`] after
    /// it.
    pub(super) fn clear_parts(&self) {
        let k = self.k;
        k.when(k.lt(self.block.thread, k.int(LARGEST_CHUNKS as i32)), || {
            self.parts.iter().for_each(|&array| k.store_shared(array, self.block.thread, k.int(0)));
        });
    }

    /// The number of the chunk that contains the logit with index `index` in the row.
    pub(super) fn chunk_of(&self, index: Int) -> Int {
        self.k.divide(index, self.division.chunk_len()).0
    }

    /// Whether a chunk contains the logit that has this index in the row.
    pub(super) fn is_in_chunk(&self, chunk: Int, index: Int) -> Mask {
        let (k, len) = (self.k, self.division.chunk_len());
        k.unsigned_lt(k.sub(index, k.mul(chunk, len)), k.int(len as i32))
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
        let result = k.wide_variable(k.wide(0));
        k.when(self.is_chunk(), || {
            let [low, high] = self.parts.map(|array| k.widen(k.load_shared(array, self.block.thread)));
            k.set_wide(result, combine(low, high));
        });
        k.get_wide(result)
    }

    /// Finds the first chunk at which the running sum of the chunks' sums reaches `target`. The sum of all chunks must
    /// reach `target`. `sum` is the sum of the chunk of this thread. Returns the number of the chunk that it finds, and
    /// the running sum before this chunk. All threads get the results.
    pub(super) fn locate_chunk(&self, sum: Wide, target: Wide) -> (Int, Wide) {
        let (chunk, before, _) = self.locate_in_all(&[sum], target, 0);
        (chunk, before)
    }

    /// Computes the running sums of a value over the threads. See [`Block::exchange`] for when they may be computed
    /// again.
    pub(super) fn running_sums(&self, mine: Wide) -> RunningSums<'k> {
        let ([sums], []) = self.running_sums_of([mine], []);
        sums
    }

    /// Like [`RowBlock::running_sums`], for several values of each thread. Also returns the largest of other values.
    /// All these reductions share one barrier. See [`Block::exchange`] for when they may be executed again.
    pub(super) fn running_sums_of<const N: usize, const LARGEST: usize>(
        &self,
        mine: [Wide; N],
        largest: [Int; LARGEST],
    ) -> ([RunningSums<'k>; N], [Int; LARGEST]) {
        let (k, block) = (self.k, &self.block);
        let of_warp = mine.map(|value| k.warp_prefix_sum(value));
        let sums = of_warp.iter().flat_map(|&sum| [k.low(sum), k.high(sum)]);
        let words: Vec<Int> = sums.chain(largest.map(|value| k.warp_max(value))).collect();
        let words = block.exchange(WARP - 1, &words);
        let sums = |number: usize| {
            let of_warps = block.if_warp([words[2 * number], words[2 * number + 1]]);
            let is_earlier = k.lt(k.lane(), self.warp);
            let earlier = k.wide_warp_sum(k.wselect(is_earlier, of_warps, k.wide(0)));
            let upto = k.wadd(earlier, of_warp[number]);
            RunningSums { k, before: k.wide_difference(upto, mine[number]), upto, of_warps }
        };
        (std::array::from_fn(sums), std::array::from_fn(|number| k.warp_max(words[2 * N + number])))
    }

    /// Like [`RowBlock::running_sums`], but each thread has its value in parts: the low part, and the high part if
    /// there is one (see [`sum_of_parts`]). The sum of each part over all threads fits in 31 bits. So this method takes
    /// less time. Returns the sum over the threads before this one, and the sum over the threads up to this one. See
    /// [`Block::exchange`] for when it may be executed again.
    pub(super) fn running_sums_of_parts(&self, mine: &[Int]) -> [Wide; 2] {
        let SumsOfWords { before, upto, .. } = self.block.sums_of_words(mine);
        [before, upto].map(|parts| join_parts(self.k, &parts))
    }

    /// Makes [`RowBlock::pass`] return the number `otherwise` if no thread has the place. All threads call this before
    /// a barrier, and [`RowBlock::pass`] after it.
    pub(super) fn prepare_to_pass(&self, otherwise: i32) {
        self.passed.prepare(otherwise);
    }

    /// Finds the first value at which the running sum of all values reaches `target`, which is not 0. `before` and
    /// `upto` are the running sums before the first value of this thread and up to the last one. `values` returns the
    /// values of this thread. Returns the results in all threads: the number of the value among the values of all
    /// threads, the running sum before the value, and the value.
    pub(super) fn pass(
        &self,
        sums: [Wide; 2],
        values: impl FnOnce() -> Vec<Wide>,
        target: Wide,
    ) -> (Int, Wide, Wide) {
        self.passed.find(sums, values, target);
        self.k.barrier();
        self.passed.get()
    }

    /// Finds the first value at which the running sum of all values reaches `target`, which is not 0. The values of a
    /// thread are before those of the next thread. Returns the results of [`RowBlock::pass`]. If the sum of all values
    /// is too small, the number is `otherwise`.
    pub(super) fn locate_in_all(&self, values: &[Wide], target: Wide, otherwise: i32) -> (Int, Wide, Wide) {
        let k = self.k;
        // Before this barrier, some threads can still read the results of an earlier call.
        k.barrier();
        self.prepare_to_pass(otherwise);
        let sums = self.running_sums(sum_of(k, values));
        self.pass([sums.before, sums.upto], || values.to_vec(), target)
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
        let sums = self.running_sums(sum_of(k, &values));
        k.when(is_between(k, [sums.before, sums.upto], target), || {
            found(k.add(first, first_to_reach(k, sums.before, &values, target).0));
        });
    }

    /// Like [`RowBlock::find_in_chunk`], but returns the index in all threads.
    pub(super) fn index_in_chunk(&self, chunk: Int, target: Wide, measure: impl Fn(Int, Int) -> Int) -> Int {
        let k = self.k;
        self.find_in_chunk(chunk, target, measure, |index| k.store_shared_at(self.passed.number, 0, index));
        k.barrier();
        let index = k.load_shared_at(self.passed.number, 0);
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

/// The place at which a running sum reaches a target, in shared memory. One thread finds the place and passes it to the
/// others.
#[derive(Clone, Copy)]
pub(super) struct Place<'k> {
    block: Block<'k>,
    /// The number of the value at the place, the running sum before the value, and the value.
    number: Shared,
    before: Shared,
    value: Shared,
}

impl<'k> Place<'k> {
    pub(super) fn new(block: Block<'k>) -> Place<'k> {
        let k = block.k;
        Place { block, number: k.shared(1), before: k.shared(2), value: k.shared(2) }
    }

    /// Makes [`Place::get`] return the number `otherwise` if no thread finds the place. All threads call this before a
    /// barrier, and [`Place::find`] after it.
    pub(super) fn prepare(&self, otherwise: i32) {
        let k = self.block.k;
        k.when(self.block.is_first(), || {
            k.store_shared_at(self.number, 0, k.int(otherwise));
            [self.before, self.value]
                .iter()
                .for_each(|&array| k.store_shared_wide(array, k.int(0), k.wide(0)));
        });
    }

    /// Stores the place if it is in this thread. The arguments are those of [`RowBlock::pass`].
    pub(super) fn find(&self, [before, upto]: [Wide; 2], values: impl FnOnce() -> Vec<Wide>, target: Wide) {
        let k = self.block.k;
        k.when(is_between(k, [before, upto], target), || {
            let values = values();
            let (place, sum_before, value) = first_to_reach(k, before, &values, target);
            let first = k.mul(self.block.thread, values.len());
            k.store_shared_at(self.number, 0, k.add(first, place));
            k.store_shared_wide(self.before, k.int(0), sum_before);
            k.store_shared_wide(self.value, k.int(0), value);
        });
    }

    /// Returns the number of the value, the running sum before it, and the value. All threads call this after a
    /// barrier.
    pub(super) fn get(&self) -> (Int, Wide, Wide) {
        let k = self.block.k;
        let [before, value] = [self.before, self.value].map(|array| k.load_shared_wide(array, k.int(0)));
        (k.load_shared_at(self.number, 0), before, value)
    }
}

/// The running sums of a value over the threads of a block.
pub(super) struct RunningSums<'k> {
    k: &'k Ptx,
    /// The sum over the threads before this one.
    pub(super) before: Wide,
    /// The sum over the threads up to this one.
    pub(super) upto: Wide,
    /// The sums of the warps, one in each lane.
    of_warps: Wide,
}

impl RunningSums<'_> {
    /// The sum over all threads.
    pub(super) fn total(&self) -> Wide {
        self.k.wide_warp_sum(self.of_warps)
    }
}

/// Returns the value that has these parts: the low part, and the high part if there is one.
pub(super) fn join_parts(k: &Ptx, parts: &[Int]) -> Wide {
    match *parts {
        [low] => k.widen(low),
        [low, high] => sum_of_parts(k, k.widen(low), k.widen(high)),
        _ => unreachable!("a value has one or two parts"),
    }
}

/// The sum of the values of a thread.
pub(super) fn sum_of(k: &Ptx, values: &[Wide]) -> Wide {
    values.iter().copied().reduce(|a, b| k.wadd(a, b)).expect("there are values")
}

/// Whether a running sum that grows from `before` to `upto` reaches `target`, and has not reached it at `before`.
pub(super) fn is_between(k: &Ptx, [before, upto]: [Wide; 2], target: Wide) -> Mask {
    k.both(k.wlt(before, target), k.not(k.wlt(upto, target)))
}

/// Finds the first of the values at which the running sum reaches `target`. `running` is the running sum before the
/// first value. Returns the number of the value, the running sum before it, and the value.
fn first_to_reach(k: &Ptx, mut running: Wide, values: &[Wide], target: Wide) -> (Int, Wide, Wide) {
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
    (number, before, value)
}
