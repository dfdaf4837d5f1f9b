//! The model checker `shuttle` runs the code for the end of asynchronous calls. This program compiles sources of the
//! library with the locks of the model checker. After each operation on a lock, the model checker decides which thread
//! runs. It reports deadlocks. A lost wake-up causes a deadlock, so it finds these too.
//!
//! A small case runs with all schedules. A larger case runs with random schedules from fixed seeds (probabilistic
//! concurrency testing: Burckhardt et al., ASPLOS 2010; and uniformly random schedules).

#[path = "../../src/backend/pjrt/completion.rs"]
#[allow(dead_code, missing_docs)]
mod completion;
#[path = "../../src/backend/pjrt/conversion.rs"]
mod conversion;

/// The locks that the files above use.
mod sync {
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{thread, Config, Runner};

use crate::completion::Completion;
use crate::conversion::Conversion;

type Done = Completion<u8>;

/// Runs `case` with every schedule.
fn all_schedules(case: fn()) {
    let runs = run(DfsScheduler::new(None, false), case);
    println!("{runs} schedules, all");
    assert!(runs > 10, "the threads of the case do not compete");
}

/// Runs `case` with some schedules.
fn many_schedules(case: fn()) {
    run(PctScheduler::new_from_seed(1, 3, 2000), case);
    run(RandomScheduler::new_from_seed(2, 2000), case);
}

fn run(scheduler: impl Scheduler + 'static, case: fn()) -> usize {
    Runner::new(scheduler, Config::new()).run(case)
}

/// Returns an action that increments `count` before it returns. Other threads can run before the increment.
fn counting(count: &Arc<AtomicUsize>) -> impl FnOnce() + Send + 'static {
    let count = count.clone();
    move || {
        thread::yield_now();
        count.fetch_add(1, SeqCst);
    }
}

/// A call object. Dropping it waits for the actions.
struct Call(Arc<Done>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.wait_for_actions();
    }
}

/// An action is registered while the call ends. The action runs exactly once, before the drop of the call returns.
#[test]
fn an_action_runs_once_and_the_drop_waits_for_it() {
    all_schedules(|| {
        let (call, count) = (Call(Arc::default()), Arc::new(AtomicUsize::new(0)));
        let finishing = call.0.clone();
        thread::spawn(move || finishing.finish(Ok(())));
        call.0.run_when_finished(counting(&count));
        drop(call);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// Several threads register actions and poll while the call ends.
#[test]
fn every_action_of_every_thread_runs_once() {
    many_schedules(|| {
        let (call, count) = (Call(Arc::default()), Arc::new(AtomicUsize::new(0)));
        let registering: Vec<_> = (0..3)
            .map(|_| {
                let (done, count) = (call.0.clone(), count.clone());
                thread::spawn(move || {
                    done.run_when_finished(counting(&count));
                    let _ = done.is_finished();
                    done.run_when_finished(counting(&count));
                })
            })
            .collect();
        let finishing = call.0.clone();
        thread::spawn(move || finishing.finish(Err(3)));
        registering.into_iter().for_each(|thread| thread.join().unwrap());
        drop(call);
        assert_eq!(count.load(SeqCst), 6);
    });
}

/// All waiting threads wake up and get the outcome.
#[test]
fn every_wait_ends_with_the_outcome() {
    all_schedules(|| {
        let done = Arc::<Done>::default();
        let (waiting, finishing) = (done.clone(), done.clone());
        let waiter = thread::spawn(move || waiting.wait(None));
        thread::spawn(move || finishing.finish(Err(5)));
        assert_eq!(done.wait(None), Some(Err(5)));
        assert_eq!(waiter.join().unwrap(), Some(Err(5)));
    });
}

/// Four threads: a wait without a limit, a wait with a limit, a wait for the actions, and the end of the call.
#[test]
fn waits_of_all_kinds_end() {
    many_schedules(|| {
        let (call, count) = (Call(Arc::default()), Arc::new(AtomicUsize::new(0)));
        call.0.run_when_finished(counting(&count));
        let spawn = |work: fn(&Done)| {
            let done = call.0.clone();
            thread::spawn(move || work(&done))
        };
        let threads = [
            spawn(|done| assert_eq!(done.wait(None), Some(Ok(())))),
            // The model has no clock, so a wait with a limit ends only with an outcome.
            spawn(|done| assert_eq!(done.wait(Some(Duration::from_secs(3600))), Some(Ok(())))),
            spawn(Done::wait_for_actions),
            spawn(|done| done.finish(Ok(()))),
        ];
        drop(call);
        assert_eq!(count.load(SeqCst), 1);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A wait does not wait for the actions. In this test, the action ends only after both waits have ended.
#[test]
fn waits_end_before_the_actions() {
    many_schedules(|| {
        let call = Call(Arc::default());
        let (ended, ends) = shuttle::sync::mpsc::channel();
        call.0.run_when_finished(move || assert_eq!(ends.iter().count(), 2));
        let threads = [ended.clone(), ended].map(|ended| {
            let done = call.0.clone();
            thread::spawn(move || {
                assert_eq!(done.wait(None), Some(Ok(())));
                ended.send(()).unwrap();
            })
        });
        call.0.finish(Ok(()));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// An action may use its own call: poll, wait, and register another action.
#[test]
fn actions_may_use_the_call() {
    all_schedules(|| {
        let (call, count) = (Call(Arc::default()), Arc::new(AtomicUsize::new(0)));
        let (own, inner) = (call.0.clone(), counting(&count));
        call.0.run_when_finished(move || {
            assert!(own.is_finished());
            assert_eq!(own.wait(None), Some(Ok(())));
            own.run_when_finished(inner);
        });
        let finishing = call.0.clone();
        thread::spawn(move || finishing.finish(Ok(())));
        drop(call);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// One thread adds parts to a call while another thread ends the call. If the call has not yet ended, it ends with the
/// last of these parts. Otherwise, no part is added. In both cases, the action runs once.
#[test]
fn a_call_ends_with_its_last_part() {
    all_schedules(|| {
        let (call, count) = (Call(Arc::default()), Arc::new(AtomicUsize::new(0)));
        call.0.run_when_finished(counting(&count));
        let finishing = call.0.clone();
        thread::spawn(move || finishing.finish(Ok(())));
        if call.0.add_parts(2) {
            let finishing = call.0.clone();
            let copy = thread::spawn(move || finishing.finish(Err(6)));
            assert!(!call.0.is_finished(), "a part has not ended");
            call.0.finish(Ok(()));
            assert_eq!(call.0.wait(None), Some(Err(6)));
            copy.join().unwrap();
        } else {
            assert_eq!(call.0.wait(None), Some(Ok(())));
        }
        drop(call);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// Two threads read the numbers of a call at the same time. The numbers are converted once.
#[test]
fn a_value_is_converted_once() {
    all_schedules(|| {
        let value = Arc::new(Conversion::new(Box::new(20)));
        let read = |value: &Conversion<Box<i32>, i32>| {
            value.get(|value| {
                thread::yield_now();
                *value + 1
            })
        };
        let other = value.clone();
        let reader = thread::spawn(move || read(&other));
        assert_eq!([read(&value), read(&value)], [Some(21); 2]);
        assert_eq!(reader.join().unwrap(), Some(21));
    });
}

/// A thread takes the buffer of the numbers while other threads read the numbers. The copy for the readers starts once.
/// It starts before the buffer is taken.
#[test]
fn a_value_that_changes_is_converted_once() {
    const OUTPUT: i32 = 1;
    const COPY: i32 = 2;
    all_schedules(|| {
        let (value, copies) = (Arc::new(Conversion::new(OUTPUT)), Arc::new(AtomicUsize::new(0)));
        let copy = |copies: &AtomicUsize, from: i32| match from {
            OUTPUT => {
                thread::yield_now();
                copies.fetch_add(1, SeqCst);
                COPY
            }
            other => other,
        };
        let (other, counter) = (value.clone(), copies.clone());
        let taker = thread::spawn(move || other.update(|from| copy(&counter, from)));
        let (other, counter) = (value.clone(), copies.clone());
        let reader = thread::spawn(move || other.get(|from| copy(&counter, from) + 1));
        assert_eq!(value.get(|from| copy(&copies, from) + 1), Some(COPY + 1));
        assert_eq!(reader.join().unwrap(), Some(COPY + 1));
        taker.join().unwrap();
        assert_eq!(value.get(|_| 0), Some(COPY + 1));
        assert_eq!(copies.load(SeqCst), 1);
    });
}
