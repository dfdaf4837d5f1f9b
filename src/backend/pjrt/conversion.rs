//! A value that the first read converts.
//!
//! Like `completion.rs`, this file takes its locks from the module `sync` of its parent. Therefore, a test can also
//! compile it with the locks of a model checker.

use super::sync::{Mutex, PoisonError};

/// A value `A`, or the result `B` of its conversion. Thread-safe.
pub(super) struct Conversion<A, B> {
    state: Mutex<State<A, B>>,
}

enum State<A, B> {
    Waiting(A),
    Converted(B),
    /// A conversion or an update panicked.
    Lost,
}

impl<A, B: Clone> Conversion<A, B> {
    pub(super) fn new(value: A) -> Self {
        Conversion { state: Mutex::new(State::Waiting(value)) }
    }

    /// Changes the value if it has not been converted. Waits if another thread is converting the value.
    pub(super) fn update(&self, change: impl FnOnce(A) -> A) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match std::mem::replace(&mut *state, State::Lost) {
            State::Waiting(value) => State::Waiting(change(value)),
            other => other,
        };
    }

    /// Returns the result of the conversion. The first call converts the value. Concurrent calls wait for the first
    /// call, and later calls return the same result. Returns `None` if a conversion or [`Conversion::update`] panicked.
    pub(super) fn get(&self, convert: impl FnOnce(A) -> B) -> Option<B> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match std::mem::replace(&mut *state, State::Lost) {
            State::Waiting(value) => convert(value),
            State::Converted(result) => result,
            State::Lost => return None,
        };
        *state = State::Converted(result.clone());
        Some(result)
    }
}
