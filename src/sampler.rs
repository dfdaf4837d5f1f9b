//! The sampler behind a handle: which backend it uses, and which path each row of a batch takes.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::backend::builtin::BuiltinBackend;
use crate::backend::pjrt::program_cache::CacheStats;
use crate::backend::pjrt::PjrtBackend;
use crate::backend::DeviceInfo;
use crate::batch::Batch;
use crate::environment::{self, PLUGIN_VARIABLE, PROGRAM_DIR_VARIABLE};
use crate::error::Error;
use crate::outputs::Outputs;
use crate::pjrt;
use crate::plan::{check_entry, check_max_k, CallShape, Entry, DEFAULT_MAX_K};
use crate::reference;

/// Programs that a sampler keeps unless the options say otherwise.
pub const DEFAULT_CACHE_CAPACITY: usize = 64;

/// Which backend a sampler uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// PJRT if a plugin is named by the options or the environment, else built in.
    #[default]
    Auto,
    /// The CPU code in this library.
    Builtin,
    /// A PJRT plugin; an error if none is named.
    Pjrt,
}

/// How to make a sampler.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// Which backend.
    pub backend: BackendChoice,
    /// The plugin's shared library; [`PLUGIN_VARIABLE`] where `None`.
    pub plugin: Option<PathBuf>,
    /// Passed to the plugin's client as they are.
    pub client_options: Vec<(String, pjrt::OptionValue)>,
    /// Index among the client's addressable devices.
    pub device: usize,
    /// Slots of the bounded path.
    pub max_k: usize,
    /// Compiled programs kept.
    pub cache_capacity: usize,
    /// Threads of the built-in backend; 0 for one a core.
    pub num_threads: usize,
    /// Where compiled programs lie; [`PROGRAM_DIR_VARIABLE`] where `None`.
    pub program_dir: Option<PathBuf>,
    /// Whether programs that had to be compiled are written there too.
    pub write_programs: bool,
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
        }
    }
}

enum Backend {
    Builtin(BuiltinBackend),
    Pjrt(Box<PjrtBackend>),
}

/// A sampler. Every method may be called from many threads at once.
pub struct Sampler {
    backend: Backend,
    max_k: usize,
}

impl Sampler {
    /// Loads the plugin, if one is to be used, and makes its client.
    pub fn new(options: &SamplerOptions) -> Result<Sampler, Error> {
        check_max_k(options.max_k)?;
        let capacity = NonZeroUsize::new(options.cache_capacity)
            .ok_or_else(|| Error::argument("cache_capacity is 0; it must be at least 1"))?;
        let plugin = options.plugin.clone().or_else(|| environment::path(PLUGIN_VARIABLE));
        let backend = match (options.backend, plugin) {
            (BackendChoice::Builtin, _) | (BackendChoice::Auto, None) => {
                if options.device != 0 {
                    return Err(Error::argument(format!(
                        "device_index is {}; the built-in backend has one device, 0",
                        options.device
                    )));
                }
                Backend::Builtin(BuiltinBackend::new(options.num_threads))
            }
            (BackendChoice::Pjrt, None) => {
                return Err(Error::PluginNotFound(format!(
                "no PJRT plugin is named: set plugin_path, or the environment variable {PLUGIN_VARIABLE}, \
                     to the path of a plugin's shared library"
            )))
            }
            (_, Some(path)) => {
                let program_dir =
                    options.program_dir.clone().or_else(|| environment::path(PROGRAM_DIR_VARIABLE));
                let (client_options, device) = (&options.client_options, options.device);
                let mut pjrt = PjrtBackend::new(&path, client_options, device, capacity)?;
                match program_dir {
                    Some(folder) => pjrt.use_programs_in(&folder, options.write_programs)?,
                    None if options.write_programs => {
                        return Err(Error::argument(format!(
                        "write_programs is set, and no folder is named: set program_dir, or the environment \
                             variable {PROGRAM_DIR_VARIABLE}"
                    )))
                    }
                    None => {}
                }
                Backend::Pjrt(Box::new(pjrt))
            }
        };
        Ok(Sampler { backend, max_k: options.max_k })
    }

    /// Slots of the bounded path.
    pub fn max_k(&self) -> usize {
        self.max_k
    }

    /// Samples a batch. On an error no output has been written.
    pub fn sample(&self, entry: Entry, batch: &Batch<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        check_entry(entry, self.max_k, batch, outputs.wide.wants_slices())?;
        if batch.is_empty() {
            return Ok(());
        }
        match (&self.backend, entry) {
            (_, Entry::Reference) => reference::sample_batch(batch, outputs),
            (Backend::Builtin(cpu), _) => return cpu.sample(batch, outputs),
            (Backend::Pjrt(pjrt), _) => return pjrt.sample(entry, self.max_k, batch, outputs),
        }
        Ok(())
    }

    /// Compiles every program that calls of this shape, with up to `batch` rows, can need.
    pub fn prewarm(&self, calls: &CallShape) -> Result<(), Error> {
        match &self.backend {
            Backend::Builtin(_) => Ok(()),
            Backend::Pjrt(pjrt) => pjrt.prewarm(calls, self.max_k),
        }
    }

    /// Counters of the program cache; all zero on the built-in backend, which compiles nothing.
    pub fn stats(&self) -> CacheStats {
        match &self.backend {
            Backend::Builtin(_) => CacheStats::default(),
            Backend::Pjrt(pjrt) => pjrt.stats(),
        }
    }

    /// The platform's name and version, and the PJRT C API version of the plugin (0, 0 where built in).
    pub fn platform(&self) -> (String, String, (i32, i32)) {
        match &self.backend {
            Backend::Builtin(cpu) => ("builtin".to_owned(), cpu.description(), (0, 0)),
            Backend::Pjrt(pjrt) => pjrt.platform(),
        }
    }

    /// The devices that could be chosen; the built-in backend has one.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        match &self.backend {
            Backend::Builtin(cpu) => {
                vec![DeviceInfo { id: 0, kind: "cpu".to_owned(), description: cpu.description() }]
            }
            Backend::Pjrt(pjrt) => pjrt.devices(),
        }
    }
}
