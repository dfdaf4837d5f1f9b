//! Keeps the panics of this library off standard error, and passes a caught panic and its source location to another
//! thread.
//!
//! The C boundary turns a panic into a status and a message. Rust's default report would confuse the users of a program
//! in another language. So this module installs a panic hook. While a thread runs this library's code on behalf of a C
//! caller, the hook prints nothing. It passes every other panic to the previous hook.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The nesting depth of [`Silence`] on this thread; 0 if panics are printed.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The source location of the last panic that was not printed, in parentheses.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While a value exists, a panic on its thread is not printed.
pub(crate) struct Silence {
    before: usize,
    // This field makes the type not `Send`, because the depth belongs to one thread.
    _not_send: PhantomData<*const ()>,
}

impl Silence {
    /// Silences this thread.
    pub(crate) fn begin() -> Silence {
        install_hook();
        Silence::set(DEPTH.get() + 1)
    }

    /// Prints panics of this thread again while the result exists. It is used while the caller's code runs.
    pub(crate) fn interrupt() -> Silence {
        Silence::set(0)
    }

    fn set(depth: usize) -> Silence {
        Silence { before: DEPTH.replace(depth), _not_send: PhantomData }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        DEPTH.set(self.before);
    }
}

/// Whether panics of this thread are silent.
pub(crate) fn is_silent() -> bool {
    DEPTH.get() > 0
}

/// The setting of one thread. It is copied to the threads that work for this thread, because a panic hook runs on the
/// thread that panics.
#[derive(Clone, Copy)]
pub(crate) struct Inherited {
    silent: bool,
}

impl Inherited {
    /// The setting of a thread that runs this library's code on behalf of a C caller.
    pub(crate) const SILENT: Inherited = Inherited { silent: true };

    /// The setting of the calling thread.
    pub(crate) fn from_this_thread() -> Inherited {
        Inherited { silent: is_silent() }
    }

    /// Runs `work` on the calling thread with this setting.
    pub(crate) fn run<R>(self, work: impl FnOnce() -> R) -> R {
        let _silence = self.silent.then(Silence::begin);
        work()
    }

    /// Like [`Inherited::run`], but catches a panic. After a panic, the caller must not use the state that `work`
    /// changed.
    pub(crate) fn catch<R>(self, work: impl FnOnce() -> R) -> Result<R, Caught> {
        catch_unwind(AssertUnwindSafe(|| self.run(work)))
            .map_err(|panic| Caught { panic, place: PLACE.take() })
    }
}

/// A caught panic and its source location. The panic hook stores the location in a variable of the thread that
/// panicked. So the location must be passed to the thread that reports the panic.
pub(crate) struct Caught {
    panic: Box<dyn Any + Send>,
    place: Option<String>,
}

impl Caught {
    /// Continues the panic on the calling thread.
    pub(crate) fn resume(self) -> ! {
        PLACE.set(self.place);
        resume_unwind(self.panic)
    }
}

/// Writes the message of the error that reports a caught panic.
impl std::fmt::Display for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| self.panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let place = self.place.as_ref().map(|place| format!(" {place}")).unwrap_or_default();
        write!(f, "internal defect, please report it: {text}{place}")
    }
}

/// Returns the result of a thread that ran [`Inherited::catch`]. If that thread panicked, continues the panic on the
/// calling thread.
pub(crate) fn joined<R>(returned: std::thread::Result<Result<R, Caught>>) -> R {
    match returned {
        Ok(Ok(result)) => result,
        Ok(Err(caught)) => caught.resume(),
        Err(panic) => resume_unwind(panic),
    }
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    // A thread that is panicking must not change the hook.
    if INSTALLED.is_completed() || std::thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return previous(panic);
            }
            let place = panic.location().map(|location| format!("({location})"));
            // The thread-local variable may already be destroyed. Then the location is lost.
            let _ = PLACE.try_with(|slot| *slot.borrow_mut() = place);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_silent_only_while_it_works_for_a_c_caller() {
        assert!(!is_silent());
        {
            let _silence = Silence::begin();
            assert!(is_silent());
            {
                let _loud = Silence::interrupt();
                assert!(!is_silent());
            }
            assert!(is_silent());
        }
        assert!(!is_silent());
    }

    #[test]
    fn the_message_ends_with_the_place_if_it_is_known() {
        let message = |place: Option<&str>| {
            Caught { panic: Box::new("text"), place: place.map(str::to_owned) }.to_string()
        };
        assert_eq!(message(Some("(a.rs:1:2)")), "internal defect, please report it: text (a.rs:1:2)");
        assert_eq!(message(None), "internal defect, please report it: text");
    }
}
