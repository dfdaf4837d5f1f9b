//! Signals and the threads of the library.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// Signals that the threads of the library do not block. The system sends most of them to the thread that caused the
/// error. If that thread blocks the signal, the system ends the process without calling the handler. SIGABRT and
/// SIGPROF are not such signals: `abort` raises SIGABRT, and profilers send SIGPROF to all threads.
const DELIVERED: [Signal; 8] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
    Signal::SIGPROF,
];

/// Runs `start`, which starts threads. These threads block all signals except [`DELIVERED`].
///
/// A thread inherits the blocked signals of the thread that starts it. The system delivers a signal for the process to
/// any thread that does not block it. A program that waits for signals in one thread blocks them in its other threads,
/// but it does not know the threads of this library.
pub(crate) fn blocked_while<R>(start: impl FnOnce() -> R) -> R {
    /// Restores the signals that the calling thread blocked before, also if `start` panics.
    struct Restore(Option<SigSet>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(before) = self.0 {
                // The only possible error is an unknown operation.
                let _ = before.thread_set_mask();
            }
        }
    }
    let mut blocked = SigSet::all();
    DELIVERED.into_iter().for_each(|signal| blocked.remove(signal));
    let _restore = Restore(blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok());
    start()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_this_thread() -> SigSet {
        SigSet::thread_get_mask().unwrap()
    }

    #[test]
    fn started_threads_block_signals_and_the_calling_thread_does_not() {
        let before = of_this_thread();
        let thread = blocked_while(|| std::thread::spawn(of_this_thread));
        assert_eq!(of_this_thread(), before);
        let mask = thread.join().unwrap();
        for signal in Signal::iterator() {
            // No thread can block SIGKILL and SIGSTOP.
            let never = matches!(signal, Signal::SIGKILL | Signal::SIGSTOP);
            assert_eq!(mask.contains(signal), !never && !DELIVERED.contains(&signal), "{signal}");
        }
    }

    #[test]
    fn a_panic_restores_the_signals() {
        let before = of_this_thread();
        let outcome = std::panic::catch_unwind(|| blocked_while(|| std::panic::resume_unwind(Box::new(()))));
        assert!(outcome.is_err());
        assert_eq!(of_this_thread(), before);
    }
}
