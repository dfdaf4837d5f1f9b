//! The id of the process, without a system call in each call of the library.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Once;

/// The id of this process; 0 if it is not known.
static ID: AtomicU32 = AtomicU32::new(0);

/// Returns the id of this process.
///
/// The id is stored. A handler that runs in each child of fork(2) updates it. The handler does not run in a child that
/// was created by a direct system call, without the C library. Such a child gets the id of its parent.
pub(super) fn id() -> u32 {
    match ID.load(Ordering::Relaxed) {
        0 => first_id(),
        id => id,
    }
}

#[cold]
fn first_id() -> u32 {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler only stores a number, which is allowed in a child of a process with several threads. If
        // this library is unloaded, the C library removes the handler.
        if unsafe { libc::pthread_atfork(None, None, Some(update)) } == 0 {
            update();
        }
    });
    // If the handler was not registered, the id stays unknown.
    std::process::id()
}

extern "C" fn update() {
    ID.store(std::process::id(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_its_own_id() {
        assert_eq!([id(), id()], [std::process::id(); 2]);
        // SAFETY: the child only compares numbers and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_own = id() == std::process::id();
            // SAFETY: this ends the child without running the code of the test program at exit.
            unsafe { libc::_exit(i32::from(!is_own)) };
        }
        let mut status = -1;
        // SAFETY: the child exists, and nothing else waits for it.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!((waited, status), (child, 0));
    }
}
