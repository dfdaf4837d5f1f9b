//! The sampler behind a handle: it owns a backend and runs calls on it.
//!
//! `plugin` creates the backend on a plugin. Without the feature `pjrt`, `no_plugin` takes its place, and the methods
//! in `device` do not exist.

#[cfg(feature = "pjrt")]
mod device;
#[cfg(not(feature = "pjrt"))]
mod no_plugin;
mod options;
#[cfg(feature = "pjrt")]
mod plugin;

use std::sync::Arc;
use std::time::Instant;

#[cfg(not(feature = "pjrt"))]
use self::no_plugin::{create_backend, PluginBackend};
use self::options::check_options;
#[cfg(feature = "pjrt")]
use self::plugin::{create_backend, PluginBackend};
use crate::backend::builtin::BuiltinBackend;
use crate::backend::DeviceInfo;
use crate::batch::Batch;
use crate::error::Error;
use crate::latency::{CallLatencies, LatencyStats};
use crate::outputs::Outputs;
use crate::plan::{check_entry, Entry};
use crate::reference;

pub use self::options::{BackendChoice, SamplerOptions, DEFAULT_CACHE_CAPACITY};

enum Backend {
    Builtin(BuiltinBackend),
    Plugin(PluginBackend),
}

/// A sampler. Any number of threads may call its methods at the same time.
pub struct Sampler {
    backend: Backend,
    max_k: usize,
    latencies: Arc<CallLatencies>,
}

impl Sampler {
    /// Creates a sampler. With a plugin this loads the plugin and creates a client.
    pub fn new(options: &SamplerOptions) -> Result<Sampler, Error> {
        check_options(options)?;
        let latencies = Arc::new(CallLatencies::new()?);
        let backend = match create_backend(options, &latencies)? {
            Some(plugin) => Backend::Plugin(plugin),
            None => builtin(options)?,
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
            (Backend::Plugin(plugin), _) => plugin.sample(entry, self.max_k, batch, outputs),
        }
    }

    /// Records the time of a call that runs on the host.
    fn timed(&self, call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begin = Instant::now();
        call()?;
        self.latencies.record_total(begin);
        Ok(())
    }

    /// The latencies of the calls that have succeeded. Calls of the built-in backend and of the reference run on the
    /// host and have only a total.
    pub fn latencies(&self) -> LatencyStats {
        self.latencies.stats()
    }

    /// The name and version of the platform, and the version of the plugin's PJRT C API. The built-in backend returns
    /// (0, 0) as this version.
    pub fn platform(&self) -> (String, String, (i32, i32)) {
        match &self.backend {
            Backend::Builtin(cpu) => ("builtin".to_owned(), cpu.description(), (0, 0)),
            Backend::Plugin(plugin) => plugin.platform(),
        }
    }

    /// The devices that [`SamplerOptions::device`] can select. The built-in backend has one.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        match &self.backend {
            Backend::Builtin(cpu) => {
                vec![DeviceInfo { id: 0, kind: "cpu".to_owned(), description: cpu.description() }]
            }
            Backend::Plugin(plugin) => plugin.devices(),
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
