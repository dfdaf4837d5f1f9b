//! Tests of [`Completion`] with real threads.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::completion::Completion;

fn done() -> Arc<Completion<()>> {
    Arc::default()
}

fn counting(count: &Arc<AtomicUsize>) -> impl FnOnce() + Send + 'static {
    let count = count.clone();
    move || {
        thread::sleep(Duration::from_millis(5));
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Threads add actions while another thread stores the outcome. Each action runs once, and the wait ends after the last
/// action.
#[test]
fn every_action_runs_before_the_wait_ends() {
    for _ in 0..20 {
        let (done, count) = (done(), Arc::new(AtomicUsize::new(0)));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| done.run_when_finished(counting(&count)));
            }
            scope.spawn(|| done.finish(Ok(())));
        });
        done.run_when_finished(counting(&count));
        done.wait_for_actions();
        assert_eq!(count.load(Ordering::Relaxed), 4);
    }
}

/// A wait that begins while actions run lasts until they have returned.
#[test]
fn a_running_action_is_awaited() {
    let (done, count) = (done(), Arc::new(AtomicUsize::new(0)));
    done.run_when_finished(counting(&count));
    done.run_when_finished(counting(&count));
    let finishing = done.clone();
    let thread = thread::spawn(move || finishing.finish(Ok(())));
    done.wait_for_actions();
    assert_eq!(count.load(Ordering::Relaxed), 2);
    thread.join().unwrap();
}

/// If an action panics, the other actions still run, and the wait ends.
#[test]
fn a_panic_of_an_action_affects_nothing_else() {
    let (done, count) = (done(), Arc::new(AtomicUsize::new(0)));
    done.run_when_finished(counting(&count));
    done.run_when_finished(|| panic!("an action"));
    done.run_when_finished(counting(&count));
    assert!(catch_unwind(AssertUnwindSafe(|| done.finish(Ok(())))).is_err());
    done.wait_for_actions();
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[test]
fn a_wait_ends_at_its_timeout() {
    let done = Completion::<u8>::default();
    let timeout = Duration::from_millis(2);
    assert!(!done.is_finished() && done.wait(Some(timeout)).is_none());
    done.finish(Err(7));
    assert!(done.is_finished());
    assert_eq!([done.wait(Some(Duration::ZERO)), done.wait(None)], [Some(Err(7)); 2]);
}

/// Work of several parts ends with its last part. Its outcome is the error of the first part that failed.
#[test]
fn work_ends_with_its_last_part() {
    let done = Completion::<u8>::default();
    assert!(done.add_parts(2));
    done.finish(Ok(()));
    done.finish(Err(3));
    assert!(!done.is_finished());
    done.finish(Err(4));
    assert_eq!(done.wait(None), Some(Err(3)));
    assert!(!done.add_parts(1), "the work has ended");
    assert_eq!(done.wait(None), Some(Err(3)));
}
