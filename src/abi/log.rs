//! What the library logs, on its way to a C host: to the function that the host gives, or to standard error.

use std::ffi::{c_void, CString};
use std::io::Write as _;
use std::sync::{OnceLock, PoisonError, RwLock};

use log::LevelFilter;

use super::types::{nuc_log_function, nuc_log_level};
use crate::error::Error;

/// Names a level, for hosts that log before they have called anything, or that cannot be changed.
const VARIABLE: &str = "NUCLEUS_LOG";

const LEVELS: [(nuc_log_level, &str, LevelFilter); 5] = [
    (nuc_log_level::NUC_LOG_OFF, "off", LevelFilter::Off),
    (nuc_log_level::NUC_LOG_ERROR, "error", LevelFilter::Error),
    (nuc_log_level::NUC_LOG_WARNING, "warning", LevelFilter::Warn),
    (nuc_log_level::NUC_LOG_INFO, "info", LevelFilter::Info),
    (nuc_log_level::NUC_LOG_DEBUG, "debug", LevelFilter::Debug),
];

/// A host's function and what it wants to be called with; standard error where there is none.
#[derive(Clone, Copy)]
struct Sink {
    function: nuc_log_function,
    user: *mut c_void,
}

// SAFETY: the host promises, in `nuc_set_log`, that its function may be called with `user` from any thread.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

struct Logger {
    sink: RwLock<Sink>,
}

static LOGGER: Logger = Logger { sink: RwLock::new(Sink { function: None, user: std::ptr::null_mut() }) };

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let known = LEVELS.iter().find(|(_, _, filter)| *filter == record.level().to_level_filter());
        let Some((level, name, _)) = known.filter(|_| self.enabled(record.metadata())) else { return };
        // Not held during the call: the host's function may itself make calls that log.
        let sink = *self.sink.read().unwrap_or_else(PoisonError::into_inner);
        let Some(function) = sink.function else {
            // There is nowhere to say that standard error is closed.
            let _ = writeln!(std::io::stderr(), "nucleus: {name}: {}", record.args());
            return;
        };
        let Ok(message) = CString::new(record.args().to_string().replace('\0', " ")) else { return };
        // SAFETY: the host promises that the function may be called with `user` from any thread; the message is
        // terminated and outlives the call.
        unsafe { function(sink.user, *level as i32, message.as_ptr()) }
    }

    fn flush(&self) {}
}

/// See `nuc_set_log`.
pub(super) fn set(function: nuc_log_function, user: *mut c_void, level: i32) -> Result<(), Error> {
    let known = LEVELS.iter().find(|(known, ..)| *known as i32 == level);
    let Some((_, _, filter)) = known else {
        return Err(Error::argument(format!("level is {level}; pass one of nuc_log_level, 0 to 4")));
    };
    install()?;
    *LOGGER.sink.write().unwrap_or_else(PoisonError::into_inner) = Sink { function, user };
    log::set_max_level(*filter);
    Ok(())
}

/// Does what the environment asks for, once, unless the host has said what it wants.
pub(super) fn from_environment() -> Result<(), Error> {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else { return Ok(()) };
    let Some((_, _, filter)) = LEVELS.iter().find(|(_, known, _)| name == *known) else {
        let names = LEVELS.map(|(_, name, _)| name).join(", ");
        return Err(Error::argument(format!("{VARIABLE} is {name:?}; use one of {names}")));
    };
    if INSTALLED.get().is_none() && install().is_ok() {
        log::set_max_level(*filter);
    }
    Ok(())
}

/// Whether the process's messages come here: a host in Rust may have a logger of its own.
static INSTALLED: OnceLock<bool> = OnceLock::new();

fn install() -> Result<(), Error> {
    if *INSTALLED.get_or_init(|| log::set_logger(&LOGGER).is_ok()) {
        return Ok(());
    }
    Err(Error::argument(
        "log: this process has a logger for Rust's crate `log`, which gets the messages".to_owned(),
    ))
}
