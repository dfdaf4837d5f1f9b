//! A global allocator in which one allocation can fail.
//!
//! Small allocations always succeed. If one of them fails, the standard library (threads, formatting, small
//! collections) aborts the process. A library that uses it cannot prevent that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

pub(crate) struct FailingAllocator;

/// The number of allocations that still succeed. It is at most 0 after an allocation has failed. It is `OFF` if no
/// allocation should fail.
static LEFT: AtomicI64 = AtomicI64::new(OFF);
const OFF: i64 = i64::MAX;

/// The smallest size of an allocation that is counted.
static LEAST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Runs `body` and lets the `n`-th allocation of at least `least` bytes fail. The count starts at 1 and includes all
/// threads. Also returns whether there was an `n`-th allocation.
pub(crate) fn refuse<R>(n: i64, least: usize, body: impl FnOnce() -> R) -> (R, bool) {
    LEAST.store(least, Ordering::SeqCst);
    LEFT.store(n, Ordering::SeqCst);
    let outcome = body();
    let left = LEFT.swap(OFF, Ordering::SeqCst);
    LEAST.store(usize::MAX, Ordering::SeqCst);
    (outcome, left <= 0)
}

/// Whether an allocation of this size fails now.
fn refused(size: usize) -> bool {
    size >= LEAST.load(Ordering::Relaxed) && LEFT.fetch_sub(1, Ordering::SeqCst) == 1
}

unsafe impl GlobalAlloc for FailingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match refused(layout.size()) {
            true => std::ptr::null_mut(),
            false => System.alloc(layout),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match refused(layout.size()) {
            true => std::ptr::null_mut(),
            false => System.alloc_zeroed(layout),
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match size > layout.size() && refused(size) {
            true => std::ptr::null_mut(),
            false => System.realloc(pointer, layout, size),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        System.dealloc(pointer, layout);
    }
}
