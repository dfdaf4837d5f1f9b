//! The first kernel: finds a bound for the list of a row from a sample of the row.
//!
//! Later kernels check whether the list has enough entries and not too many. So the sample affects only the speed.

use super::plan::Plan;
use super::records::{Records, ALL_REACH, HAS_BINS, HAS_LIST, IS_PLAIN, NO_RECORD, SAMPLED, SCANNED};
use super::state::State;
use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::layout::vector_len;
use crate::kernels::gpu::logits::{Run, SliceLogits};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Float, Int, Mask, Ptx, Shared, Variable, Wide, WARP};
use crate::semantics::arith::{Arith, Scalar};
use crate::semantics::clean::{order_key, MAX_FINITE_BITS, NEG_INF_KEY};

/// The number of threads of a block.
pub(super) const THREADS: usize = 1024;
/// The largest number of entries of the list of a row.
pub(super) const LARGEST_LIST: usize = 24 * THREADS;
/// A row of at most this length is its own sample.
const LARGEST_WHOLE: usize = 8 * THREADS;
/// The number of consecutive logits that a thread samples.
const CONSECUTIVE: usize = 4;
/// The number of consecutive logits in a piece of the sample. Adjacent threads have the same piece.
const PIECE: usize = 16;
/// The rank in the sample of the bound of a row without top-k.
const RANK: i32 = 64;
/// The sample contains about one logit out of this number of logits. In a very long row, it contains fewer logits,
/// because the number of rounds is limited.
const ONE_IN: usize = 32;
/// The largest number of times that a thread samples [`CONSECUTIVE`] logits.
const LARGEST_ROUNDS: usize = 4;

/// The capacity of the list of a row.
pub(super) fn capacity(spec: &Spec) -> usize {
    LARGEST_LIST.min(spec.vocab)
}

/// The sample of the rows of a batch.
pub(super) struct Sample {
    vocab: usize,
    /// The number of times that each thread samples [`CONSECUTIVE`] logits; 0 if the sample is the whole row.
    rounds: usize,
}

impl Sample {
    pub(super) fn new(spec: &Spec) -> Sample {
        let vocab = spec.vocab;
        let rounds = (vocab + ONE_IN * THREADS * CONSECUTIVE / 2) / (ONE_IN * THREADS * CONSECUTIVE);
        let rounds = if vocab <= LARGEST_WHOLE { 0 } else { rounds.clamp(1, LARGEST_ROUNDS) };
        Sample { vocab, rounds }
    }

    /// The number of logits.
    fn len(&self) -> usize {
        self.rounds * THREADS * CONSECUTIVE
    }

    /// The number of logits of the row from which a piece is chosen.
    fn stratum(&self) -> usize {
        self.vocab * PIECE / self.len()
    }

    /// Returns a rank in the sample. The entry with this rank is almost certainly not before the `top_k`-th entry of
    /// the row. `expected` is the average rank in the sample of the `top_k`-th entry. The result is larger than
    /// `expected` by at least 4.5 standard deviations. There are two formulas for the margin, and the smaller result is
    /// used. The first formula has the smaller result for small ranks.
    fn rank<A: Arith>(a: A, expected: A::Int) -> A::Int {
        let thrice = a.add(expected, a.add(expected, expected));
        let (for_few, for_many) = (a.add(a.shr(thrice, 3), a.int(24)), a.add(a.shr(thrice, 4), a.int(40)));
        a.add(expected, a.select(a.lt(for_few, for_many), for_few, for_many))
    }

    /// The largest rank of the `top_k`-th entry in the sample for which the list almost certainly has enough space.
    fn largest_expected(&self) -> usize {
        let space = (LARGEST_LIST * self.len() / self.vocab) as f64;
        let fits = |&expected: &i32| {
            let rank = f64::from(Self::rank(Scalar, expected));
            rank + 5.0 * rank.sqrt() <= space
        };
        (1..self.len() as i32).take_while(fits).last().unwrap_or(0) as usize
    }

    /// The largest k for which the list almost certainly has enough space.
    fn largest_top_k(&self) -> usize {
        match self.rounds {
            0 => LARGEST_WHOLE,
            _ => self.largest_expected() * self.vocab / self.len(),
        }
    }

    /// The keys of the sample in this thread; `i32::MIN` beyond the end of the row.
    fn load(&self, block: &Block<'_>, spec: &Spec, logits: Wide, row: Int) -> Vec<Int> {
        let k = block.k;
        let vector = vector_len(spec);
        let keys = |run: Run| {
            let loaded = SliceLogits::load_run(k, spec, logits, row, run);
            (0..loaded.values.len()).map(|number| loaded.key(number)).collect::<Vec<_>>()
        };
        if self.rounds == 0 {
            let (first, stride) = (k.mul(block.thread, vector), THREADS * vector);
            return keys(Run { first, vector, count: self.vocab.div_ceil(stride), stride });
        }
        let vector = vector.min(CONSECUTIVE);
        let pieces = THREADS * CONSECUTIVE / PIECE;
        let (piece, part) = k.divide(block.thread, THREADS / pieces);
        let load = |round: usize| {
            let piece = k.add(piece, k.int((round * pieces) as i32));
            let start = k.add(k.mul(piece, self.stratum()), self.offset(k, piece));
            let start = k.and(start, k.int(-(CONSECUTIVE as i32)));
            let first = k.add(start, k.mul(part, CONSECUTIVE));
            keys(Run { first, vector, count: CONSECUTIVE / vector, stride: vector })
        };
        (0..self.rounds).flat_map(load).collect()
    }

    /// Returns the offset of a piece in its stratum. The offset is a hash of the number of the piece, so that no
    /// pattern in the row has an effect on the sample.
    fn offset(&self, k: &Ptx, piece: Int) -> Int {
        let mix = |value: Int, (factor, by): (u32, u32)| {
            let product = k.mul(value, factor as usize);
            k.xor(product, k.shr_by(product, k.int(by as i32)))
        };
        let hash = MIXES.into_iter().fold(k.add(piece, k.int(1)), mix);
        k.divide(k.shr_by(hash, k.int(1)), self.stratum() - PIECE).1
    }

    /// The indices of the sampled logits, computed on the host.
    fn indices(&self) -> Vec<usize> {
        let first = |piece: usize| {
            let mix = |value: u32, (factor, by): (u32, u32)| {
                let product = value.wrapping_mul(factor);
                product ^ product >> by
            };
            let hash = MIXES.into_iter().fold(piece as u32 + 1, mix);
            let offset = (hash >> 1) as usize % (self.stratum() - PIECE);
            (piece * self.stratum() + offset) / CONSECUTIVE * CONSECUTIVE
        };
        (0..self.len() / PIECE).flat_map(|piece| first(piece)..first(piece) + PIECE).collect()
    }
}

/// The factors and shifts of the hash.
const MIXES: [(u32, u32); 2] = [(0x1e37_79b1, 15), (0x05eb_ca77, 13)];

/// The indices of the logits of each row from which the bound of its list is computed. Tests use them to make rows for
/// which the bound is wrong.
pub(in super::super) fn sampled_indices(spec: &Spec) -> Vec<usize> {
    Sample::new(spec).indices()
}

/// Whether the results of a row depend on top-k. The results of a greedy row depend on it only if they include the
/// entries that top-k kept.
pub(super) fn needs_top_k(k: &Ptx, spec: &Spec, parameters: &Parameters<'_>) -> Mask {
    let has_top_k = k.lt(k.int(0), parameters.get(Column::K));
    if spec.wanted.shows_top_k() {
        return has_top_k;
    }
    k.both(has_top_k, k.eq(parameters.get(Column::Greedy), k.int(0)))
}

/// Writes the kernel, with one block per row. Its arguments are the logits, the parameters, and the results: the
/// sampled records, the records of the slices, and the state of the scan. The kernel marks the records of the slices as
/// missing, and clears the state.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let (sampled, slices) = (Records::argument(k, SAMPLED), Records::argument(k, SCANNED));
    let row = k.block();
    let state = State::argument(k, row);
    let block = &Block::new(k);
    let parameters = Parameters::new(k, parameters, row);
    let sample = Sample::new(spec);

    let with_top_k = needs_top_k(k, spec, &parameters);
    let top_k = parameters.get(Column::K);
    let is_drawn = k.eq(parameters.get(Column::Greedy), k.int(0));
    let has_top_p = k.not(k.eq(parameters.get(Column::TopPMantissa), k.int(0)));
    let has_min_p = k.lt(k.int(0), parameters.get(Column::MinWeight));
    let is_alone = k.both(is_drawn, k.not(with_top_k));
    let fits = k.le(top_k, k.int(sample.largest_top_k() as i32));
    let has_list = k.either(k.both(with_top_k, fits), k.both(is_alone, k.either(has_top_p, has_min_p)));
    let has_bins = k.both(is_alone, has_top_p);
    state.clear(block, has_bins);
    let records = plan.records();
    let is_record = k.lt(block.thread, k.int(records as i32));
    slices.store_if(is_record, k.element(row, records, block.thread), &[k.int(NO_RECORD); SCANNED]);

    let nan = f32::NAN.to_bits() as i32;
    let [above, at_least, bound] = [nan, nan, NEG_INF_KEY].map(|value| k.variable(k.int(value)));
    let is_plain = k.both(is_alone, k.not(k.either(has_top_p, has_min_p)));
    let flags = k.variable(k.select(is_plain, k.int(IS_PLAIN), k.int(0)));
    k.when(has_list, || {
        let rank = if sample.rounds == 0 {
            top_k
        } else {
            let limited = k.min(top_k, k.int(sample.largest_top_k() as i32));
            Sample::rank(k, k.divide(k.mul(limited, sample.len()), spec.vocab).0)
        };
        let rank = k.select(with_top_k, rank, k.int(RANK));
        let keys = sample.load(block, spec, logits, parameters.row_of_logits(spec));
        let found = bound_at(block, &keys, rank);
        // A bound below the largest value has a next larger value.
        let found = exact(k, k.min(found, k.int(MAX_FINITE_BITS - 1)));
        k.set(bound, found);
        k.set(at_least, k.to_bits(raw(k, found)));
        k.set(above, k.to_bits(raw(k, exact(k, k.add(found, k.int(1))))));
        let all = k.select(k.eq(found, k.int(NEG_INF_KEY)), k.int(ALL_REACH), k.int(0));
        let bins = k.select(has_bins, k.int(HAS_BINS), k.int(0));
        k.set(flags, k.or(k.or(all, bins), k.int(HAS_LIST)));
    });
    let words = [above, at_least, bound, flags].map(|word| k.get(word));
    sampled.store_if(block.is_first(), row, &words);
}

/// The order key of the smallest positive normal number. The negative of this key is the key of the most negative
/// subnormal.
const LEAST_NORMAL: i32 = 0x0080_0000;

/// Returns the least key of a cleaned value that is at least `key`. The result differs from `key` only if `key` is the
/// key of a subnormal, because cleaned values are not subnormal.
fn exact(k: &Ptx, key: Int) -> Int {
    let is_subnormal = k.both(k.lt(k.int(0), key), k.lt(key, k.int(LEAST_NORMAL)));
    let is_negative = k.both(k.le(k.int(-LEAST_NORMAL), key), k.lt(key, k.int(0)));
    k.select(is_subnormal, k.int(LEAST_NORMAL), k.select(is_negative, k.int(0), key))
}

/// Returns a float that a value reaches if and only if the key of the cleaned value reaches `key`. `key` is a result of
/// [`exact`]. NaN reaches no float.
fn raw(k: &Ptx, key: Int) -> Float {
    // All subnormals become 0. The least of them is the most negative one.
    k.from_bits(order_key(k, k.select(k.eq(key, k.int(0)), k.int(-LEAST_NORMAL), key)))
}

/// The number of bits of a distance that one step of [`bound_at`] finds.
const DIGIT_BITS: u32 = 12;
/// The number of threads of a group in [`bound_at`].
const GROUP: usize = 8;
/// The number of bins that a thread loads or stores with one instruction.
const VECTOR: usize = 4;
const _: () = assert!(VECTOR * THREADS == 1 << DIGIT_BITS && THREADS == WARP * WARP);

/// Returns a key that at least `rank` keys reach. Only a few more keys reach it, unless many keys are equal. Returns
/// the key of −inf if fewer than `rank` keys are above −inf.
///
/// Each step counts the keys in bins by their distance from the largest key. It finds the first bin at which the
/// running sum of these counts reaches `rank`. If the running sum is much larger than `rank`, the next step divides
/// this bin into smaller bins.
fn bound_at(block: &Block<'_>, keys: &[Int], rank: Int) -> Int {
    let k = block.k;
    let search = BoundSearch::new(block, keys, rank);
    let most = k.add(rank, k.shr(rank, 4));
    let (first, before) = (k.variable(k.int(0)), k.variable(k.int(0)));
    let zeros = k.leading_zeros(search.farthest);
    let shift = k.variable(k.max(k.sub(k.int(32 - DIGIT_BITS as i32), zeros), k.int(0)));
    let (bound, is_open) = (k.variable(k.int(NEG_INF_KEY)), k.variable(k.int(1)));
    k.repeat_while(
        || k.eq(k.get(is_open), k.int(1)),
        || {
            let (start, by) = (k.get(first), k.get(shift));
            let first_bin = k.mul(block.thread, VECTOR);
            search.fill(first_bin, (start, by));
            let [bin, before_bin, reaching] = search.find(first_bin, before);
            let next = k.add(start, k.shl_by(bin, by));
            let last = k.add(next, k.sub(k.shl_by(k.int(1), by), k.int(1)));
            let last = k.select(k.unsigned_lt(search.farthest, last), search.farthest, last);
            let exists = k.lt(bin, k.int(1 << DIGIT_BITS));
            k.when(exists, || k.set(bound, k.sub(search.largest, last)));
            k.set(first, next);
            k.set(before, before_bin);
            let is_close = k.either(k.le(reaching, most), k.eq(by, k.int(0)));
            k.set(is_open, k.select(k.either(k.not(exists), is_close), k.int(0), k.int(1)));
            k.set(shift, k.max(k.sub(by, k.int(DIGIT_BITS as i32)), k.int(0)));
            // The next step overwrites the words of `found`.
            k.barrier();
        },
    );
    k.get(bound)
}

/// The search of [`bound_at`].
struct BoundSearch<'a, 'k> {
    block: &'a Block<'k>,
    /// The keys of this thread.
    keys: &'a [Int],
    rank: Int,
    /// The largest key.
    largest: Int,
    /// No bound has a larger distance from the largest key. Distances are unsigned integers, because they can exceed
    /// `i32::MAX`.
    farthest: Int,
    /// The number of keys in each bin.
    bins: Shared,
    /// The number of the bin that a step found, the number of keys before this bin, and the number of keys up to its
    /// end. If there are fewer than `rank` keys, all three words are the number of bins.
    found: Shared,
}

impl<'a, 'k> BoundSearch<'a, 'k> {
    fn new(block: &'a Block<'k>, keys: &'a [Int], rank: Int) -> BoundSearch<'a, 'k> {
        let k = block.k;
        let (bins, found) = (k.shared(1 << DIGIT_BITS), k.shared(3));
        let mine = keys.iter().copied().reduce(|a, b| k.max(a, b)).expect("a thread has keys");
        // `least` is the smallest of the maxima of the groups. Each group has at least one key that reaches `least`. So
        // if `rank` is at most the number of groups, at least `rank` keys reach `least`.
        let of_group =
            (0..GROUP.trailing_zeros()).fold(mine, |max, bit| k.max(max, k.from_partner(max, 1 << bit)));
        let (least, largest) = block.range(of_group);
        let is_bound = k.both(k.le(rank, k.int((THREADS / GROUP) as i32)), k.le(k.int(NEG_INF_KEY), least));
        let least = k.select(is_bound, least, k.int(NEG_INF_KEY));
        BoundSearch { block, keys, rank, largest, farthest: k.sub(largest, least), bins, found }
    }

    /// Counts the keys in the bins. The first bin begins at distance `start`. Each bin contains `2^shift` distances.
    /// `first_bin` is the number of the first bin of this thread.
    fn fill(&self, first_bin: Int, (start, shift): (Int, Int)) {
        let (k, found) = (self.block.k, self.found);
        k.store_shared_words(self.bins, first_bin, [k.int(0); VECTOR]);
        // If there are fewer than `rank` keys, no thread overwrites these values.
        k.when(self.block.is_first(), || {
            (0..found.len()).for_each(|word| k.store_shared_at(found, word, k.int(1 << DIGIT_BITS)));
        });
        k.barrier();
        // If the distance of a key is less than `start`, the subtraction wraps. The key is then counted after the keys
        // of the bin that this step divides, or not at all. `Search::fill` explains this.
        for &key in self.keys {
            let distance = k.sub(self.largest, key);
            let bin = k.shr_by(k.sub(distance, start), shift);
            let is_in_bins = k.unsigned_lt(bin, k.int(1 << DIGIT_BITS));
            // The keys beyond the end of the row are `i32::MIN`. They are not counted, because `i32::MIN` is less than
            // every possible bound.
            let is_near = k.not(k.unsigned_lt(self.farthest, distance));
            k.when(k.both(is_in_bins, is_near), || k.add_shared(self.bins, bin, k.int(1)));
        }
        k.barrier();
    }

    /// Finds the first bin at which the running sum reaches the rank. `before` contains the number of keys before the
    /// first bin. `first_bin` is the number of the first bin of this thread. Returns the words of
    /// [`BoundSearch::found`]. Contains a barrier.
    fn find(&self, first_bin: Int, before: Variable) -> [Int; 3] {
        let (k, rank, found) = (self.block.k, self.rank, self.found);
        let counts: [Int; VECTOR] = k.load_shared_words(self.bins, first_bin);
        let sum = counts.into_iter().reduce(|a, b| k.add(a, b)).expect("a thread has bins");
        let mut running = k.add(k.get(before), self.block.sum_before(sum));
        let after = k.add(running, sum);
        k.when(k.both(k.lt(running, rank), k.le(rank, after)), || {
            for (number, count) in counts.into_iter().enumerate() {
                let next = k.add(running, count);
                k.when(k.both(k.lt(running, rank), k.le(rank, next)), || {
                    k.store_shared_at(found, 0, k.add(first_bin, k.int(number as i32)));
                    k.store_shared_at(found, 1, running);
                    k.store_shared_at(found, 2, next);
                });
                running = next;
            }
        });
        k.barrier();
        [0, 1, 2].map(|word| k.load_shared_at(found, word))
    }
}
