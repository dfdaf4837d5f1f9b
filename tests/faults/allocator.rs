//! A global allocator that can refuse an allocation.
//!
//! Small allocations always succeed: the standard library itself (threads, formatting, collections of a few entries)
//! ends the process when one of those fails, and no library on top of it can prevent that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

pub(crate) struct FailingAllocator;

/// Allocations that still succeed; negative once one was refused, and `OFF` when none is to be refused.
static LEFT: AtomicI64 = AtomicI64::new(OFF);
const OFF: i64 = i64::MAX;

/// Smaller allocations are not counted.
static LEAST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Refuses the `n`-th allocation of at least `least` bytes, counted from 1, in any thread, while `body` runs. Also
/// returns whether that happened.
pub(crate) fn refuse<R>(n: i64, least: usize, body: impl FnOnce() -> R) -> (R, bool) {
    LEAST.store(least, Ordering::SeqCst);
    LEFT.store(n, Ordering::SeqCst);
    let outcome = body();
    let left = LEFT.swap(OFF, Ordering::SeqCst);
    LEAST.store(usize::MAX, Ordering::SeqCst);
    (outcome, left <= 0)
}

/// Whether this allocation is to be refused.
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
