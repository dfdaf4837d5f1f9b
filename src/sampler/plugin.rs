//! The backend of a sampler with a PJRT plugin: how it is created.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{BackendChoice, SamplerOptions};
use crate::backend::pjrt::{create_client, PjrtBackend};
use crate::environment::{self, PLUGIN_VARIABLE, PROGRAM_DIR_VARIABLE};
use crate::error::Error;
use crate::latency::CallLatencies;
use crate::pjrt::Client;
use crate::plan::Buckets;

/// The backend of a sampler with a plugin.
pub(super) type PluginBackend = Arc<PjrtBackend>;

/// The checked options of a backend that compiles programs.
struct ProgramOptions {
    cache_capacity: NonZeroUsize,
    buckets: Buckets,
}

/// Creates the backend on the plugin that the options or the environment name. `None` if they select the built-in
/// backend.
pub(super) fn create_backend(
    options: &SamplerOptions,
    latencies: &Arc<CallLatencies>,
) -> Result<Option<PluginBackend>, Error> {
    let checked = checked(options)?;
    let plugin = options.plugin.clone().or_else(|| environment::path(PLUGIN_VARIABLE));
    match (options.backend, plugin) {
        (BackendChoice::Builtin, _) | (BackendChoice::Auto, None) => Ok(None),
        (_, Some(plugin)) => with_plugin(options, &plugin, checked, latencies).map(Some),
        (BackendChoice::Pjrt, None) => Err(Error::PluginNotFound(format!(
            "no PJRT plugin is named; set plugin_path, or the environment variable {PLUGIN_VARIABLE}, to the path of \
             a plugin's shared library"
        ))),
    }
}

/// Creates the backend on a client of the caller.
pub(super) fn create_backend_on(
    client: Arc<Client>,
    options: &SamplerOptions,
    latencies: &Arc<CallLatencies>,
) -> Result<PluginBackend, Error> {
    with_programs(options, client, checked(options)?, latencies)
}

/// Checks the options of compiled programs. They are checked for every backend.
fn checked(options: &SamplerOptions) -> Result<ProgramOptions, Error> {
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
) -> Result<PluginBackend, Error> {
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
    client: Arc<Client>,
    ProgramOptions { cache_capacity, buckets }: ProgramOptions,
    latencies: &Arc<CallLatencies>,
) -> Result<PluginBackend, Error> {
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
    Ok(Arc::new(pjrt))
}
