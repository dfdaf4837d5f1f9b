//! A separate thread for calls into a plugin that create a client or compile a program.
//!
//! XLA recurses over the program and can need more stack than the caller's thread has. On a stack of 64 KiB, a
//! compilation overflows the stack and ends the process. A plugin also starts threads in these calls. They inherit the
//! blocked signals of this thread (`signals.rs`). The caller's thread waits and still receives signals.

use std::panic::resume_unwind;

use super::program_cache::as_maker;
use crate::error::Error;
use crate::panics::Inherited;
use crate::signals;

/// The default stack size of the main thread on Linux. Compilers are tested with this size.
const STACK_BYTES: usize = 8 << 20;

/// Runs `work` on a new thread with a large stack and waits for it.
pub(crate) fn run<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    run_with_stack(STACK_BYTES, work)
}

fn run_with_stack<R: Send>(stack_bytes: usize, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let panics = Inherited::from_this_thread();
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("nuc-plugin".to_owned()).stack_size(stack_bytes);
        // The caller waits for this thread. So this thread must not wait for a program that the caller is making.
        let body = || panics.run(|| as_maker(work));
        let thread = signals::blocked_while(|| builder.spawn_scoped(scope, body)).map_err(|error| {
            Error::OutOfMemory(format!(
                "no thread with a stack of {stack_bytes} bytes could be started for the plugin: {error}"
            ))
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::program_cache::is_maker;
    use super::*;

    #[test]
    fn the_work_runs_on_an_ample_stack() {
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let small = small.spawn(|| {
            run(|| {
                let deep = std::hint::black_box([1_u8; 4 << 20]);
                (deep.iter().map(|&byte| usize::from(byte)).sum::<usize>(), is_maker())
            })
        });
        assert_eq!(small.unwrap().join().unwrap().unwrap(), (4 << 20, true));
        assert!(!is_maker());
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_out_of_memory() {
        let error = run_with_stack(1 << 62, || ()).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory(_)), "{error:?}");
    }

    #[test]
    fn a_panic_passes_through() {
        let outcome = std::panic::catch_unwind(|| run(|| resume_unwind(Box::new(7_i32))).map(|(): ()| ()));
        assert_eq!(outcome.unwrap_err().downcast_ref::<i32>(), Some(&7));
    }
}
