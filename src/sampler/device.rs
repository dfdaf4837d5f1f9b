//! The methods of a sampler that need a plugin or its device.

use std::sync::Arc;

use super::options::{check_options, SamplerOptions};
use super::plugin::create_backend_on;
use super::{Backend, Sampler};
use crate::backend::pjrt::device_call::{DeviceCall, DeviceWants};
use crate::backend::pjrt::device_parameters::DeviceParameters;
use crate::backend::pjrt::prewarming::{Job, Prewarming, Progress};
use crate::backend::pjrt::program_cache::CacheStats;
use crate::backend::pjrt::program_dir::ProgramDirStats;
use crate::backend::pjrt::PjrtBackend;
use crate::batch::{check_vocab, CallOptions};
use crate::dtype::{Dtype, Logits};
use crate::error::Error;
use crate::latency::CallLatencies;
use crate::pjrt;
use crate::plan::{check_slices, CallShape, Entry, LogitsPlace};

impl Sampler {
    /// Creates a sampler on a client of the caller. Ignores `options.plugin` and `options.client_options`. The sampler
    /// keeps a reference to the client.
    pub fn with_client(client: Arc<pjrt::Client>, options: &SamplerOptions) -> Result<Sampler, Error> {
        check_options(options)?;
        let latencies = Arc::new(CallLatencies::new()?);
        let backend = Backend::Plugin(create_backend_on(client, options, &latencies)?);
        Ok(Sampler { backend, max_k: options.max_k, latencies })
    }

    /// The sampler's client. Callers create buffers with it. `None` on the built-in backend.
    pub fn client(&self) -> Option<&Arc<pjrt::Client>> {
        match &self.backend {
            Backend::Builtin(_) => None,
            Backend::Plugin(pjrt) => Some(pjrt.client()),
        }
    }

    /// Like [`client`](Sampler::client). Fails on the built-in backend.
    pub(crate) fn device_client(&self) -> Result<&Arc<pjrt::Client>, Error> {
        Ok(self.pjrt()?.client())
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

    /// Copies logits `[rows, vocab]` to the device. Fails on the built-in backend.
    pub fn upload_logits(
        &self,
        logits: Logits<'_>,
        rows: usize,
        vocab: usize,
    ) -> Result<pjrt::Buffer, Error> {
        self.pjrt()?.upload_logits(logits, rows, vocab)
    }

    fn pjrt(&self) -> Result<&PjrtBackend, Error> {
        match &self.backend {
            Backend::Plugin(pjrt) => Ok(pjrt),
            Backend::Builtin(_) => Err(has_no_device()),
        }
    }

    /// Compiles every program that calls of this shape can need, and returns when all programs are in the cache. With
    /// logits on the host, this includes the programs of calls with fewer rows. The programs are never evicted. The
    /// built-in backend compiles nothing, and refuses calls with logits on a device.
    pub fn prewarm(&self, calls: &CallShape) -> Result<(), Error> {
        self.prewarm_on(calls, 0)
    }

    /// Like [`prewarm`](Sampler::prewarm), but compiles at most `num_threads` programs at the same time; 0 means one
    /// per core.
    pub fn prewarm_on(&self, calls: &CallShape, num_threads: usize) -> Result<(), Error> {
        check_slices(calls)?;
        match &self.backend {
            Backend::Builtin(_) => check_host(calls),
            Backend::Plugin(pjrt) => {
                Job::new(pjrt, calls, self.max_k, num_threads)?.run(&Progress::default())
            }
        }
    }

    /// Like [`prewarm_on`](Sampler::prewarm_on), but in the background. Other calls can run at the same time. If the
    /// programs do not fit the cache, this function returns the error.
    pub fn start_prewarm(&self, calls: &CallShape, num_threads: usize) -> Result<Prewarming, Error> {
        check_slices(calls)?;
        match &self.backend {
            Backend::Builtin(_) => check_host(calls).map(|()| Prewarming::of_nothing()),
            Backend::Plugin(pjrt) => Prewarming::start(Job::new(pjrt, calls, self.max_k, num_threads)?),
        }
    }

    /// Makes a prewarm run each program once, as it does on a GPU. For tests on other devices.
    #[doc(hidden)]
    pub fn enable_first_runs(&self) {
        if let Backend::Plugin(pjrt) = &self.backend {
            pjrt.enable_first_runs();
        }
    }

    /// The number of programs that a prewarm ran. For tests.
    #[doc(hidden)]
    pub fn first_runs(&self) -> u64 {
        match &self.backend {
            Backend::Builtin(_) => 0,
            Backend::Plugin(pjrt) => pjrt.first_runs(),
        }
    }

    /// The counters of the program cache. The built-in backend compiles nothing, so its counters are 0.
    pub fn stats(&self) -> CacheStats {
        match &self.backend {
            Backend::Builtin(_) => CacheStats::default(),
            Backend::Plugin(pjrt) => pjrt.stats(),
        }
    }

    /// The counters of the directory of compiled programs; all 0 without a directory.
    pub fn program_dir_stats(&self) -> ProgramDirStats {
        match &self.backend {
            Backend::Builtin(_) => ProgramDirStats::default(),
            Backend::Plugin(pjrt) => pjrt.program_dir_stats(),
        }
    }
}

/// Fails if the logits are on a device. The built-in backend has no device.
fn check_host(calls: &CallShape) -> Result<(), Error> {
    match calls.logits {
        LogitsPlace::Host => Ok(()),
        LogitsPlace::Device { .. } => Err(has_no_device()),
    }
}

/// The error of a function that needs a device, on a sampler that has none.
fn has_no_device() -> Error {
    Error::named_argument(
        "sampler",
        "the sampler uses the built-in backend, which has no device; create it with a plugin",
    )
}
