//! The end of asynchronous work: the outcome, the threads that wait for it, and the actions that run afterwards. The
//! work can have several parts. It ends when its last part ends.
//!
//! This file takes its locks from the module `sync` of its parent, and imports nothing else of the crate. Therefore, a
//! test can also compile the file with the locks of a model checker (tests/model/main.rs).

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The end of work that can fail with `E`. The default value describes work with one part that has not ended.
/// Thread-safe.
pub(super) struct Completion<E> {
    state: Mutex<State<E>>,
    changed: Condvar,
}

struct State<E> {
    outcome: Option<Result<(), E>>,
    /// The number of parts that have not ended.
    parts: usize,
    /// The error of the first part that failed.
    error: Option<E>,
    actions: Vec<Action>,
    /// The number of threads that run actions.
    running: usize,
}

type Action = Box<dyn FnOnce() + Send>;

impl<E> Default for Completion<E> {
    fn default() -> Self {
        let state = State { outcome: None, parts: 1, error: None, actions: Vec::new(), running: 0 };
        Completion { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<E: Clone> Completion<E> {
    /// Adds parts, unless the work has ended. Returns whether the parts were added. If they were added, the caller must
    /// call [`Completion::finish`] once for each part.
    pub(super) fn add_parts(&self, parts: usize) -> bool {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return false;
        }
        state.parts += parts;
        true
    }

    /// Ends a part. The last part stores the outcome, which is the error of the first part that failed. Then it wakes
    /// the waiting threads, and runs the actions while no lock is held. If an action panics, the other actions still
    /// run, and then the first panic continues.
    pub(super) fn finish(&self, outcome: Result<(), E>) {
        let mut state = self.lock();
        if let Err(error) = outcome {
            state.error.get_or_insert(error);
        }
        state.parts = state.parts.saturating_sub(1);
        if state.parts > 0 {
            return;
        }
        state.outcome = Some(state.error.take().map_or(Ok(()), Err));
        let actions = std::mem::take(&mut state.actions);
        let _running = self.begin_actions(&mut state);
        drop(state);
        self.changed.notify_all();
        let panics = actions.into_iter().filter_map(|action| catch_unwind(AssertUnwindSafe(action)).err());
        if let Some(panic) = panics.reduce(|first, _| first) {
            resume_unwind(panic);
        }
    }

    /// Whether there is an outcome.
    pub(super) fn is_finished(&self) -> bool {
        self.lock().outcome.is_some()
    }

    /// Waits until there is an outcome, and returns it. Returns `None` if the timeout expires first. If `timeout` is
    /// `None`, there is no limit.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Option<Result<(), E>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        while state.outcome.is_none() {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.outcome.clone()
    }

    /// Runs `action` once: now if there is an outcome, otherwise in [`Completion::finish`].
    pub(super) fn run_when_finished(&self, action: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.actions.push(Box::new(action));
            return;
        }
        let _running = self.begin_actions(&mut state);
        drop(state);
        action();
    }

    /// Waits until there is an outcome and no thread runs actions.
    pub(super) fn wait_for_actions(&self) {
        let busy = |state: &mut State<E>| state.outcome.is_none() || state.running > 0;
        drop(self.changed.wait_while(self.lock(), busy).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts this thread as a thread that runs actions, until the returned value is dropped.
    fn begin_actions(&self, state: &mut State<E>) -> Running<'_, E> {
        state.running += 1;
        Running(self)
    }
}

/// Counts one thread as running actions while the value exists. The value is also dropped if an action panics.
struct Running<'a, E: Clone>(&'a Completion<E>);

impl<E: Clone> Drop for Running<'_, E> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}
