//! A global allocator in which one allocation can fail.
//!
//! Small allocations always succeed. The standard library (threads, formatting, small collections) aborts the process
//! if one of them fails, and a library that uses it cannot prevent that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

pub(crate) struct FailingAllocator;

/// The number of allocations that still succeed. It is at most 0 after one has failed, and `OFF` if none is to
/// fail.
static LEFT: AtomicI64 = AtomicI64::new(OFF);
const OFF: i64 = i64::MAX;

/// Smaller allocations are not counted.
static LEAST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Runs `body`, in which the `n`-th allocation of at least `least` bytes fails, counted from 1 over all threads. Also
/// returns whether there was an `n`-th allocation.
pub(crate) fn refuse<R>(n: i64, least: usize, body: impl FnOnce() -> R) -> (R, bool) {
    LEAST.store(least, Ordering::SeqCst);
    LEFT.store(n, Ordering::SeqCst);
    let outcome = body();
    let left = LEFT.swap(OFF, Ordering::SeqCst);
    LEAST.store(usize::MAX, Ordering::SeqCst);
    (outcome, left <= 0)
}

/// Whether this allocation fails.
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
