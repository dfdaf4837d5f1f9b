//! The built-in backend: SIMD on the machine's own cores, with no plugin to load.
//!
//! A row is read once or twice and never sorted. [`scan`] takes the maximum and the maxima of small parts;
//! [`select`] collects the few entries that top-k can keep; [`nucleus`] weighs and draws; [`search`] finds the exact
//! thresholds; [`row`] puts them together, [`parts`] splits them between threads.

mod blocks;
mod bounds;
mod candidates;
mod choose_token;
mod clean_row;
mod collect;
mod draw;
mod element;
mod interleaved;
mod key16;
mod lanes;
mod layout;
mod locate;
mod row_task;
mod sample_row;
mod scan;
mod split;
mod strided_sample;
mod threshold_search;
mod top_k;
mod top_p;
mod weigh_row;
mod weighing;
mod wide_arrays;
mod workspace;

use std::sync::{Mutex, PoisonError};

use fearless_simd::Level;
use rayon::prelude::*;

use crate::batch::Batch;
use crate::outputs::{Outputs, RowArrays, RowOutcome};

pub use sample_row::sample_row;
pub use scan::max_scan;
pub use workspace::Scratch;

/// Below this many logits a call stays on its own thread: waking others costs as much as the work.
const SERIAL_LOGITS: usize = 1 << 16;
/// A row is split between threads only into parts of at least this many logits.
const PART_LOGITS: usize = 1 << 15;

/// Samples on the calling thread, or on a pool of threads of its own.
#[derive(Debug)]
pub struct BuiltinBackend {
    level: Level,
    pool: Option<rayon::ThreadPool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    idle: Mutex<Vec<Idle>>,
}

/// What a call works in, kept for the next one.
#[derive(Debug, Default)]
struct Idle {
    scratch: Scratch,
    outcomes: Vec<RowOutcome>,
}

impl BuiltinBackend {
    /// A backend on `num_threads` threads: 0 takes every core, 1 starts none.
    pub fn new(num_threads: usize) -> Result<BuiltinBackend, rayon::ThreadPoolBuildError> {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = if num_threads == 0 { cores() } else { num_threads };
        let mut handles = Vec::new();
        let pool = if threads == 1 {
            None
        } else {
            let spawn = |thread: rayon::ThreadBuilder| {
                let builder = std::thread::Builder::new().name(format!("nucleus-{}", thread.index()));
                handles.push(builder.spawn(|| thread.run())?);
                Ok(())
            };
            Some(rayon::ThreadPoolBuilder::new().num_threads(threads).spawn_handler(spawn).build()?)
        };
        Ok(BuiltinBackend { level: Level::new(), pool, threads: handles, idle: Mutex::default() })
    }

    /// The instruction set and the number of threads, in words.
    pub fn description(&self) -> String {
        // `Level`'s Debug form is the set's name, then its token in parentheses.
        let level = format!("{:?}", self.level).to_lowercase();
        let set = level.split('(').next().unwrap_or_default();
        let threads = self.pool.as_ref().map_or(1, |pool| pool.current_num_threads());
        format!("{set}, {threads} thread{}", if threads == 1 { "" } else { "s" })
    }

    /// Fills every output that is wanted.
    pub fn sample(&self, batch: &Batch<'_>, outputs: &mut Outputs<'_>) {
        let mut idle = self.take_idle();
        idle.outcomes.clear();
        idle.outcomes.resize(batch.len(), RowOutcome::default());
        let logits = batch.len() * batch.vocab();
        // Where no wide array is wanted nothing has to be allocated to hand them out.
        let wide = outputs.wide.wants_any();
        let mut rows = if wide { outputs.take_rows(batch.len()) } else { Vec::new() };
        match &self.pool {
            Some(pool) if logits >= SERIAL_LOGITS => {
                let threads = pool.current_num_threads();
                let parts = threads.div_ceil(batch.len()).min(batch.vocab() / PART_LOGITS).max(1);
                let work = |i, outcome: &mut RowOutcome, arrays: &mut RowArrays<'_>| {
                    let mut idle = self.take_idle();
                    *outcome = self.row(batch, i, parts, arrays, &mut idle.scratch);
                    self.give_back(idle);
                };
                let outcomes = idle.outcomes.par_iter_mut().enumerate();
                pool.install(|| {
                    if wide {
                        outcomes.zip(&mut rows).for_each(|((i, outcome), arrays)| work(i, outcome, arrays));
                    } else {
                        outcomes.for_each(|(i, outcome)| work(i, outcome, &mut RowArrays::default()));
                    }
                });
            }
            _ => {
                for (i, outcome) in idle.outcomes.iter_mut().enumerate() {
                    let mut none = RowArrays::default();
                    let arrays = rows.get_mut(i).unwrap_or(&mut none);
                    *outcome = self.row(batch, i, 1, arrays, &mut idle.scratch);
                }
            }
        }
        outputs.set_outcomes(&idle.outcomes);
        self.give_back(idle);
    }

    fn row(
        &self,
        batch: &Batch<'_>,
        row: usize,
        parts: usize,
        arrays: &mut RowArrays<'_>,
        scratch: &mut Scratch,
    ) -> RowOutcome {
        sample_row(self.level, parts, batch.row(row), &batch.rows()[row], batch.options(), arrays, scratch)
    }

    fn take_idle(&self) -> Idle {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, idle: Idle) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }
}

/// Dropping a rayon pool tells its threads to end and does not wait; whoever ends a sampler may unload the library.
impl Drop for BuiltinBackend {
    fn drop(&mut self) {
        drop(self.pool.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
