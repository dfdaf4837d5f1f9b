//! Faults: every call into a plugin fails in turn or returns nonsense, and every allocation of at least 4 KiB fails.
//!
//! Each case runs in a child process of this test program, many cases one after another. A case that crashes or hangs
//! therefore costs only itself: the parent names it and starts a new child for the rest.
//!
//! `make test` runs a part of the cases that changes with the day. `NUCLEUS_TEST_FULL=1` runs all of them.
// Every pointer here points to memory of this program.
#![allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

mod allocations;
mod allocator;
mod calls;
mod children;
#[path = "../common/selection.rs"]
#[allow(dead_code, unreachable_pub)]
mod selection;
mod sweep;

#[global_allocator]
static ALLOCATOR: allocator::FailingAllocator = allocator::FailingAllocator;

/// Runs the cases that a parent names in its environment.
#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    children::run(|task, from, choice| match task {
        children::Task::Sweep(scenario) => sweep::run_cases(scenario, from, choice),
        children::Task::Allocations(subject) => allocations::run_cases(subject, from),
    });
}
