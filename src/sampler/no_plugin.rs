//! Takes the place of `plugin` in a build without the feature `pjrt`: only the built-in backend exists.

use std::sync::Arc;

use super::options::{BackendChoice, SamplerOptions};
use crate::backend::DeviceInfo;
use crate::batch::Batch;
use crate::error::Error;
use crate::latency::CallLatencies;
use crate::outputs::Outputs;
use crate::plan::Entry;

/// The backend of a sampler with a plugin. This build cannot create one.
pub(super) enum PluginBackend {}

/// Returns `None`, the built-in backend, or an error if the options name a plugin. Ignores the environment.
pub(super) fn create_backend(
    options: &SamplerOptions,
    _latencies: &Arc<CallLatencies>,
) -> Result<Option<PluginBackend>, Error> {
    match (options.backend, &options.plugin) {
        (BackendChoice::Builtin, _) | (BackendChoice::Auto, None) => Ok(None),
        _ => Err(Error::named_argument(
            "backend",
            "the options select a PJRT plugin, but the library was built without the feature `pjrt`; build it with \
             the feature, or select the built-in backend",
        )),
    }
}

impl PluginBackend {
    pub(super) fn sample(
        &self,
        _entry: Entry,
        _max_k: usize,
        _batch: &Batch<'_>,
        _outputs: &mut Outputs<'_>,
    ) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn platform(&self) -> (String, String, (i32, i32)) {
        match *self {}
    }

    pub(super) fn devices(&self) -> Vec<DeviceInfo> {
        match *self {}
    }
}
