//! Each case lets the n-th allocation of a call fail, for n = 1, 2, ... until the call has fewer than n allocations.

use std::path::PathBuf;

use fault_plugin::Proxy;
use nucleus::abi::*;

use crate::allocator::refuse;
use crate::calls::{error_struct, Arrays, Entry, Handle, Problem, Setup, Wide};
use crate::children::{self, Subject, Task};

const MAX_K: usize = 128;

/// The smallest size of an allocation that can fail. The module [`crate::allocator`] gives the reason.
const LEAST: usize = 4096;

/// A limit for n. Every call has fewer allocations.
const MOST: usize = 1000;

#[test]
fn allocations_of_the_built_in_backend_may_fail() {
    check(Subject::Builtin);
}

#[test]
fn allocations_of_the_reference_may_fail() {
    check(Subject::Reference);
}

/// Tests calls whose programs are in the cache. A compile is not tested: it allocates the program's text and the
/// plugin's structures, and no caller decides their sizes.
#[test]
fn allocations_of_a_call_on_a_plugin_may_fail() {
    check(Subject::Plugin);
}

fn check(subject: Subject) {
    let report = children::watch(Task::Allocations(subject));
    println!("failed allocations, {subject:?}: {} cases, {}", report.cases, report.summary);
    let list: Vec<String> = report.findings.iter().map(|finding| format!("\n  {finding}")).collect();
    assert!(list.is_empty(), "{}", list.concat());
    assert!(report.cases > 5, "too few cases");
}

/// An operation that allocates.
struct Step {
    name: String,
    setup: Setup<'static>,
    action: Action,
    /// Whether the sampler runs the call once before the allocation fails.
    warm: bool,
    /// The smallest size of an allocation that fails.
    least: usize,
}

/// The operation of a [`Step`].
#[allow(clippy::large_enum_variant)]
enum Action {
    /// The creation of a sampler.
    Create,
    /// A call, and its correct arrays.
    Call(Problem, Arrays),
    /// A prewarm for logits on a device. Its programs do not fit the cache, so it compiles nothing.
    Prewarm(Problem),
}

/// In the child: runs the cases from number `from` to the last one.
pub(crate) fn run_cases(subject: Subject, from: usize) {
    let steps = match subject {
        Subject::Builtin => builtin_steps(),
        Subject::Reference => sampling_steps("", setup(None, 1), &[Entry::Reference]),
        Subject::Plugin => plugin_steps(),
    };
    children::tell_summary(&format!("{} calls", steps.len()));
    for (number, step) in steps.iter().enumerate() {
        // On a plugin, all cases of a step use one sampler, so that it compiles only once.
        let shared = step.setup.plugin.map(|_| step.warm_sampler());
        for n in 1..=MOST {
            let case = number * MOST + n;
            if case < from {
                continue;
            }
            assert!(n < MOST, "{}: the allocations do not end", step.name);
            let mut refused = false;
            children::run_case(case, &format!("{}, allocation {n}", step.name), || {
                let findings;
                (findings, refused) = step.run(n as i64, shared.as_ref());
                findings
            });
            if !refused {
                break;
            }
        }
        if let Some(sampler) = shared {
            assert!(sampler.destroy().is_ok());
        }
    }
}

fn setup(plugin: Option<&'static std::path::Path>, num_threads: usize) -> Setup<'static> {
    Setup {
        plugin,
        client: None,
        program_dir: None,
        write_programs: false,
        max_k: MAX_K,
        num_threads,
        row_buckets: &[],
    }
}

fn builtin_steps() -> Vec<Step> {
    let entries = [Entry::Automatic, Entry::Arbitrary, Entry::Bounded];
    let mut steps = Vec::new();
    for threads in [1, 3] {
        let (name, setup) = (format!("{threads} threads, "), setup(None, threads));
        steps.push(Step::create(format!("{name}create"), setup));
        steps.extend(sampling_steps(&name, setup, &entries));
    }
    // After the first call, a call on one thread returns an error if any of its allocations fails. So even the smallest
    // allocations fail here.
    let warm = sampling_steps("1 thread, second ", setup(None, 1), &entries);
    steps.extend(warm.into_iter().map(|step| Step { warm: true, least: 0, ..step }));
    steps
}

fn plugin_steps() -> Vec<Step> {
    let proxy = children::proxy_path();
    Proxy::open(&proxy, &children::plugin_path()).unwrap();
    let path: &'static PathBuf = Box::leak(Box::new(proxy));
    let setup = setup(Some(path), 1);
    let mut steps = sampling_steps("", setup, &[Entry::Automatic, Entry::Bounded]);
    steps.push(Step::create("create".to_owned(), setup));
    // The first call has many rows, and the second call has many pieces. So their lists are long.
    for (rows, row_buckets) in [(2048, &[1, 1024][..]), (1024, &[1])] {
        let k = [0, 5, 8, 1].into_iter().cycle().take(rows).collect();
        let problem = Problem { entry: Entry::Automatic, vocab: 8, k, wide: Wide::Full, offset: 0 };
        let name = format!("{rows} rows in pieces of {row_buckets:?}");
        steps.push(Step::call(name, Setup { row_buckets, ..setup }, problem));
    }
    // A piece of a buffer can have any number of rows. So the list of programs is long.
    let row_buckets = &[1];
    let problem =
        Problem { entry: Entry::Automatic, vocab: 2000, k: vec![0; 2048], wide: Wide::Full, offset: 0 };
    let setup = Setup { row_buckets, ..setup };
    let name = "prewarm for 2048 rows on a device".to_owned();
    steps.push(Step { name, setup, action: Action::Prewarm(problem), warm: false, least: LEAST });
    steps
}

/// Calls with rows of many tiles. Some batches are so large that several threads process them.
fn sampling_steps(name: &str, setup: Setup<'static>, entries: &[Entry]) -> Vec<Step> {
    let step = |&entry: &Entry| {
        let bounded = entry == Entry::Bounded;
        let problem = Problem {
            entry,
            vocab: if setup.plugin.is_some() { 2000 } else { 40_000 },
            k: if bounded { vec![5, 128, 1, 60] } else { vec![0, 40, 1000, 1] },
            wide: if bounded { Wide::Slices } else { Wide::Full },
            offset: 0,
        };
        Step::call(format!("{name}{entry:?} call"), setup, problem)
    };
    entries.iter().map(step).collect()
}

impl Step {
    fn create(name: String, setup: Setup<'static>) -> Step {
        Step { name, setup, action: Action::Create, warm: false, least: LEAST }
    }

    fn call(name: String, setup: Setup<'static>, problem: Problem) -> Step {
        let right = problem.expected(MAX_K);
        Step { name, setup, action: Action::Call(problem, right), warm: false, least: LEAST }
    }

    /// Creates a sampler and runs the call once.
    fn warm_sampler(&self) -> Handle {
        let (outcome, handle) = self.setup.create();
        let handle = handle.expect(&outcome.message);
        if let Action::Call(problem, right) = &self.action {
            assert_eq!(&problem.sample(&handle, MAX_K).1, right, "{}", self.name);
        }
        handle
    }

    /// Runs the call and lets its `n`-th allocation fail. Returns the findings, and whether the call had an `n`-th
    /// allocation.
    fn run(&self, n: i64, shared: Option<&Handle>) -> (Vec<String>, bool) {
        let (problem, right) = match &self.action {
            Action::Create => return self.run_create(n),
            Action::Prewarm(problem) => return self.run_prewarm(n, problem, shared.expect("a sampler")),
            Action::Call(problem, right) => (problem, right),
        };
        // The built-in backend keeps its scratch memory. So only a new sampler allocates all of it.
        let create =
            || if self.warm { self.warm_sampler() } else { self.setup.create().1.expect("a sampler") };
        let fresh = shared.is_none().then(create);
        let handle = shared.or(fresh.as_ref()).expect("a sampler");
        let mut error = error_struct();
        let ((status, refused), arrays) =
            problem.sample_within(handle, MAX_K, |call| refuse(n, self.least, || call(&mut error)));
        let mut findings = Vec::new();
        // After a failed allocation, a call may still succeed, with another method that needs less memory.
        let fits = match status {
            NUC_OK => arrays == *right,
            NUC_OUT_OF_MEMORY => refused && arrays.is_untouched(),
            _ => false,
        };
        if !fits {
            let untouched = arrays.is_untouched();
            findings.push(format!("{status:?}, refused: {refused}, outputs untouched: {untouched}"));
        }
        let (outcome, arrays) = problem.sample(handle, MAX_K);
        if arrays != *right {
            findings.push(format!("the next call: {outcome:?}"));
        }
        if let Some(fresh) = fresh {
            assert!(fresh.destroy().is_ok());
        }
        (findings, refused)
    }

    fn run_prewarm(&self, n: i64, problem: &Problem, handle: &Handle) -> (Vec<String>, bool) {
        let (outcome, refused) = refuse(n, self.least, || handle.prewarm(problem, NUC_LOGITS_ON_DEVICE));
        let fits = match refused {
            true => outcome.status == NUC_OUT_OF_MEMORY,
            false => outcome.status == NUC_INVALID_ARGUMENT && outcome.message.contains("cache_capacity"),
        };
        let findings = if fits { vec![] } else { vec![format!("{outcome:?}, refused: {refused}")] };
        (findings, refused)
    }

    fn run_create(&self, n: i64) -> (Vec<String>, bool) {
        let ((outcome, handle), refused) = refuse(n, self.least, || self.setup.create());
        let fits = match outcome.status {
            NUC_OK => true,
            status => refused && status == NUC_OUT_OF_MEMORY,
        };
        if let Some(handle) = handle {
            assert!(handle.destroy().is_ok());
        }
        let findings = if fits { vec![] } else { vec![format!("{outcome:?}, refused: {refused}")] };
        (findings, refused)
    }
}
