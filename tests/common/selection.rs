//! The selection of cases: all cases, or a part of them that depends on the day.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The environment variable that repeats the selection of another day.
pub const SEED_VARIABLE: &str = "NUCLEUS_TEST_SEED";

/// Whether every case runs. `make test-full` sets `NUCLEUS_TEST_FULL=1`; otherwise [`thinned`] selects cases.
pub fn full() -> bool {
    std::env::var_os("NUCLEUS_TEST_FULL").is_some_and(|value| value == "1")
}

/// Returns the seed for the selection of cases and for their random data: the number of days since 1970 in UTC, or the
/// value of [`SEED_VARIABLE`].
pub fn daily_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().expect("NUCLEUS_TEST_SEED must be a whole number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400,
        };
        // Not eprintln!, because the test harness hides the output of passing tests.
        let _ = writeln!(std::io::stderr(), "test seed {seed}; {SEED_VARIABLE}={seed} repeats this run");
        seed
    })
}

/// Selects every `every`-th case, but at least one case. [`daily_seed`] selects the first case. If [`full`] returns
/// true, selects all cases. Assume that the cases are all combinations of some lists, and that `every` has no common
/// factor with the lengths of the lists. Then every value of every list is selected.
pub fn thinned<T>(cases: impl IntoIterator<Item = T>, every: usize) -> Vec<T> {
    let cases: Vec<T> = cases.into_iter().collect();
    let every = if full() { 1 } else { every.min(cases.len()).max(1) };
    let first = (daily_seed() % every as u64) as usize;
    cases.into_iter().skip(first).step_by(every).collect()
}
