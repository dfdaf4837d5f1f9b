//! The threads that help with large calls.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use rayon::{Scope, ThreadBuilder, ThreadPool, ThreadPoolBuilder};

use crate::panics::Inherited;

/// The most threads that a backend starts.
const MOST_THREADS: usize = 1024;

/// How long a thread that has finished waits for its helpers before it sleeps.
const LONGEST_SPIN: Duration = Duration::from_micros(20);

/// A pool of threads, at least one.
#[derive(Debug)]
pub(super) struct Helpers {
    /// `None` only while it is dropped.
    pool: Option<ThreadPool>,
    handles: Vec<JoinHandle<()>>,
    /// The threads that work at most, with the calling thread.
    threads: usize,
    /// Helpers that no call has reserved.
    available: AtomicUsize,
}

type Body = Box<dyn FnOnce() + Send>;

impl Helpers {
    /// Starts `threads` threads, or as many as the system allows. Returns `None` if it allows none. The error says why
    /// there are fewer than wanted.
    pub(super) fn start(threads: usize) -> (Option<Helpers>, Option<io::Error>) {
        Helpers::start_with(threads, |index, body| {
            thread::Builder::new().name(format!("nucleus-{index}")).spawn(body)
        })
    }

    /// [`Helpers::start`], with a function that starts one thread.
    fn start_with(
        threads: usize,
        mut spawn: impl FnMut(usize, Body) -> io::Result<JoinHandle<()>>,
    ) -> (Option<Helpers>, Option<io::Error>) {
        let threads = threads.min(MOST_THREADS);
        let (mut handles, mut senders, mut failure) = (Vec::new(), Vec::new(), None);
        // Building a pool fails if one of its threads cannot be started. So the threads are started first, and wait
        // for the pool. They end if the pool cannot be built.
        let panics = Inherited::from_this_thread();
        for index in 0..threads {
            let (sender, receiver) = mpsc::channel::<ThreadBuilder>();
            let body = move || {
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

    /// The number of threads that can work on a call, with the calling thread.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// The number of threads that can work on the parts of a row.
    pub(super) fn pool_threads(&self) -> usize {
        self.handles.len()
    }

    /// Reserves helpers that are not busy with other calls, all of `wanted` or none. A call without a reservation would
    /// wait for the calls that keep the helpers busy.
    pub(super) fn reserve(&self, wanted: usize) -> Option<Reservation<'_>> {
        let take = |available: usize| available.checked_sub(wanted);
        self.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Reservation { helpers: self, count: wanted })
    }

    /// Runs `own` on the calling thread and `help` on `helpers` threads of the pool, and returns when all have returned.
    /// Returns the result of `own` and the time that the first helper took to wake.
    ///
    /// The calling thread works while the helpers wake. The call cannot end before its first helper has woken, so it
    /// should take longer than that.
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

    /// Runs `work` on a thread of the pool, where it can split passes over rows. The calling thread waits.
    pub(super) fn run_in_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool().install(work)
    }

    fn pool(&self) -> &ThreadPool {
        self.pool.as_ref().expect("the pool lives as long as the helpers")
    }
}

/// Dropping a pool tells its threads to end but does not wait for them. This waits, because the caller may unload the
/// library next.
impl Drop for Helpers {
    fn drop(&mut self) {
        drop(self.pool.take());
        self.handles.drain(..).for_each(join);
    }
}

/// Makes a pool of threads that wait for their part of it.
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
    // A thread that panicked has nothing left to clean up.
    let _ = handle.join();
}

/// Wakes other helpers, each of which wakes others, and helps. The pool runs the tasks of helpers that wake late on any
/// of its threads that has finished, where they find nothing to do.
fn wake_and_help<'s>(scope: &Scope<'s>, helpers: usize, help: &'s (impl Fn() + Sync)) {
    let others = helpers - 1;
    for share in [others / 2, others - others / 2] {
        if share > 0 {
            scope.spawn(move |scope| wake_and_help(scope, share, help));
        }
    }
    help();
}

/// Waits without sleeping, for about as long as a sleeping thread takes to wake.
fn spin_while(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while condition() && start.elapsed() < LONGEST_SPIN {
        std::hint::spin_loop();
    }
}

/// Helpers that are reserved for a call until this is dropped.
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

    /// Panics of the pool are silent if the caller that started it is silent, that is, in a sampler of a C caller.
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
