//! Flags that say what a thread is doing now.

use std::cell::Cell;
use std::thread::LocalKey;

/// A flag of each thread. It is false when the thread starts.
pub(crate) type ThreadFlag = LocalKey<Cell<bool>>;

/// Runs `work` while the flag of this thread is true. Then the flag has its previous value again, also if `work`
/// panics. So calls can be nested.
pub(crate) fn with_flag<R>(flag: &'static ThreadFlag, work: impl FnOnce() -> R) -> R {
    struct Restore(&'static ThreadFlag, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(flag, flag.replace(true));
    work()
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, resume_unwind};

    use super::*;

    thread_local! {
        static FLAG: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn the_flag_is_true_only_during_the_work() {
        assert!(!FLAG.get());
        with_flag(&FLAG, || {
            with_flag(&FLAG, || assert!(FLAG.get()));
            assert!(FLAG.get());
            assert!(!std::thread::spawn(|| FLAG.get()).join().unwrap());
        });
        assert!(!FLAG.get());
        catch_unwind(|| with_flag(&FLAG, || resume_unwind(Box::new(())))).unwrap_err();
        assert!(!FLAG.get());
    }
}
