//! Prewarming: compiling or loading programs before the first call needs them, on the caller's thread or in the
//! background.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::completion::Completion;
use super::program_cache;
use super::programs::ProgramPins;
use super::PjrtBackend;
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::panics::{Caught, Inherited};
use crate::parallel;
use crate::plan::needed;
use crate::plan::CallShape;
use crate::signals;
use crate::thread_flag::with_flag;

/// The programs to load or to compile. The programs that are already in the cache are pinned when the job is created.
/// The other programs are pinned when they are made.
pub(crate) struct Job {
    backend: Arc<PjrtBackend>,
    programs: Vec<ProgramSpec>,
    num_threads: usize,
    _pins: ProgramPins,
}

impl Job {
    /// Plans the programs of calls, and reserves their places in the cache. `num_threads` is the largest number of
    /// programs that are made at the same time; 0 means one per core.
    pub(crate) fn new(
        backend: &Arc<PjrtBackend>,
        calls: &CallShape,
        max_k: usize,
        num_threads: usize,
    ) -> Result<Job, Error> {
        let programs = needed::programs_up_to(calls, max_k, backend.buckets())?;
        let _pins = backend.programs.pin(&programs)?;
        Ok(Job { backend: backend.clone(), programs, num_threads, _pins })
    }

    /// Makes the programs that are not in the cache. After an error, the programs that were made stay pinned.
    ///
    /// If the log callback calls this function during a compilation, this inner call may return while a program is
    /// still being made.
    pub(crate) fn run(&self, progress: &Progress) -> Result<(), Error> {
        let provide = |program: &ProgramSpec| {
            if progress.is_cancelled() {
                return Ok(());
            }
            as_worker(|| {
                let made = self.backend.programs.get(program)?;
                self.backend.run_first(program, &made);
                Ok::<_, Error>(())
            })?;
            progress.add_one();
            Ok(())
        };
        if program_cache::is_maker() {
            // The log callback called this function during a compilation. It must not wait for that compilation,
            // because other threads may wait for this thread. It must not make that program again either, because that
            // would compile, log and call back without end.
            let mut to_make =
                self.programs.iter().filter(|program| !self.backend.programs.is_in_flight(program));
            return to_make.try_for_each(provide);
        }
        let largest = if self.num_threads == 0 { usize::MAX } else { self.num_threads };
        let threads = parallel::num_threads(self.programs.len()).min(largest);
        parallel::for_each_with(self.programs.iter(), (), vec![(); threads - 1], |(), program| {
            provide(program)
        })
    }

    /// The number of programs.
    pub(crate) fn len(&self) -> usize {
        self.programs.len()
    }
}

thread_local! {
    /// Whether this thread makes a program for a prewarm, or runs the log callback for it.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

fn as_worker<R>(work: impl FnOnce() -> R) -> R {
    with_flag(&IS_WORKER, work)
}

/// Whether this thread may wait for a prewarm. It must not wait if the prewarm can wait for this thread.
fn may_wait() -> bool {
    !IS_WORKER.get() && !program_cache::is_maker()
}

/// The progress of a prewarm.
#[derive(Default)]
pub(crate) struct Progress {
    made: AtomicUsize,
    cancelled: AtomicBool,
    end: Completion<Error>,
}

impl Progress {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn add_one(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }
}

/// A prewarm that runs in the background. Thread-safe. It keeps the backend of its sampler alive. Dropping the prewarm
/// cancels it and waits for the compilations that are running. The drop does not wait if a prewarm can wait for the
/// current thread.
pub struct Prewarming {
    total: usize,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
    // This field is dropped last. If the drop waits for the thread of the prewarm, the thread that drops this value can
    // destroy the client, and the thread of the prewarm does not. If the drop does not wait, the thread of the prewarm
    // can own the last reference. It then destroys the client when it ends.
    _backend: Option<Arc<PjrtBackend>>,
}

impl Prewarming {
    /// Starts to run a job in the background.
    pub(crate) fn start(job: Job) -> Result<Prewarming, Error> {
        let (total, backend) = (job.len(), job.backend.clone());
        let progress = Arc::<Progress>::default();
        let panics = Inherited::from_this_thread();
        let shared = progress.clone();
        let run = move || {
            let outcome = panics.catch(|| job.run(&shared));
            // The job is dropped before its outcome is visible, so that its reservations in the cache have ended by
            // then.
            drop(job);
            shared.end.finish(outcome_of(outcome, &shared, total));
        };
        let builder = Builder::new().name("nuc-prewarm".to_owned());
        let thread = signals::blocked_while(|| builder.spawn(run)).map_err(|error| {
            Error::OutOfMemory(format!("no thread could be started to prewarm in the background: {error}"))
        })?;
        Ok(Prewarming { total, progress, thread: Some(thread), _backend: Some(backend) })
    }

    /// A prewarm without programs. It has ended.
    pub(crate) fn of_nothing() -> Prewarming {
        let progress = Arc::<Progress>::default();
        progress.end.finish(Ok(()));
        Prewarming { total: 0, progress, thread: None, _backend: None }
    }

    /// The number of programs.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The number of programs that are ready: this prewarm made them, or they were in the cache before.
    pub fn done(&self) -> usize {
        self.progress.made.load(Ordering::Relaxed)
    }

    /// Whether the prewarm has ended: all programs are ready, one failed, or the prewarm was cancelled.
    pub fn has_ended(&self) -> bool {
        self.progress.end.is_finished()
    }

    /// Cancels the prewarm. It starts no further programs, but finishes those that are being made now. Returns without
    /// waiting. Programs that were made stay in the cache.
    pub fn cancel(&self) {
        self.progress.cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits until the prewarm has ended or the timeout expires. `None` means no limit. Returns whether it has ended.
    /// Returns its error if it failed, and [`Error::Cancelled`] if it was cancelled before all programs were made.
    ///
    /// The log callback must not wait for a prewarm, because the prewarm may wait for the callback. This wait returns
    /// an error, unless the prewarm has ended or the timeout is zero.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        if timeout != Some(Duration::ZERO) && !self.has_ended() {
            self.check_may_wait()?;
        }
        match self.progress.end.wait(timeout) {
            Some(outcome) => outcome.map(|()| true),
            None => Ok(false),
        }
    }

    /// Checks that this thread may wait for the end of the prewarm and drop it.
    pub fn check_may_wait(&self) -> Result<(), Error> {
        match may_wait() {
            true => Ok(()),
            false => Err(Error::named_argument(
                "prewarming",
                "prewarming is used inside a log callback, on a thread for which a prewarm may wait; wait for it and \
                 destroy it on another thread",
            )),
        }
    }
}

impl Drop for Prewarming {
    fn drop(&mut self) {
        self.cancel();
        if let Some(thread) = self.thread.take().filter(|_| may_wait()) {
            // The thread catches every panic, so joining it cannot fail.
            let _ = thread.join();
        }
    }
}

/// The outcome of a job that has returned or panicked.
fn outcome_of(
    returned: Result<Result<(), Error>, Caught>,
    progress: &Progress,
    total: usize,
) -> Result<(), Error> {
    let done = progress.made.load(Ordering::Relaxed);
    match returned {
        Ok(Ok(())) if progress.is_cancelled() && done < total => {
            Err(Error::Cancelled(format!("the prewarm was cancelled after {done} of {total} programs")))
        }
        Ok(outcome) => outcome,
        Err(panic) => Err(Error::Internal(format!("{panic}, in a prewarm"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Prewarming {
        Prewarming { total: 3, progress: Arc::default(), thread: None, _backend: None }
    }

    #[test]
    fn a_wait_ends_with_the_outcome() {
        let prewarming = running();
        assert!(!prewarming.wait(Some(Duration::ZERO)).unwrap());
        assert!(!prewarming.wait(Some(Duration::from_millis(2))).unwrap());
        std::thread::scope(|scope| {
            let waits: Vec<_> = (0..3).map(|_| scope.spawn(|| prewarming.wait(None))).collect();
            prewarming.progress.end.finish(Err(Error::Internal("no".to_owned())));
            for wait in waits {
                assert_eq!(wait.join().unwrap().unwrap_err().to_string(), "no");
            }
        });
        assert!(prewarming.has_ended() && prewarming.wait(Some(Duration::ZERO)).is_err());
        assert!(Prewarming::of_nothing().wait(None).unwrap());
    }

    /// A wait on a thread for which the prewarm may wait would never end.
    #[test]
    fn the_threads_of_a_prewarm_must_not_wait() {
        let prewarming = running();
        for refused in [
            as_worker(|| prewarming.wait(None)),
            as_worker(|| prewarming.wait(Some(Duration::from_secs(60)))),
            program_cache::as_maker(|| prewarming.wait(None)),
        ] {
            assert!(refused.unwrap_err().to_string().contains("log callback"));
        }
        as_worker(|| {
            assert!(!prewarming.wait(Some(Duration::ZERO)).unwrap());
            prewarming.progress.end.finish(Ok(()));
            assert!(prewarming.wait(None).unwrap());
            assert!(prewarming.check_may_wait().is_err());
        });
        prewarming.check_may_wait().unwrap();
    }

    #[test]
    fn outcomes_follow_from_the_work() {
        let progress = Progress::default();
        progress.add_one();
        assert!(outcome_of(Ok(Ok(())), &progress, 2).is_ok());
        progress.cancelled.store(true, Ordering::Relaxed);
        let cancelled = outcome_of(Ok(Ok(())), &progress, 2).unwrap_err();
        assert!(matches!(&cancelled, Error::Cancelled(text) if text.contains("1 of 2")), "{cancelled}");
        progress.add_one();
        assert!(outcome_of(Ok(Ok(())), &progress, 2).is_ok(), "all programs were made before the cancel");
        let failed = outcome_of(Ok(Err(Error::Io("full".to_owned()))), &progress, 2).unwrap_err();
        assert!(matches!(failed, Error::Io(_)));
        let panic = Inherited::SILENT.catch(|| panic!("why")).unwrap_err();
        let panic = outcome_of(Err(panic), &progress, 2).unwrap_err();
        let text = panic.to_string();
        assert!(
            matches!(panic, Error::Internal(_)) && text.contains("why (src/backend/pjrt/prewarming"),
            "{text}"
        );
    }
}
