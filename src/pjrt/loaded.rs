//! The plugins that this process has loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::sync::Lazy;
use pjrt_sys::PJRT_Api;

use super::error::{Error, Result};
use super::plugin::Plugin;

/// Plugins of this process by canonical path. The lock is held while one loads, so that each is initialised once.
static LOADED: Lazy<Mutex<HashMap<PathBuf, Arc<Plugin>>>> = Lazy::new(Default::default);

impl Plugin {
    /// Loads the plugin at `path`, checks its version and initialises it; a plugin that is loaded already is returned
    /// as it is. Thread-safe. Failures are not remembered: a later call tries again.
    pub fn load(path: &Path) -> Result<Arc<Plugin>> {
        let not_found = |reason: String| Error::NotFound { path: path.to_owned(), reason };
        let canonical = path.canonicalize().map_err(|error| not_found(error.to_string()))?;
        if canonical.is_dir() {
            return Err(not_found("it is a folder".into()));
        }

        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = loaded.get(&canonical) {
            return Ok(plugin.clone());
        }
        let start = std::time::Instant::now();
        let plugin = Self::open(&canonical)?;
        // A hard link to a loaded plugin is the same library to the loader; it must not be initialised twice.
        let plugin = match loaded.values().find(|other| other.as_raw() == plugin.as_raw()) {
            Some(other) => other.clone(),
            None => {
                plugin.initialize()?;
                Arc::new(plugin)
            }
        };
        log::debug!(
            "loaded PJRT plugin {} (API {}) in {:?}",
            canonical.display(),
            plugin.version(),
            start.elapsed()
        );
        loaded.insert(canonical, plugin.clone());
        Ok(plugin)
    }

    /// Wraps the table of a plugin that somebody else loaded and initialised, such as the caller who owns a client of it.
    /// A plugin that was loaded here is returned as it is.
    ///
    /// # Safety
    /// `api` must be null or the table of an initialised plugin that stays loaded until the process ends.
    pub unsafe fn borrow(api: *const PJRT_Api) -> Result<Arc<Plugin>> {
        let path = Path::new("of the caller");
        let table = NonNull::new(api.cast_mut())
            .ok_or_else(|| Error::Argument("the table of the caller's PJRT plugin is null".into()))?;
        let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded.values().find(|plugin| plugin.as_raw() == api) {
            Some(plugin) => Ok(plugin.clone()),
            // SAFETY: the caller's promise.
            None => Ok(Arc::new(unsafe { Self::from_table(table, path)? })),
        }
    }
}
