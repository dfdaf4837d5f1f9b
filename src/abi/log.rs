//! The log of the library: passes messages to the callback of `nuc_set_log` or to standard error.

use std::ffi::{c_void, CString};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError, RwLock};

use log::LevelFilter;

use super::pointers::{bad, Result};
use super::sigpipe::without_sigpipe;
use super::types::*;
use crate::environment::{self, LOG_VARIABLE};
use crate::panics::Silence;
use crate::text::escaped;

const LEVELS: [(nuc_log_level, &str, LevelFilter); 5] = [
    (NUC_LOG_OFF, "off", LevelFilter::Off),
    (NUC_LOG_ERROR, "error", LevelFilter::Error),
    (NUC_LOG_WARNING, "warning", LevelFilter::Warn),
    (NUC_LOG_INFO, "info", LevelFilter::Info),
    (NUC_LOG_DEBUG, "debug", LevelFilter::Debug),
];

/// The destination of messages: a callback and its argument, or standard error if there is no callback.
#[derive(Clone, Copy)]
struct Sink {
    function: nuc_log_function,
    user: *mut c_void,
}

impl Sink {
    const STANDARD_ERROR: Sink = Sink { function: None, user: std::ptr::null_mut() };
}

// SAFETY: the caller of `nuc_set_log` guarantees that any thread may call the function with `user`.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

struct Logger {
    sink: RwLock<Sink>,
}

static LOGGER: Logger = Logger { sink: RwLock::new(Sink::STANDARD_ERROR) };

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let known = LEVELS.iter().find(|(_, _, filter)| *filter == record.level().to_level_filter());
        let Some((level, name, _)) = known.filter(|_| self.enabled(record.metadata())) else { return };
        let text = record.args().to_string();
        let text = escaped(&text);
        // The sink is copied, so that no lock is held during the callback. The callback may make calls that log.
        let sink = *self.sink.read().unwrap_or_else(PoisonError::into_inner);
        let Some(function) = sink.function else {
            return print(&format!("nucleus: {name}: {text}\n"));
        };
        // `escaped` leaves no NUL in the text.
        let Ok(message) = CString::new(text.into_owned()) else { return };
        let _loud = Silence::interrupt();
        // SAFETY: the caller of `nuc_set_log` guarantees that any thread may call the function with `user`. The message
        // is NUL-terminated and outlives the call.
        unsafe { function(sink.user, *level, message.as_ptr()) }
    }

    fn flush(&self) {}
}

/// Writes to standard error. A failure cannot be reported anywhere.
fn print(line: &str) {
    let _ = without_sigpipe(|| std::io::stderr().write_all(line.as_bytes()));
}

/// The state of the log of this process.
struct Decisions {
    /// Whether this library's logger is installed in the process. `None` before the first attempt.
    installed: Option<bool>,
    /// Whether the level is set, by `nuc_set_log` or by the environment. The environment is read once.
    level: bool,
}

/// Locked while the sink and the level change, so that they change together. Nothing is logged while it is locked.
static DECISIONS: Mutex<Decisions> = Mutex::new(Decisions { installed: None, level: false });

impl Decisions {
    /// Installs this library's logger in the process, unless the process already has a logger.
    fn install(&mut self) -> bool {
        *self.installed.get_or_insert_with(|| log::set_logger(&LOGGER).is_ok())
    }
}

/// See `nuc_set_log`.
pub(super) fn set(function: nuc_log_function, user: *mut c_void, level: nuc_log_level) -> Result<()> {
    let known = LEVELS.iter().find(|(known, ..)| *known == level);
    let Some((_, _, filter)) = known else {
        return bad("level", format!("level is {level}; it must be a nuc_log_level, 0 to 4"));
    };
    let mut decisions = DECISIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if !decisions.install() {
        return bad(
            "log",
            "log cannot be set, because this program already has a logger of the Rust crate `log`: that logger \
             receives the messages",
        );
    }
    decisions.level = true;
    *LOGGER.sink.write().unwrap_or_else(PoisonError::into_inner) = Sink { function, user };
    log::set_max_level(*filter);
    Ok(())
}

/// Returns the names of the levels. These are the allowed values of the environment variable NUCLEUS_LOG.
pub(super) fn level_names() -> impl Iterator<Item = &'static str> {
    LEVELS.into_iter().map(|(_, name, _)| name)
}

/// Sets the level that the environment names, once, unless `nuc_set_log` has already set one. A value that is not a
/// level is reported on standard error and otherwise ignored, because a mistyped variable must not stop a server.
pub(super) fn read_environment() {
    let mut decisions = DECISIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::replace(&mut decisions.level, true) {
        return;
    }
    let Some(value) = environment::variable(LOG_VARIABLE) else { return };
    let known = LEVELS.iter().find(|(_, name, _)| value == *name);
    if let Some((_, _, filter)) = known {
        if decisions.install() {
            log::set_max_level(*filter);
        }
    }
    drop(decisions);
    if known.is_none() {
        let names = level_names().collect::<Vec<_>>().join(", ");
        print(&format!(
            "nucleus: warning: {LOG_VARIABLE} is {value:?} and is ignored; it must be one of {names}\n"
        ));
    }
}
