//! Fault injection. There are two kinds of cases. In a case of the first kind, one call into a plugin fails, returns
//! invalid data, or starts work that fails later. In a case of the second kind, one allocation of at least 4 KiB fails.
//!
//! The cases run one after the other in a child process of this test program. If a case crashes or hangs, the parent
//! reports it and starts a new child for the remaining cases.
//!
//! `make test` runs a part of the cases. The part depends on the day. `NUCLEUS_TEST_FULL=1` runs all cases.
// Every pointer here refers to memory of this program.
#![allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

mod allocations;
mod allocator;
mod calls;
mod children;
mod device_calls;
#[path = "../common/selection.rs"]
#[allow(dead_code, unreachable_pub)]
mod selection;
mod sweep;

#[global_allocator]
static ALLOCATOR: allocator::FailingAllocator = allocator::FailingAllocator;

/// Runs the cases that the parent names in the environment.
#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    children::run(|task, from, choice| match task {
        children::Task::Sweep(scenario) => sweep::run_cases(scenario, from, choice),
        children::Task::Allocations(subject) => allocations::run_cases(subject, from),
    });
}
