//! A separate thread for calls into a plugin that create a client or compile a program.
//!
//! XLA recurses over the program and can need more stack than the caller's thread has. On a stack of 64 KiB, a
//! compilation overflows the stack and ends the process. A plugin also starts threads in these calls. They inherit the
//! blocked signals of this thread (`signals.rs`). The caller's thread waits and still receives signals.

use std::cell::Cell;

use super::program_cache::{as_maker, is_maker};
use crate::error::Error;
use crate::panics::{joined, Inherited};
use crate::signals;
use crate::thread_flag::with_flag;

/// The default stack size of the main thread on Linux. Compilers are tested with this size.
const STACK_BYTES: usize = 8 << 20;

thread_local! {
    /// Whether this thread was started by [`run`].
    static IS_PLUGIN_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a new thread with a large stack, and waits for this thread. If the calling thread is already such a
/// thread, it runs `work` itself. The reason is a plugin that loads itself again while it initialises. On the same
/// thread, this is reported as an error (`src/pjrt/loaded.rs`). On another thread, the plugin would wait for itself.
pub(crate) fn run<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    if IS_PLUGIN_THREAD.get() {
        return Ok(on_this_thread(work));
    }
    run_with_stack(STACK_BYTES, work)
}

/// Runs `work`. This function is not inlined. Otherwise, the caller of [`run`] would need stack for `work`, even if
/// `work` runs on another thread.
#[cold]
#[inline(never)]
fn on_this_thread<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// [`run`] for work that makes a program. Other threads can wait for this program, so the work must not wait for a
/// program of another thread.
pub(crate) fn run_maker<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    run(|| as_maker(work))
}

fn run_with_stack<R: Send>(stack_bytes: usize, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let panics = Inherited::from_this_thread();
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("nuc-plugin".to_owned()).stack_size(stack_bytes);
        // The caller waits for this thread. So this thread must not wait for a program that the caller is making.
        let maker = is_maker();
        let work = move || if maker { as_maker(work) } else { work() };
        let body = || with_flag(&IS_PLUGIN_THREAD, || panics.catch(work));
        let thread = signals::blocked_while(|| builder.spawn_scoped(scope, body)).map_err(|error| {
            Error::OutOfMemory(format!(
                "no thread with a stack of {stack_bytes} bytes could be started for the plugin: {error}"
            ))
        })?;
        Ok(joined(thread.join()))
    })
}

/// Runs `work`. At the same time, runs `optional` on another thread. Returns when both have ended. If `optional`
/// panics, the panic is ignored. If no thread can be started, `optional` does not run.
pub(super) fn beside<R>(name: &str, optional: impl FnOnce() + Send, work: impl FnOnce() -> R) -> R {
    let panics = Inherited::from_this_thread();
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(name.to_owned());
        let thread = signals::blocked_while(|| builder.spawn_scoped(scope, || panics.catch(optional)));
        let result = work();
        // The thread catches every panic, so joining it cannot fail.
        let _ = thread.map(|thread| thread.join());
        result
    })
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::panics::is_silent;

    #[test]
    fn the_work_runs_on_an_ample_stack() {
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let small = small.spawn(|| {
            run(|| {
                // The compiler may copy an array that is passed by value, and it does not put a constant on the stack.
                // So the test passes a mutable reference.
                let mut deep = [1_u8; 4 << 20];
                std::hint::black_box(&mut deep);
                deep.iter().map(|&byte| usize::from(byte)).sum::<usize>()
            })
        });
        assert_eq!(small.unwrap().join().unwrap().unwrap(), 4 << 20);
    }

    #[test]
    fn only_the_threads_of_makers_are_makers() {
        assert!(!run(is_maker).unwrap());
        assert!(run_maker(is_maker).unwrap());
        assert!(as_maker(|| run(is_maker)).unwrap());
        assert!(run_maker(|| run(is_maker)).unwrap().unwrap());
        assert!(!is_maker());
    }

    #[test]
    fn nested_work_runs_on_the_same_thread() {
        let id = || std::thread::current().id();
        let (outer, inner) = run(|| (id(), run(id).unwrap())).unwrap();
        assert_eq!(outer, inner);
        assert_ne!(outer, id());
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_out_of_memory() {
        let error = run_with_stack(1 << 62, || ()).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory(_)), "{error:?}");
    }

    #[test]
    fn a_panic_beside_the_work_is_neither_printed_nor_passed_on() {
        let silent = AtomicBool::new(false);
        let optional = || {
            silent.store(is_silent(), Ordering::Relaxed);
            panic!("optional");
        };
        assert_eq!(Inherited::SILENT.run(|| beside("optional", optional, || 7)), 7);
        assert!(silent.into_inner());
    }

    #[test]
    fn a_panic_passes_through() {
        let outcome = std::panic::catch_unwind(|| run(|| resume_unwind(Box::new(7_i32))).map(|(): ()| ()));
        assert_eq!(outcome.unwrap_err().downcast_ref::<i32>(), Some(&7));
    }
}
