//! The plugins that this process has loaded. Each library is initialised once, even if several threads load it by
//! several paths.

use std::collections::hash_map::{Entry, HashMap};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use pjrt_sys::PJRT_Api;

use super::error::{Error, Result};
use super::plugin::Plugin;
use super::release::log_release_failures;
use super::text::Shown;

/// All plugins of this process. The lock protects only the maps. No thread loads, initialises or waits for a plugin
/// while it holds the lock, and no thread logs then.
static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Loaded {
    /// Plugins by canonical path.
    by_path: HashMap<PathBuf, Arc<Plugin>>,
    /// Plugins by the address of their table, which identifies a library. A path does not identify a library. The
    /// loader returns the library that is already loaded for a hard link to a loaded file, and for a file that replaced
    /// a loaded file.
    by_table: HashMap<usize, State>,
}

/// The state of a library.
enum State {
    /// One thread is initialising it.
    Initialising(Arc<Attempt>),
    /// It is ready for use.
    Ready(Arc<Plugin>),
}

fn lock() -> MutexGuard<'static, Loaded> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An initialisation in progress. Other threads can wait for it.
struct Attempt {
    thread: ThreadId,
    process: u32,
    outcome: Mutex<Option<Result<Arc<Plugin>>>>,
    ended: Condvar,
}

impl Attempt {
    fn new() -> Attempt {
        let (thread, process) = (thread::current().id(), std::process::id());
        Attempt { thread, process, outcome: Mutex::new(None), ended: Condvar::new() }
    }

    /// Waits for the thread that initialises the plugin, and returns the outcome.
    fn wait(&self, path: &Path) -> Result<Arc<Plugin>> {
        check_process(self.process, path)?;
        if self.thread == thread::current().id() {
            return Err(Error::Misbehaved(format!(
                "the plugin {} tried to load itself again while it was being initialized",
                Shown(path)
            )));
        }
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.ended.wait_while(outcome, |outcome| outcome.is_none());
        let outcome = outcome.unwrap_or_else(PoisonError::into_inner);
        outcome.clone().unwrap_or_else(|| Err(abandoned(path)))
    }
}

/// Ensures that an attempt ends. If a panic unwinds through the initialisation, dropping this value ends the attempt
/// with an error, so that no thread waits forever.
struct Duty {
    attempt: Arc<Attempt>,
    table: usize,
    path: PathBuf,
}

impl Duty {
    /// Ends the attempt. A failure is not cached: the next load tries again.
    fn end(&self, outcome: Result<Arc<Plugin>>) {
        let mut loaded = lock();
        match &outcome {
            Ok(plugin) => loaded.by_table.insert(self.table, State::Ready(plugin.clone())),
            Err(_) => loaded.by_table.remove(&self.table),
        };
        drop(loaded);
        *self.attempt.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.attempt.ended.notify_all();
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.attempt.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.end(Err(abandoned(&self.path)));
        }
    }
}

fn abandoned(path: &Path) -> Error {
    Error::Misbehaved(format!("the initialisation of the plugin {} did not end", Shown(path)))
}

/// Returns an error for a plugin that another process loaded. After fork the plugin's threads exist only in the parent,
/// and calls in the child could wait for them forever.
fn check_process(loader: u32, path: &Path) -> Result<()> {
    let here = std::process::id();
    if loader == here {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "process {loader} loaded the plugin {}, and plugins do not survive fork: start this process ({here}) with exec",
        Shown(path)
    )))
}

/// What a thread that loads a library must do.
enum Turn {
    Use(Arc<Plugin>),
    Wait(Arc<Attempt>),
    Initialise(Arc<Attempt>),
}

fn turn(table: usize) -> Turn {
    match lock().by_table.entry(table) {
        Entry::Occupied(entry) => match entry.get() {
            State::Ready(plugin) => Turn::Use(plugin.clone()),
            State::Initialising(attempt) => Turn::Wait(attempt.clone()),
        },
        Entry::Vacant(entry) => {
            let attempt = Arc::new(Attempt::new());
            entry.insert(State::Initialising(attempt.clone()));
            Turn::Initialise(attempt)
        }
    }
}

/// Registers `plugin` after `initialize` succeeded, or returns the registered plugin of the same library. Threads
/// that load one library at the same time share one initialisation and its outcome. Also returns whether this call
/// initialised the plugin.
fn register(plugin: Plugin, initialize: impl FnOnce(&Plugin) -> Result<()>) -> Result<(Arc<Plugin>, bool)> {
    let table = plugin.as_raw().addr();
    let known = match turn(table) {
        Turn::Use(known) => {
            check_process(known.process(), known.path())?;
            known
        }
        Turn::Wait(attempt) => attempt.wait(plugin.path())?,
        Turn::Initialise(attempt) => {
            let duty = Duty { attempt, table, path: plugin.path().to_owned() };
            let outcome = initialize(&plugin).map(|()| Arc::new(plugin));
            duty.end(outcome.clone());
            return Ok((outcome?, true));
        }
    };
    Ok((known, false))
}

impl Plugin {
    /// Loads the plugin at `path`, checks its version and initialises it. If the plugin is already loaded, returns the
    /// existing value. Thread-safe: threads that load one plugin at the same time share one initialisation, and threads
    /// that load other plugins do not wait. A failure is not cached: a later call tries again. This function logs, but
    /// holds no lock while it logs.
    pub fn load(path: &Path) -> Result<Arc<Plugin>> {
        let start = Instant::now();
        let not_found =
            |error: std::io::Error| Error::NotFound { path: path.to_owned(), reason: error.to_string() };
        let canonical = path.canonicalize().map_err(not_found)?;
        let known = lock().by_path.get(&canonical).cloned();
        if let Some(plugin) = known {
            check_process(plugin.process(), plugin.path())?;
            return Ok(plugin);
        }
        let (plugin, initialised_now) = register(Self::open(&canonical)?, Self::initialize)?;
        lock().by_path.insert(canonical, plugin.clone());
        log_release_failures();
        if initialised_now {
            let (path, version) = (Shown(plugin.path()), plugin.version());
            log::debug!("loaded the PJRT plugin {path} (API {version}) in {:?}", start.elapsed());
        }
        Ok(plugin)
    }

    /// Wraps the table of a plugin that the caller loaded and initialised, for example because the caller owns a
    /// client of it. The plugin is registered: loading the same library later, or borrowing it again, returns the
    /// same value. If this library loaded the plugin, returns the existing value.
    ///
    /// # Safety
    /// `api` must be null or the table of an initialised plugin that stays loaded until the process ends.
    pub unsafe fn borrow(api: *const PJRT_Api) -> Result<Arc<Plugin>> {
        let table = NonNull::new(api.cast_mut())
            .ok_or_else(|| Error::Argument("the caller's PJRT API table is null".into()))?;
        // SAFETY: the caller guarantees this.
        let plugin = unsafe { Self::of_caller(table)? };
        // The caller has already initialised the plugin.
        Ok(register(plugin, |_| Ok(()))?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_of_another_process_is_refused() {
        let path = Path::new("/opt/plugin.so");
        check_process(std::process::id(), path).unwrap();
        let error = check_process(std::process::id() + 1, path).unwrap_err();
        assert!(
            matches!(&error, Error::Argument(text) if text.contains("/opt/plugin.so") && text.contains("fork"))
        );
        let elsewhere = Attempt { process: std::process::id() + 1, ..Attempt::new() };
        assert_eq!(elsewhere.wait(path).unwrap_err(), error);
    }
}
