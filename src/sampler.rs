//! The sampler behind a handle: it owns a backend and runs calls on it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::backend::builtin::BuiltinBackend;
use crate::backend::pjrt::device_call::{DeviceCall, DeviceWants};
use crate::backend::pjrt::device_parameters::DeviceParameters;
use crate::backend::pjrt::prewarming::{Job, Prewarming, Progress};
use crate::backend::pjrt::program_cache::CacheStats;
use crate::backend::pjrt::program_dir::ProgramDirStats;
use crate::backend::pjrt::{create_client, PjrtBackend};
use crate::backend::DeviceInfo;
use crate::batch::{check_vocab, Batch, CallOptions};
use crate::dtype::Dtype;
use crate::environment::{self, PLUGIN_VARIABLE, PROGRAM_DIR_VARIABLE};
use crate::error::Error;
use crate::latency::{CallLatencies, LatencyStats};
use crate::outputs::Outputs;
use crate::pjrt;
use crate::plan::{check_entry, check_max_k, Buckets, CallShape, Entry, DEFAULT_MAX_K};
use crate::reference;

/// The default of [`SamplerOptions::cache_capacity`].
pub const DEFAULT_CACHE_CAPACITY: usize = 64;

/// The backend of a sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// PJRT if the options or the environment name a plugin; otherwise the built-in backend.
    #[default]
    Auto,
    /// The SIMD code of this library, on the CPU.
    Builtin,
    /// A PJRT plugin. It is an error if none is named.
    Pjrt,
}

/// Options of a sampler.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// The backend.
    pub backend: BackendChoice,
    /// The plugin's shared library. `None`: the environment variable [`PLUGIN_VARIABLE`].
    pub plugin: Option<PathBuf>,
    /// Options for the plugin's client. They are passed to the plugin unchanged.
    pub client_options: Vec<(String, pjrt::OptionValue)>,
    /// The index among the client's addressable devices.
    pub device: usize,
    /// The number of slots of the bounded path.
    pub max_k: usize,
    /// The largest number of compiled programs in memory.
    pub cache_capacity: usize,
    /// The number of threads of the built-in backend; 0 means one per core.
    pub num_threads: usize,
    /// The directory of compiled programs. `None`: the environment variable [`PROGRAM_DIR_VARIABLE`].
    pub program_dir: Option<PathBuf>,
    /// Whether the sampler writes programs that it compiles to the directory.
    pub write_programs: bool,
    /// The largest size of the directory in bytes; 0 means unlimited. After each write, the sampler removes the least
    /// recently used programs, of all systems and versions, until the directory fits. It does not remove the program
    /// just written, and programs that any process used during the last minute. Without `write_programs`, this has no
    /// effect.
    pub program_dir_capacity: u64,
    /// The numbers of rows that programs are compiled for, ascending. Batches are padded to the next of these numbers.
    /// A batch on the host that has more rows than the last number runs in pieces. Empty: the powers of two from 1 to
    /// 128. The built-in backend ignores the list.
    pub row_buckets: Vec<usize>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            backend: BackendChoice::Auto,
            plugin: None,
            client_options: Vec::new(),
            device: 0,
            max_k: DEFAULT_MAX_K,
            cache_capacity: DEFAULT_CACHE_CAPACITY,
            num_threads: 0,
            program_dir: None,
            write_programs: false,
            program_dir_capacity: 0,
            row_buckets: Vec::new(),
        }
    }
}

enum Backend {
    Builtin(BuiltinBackend),
    Pjrt(Arc<PjrtBackend>),
}

/// A sampler. Any number of threads may call its methods at the same time.
pub struct Sampler {
    backend: Backend,
    max_k: usize,
    latencies: Arc<CallLatencies>,
}

/// The checked options of a backend that compiles programs.
struct ProgramOptions {
    cache_capacity: NonZeroUsize,
    buckets: Buckets,
}

impl Sampler {
    /// Creates a sampler. With a plugin this loads the plugin and creates a client.
    pub fn new(options: &SamplerOptions) -> Result<Sampler, Error> {
        let checked = checked(options)?;
        let latencies = Arc::new(CallLatencies::new()?);
        let plugin = options.plugin.clone().or_else(|| environment::path(PLUGIN_VARIABLE));
        let backend = match (options.backend, plugin) {
            (BackendChoice::Builtin, _) | (BackendChoice::Auto, None) => builtin(options)?,
            (_, Some(plugin)) => with_plugin(options, &plugin, checked, &latencies)?,
            (BackendChoice::Pjrt, None) => {
                return Err(Error::PluginNotFound(format!(
                    "no PJRT plugin is named; set plugin_path, or the environment variable {PLUGIN_VARIABLE}, to the \
                     path of a plugin's shared library"
                )))
            }
        };
        Ok(Sampler { backend, max_k: options.max_k, latencies })
    }

    /// The number of slots of the bounded path.
    pub fn max_k(&self) -> usize {
        self.max_k
    }

    /// Samples a batch. After an error no output was written.
    ///
    /// A row is bad if its parameters are impossible, or if the entry point does not accept its k. If
    /// `outputs.row_status` is `None`, a bad row makes the call fail. Otherwise the status of the bad row is
    /// [`ROW_BAD_PARAMETER`](crate::outputs::ROW_BAD_PARAMETER), its token is −1, none of its entries is kept, and the
    /// other rows are sampled.
    pub fn sample(&self, entry: Entry, batch: &Batch<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let changed = match check_entry(entry, self.max_k, batch, outputs.wide.wants_slices())? {
            Some(bad_rows) => Some(batch.with_bad_rows(bad_rows)?),
            None => None,
        };
        let batch = changed.as_ref().unwrap_or(batch);
        let bad_rows = batch.bad_rows();
        match bad_rows.error() {
            Some(error) if outputs.row_status.is_none() => return Err(error.clone()),
            _ if batch.is_empty() => return Ok(()),
            None => return self.sample_rows(entry, batch, outputs),
            Some(_) => self.sample_rows(entry, batch, &mut outputs.reborrow())?,
        }
        let replace_val = batch.logits().dtype().round(batch.options().replace_val);
        outputs.set_bad_rows(bad_rows.rows(), batch.len(), replace_val);
        Ok(())
    }

    fn sample_rows(&self, entry: Entry, batch: &Batch<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        match (&self.backend, entry) {
            (_, Entry::Reference) => self.timed(|| reference::sample_batch(batch, outputs)),
            (Backend::Builtin(cpu), _) => self.timed(|| cpu.sample(batch, outputs)),
            (Backend::Pjrt(pjrt), _) => pjrt.sample(entry, self.max_k, batch, outputs),
        }
    }

    /// Records the time of a call that runs on the host.
    fn timed(&self, call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begin = Instant::now();
        call()?;
        self.latencies.record_total(begin);
        Ok(())
    }

    /// Creates a sampler on a client of the caller. Ignores `options.plugin` and `options.client_options`. The sampler
    /// keeps a reference to the client.
    pub fn with_client(client: Arc<pjrt::Client>, options: &SamplerOptions) -> Result<Sampler, Error> {
        let checked = checked(options)?;
        let latencies = Arc::new(CallLatencies::new()?);
        let backend = with_programs(options, client, checked, &latencies)?;
        Ok(Sampler { backend, max_k: options.max_k, latencies })
    }

    /// The sampler's client. Callers create buffers with it. `None` on the built-in backend.
    pub fn client(&self) -> Option<&Arc<pjrt::Client>> {
        match &self.backend {
            Backend::Builtin(_) => None,
            Backend::Pjrt(pjrt) => Some(pjrt.client()),
        }
    }

    /// Creates the parameters for batches of logits that are on the device: `rows` rows of `vocab` logits. Each row has
    /// the default settings. Fails on the built-in backend.
    pub fn device_parameters(
        &self,
        rows: usize,
        vocab: usize,
        dtype: Dtype,
        options: CallOptions,
    ) -> Result<DeviceParameters, Error> {
        check_vocab(vocab)?;
        if rows == 0 {
            return Err(Error::named_argument("num_rows", "num_rows is 0; it must be at least 1"));
        }
        self.pjrt()?;
        DeviceParameters::new(rows, vocab, dtype, options)
    }

    /// Starts a call on logits that are on the device, and returns without waiting for it. Thread-safe. Fails on the
    /// built-in backend.
    ///
    /// `logits` is a buffer of [`client`](Sampler::client), `[rows, vocab]` or `[rows, 1, vocab]`. The caller may
    /// delete it when this function returns. `step` is added to the offset of every row.
    pub fn start(
        &self,
        entry: Entry,
        logits: &pjrt::Buffer,
        parameters: &DeviceParameters,
        step: u64,
        wants: DeviceWants,
    ) -> Result<DeviceCall, Error> {
        self.pjrt()?.start(entry, self.max_k, logits, parameters, step, wants)
    }

    fn pjrt(&self) -> Result<&PjrtBackend, Error> {
        match &self.backend {
            Backend::Pjrt(pjrt) => Ok(pjrt),
            Backend::Builtin(_) => Err(Error::named_argument(
                "sampler",
                "the sampler uses the built-in backend, which has no device; create it with a plugin",
            )),
        }
    }

    /// Compiles every program that calls of this shape can need, and returns when all programs are in the cache. With
    /// logits on the host, this includes the programs of calls with fewer rows. The programs are never evicted. On the
    /// built-in backend, this function does nothing.
    pub fn prewarm(&self, calls: &CallShape) -> Result<(), Error> {
        self.prewarm_on(calls, 0)
    }

    /// Like [`prewarm`](Sampler::prewarm), but compiles at most `num_threads` programs at the same time; 0 means one
    /// per core.
    pub fn prewarm_on(&self, calls: &CallShape, num_threads: usize) -> Result<(), Error> {
        match &self.backend {
            Backend::Builtin(_) => Ok(()),
            Backend::Pjrt(pjrt) => Job::new(pjrt, calls, self.max_k, num_threads)?.run(&Progress::default()),
        }
    }

    /// Like [`prewarm_on`](Sampler::prewarm_on), but in the background. Other calls can run at the same time. If the
    /// programs do not fit the cache, this function returns the error.
    pub fn start_prewarm(&self, calls: &CallShape, num_threads: usize) -> Result<Prewarming, Error> {
        match &self.backend {
            Backend::Builtin(_) => Ok(Prewarming::of_nothing()),
            Backend::Pjrt(pjrt) => Prewarming::start(Job::new(pjrt, calls, self.max_k, num_threads)?),
        }
    }

    /// Makes a prewarm run each program once, as it does on a GPU. For tests on other devices.
    #[doc(hidden)]
    pub fn enable_first_runs(&self) {
        if let Backend::Pjrt(pjrt) = &self.backend {
            pjrt.enable_first_runs();
        }
    }

    /// The number of programs that a prewarm ran. For tests.
    #[doc(hidden)]
    pub fn first_runs(&self) -> u64 {
        match &self.backend {
            Backend::Builtin(_) => 0,
            Backend::Pjrt(pjrt) => pjrt.first_runs(),
        }
    }

    /// The latencies of the calls that have succeeded. Calls of the built-in backend and of the reference run on the
    /// host and have only a total.
    pub fn latencies(&self) -> LatencyStats {
        self.latencies.stats()
    }

    /// The counters of the program cache. The built-in backend compiles nothing, so its counters are 0.
    pub fn stats(&self) -> CacheStats {
        match &self.backend {
            Backend::Builtin(_) => CacheStats::default(),
            Backend::Pjrt(pjrt) => pjrt.stats(),
        }
    }

    /// The counters of the directory of compiled programs; all 0 without a directory.
    pub fn program_dir_stats(&self) -> ProgramDirStats {
        match &self.backend {
            Backend::Builtin(_) => ProgramDirStats::default(),
            Backend::Pjrt(pjrt) => pjrt.program_dir_stats(),
        }
    }

    /// The name and version of the platform, and the version of the plugin's PJRT C API. The built-in backend returns
    /// (0, 0) as this version.
    pub fn platform(&self) -> (String, String, (i32, i32)) {
        match &self.backend {
            Backend::Builtin(cpu) => ("builtin".to_owned(), cpu.description(), (0, 0)),
            Backend::Pjrt(pjrt) => pjrt.platform(),
        }
    }

    /// The devices that [`SamplerOptions::device`] can select. The built-in backend has one.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        match &self.backend {
            Backend::Builtin(cpu) => {
                vec![DeviceInfo { id: 0, kind: "cpu".to_owned(), description: cpu.description() }]
            }
            Backend::Pjrt(pjrt) => pjrt.devices(),
        }
    }
}

fn builtin(options: &SamplerOptions) -> Result<Backend, Error> {
    if options.device != 0 {
        return Err(Error::named_argument(
            "device_index",
            format!(
                "device_index is {}; it must be 0, because the built-in backend has one device",
                options.device
            ),
        ));
    }
    Ok(Backend::Builtin(BuiltinBackend::new(options.num_threads)))
}

/// Checks the options that do not depend on the backend.
fn checked(options: &SamplerOptions) -> Result<ProgramOptions, Error> {
    check_max_k(options.max_k)?;
    let cache_capacity = NonZeroUsize::new(options.cache_capacity).ok_or_else(|| {
        Error::named_argument("cache_capacity", "cache_capacity is 0; it must be at least 1")
    })?;
    Ok(ProgramOptions { cache_capacity, buckets: Buckets::new(&options.row_buckets)? })
}

fn with_plugin(
    options: &SamplerOptions,
    plugin: &Path,
    checked: ProgramOptions,
    latencies: &Arc<CallLatencies>,
) -> Result<Backend, Error> {
    let client = create_client(plugin, &options.client_options, program_dir(options).as_deref())?;
    with_programs(options, client, checked, latencies)
}

/// The program directory that the options or the environment variable name.
fn program_dir(options: &SamplerOptions) -> Option<PathBuf> {
    options.program_dir.clone().or_else(|| environment::path(PROGRAM_DIR_VARIABLE))
}

/// Creates a backend on a client. The options or the environment variable name the program directory of the backend.
fn with_programs(
    options: &SamplerOptions,
    client: Arc<pjrt::Client>,
    ProgramOptions { cache_capacity, buckets }: ProgramOptions,
    latencies: &Arc<CallLatencies>,
) -> Result<Backend, Error> {
    let (device, latencies) = (options.device, latencies.clone());
    let mut pjrt = PjrtBackend::with_client(client, device, cache_capacity, buckets, latencies)?;
    match program_dir(options) {
        Some(directory) => {
            pjrt.use_programs_in(&directory, options.write_programs, options.program_dir_capacity)?
        }
        None if options.write_programs => {
            return Err(Error::named_argument(
                "program_dir",
                format!(
                "write_programs is 1 and no directory is named; set program_dir, or the environment variable \
                 {PROGRAM_DIR_VARIABLE}"
            ),
            ))
        }
        None => {}
    }
    Ok(Backend::Pjrt(Arc::new(pjrt)))
}
