//! Keeps the panics of this library off standard error.
//!
//! The C boundary turns a panic into a status and a message. The report that Rust prints by default would be noise in a
//! process of another language. So a panic hook stays silent while a thread runs this library's code on behalf of a C
//! caller, and passes every other panic on to the hook that was there before.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Once;

thread_local! {
    /// How many [`Silence`]s live on this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic was that stayed silent.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While one lives, a panic on its thread is not printed.
pub(crate) struct Silence {
    before: usize,
    // The depth belongs to one thread.
    _not_send: PhantomData<*const ()>,
}

impl Silence {
    /// Silences this thread.
    pub(crate) fn begin() -> Silence {
        install_hook();
        Silence::set(DEPTH.get() + 1)
    }

    /// Ends the silence of this thread for the life of the result, while code of the caller runs.
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

/// Whether panics of this thread are silent. Threads that work for this one do the same: what they panicked with
/// reaches this thread, but a hook runs only where the panic was.
pub(crate) fn is_silent() -> bool {
    DEPTH.get() > 0
}

/// Where the last silent panic of this thread was, in parentheses.
pub(crate) fn take_place() -> Option<String> {
    PLACE.take()
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
            // A thread whose locals are gone has nobody to tell.
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
}
