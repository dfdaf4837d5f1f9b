//! Compiled programs: prewarming, compiling ahead of time, and sampling as a function of another program.
//!
//! A sampler with a plugin compiles a program for each shape of its calls. [`Sampler::prewarm`] compiles them before
//! the first request. [`CompileAhead`] writes them to files on a build host, which need not have the device.
//! [`Function`] prints the sampling for a program of your own.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::log_release_failures;
use crate::api::{Error, Sampler, SamplerBuilder};
use crate::backend::pjrt::prewarming;
use crate::backend::pjrt::program_cache::CacheStats;
use crate::backend::pjrt::program_dir::ProgramDirStats;
use crate::batch::{check_vocab, RowSettings};
use crate::compile_ahead::{compile_ahead, AheadOptions};
use crate::dtype::Dtype;
use crate::embedding::{self, Embedding, DEFAULT_NAME};
use crate::error::Error as InternalError;
use crate::kernels::{Target, COLUMNS};
use crate::plan::{self, check_rows, Entry, LogitsPlace, DEFAULT_MAX_K};

pub use crate::compile_ahead::Written;
pub use crate::pjrt::OptionValue;

/// The properties of calls that decide which programs they need: the shape and type of the logits, the path, and where
/// the logits are. Programs do not depend on top_k, top_p, min_p, temperature, seeds or offsets.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct CallShape(plan::CallShape);

impl CallShape {
    /// Calls with logits `[num_rows, vocab]` in host memory.
    pub fn new(num_rows: usize, vocab: usize, dtype: Dtype) -> CallShape {
        CallShape(plan::CallShape {
            entry: Entry::Automatic,
            batch: num_rows,
            vocab,
            dtype,
            stable: true,
            wanted: Default::default(),
            logits: LogitsPlace::Host,
        })
    }

    /// Calls on this path. Default: [`Path::Automatic`](crate::Path::Automatic).
    pub fn path(mut self, path: Entry) -> Self {
        self.0.entry = path;
        self
    }

    /// Calls with or without [`keep_ties`](crate::Batch::keep_ties).
    pub fn keep_ties(mut self, keep_ties: bool) -> Self {
        self.0.stable = !keep_ties;
        self
    }

    /// Calls on logits that are on the device. `all_numbers`: with
    /// [`HostNumbers::All`](crate::device::HostNumbers::All). `has_middle_dimension`: the buffers are
    /// `[num_rows, 1, vocab]`.
    pub fn on_device(mut self, all_numbers: bool, has_middle_dimension: bool) -> Self {
        self.0.logits = LogitsPlace::Device { singleton: has_middle_dimension, bad_rows: all_numbers };
        self
    }

    /// Calls that request `topk_logits_unsorted`.
    pub fn topk_logits_unsorted(mut self) -> Self {
        self.0.wanted.topk_logits = true;
        self
    }

    /// Calls that request `topk_topp_unnorm_probs_i32_unsorted`.
    pub fn topk_topp_unnorm_probs_i32_unsorted(mut self) -> Self {
        self.0.wanted.weights = true;
        self
    }

    /// Calls that request one or more k-slices.
    pub fn k_slices(mut self) -> Self {
        self.0.wanted.slices = true;
        self
    }

    fn checked(&self) -> Result<&plan::CallShape, InternalError> {
        check_vocab(self.0.vocab)?;
        check_rows("num_rows", "num_rows", self.0.batch, self.0.logits)?;
        Ok(&self.0)
    }
}

/// A prewarm that runs in the background. Thread-safe. Dropping it cancels it and waits for the compilations that are
/// running.
pub struct Prewarming(prewarming::Prewarming);

impl Prewarming {
    /// The number of programs that are ready, and the number of all programs.
    pub fn progress(&self) -> (usize, usize) {
        (self.0.done(), self.0.total())
    }

    /// Whether the prewarm has ended: all programs are ready, one failed, or the prewarm was cancelled.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    /// Cancels the prewarm without waiting for it. Programs that are ready stay in memory.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Waits until the prewarm has ended or the timeout expires. `None` means no limit. Returns whether it has ended.
    ///
    /// Errors: those of the compilations; [`Cancelled`](crate::ErrorKind::Cancelled) if it was cancelled before all
    /// programs were ready.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        Ok(self.0.wait(timeout)?)
    }
}

impl fmt::Debug for Prewarming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prewarming").field(&self.progress()).finish()
    }
}

/// The counters of a sampler's programs since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramStats {
    /// Programs that were compiled.
    pub compiles: u64,
    /// Programs that were loaded from files.
    pub loaded: u64,
    /// Uses of programs that were in memory.
    pub hits: u64,
    /// Programs that were removed from memory because there were too many.
    pub evictions: u64,
    /// Attempts to make a program that failed.
    pub failures: u64,
    /// The time spent in the compiler, summed over threads.
    pub compiling: Duration,
    /// Programs in memory now.
    pub programs: u64,
    /// How many of `programs` were prewarmed and are never removed.
    pub pinned: u64,
    /// Files that were removed because the directory exceeded its capacity.
    pub files_evicted: u64,
    /// The size of all programs in the directory in bytes. 0 if the sampler does not write programs.
    pub directory_bytes: u64,
}

/// Compiled programs. The built-in backend compiles nothing: its prewarms end at once, and its counters are 0.
impl Sampler {
    /// Compiles or loads every program that calls of this shape, or with fewer rows, can need. After that these calls
    /// compile nothing. The programs stay in memory until the sampler is dropped.
    ///
    /// ```no_run
    /// use nucleus::programs::CallShape;
    /// use nucleus::{Dtype, Sampler};
    ///
    /// let sampler = Sampler::builder().plugin_path("/opt/pjrt/plugin.so").build()?;
    /// sampler.prewarm(&CallShape::new(64, 128_256, Dtype::Bf16))?;
    /// # Ok::<(), nucleus::Error>(())
    /// ```
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the shape is impossible, if the programs of
    /// all prewarms exceed [`cache_capacity`](SamplerBuilder::cache_capacity), or if the logits are on a device and the
    /// sampler uses the built-in backend; those of the compiler.
    pub fn prewarm(&self, calls: &CallShape) -> Result<(), Error> {
        let outcome = self.inner.prewarm(calls.checked()?);
        log_release_failures();
        Ok(outcome?)
    }

    /// Starts a [`prewarm`](Sampler::prewarm) in the background. At most `num_threads` programs are compiled at the
    /// same time; 0 means one per core. Sampling calls can run at the same time.
    pub fn prewarm_start(&self, calls: &CallShape, num_threads: usize) -> Result<Prewarming, Error> {
        Ok(Prewarming(self.inner.start_prewarm(calls.checked()?, num_threads)?))
    }

    /// The counters of the programs.
    pub fn program_stats(&self) -> ProgramStats {
        let CacheStats { compiles, loaded, hits, evictions, failures, compile_ns, programs, pinned, .. } =
            self.inner.stats();
        let ProgramDirStats { evicted: files_evicted, bytes: directory_bytes } =
            self.inner.program_dir_stats();
        let compiling = Duration::from_nanos(compile_ns);
        ProgramStats {
            compiles,
            loaded,
            hits,
            evictions,
            failures,
            compiling,
            programs,
            pinned,
            files_evicted,
            directory_bytes,
        }
    }
}

/// Options of samplers with a plugin.
impl SamplerBuilder {
    /// The path of a PJRT plugin's shared library. Default: the environment variable `NUCLEUS_PJRT_PLUGIN`. Ignored
    /// with [`Backend::Builtin`](crate::Backend::Builtin).
    pub fn plugin_path(mut self, plugin_path: impl Into<PathBuf>) -> Self {
        self.options.plugin = Some(plugin_path.into());
        self
    }

    /// Adds an option for the plugin's client. Use the names and types that the plugin documents: some plugins end the
    /// process if an option has the wrong type.
    pub fn client_option(mut self, name: impl Into<String>, value: OptionValue) -> Self {
        self.options.client_options.push((name.into(), value));
        self
    }

    /// The largest number of compiled programs in memory, at least 1. Default: 64.
    pub fn cache_capacity(mut self, cache_capacity: usize) -> Self {
        self.options.cache_capacity = cache_capacity;
        self
    }

    /// The numbers of rows that programs are compiled for, ascending. Batches on the host are padded to the next of
    /// them. Default: the powers of two from 1 to 128.
    pub fn row_buckets(mut self, row_buckets: impl Into<Vec<usize>>) -> Self {
        self.options.row_buckets = row_buckets.into();
        self
    }

    /// The directory of compiled programs. The device executes these files, so the sampler ignores a directory or file
    /// that another user can write. Default: the environment variable `NUCLEUS_PROGRAM_DIR`, or no directory.
    pub fn program_dir(mut self, program_dir: impl Into<PathBuf>) -> Self {
        self.options.program_dir = Some(program_dir.into());
        self
    }

    /// Whether the sampler writes the programs that it compiles to the directory. Default: no.
    pub fn write_programs(mut self, write_programs: bool) -> Self {
        self.options.write_programs = write_programs;
        self
    }

    /// The largest size of the directory in bytes, for a sampler that writes programs; 0 means unlimited. The least
    /// recently used programs are removed. Default: 0.
    pub fn program_dir_capacity(mut self, program_dir_capacity: u64) -> Self {
        self.options.program_dir_capacity = program_dir_capacity;
        self
    }
}

/// Programs to compile into files, so that samplers with the same [`program_dir`](SamplerBuilder::program_dir) load
/// them.
///
/// ```no_run
/// use nucleus::programs::{CallShape, CompileAhead};
/// use nucleus::Dtype;
///
/// let written = CompileAhead::new("programs", [1, 8, 64], CallShape::new(1, 128_256, Dtype::Bf16))
///     .plugin_path("/opt/pjrt/libtpu.so")
///     .topology("v5e:2x2")
///     .run(|program| println!("{} in {:?}", program.name, program.compiling))?;
/// # Ok::<(), nucleus::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CompileAhead(AheadOptions);

impl CompileAhead {
    /// Compiles for calls of a shape, with each of these numbers of rows; the number of rows of `calls` is ignored. The
    /// directory is created if it does not exist.
    pub fn new(
        output_dir: impl Into<PathBuf>,
        row_counts: impl Into<Vec<usize>>,
        calls: CallShape,
    ) -> CompileAhead {
        CompileAhead(AheadOptions::new(output_dir.into(), row_counts.into(), calls.0))
    }

    /// The path of the plugin's shared library. Default: the environment variable `NUCLEUS_PJRT_PLUGIN`.
    pub fn plugin_path(mut self, plugin_path: impl Into<PathBuf>) -> Self {
        self.0.plugin = Some(plugin_path.into());
        self
    }

    /// The plugin's name of the devices to compile for. Default: the devices of this host.
    pub fn topology(mut self, topology: impl Into<String>) -> Self {
        self.0.topology = Some(topology.into());
        self
    }

    /// Adds an option for the topology, or for the client.
    pub fn plugin_option(mut self, name: impl Into<String>, value: OptionValue) -> Self {
        self.0.plugin_options.push((name.into(), value));
        self
    }

    /// Whether to compile also for every smaller number of rows, which batches with rows on both paths need.
    pub fn smaller_row_counts(mut self, smaller_row_counts: bool) -> Self {
        self.0.smaller_batches = smaller_row_counts;
        self
    }

    /// [`SamplerBuilder::row_buckets`] of the samplers that load the programs.
    pub fn row_buckets(mut self, row_buckets: impl Into<Vec<usize>>) -> Self {
        self.0.row_buckets = row_buckets.into();
        self
    }

    /// [`SamplerBuilder::max_k`] of the samplers that load the programs.
    pub fn max_k(mut self, max_k: usize) -> Self {
        self.0.max_k = max_k;
        self
    }

    /// The largest size of the directory in bytes; 0 means unlimited.
    pub fn output_dir_capacity(mut self, output_dir_capacity: u64) -> Self {
        self.0.output_dir_capacity = output_dir_capacity;
        self
    }

    /// Whether to skip programs whose file exists and is up to date.
    pub fn skip_up_to_date(mut self, skip_up_to_date: bool) -> Self {
        self.0.skip_up_to_date = skip_up_to_date;
        self
    }

    /// Compiles on one thread per core, and writes every program. Calls `progress` after each program, on the thread
    /// that compiled it. If a program fails, the files that are already written stay.
    pub fn run(&self, progress: impl Fn(&Written) + Sync) -> Result<Vec<Written>, Error> {
        let outcome = compile_ahead(&self.0, &progress);
        log_release_failures();
        Ok(outcome?)
    }
}

/// The sampling as a function in StableHLO, for a program of your own. `nuc_emit` in the C header `include/nucleus.h`
/// describes the operands and the results of the function.
///
/// ```
/// use nucleus::programs::{CallShape, Function};
/// use nucleus::Dtype;
///
/// let function = Function::new(CallShape::new(8, 32_000, Dtype::F32)).name("sample");
/// assert!(function.emit()?.contains("func.func private @sample"));
/// # Ok::<(), nucleus::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Function(Embedding);

impl Function {
    /// The function for calls of a shape, with logits on the device.
    pub fn new(calls: CallShape) -> Function {
        let (target, name) = (Target::Portable, DEFAULT_NAME.to_owned());
        Function(Embedding { calls: calls.0, max_k: DEFAULT_MAX_K, target, name })
    }

    /// The number of slots of the bounded path. Default: 128.
    pub fn max_k(mut self, max_k: usize) -> Self {
        self.0.max_k = max_k;
        self
    }

    /// The symbol name. Default: `nucleus_sample`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// The device that runs the function, for example `"v5e"`. Default: any device.
    ///
    /// Errors: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the name is unknown; the message lists all
    /// names.
    pub fn target(mut self, target: &str) -> Result<Self, Error> {
        self.0.target = embedding::target(target)?;
        Ok(self)
    }

    /// The text of the function.
    pub fn emit(&self) -> Result<String, Error> {
        Ok(self.0.emit()?)
    }

    /// A row of the array that the function takes as its parameters. `row` is the index of the row, for messages.
    pub fn pack(&self, row: usize, parameters: &RowSettings) -> Result<[i32; COLUMNS], Error> {
        let replace_val = crate::batch::CallOptions::default().replace_val;
        Ok(self.0.pack(row, parameters, replace_val)?)
    }
}
