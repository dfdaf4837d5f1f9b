//! Writing to a pipe that may be closed, in a process that may not ignore SIGPIPE.

use std::mem::MaybeUninit;

/// Runs `write` and suppresses a SIGPIPE that it causes. Rust programs ignore the signal, but it would end a C
/// program that does not.
///
/// The kernel sends SIGPIPE to the thread that writes. So the thread blocks the signal, runs `write`, and consumes a
/// signal that became pending. A SIGPIPE that was pending before stays pending, and is delivered when the caller
/// unblocks it.
pub(super) fn without_sigpipe<R>(write: impl FnOnce() -> R) -> R {
    let mut sigpipe = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes `sigpipe`. `pthread_sigmask` initializes `before`, and cannot fail with these
    // arguments.
    let (sigpipe, before) = unsafe {
        libc::sigemptyset(sigpipe.as_mut_ptr());
        libc::sigaddset(sigpipe.as_mut_ptr(), libc::SIGPIPE);
        let sigpipe = sigpipe.assume_init();
        libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe, before.as_mut_ptr());
        (sigpipe, before.assume_init())
    };
    let was_pending = is_pending();
    let result = write();
    if !was_pending && is_pending() {
        let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both arguments are initialized, and a null pointer discards the signal's details.
        unsafe { libc::sigtimedwait(&sigpipe, std::ptr::null_mut(), &no_time) };
    }
    // SAFETY: `before` was read from this thread.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    result
}

/// Whether a SIGPIPE is pending for this thread or its process.
fn is_pending() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigpending` initializes the set and does not fail for a valid address.
    unsafe {
        libc::sigpending(pending.as_mut_ptr());
        libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}
