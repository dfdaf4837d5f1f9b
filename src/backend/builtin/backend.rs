//! The built-in backend. It samples the rows of a batch on one thread or on several threads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fearless_simd::Level;

use super::helpers::{Helpers, Reservation};
use super::idle_list::IdleList;
use super::learned_times::{RowTimes, SharingTimes, Work};
use super::row_kind::{RowKind, Sizes};
use super::sample_row::sample_row;
use super::schedule::Schedule;
use super::workspace::Scratch;
use crate::batch::Batch;
use crate::error::Error;
use crate::memory;
use crate::outputs::{Outputs, RowArrays, RowOutcome};

/// A call with fewer logits than this runs only on the calling thread. Estimating its time would take longer than
/// sharing its work could save.
const LEAST_SHARED_LOGITS: usize = 1 << 15;

/// Samples on the calling thread. Also uses the thread pool of the backend if this is expected to be faster.
///
/// Any number of threads may use a backend at the same time. Dropping the backend waits until its threads have ended.
#[derive(Debug)]
pub struct BuiltinBackend {
    level: Level,
    /// `None` if only the calling thread works.
    helpers: Option<Helpers>,
    idle: IdleList,
    row_times: RowTimes,
    sharing_times: SharingTimes,
}

/// A row to sample: its index, the place for its outcome, and the arrays to fill.
type Row<'r, 'a> = (usize, (&'r mut RowOutcome, RowArrays<'a>));

impl BuiltinBackend {
    /// Creates a backend that uses at most `num_threads` threads per call. 0 means one thread per core. 1 means the
    /// calling thread only; the backend then starts no thread.
    ///
    /// If the system cannot start all threads, the backend logs a warning and uses the threads that started. It can
    /// always use the calling thread.
    pub fn new(num_threads: usize) -> BuiltinBackend {
        BuiltinBackend::with_level(Level::new(), num_threads)
    }

    /// [`BuiltinBackend::new`] with a given instruction set, which need not be the best one of this machine.
    pub fn with_level(level: Level, num_threads: usize) -> BuiltinBackend {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = if num_threads == 0 { cores() } else { num_threads };
        let (helpers, failure) = if threads == 1 { (None, None) } else { Helpers::start(threads) };
        let (idle, row_times, sharing_times) = Default::default();
        let backend = BuiltinBackend { level, helpers, idle, row_times, sharing_times };
        if let Some(error) = failure {
            let got = backend.threads();
            log::warn!(
                "the built-in backend uses {got} of {threads} threads, because no more could start: {error}"
            );
        }
        backend
    }

    /// The number of threads that can work on a call, including the calling thread.
    pub fn threads(&self) -> usize {
        self.helpers.as_ref().map_or(1, Helpers::threads)
    }

    /// The name of the instruction set in use, in lower case.
    pub fn instruction_set(&self) -> String {
        // The Debug form of `Level` is the name of the set, then a token in parentheses.
        let level = format!("{:?}", self.level).to_lowercase();
        level.split('(').next().unwrap_or_default().to_owned()
    }

    /// The instruction set and the number of threads, as text.
    pub fn description(&self) -> String {
        let threads = self.threads();
        format!("{}, {threads} thread{}", self.instruction_set(), if threads == 1 { "" } else { "s" })
    }

    /// Samples every row of the batch and fills the requested outputs.
    ///
    /// The only error is [`Error::OutOfMemory`]. If the function returns an error, it has written no output.
    pub fn sample(&self, batch: &Batch<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let call = Call { backend: self, batch, wants_arrays: outputs.wide.wants_any() };
        // A call with one row is the shortest, so it does not allocate memory for the outcome.
        let mut one = [RowOutcome::default()];
        let mut several;
        let outcomes = if batch.len() == 1 {
            &mut one[..]
        } else {
            several = memory::filled(batch.len(), RowOutcome::default(), "the outcomes of the rows")?;
            &mut several[..]
        };
        let (schedule, reservation) = call.schedule();
        // The call allocates all memory before the first row writes to the wide arrays.
        let sizes = call.sizes(schedule.parts);
        let mut scratch = self.idle.take();
        scratch.prepare(&sizes)?;
        let arrays = if call.wants_arrays { outputs.take_rows(batch.len())? } else { Vec::new() }.into_iter();
        let rows = outcomes.iter_mut().zip(arrays.chain(std::iter::repeat_with(RowArrays::default)));
        let mut rows = rows.enumerate();
        match reservation {
            Some(reservation) => {
                call.sample_shared(reservation.helpers(), schedule, &sizes, rows, scratch)?
            }
            None => {
                let sampled = call.sample_rows(1, || rows.next(), &mut scratch);
                self.idle.give_back(scratch);
                let (work, took) = sampled?;
                self.row_times.learn(work, took);
            }
        }
        outputs.set_outcomes(outcomes);
        Ok(())
    }
}

/// A call in progress.
#[derive(Clone, Copy)]
struct Call<'c> {
    backend: &'c BuiltinBackend,
    batch: &'c Batch<'c>,
    wants_arrays: bool,
}

/// The state that the threads of a call share.
struct Shared<I> {
    /// The rows that no thread has taken yet. `None` after an error.
    rows: Option<I>,
    /// One scratch per thread. A thread removes its scratch while it works.
    scratches: Vec<Scratch>,
    error: Option<Error>,
}

impl<'c> Call<'c> {
    fn kind(&self, row: usize) -> RowKind {
        RowKind::of(&self.batch.rows()[row], self.wants_arrays)
    }

    fn work(&self, row: usize) -> Work {
        self.backend.row_times.of_row(self.kind(row), self.wants_arrays, self.batch.vocab())
    }

    /// Whether the call is large enough to be shared. Smaller calls are not timed.
    fn may_be_shared(&self) -> bool {
        self.batch.len() * self.batch.vocab() >= LEAST_SHARED_LOGITS
    }

    /// The estimated work of the whole call.
    fn total_work(&self) -> Work {
        let mut work = Work::default();
        (0..self.batch.len()).for_each(|row| work.add(self.work(row)));
        work
    }

    /// Decides how to spread the call over threads, and reserves the helpers.
    fn schedule(&self) -> (Schedule, Option<Reservation<'c>>) {
        let alone = (Schedule::ALONE, None);
        let Some(helpers) = self.backend.helpers.as_ref().filter(|_| self.may_be_shared()) else {
            return alone;
        };
        let (rows, vocab, times) = (self.batch.len(), self.batch.vocab(), &self.backend.sharing_times);
        let threads = if rows == 1 { helpers.pool_threads() } else { helpers.threads() };
        let schedule = Schedule::new(rows, vocab, threads, self.total_work().nanoseconds, times.wake());
        if schedule == Schedule::ALONE || !times.is_worthwhile() {
            times.skip();
            return alone;
        }
        match helpers.reserve(schedule.reserved()) {
            Some(reservation) => (schedule, Some(reservation)),
            None => alone,
        }
    }

    /// The memory that a thread needs for any row of the call.
    fn sizes(&self, parts: usize) -> Sizes {
        let vocab = self.batch.vocab();
        // Without wide arrays, the call writes no output before all rows are done. So the cleaned copy is allocated
        // only when a row needs it.
        let cleaned = if self.wants_arrays { vocab } else { 0 };
        let of_row = |row| {
            let kind = self.kind(row);
            kind.sizes(kind.layout(vocab), parts)
        };
        let sizes = (0..self.batch.len()).map(of_row).fold(Sizes::default(), Sizes::max);
        Sizes { cleaned, ..sizes }
    }

    /// Samples rows until `next` returns `None`. Returns the estimated work of these rows and the time that they took.
    /// Both are zero if the call is not timed.
    fn sample_rows<'r, 'a>(
        &self,
        parts: usize,
        mut next: impl FnMut() -> Option<Row<'r, 'a>>,
        scratch: &mut Scratch,
    ) -> Result<(Work, Duration), Error> {
        let timed = self.backend.helpers.is_some() && parts == 1 && self.may_be_shared();
        let start = timed.then(Instant::now);
        let mut work = Work::default();
        while let Some((row, (outcome, mut arrays))) = next() {
            let (logits, params) = (self.batch.row(row), &self.batch.rows()[row]);
            let (level, options) = (self.backend.level, self.batch.options());
            *outcome = sample_row(level, parts, logits, params, options, &mut arrays, scratch)?;
            if timed {
                work.add(self.work(row));
            }
        }
        Ok((work, start.map_or(Duration::ZERO, |start| start.elapsed())))
    }

    /// Samples the rows on several threads. Each thread takes one row at a time, until no row is left.
    fn sample_shared<'r, 'a: 'r>(
        &self,
        helpers: &Helpers,
        schedule: Schedule,
        sizes: &Sizes,
        rows: impl Iterator<Item = Row<'r, 'a>> + Send,
        scratch: Scratch,
    ) -> Result<(), Error> {
        let scratches = self.scratches(schedule.helpers, sizes, scratch)?;
        let helping = scratches.len() - 1;
        let total = self.total_work();
        let shared = Mutex::new(Shared { rows: Some(rows), scratches, error: None });
        let take_rows = || {
            let Some(mut scratch) = lock(&shared).scratches.pop() else { return Default::default() };
            let next = || lock(&shared).rows.as_mut()?.next();
            let sampled = self.sample_rows(schedule.parts, next, &mut scratch);
            let mut shared = lock(&shared);
            shared.scratches.push(scratch);
            sampled.unwrap_or_else(|error| {
                shared.rows = None;
                shared.error = Some(error);
                Default::default()
            })
        };
        let help = || {
            take_rows();
        };
        let start = Instant::now();
        let times = &self.backend.sharing_times;
        if schedule.parts > 1 {
            // The passes of a row ran on several threads, even if no helper took rows.
            helpers.run_in_pool(|| helpers.share(helping, take_rows, &help));
            times.learn_fraction(start.elapsed().as_nanos() as f32 / total.nanoseconds);
        } else {
            let ((own, took), arrival) = helpers.share(helping, take_rows, &help);
            // Without helpers, only this thread worked, and its time says nothing about shared calls.
            if helping > 0 {
                // `alone` is the estimated time of the whole call on one thread, from the speed of this thread. If this
                // thread shares a core with a helper, it is slow and the estimate is too high. Therefore the time of
                // calls that were not shared limits the estimate.
                let alone = took.as_nanos() as f32 * total.nanoseconds / own.nanoseconds.max(1.0);
                let alone = alone.min(1.5 * total.nanoseconds);
                times.learn_wake(arrival);
                times.learn_fraction(start.elapsed().as_nanos() as f32 / alone.max(1.0));
            }
        }
        let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        shared.scratches.into_iter().for_each(|scratch| self.backend.idle.give_back(scratch));
        shared.error.map_or(Ok(()), Err)
    }

    /// Returns one scratch for the calling thread and one for each helper. If there is not enough memory for all
    /// helpers, it returns fewer, and fewer helpers work.
    fn scratches(&self, helpers: usize, sizes: &Sizes, scratch: Scratch) -> Result<Vec<Scratch>, Error> {
        let mut scratches = memory::with_capacity(helpers + 1, "the scratches of the threads")?;
        scratches.push(scratch);
        for _ in 0..helpers {
            let mut scratch = self.backend.idle.take();
            if scratch.prepare(sizes).is_err() {
                break;
            }
            scratches.push(scratch);
        }
        Ok(scratches)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::CallOptions;
    use crate::dtype::Logits;
    use crate::semantics::params::RowParams;

    fn batch(logits: &[f32], vocab: usize, params: impl Fn(usize) -> RowParams) -> Batch<'_> {
        let rows = (0..logits.len() / vocab).map(params).collect();
        Batch::from_params(Logits::F32(logits), vocab, vocab, rows, CallOptions::default()).unwrap()
    }

    fn call<'c>(backend: &'c BuiltinBackend, batch: &'c Batch<'c>) -> Call<'c> {
        Call { backend, batch, wants_arrays: true }
    }

    /// The schedule of a call, without its reservation.
    fn schedule_of(backend: &BuiltinBackend, batch: &Batch<'_>) -> Schedule {
        call(backend, batch).schedule().0
    }

    /// Raises the estimated time of every row far above its real time.
    fn slow_down(backend: &BuiltinBackend, batch: &Batch<'_>) {
        let work = call(backend, batch).total_work();
        (0..200).for_each(|_| backend.row_times.learn(work, Duration::from_secs(9)));
    }

    fn outcome(backend: &BuiltinBackend, batch: &Batch<'_>) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
        let rows = batch.len();
        let (mut tokens, mut weights) = (vec![7; rows], vec![7; rows * batch.vocab()]);
        let mut indices_k = vec![7; rows * 9];
        let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
        outputs.wide.weights = Some(&mut weights);
        outputs.wide.indices_k = Some(&mut indices_k);
        backend.sample(batch, &mut outputs).unwrap();
        (tokens, weights, indices_k)
    }

    #[test]
    fn sharing_and_splitting_change_nothing() {
        let (one, five) = (BuiltinBackend::new(1), BuiltinBackend::new(5));
        for (rows, vocab, shared) in [(1, 200_000, (0, 5)), (2, 80_000, (1, 2)), (40, 3000, (4, 1))] {
            // The cases contain every kind of row. The last row holds a NaN.
            let mut logits: Vec<f32> =
                (0..rows * vocab).map(|i| ((i * 7919) % 10_007) as f32 * 1e-3).collect();
            logits[rows * vocab - 1] = f32::NAN;
            for first in 0..4 {
                let params = |row| {
                    let (k, p, temperature) =
                        [(0, 0.9, 1.0), (0, 1.0, 1.0), (9, 0.9, 0.0), (9, 0.9, 2.0)][(first + row) % 4];
                    RowParams::new(k, p, 0.0, temperature, [row as u32, 1, 2, 3], vocab)
                };
                let batch = batch(&logits, vocab, params);
                slow_down(&five, &batch);
                let Schedule { helpers, parts } = schedule_of(&five, &batch);
                assert_eq!((helpers, parts), shared, "{rows} rows of {vocab}");
                assert!(outcome(&five, &batch) == outcome(&one, &batch), "{rows} rows of {vocab}, {first}");
                // Sharing may have been slow in these calls. This resets the estimate, so that the next call is shared
                // too.
                (0..1000).for_each(|_| five.sharing_times.skip());
            }
        }
        let helpers = five.helpers.as_ref().unwrap();
        assert!(helpers.reserve(4).is_some(), "a call kept its reservation");
    }

    /// For a call of this size, waking a thread costs more than it saves, even if the learned times are long.
    #[test]
    fn one_row_of_a_common_size_stays_on_its_thread() {
        let backend = BuiltinBackend::new(4);
        let logits = vec![0.5; 128_256];
        for (k, p, temperature) in [(0, 1.0, 0.0), (64, 0.95, 1.0), (0, 0.95, 1.0)] {
            let batch = batch(&logits, 128_256, |_| RowParams::new(k, p, 0.0, temperature, [1; 4], 128_256));
            for microseconds in [6, 18, 50] {
                (0..200).for_each(|_| {
                    let work = call(&backend, &batch).total_work();
                    backend.row_times.learn(work, Duration::from_micros(microseconds));
                });
                assert_eq!(schedule_of(&backend, &batch), Schedule::ALONE, "k = {k}, {microseconds} µs");
            }
        }
    }

    #[test]
    fn concurrent_calls_use_the_helpers_once() {
        let backend = BuiltinBackend::new(3);
        let logits = vec![0.5; 8 * 40_000];
        let batch = batch(&logits, 40_000, |_| RowParams::new(0, 0.9, 0.0, 1.0, [1; 4], 40_000));
        slow_down(&backend, &batch);
        let call = call(&backend, &batch);
        let (first, second) = (call.schedule(), call.schedule());
        assert_eq!((first.0.helpers, second.0), (2, Schedule::ALONE));
        drop(first);
        assert_eq!(call.schedule().0.helpers, 2);
    }

    #[test]
    fn concurrent_calls_agree() {
        let (one, three) = (BuiltinBackend::new(1), BuiltinBackend::new(3));
        let logits: Vec<f32> = (0..6 * 40_000).map(|i| ((i * 31) % 997) as f32 * 1e-2).collect();
        let batch = batch(&logits, 40_000, |row| RowParams::new(0, 0.9, 0.0, 1.0, [row as u32; 4], 40_000));
        slow_down(&three, &batch);
        let expected = outcome(&one, &batch);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|_| assert!(outcome(&three, &batch) == expected)));
            }
        });
    }
}
