//! Scratches that no call is using.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::workspace::Scratch;

/// The number of returned scratches between two reviews. A review frees the scratches that were not needed since the
/// last review.
const RETURNS_PER_REVIEW: u32 = 1024;

/// The scratches of a backend that are not in use.
///
/// The list never holds more scratches than the largest number of threads that used the backend at the same time. Every
/// 1024 returns, it frees the scratches that were not needed since the last review.
#[derive(Debug, Default)]
pub(super) struct IdleList {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scratches: Vec<Scratch>,
    /// The least number of idle scratches since the last review. This many scratches were not needed in that time.
    unneeded: usize,
    returns: u32,
}

impl IdleList {
    /// Takes the scratch that was returned last, or a new one.
    pub(super) fn take(&self) -> Scratch {
        let mut state = self.lock();
        let scratch = state.scratches.pop().unwrap_or_default();
        state.unneeded = state.unneeded.min(state.scratches.len());
        scratch
    }

    /// Returns a scratch.
    pub(super) fn give_back(&self, scratch: Scratch) {
        let mut state = self.lock();
        let freed = state.add(scratch);
        drop(state);
        // Freeing a large scratch takes a system call, so it happens after the lock is released.
        drop(freed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds a scratch. Returns the scratches that the caller must free.
    fn add(&mut self, scratch: Scratch) -> Vec<Scratch> {
        // The call has already succeeded, so it must not fail if the list cannot grow. The scratch is freed instead.
        if self.scratches.try_reserve(1).is_err() {
            return Vec::new();
        }
        self.scratches.push(scratch);
        self.returns += 1;
        if self.returns < RETURNS_PER_REVIEW {
            return Vec::new();
        }
        self.returns = 0;
        let used = self.scratches.split_off(self.unneeded.min(self.scratches.len()));
        self.unneeded = used.len();
        std::mem::replace(&mut self.scratches, used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratches_of_a_burst_are_freed_when_it_is_over() {
        let list = IdleList::default();
        let burst: Vec<Scratch> = (0..100).map(|_| list.take()).collect();
        burst.into_iter().for_each(|scratch| list.give_back(scratch));
        assert_eq!(list.lock().scratches.len(), 100);
        for _ in 0..2 * RETURNS_PER_REVIEW {
            let two = [list.take(), list.take()];
            two.into_iter().for_each(|scratch| list.give_back(scratch));
        }
        assert_eq!(list.lock().scratches.len(), 2);
    }
}
