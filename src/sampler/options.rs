//! The options of a sampler.

use std::path::PathBuf;

use crate::backend::builtin::MOST_THREADS;
use crate::error::Error;
#[cfg(feature = "pjrt")]
use crate::pjrt;
use crate::plan::{check_max_k, DEFAULT_MAX_K};

/// The default of [`SamplerOptions::cache_capacity`].
pub const DEFAULT_CACHE_CAPACITY: usize = 64;

/// The backend of a sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendChoice {
    /// PJRT if the options or the environment name a plugin; otherwise the built-in backend. Without the feature `pjrt`
    /// always the built-in backend.
    #[default]
    Auto,
    /// The SIMD code of this library, on the CPU.
    Builtin,
    /// A PJRT plugin. It is an error if none is named, or if the crate was built without the feature `pjrt`.
    Pjrt,
}

/// Options of a sampler.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// The backend.
    pub backend: BackendChoice,
    /// The plugin's shared library. `None`: the environment variable `NUCLEUS_PJRT_PLUGIN`.
    pub plugin: Option<PathBuf>,
    /// Options for the plugin's client. They are passed to the plugin unchanged.
    #[cfg(feature = "pjrt")]
    pub client_options: Vec<(String, pjrt::OptionValue)>,
    /// The index among the client's addressable devices.
    pub device: usize,
    /// The number of slots of the bounded path.
    pub max_k: usize,
    /// The largest number of compiled programs in memory.
    pub cache_capacity: usize,
    /// The number of threads of the built-in backend; 0 means one per core.
    pub num_threads: usize,
    /// The directory of compiled programs. `None`: the environment variable `NUCLEUS_PROGRAM_DIR`.
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
            #[cfg(feature = "pjrt")]
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

/// Checks the options that do not depend on the backend.
pub(super) fn check_options(options: &SamplerOptions) -> Result<(), Error> {
    let num_threads = options.num_threads;
    if num_threads > MOST_THREADS {
        return Err(Error::named_argument(
            "num_threads",
            format!(
                "num_threads is {num_threads}; it must be at most {MOST_THREADS}, or 0 for one thread per core"
            ),
        ));
    }
    check_max_k(options.max_k)
}
