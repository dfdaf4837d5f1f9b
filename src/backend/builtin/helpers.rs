//! The threads that help with large calls.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use rayon::{Scope, ThreadBuilder, ThreadPool, ThreadPoolBuilder};

use crate::panics::Inherited;
use crate::signals;

/// The maximum number of threads that a backend starts.
pub const MOST_THREADS: usize = 1024;

/// A thread that has finished its own work waits for its helpers. This is the time that it spins before it sleeps.
const LONGEST_SPIN: Duration = Duration::from_micros(20);

/// A pool of at least one thread.
#[derive(Debug)]
pub(super) struct Helpers {
    /// `None` only while `Helpers` is being dropped.
    pool: Option<ThreadPool>,
    handles: Vec<JoinHandle<()>>,
    /// The maximum number of threads that work on a call, including the calling thread.
    threads: usize,
    /// Helpers that no call has reserved.
    available: AtomicUsize,
}

type Body = Box<dyn FnOnce() + Send>;

impl Helpers {
    /// Starts `threads` threads, or as many as the system allows. Returns `None` if no thread starts or the pool cannot
    /// be built. The error says why a thread did not start or why the pool cannot be built.
    pub(super) fn start(threads: usize) -> (Option<Helpers>, Option<io::Error>) {
        signals::blocked_while(|| {
            Helpers::start_with(threads, |index, body| {
                thread::Builder::new().name(format!("nucleus-{index}")).spawn(body)
            })
        })
    }

    /// [`Helpers::start`] with a replaceable `spawn` function, which starts one thread.
    fn start_with(
        threads: usize,
        mut spawn: impl FnMut(usize, Body) -> io::Result<JoinHandle<()>>,
    ) -> (Option<Helpers>, Option<io::Error>) {
        let threads = threads.min(MOST_THREADS);
        let (mut handles, mut senders, mut failure) = (Vec::new(), Vec::new(), None);
        // Building a pool fails if one of its threads cannot start. Therefore this function starts the threads first.
        // Each thread waits for its `ThreadBuilder`, and ends if the pool cannot be built.
        let panics = Inherited::from_this_thread();
        let (started, starts) = mpsc::channel::<()>();
        for index in 0..threads {
            let (sender, receiver) = mpsc::channel::<ThreadBuilder>();
            let started = started.clone();
            let body = move || {
                drop(started);
                if let Ok(thread) = receiver.recv() {
                    panics.run(|| thread.run());
                }
            };
            match spawn(index, Box::new(body)) {
                Ok(handle) => {
                    handles.push(handle);
                    senders.push(sender);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if handles.is_empty() {
            return (None, failure);
        }
        // A thread that starts holds a lock of the standard library. If the caller forked at this time, the lock would
        // stay locked in the child, and the child could not start threads. So this function waits until every thread
        // has started. `recv` returns when every thread has dropped its sender.
        drop(started);
        let _ = starts.recv();
        let helpers = handles.len().min(threads - 1);
        match pool_of(senders) {
            Ok(pool) => {
                let helpers = Helpers {
                    pool: Some(pool),
                    handles,
                    threads: helpers + 1,
                    available: AtomicUsize::new(helpers),
                };
                (Some(helpers), failure)
            }
            Err(error) => {
                handles.into_iter().for_each(join);
                (None, Some(error))
            }
        }
    }

    /// The number of threads that can work on a call, including the calling thread.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// The number of threads that can work on the parts of a row.
    pub(super) fn pool_threads(&self) -> usize {
        self.handles.len()
    }

    /// Reserves `wanted` helpers that no other call has reserved. Returns `None` if fewer are available. If a call used
    /// helpers without a reservation, it would wait for other calls that use them.
    pub(super) fn reserve(&self, wanted: usize) -> Option<Reservation<'_>> {
        let take = |available: usize| available.checked_sub(wanted);
        self.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Reservation { helpers: self, count: wanted })
    }

    /// Runs `own` on the calling thread and `help` on `helpers` threads of the pool. Returns when all of them have
    /// finished. Returns the result of `own` and the time that the first helper took to wake.
    ///
    /// The calling thread works while the helpers wake. The call cannot end before all `help` tasks have run. So
    /// sharing is useful only for calls that take longer than a helper takes to wake.
    pub(super) fn share<T>(
        &self,
        helpers: usize,
        own: impl FnOnce() -> T,
        help: &(impl Fn() + Sync),
    ) -> (T, Duration) {
        let (arrival, done) = (AtomicU64::new(0), AtomicUsize::new(0));
        let help = || {
            help();
            done.fetch_add(1, Ordering::Relaxed);
        };
        let start = Instant::now();
        let result = self.pool().in_place_scope(|scope| {
            if helpers > 0 {
                scope.spawn(|scope| {
                    arrival.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    wake_and_help(scope, helpers, &help);
                });
            }
            let result = own();
            spin_while(|| done.load(Ordering::Relaxed) < helpers);
            result
        });
        (result, Duration::from_nanos(arrival.into_inner()))
    }

    /// Runs `work` on a thread of the pool. There, `work` can split passes over rows into tasks of the pool. The
    /// calling thread waits.
    pub(super) fn run_in_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool().install(work)
    }

    fn pool(&self) -> &ThreadPool {
        self.pool.as_ref().expect("the pool lives as long as the helpers")
    }
}

/// Dropping a pool tells its threads to end but does not wait for them. This function waits, because the caller may
/// unload the library afterwards.
impl Drop for Helpers {
    fn drop(&mut self) {
        drop(self.pool.take());
        self.handles.drain(..).for_each(join);
    }
}

/// Builds a pool from threads that already run. Sends each thread the `ThreadBuilder` that it waits for.
fn pool_of(senders: Vec<mpsc::Sender<ThreadBuilder>>) -> io::Result<ThreadPool> {
    let count = senders.len();
    let mut senders = senders.into_iter();
    let hand_over = |thread: ThreadBuilder| {
        let sender = senders.next().ok_or_else(|| io::Error::other("the pool asked for another thread"))?;
        sender.send(thread).map_err(|_| io::Error::other("a thread ended early"))
    };
    let builder = ThreadPoolBuilder::new().num_threads(count).spawn_handler(hand_over);
    builder.build().map_err(io::Error::other)
}

fn join(handle: JoinHandle<()>) {
    // `join` returns an error if the thread panicked. That needs no cleanup.
    let _ = handle.join();
}

/// Spawns tasks that wake up to two other helpers, which wake others in the same way. Then runs `help`. If a helper
/// wakes late, a pool thread that has already finished may run its task. The task then finds no work left.
fn wake_and_help<'s>(scope: &Scope<'s>, helpers: usize, help: &'s (impl Fn() + Sync)) {
    let others = helpers - 1;
    for share in [others / 2, others - others / 2] {
        if share > 0 {
            scope.spawn(move |scope| wake_and_help(scope, share, help));
        }
    }
    help();
}

/// Waits without sleeping while the condition is true, but at most for `LONGEST_SPIN`.
fn spin_while(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while condition() && start.elapsed() < LONGEST_SPIN {
        std::hint::spin_loop();
    }
}

/// Helpers that are reserved for a call. Dropping the reservation releases them.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    helpers: &'a Helpers,
    count: usize,
}

impl<'a> Reservation<'a> {
    pub(super) fn helpers(&self) -> &'a Helpers {
        self.helpers
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.helpers.available.fetch_add(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panics::{is_silent, Silence};

    /// Panics of pool threads do not print a message if the thread that started the pool is silent. A sampler of a C
    /// caller is silent.
    #[test]
    fn the_pool_inherits_whether_panics_print() {
        for silent in [true, false] {
            let _silence = silent.then(Silence::begin);
            let helpers = start(2, 2).0.unwrap();
            assert_eq!(helpers.run_in_pool(is_silent), silent);
        }
    }

    fn start(threads: usize, allowed: usize) -> (Option<Helpers>, Option<io::Error>) {
        Helpers::start_with(threads, |index, body| {
            if index == allowed {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            thread::Builder::new().spawn(body)
        })
    }

    fn calls(helpers: &Helpers, count: usize) -> usize {
        let calls = AtomicUsize::new(0);
        let call = || {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        let ((), arrival) = helpers.share(count, call, &call);
        assert!(arrival > Duration::ZERO);
        calls.into_inner()
    }

    #[test]
    fn threads_that_do_not_start_are_done_without() {
        let (helpers, error) = start(4, 4);
        let helpers = helpers.unwrap();
        assert!(error.is_none() && helpers.threads() == 4 && helpers.pool_threads() == 4);
        assert_eq!(calls(&helpers, 3), 4);
        let (helpers, error) = start(4, 2);
        let helpers = helpers.unwrap();
        assert!(error.is_some() && helpers.threads() == 3 && helpers.pool_threads() == 2);
        assert_eq!(calls(&helpers, 2), 3);
        let (helpers, error) = start(4, 0);
        assert!(error.is_some() && helpers.is_none());
    }

    #[test]
    fn busy_helpers_are_not_reserved_twice() {
        let (helpers, _) = start(3, 3);
        let helpers = helpers.unwrap();
        assert!(helpers.reserve(3).is_none());
        let first = helpers.reserve(2);
        assert!(first.is_some() && helpers.reserve(1).is_none());
        drop(first);
        assert!(helpers.reserve(1).is_some());
    }
}
