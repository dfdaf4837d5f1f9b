//! The choice of the cases that run: all of them, or a part that changes with the day.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The environment variable that repeats the choice of another day.
pub const SEED_VARIABLE: &str = "NUCLEUS_TEST_SEED";

/// Whether every case runs. `make test-full` sets `NUCLEUS_TEST_FULL=1`; otherwise [`thinned`] selects cases.
pub fn full() -> bool {
    std::env::var_os("NUCLEUS_TEST_FULL").is_some_and(|value| value == "1")
}

/// The seed that selects cases and draws their data: the day since 1970 in UTC, or [`SEED_VARIABLE`].
pub fn daily_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().expect("NUCLEUS_TEST_SEED must be a whole number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400,
        };
        // Not eprintln!: the test harness hides what passing tests print.
        let _ = writeln!(std::io::stderr(), "test seed {seed}; {SEED_VARIABLE}={seed} repeats this run");
        seed
    })
}

/// One case in `every`, at least one, starting at a case that [`daily_seed`] selects; all cases if [`full`]. A stride
/// with no common factor with the lengths of the lists behind the cases selects every value of every list.
pub fn thinned<T>(cases: impl IntoIterator<Item = T>, every: usize) -> Vec<T> {
    let cases: Vec<T> = cases.into_iter().collect();
    let every = if full() { 1 } else { every.min(cases.len()).max(1) };
    let first = (daily_seed() % every as u64) as usize;
    cases.into_iter().skip(first).step_by(every).collect()
}
