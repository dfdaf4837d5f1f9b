//! What can go wrong between here and a plugin, in words that say what to do about it.

use std::fmt;
use std::path::PathBuf;

use super::tpu::ahead_environment;
use super::version::{ApiVersion, MIN_API_MINOR};

/// What every call of this module returns.
pub type Result<T> = std::result::Result<T, Error>;

/// The status code of an error that a plugin reported (the codes of `absl::Status`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Code {
    /// The operation was cancelled.
    Cancelled,
    /// Nothing more is known.
    Unknown,
    /// The plugin refuses what it was given.
    InvalidArgument,
    /// Time ran out.
    DeadlineExceeded,
    /// Something named does not exist.
    NotFound,
    /// Something to be created exists.
    AlreadyExists,
    /// Not allowed.
    PermissionDenied,
    /// Out of memory, most often the device's.
    ResourceExhausted,
    /// The system is not in a state for this.
    FailedPrecondition,
    /// Given up, for example because another process holds the device.
    Aborted,
    /// Past the end of something.
    OutOfRange,
    /// The plugin does not offer this.
    Unimplemented,
    /// A fault inside the plugin.
    Internal,
    /// A device or service cannot be reached now.
    Unavailable,
    /// Data was lost.
    DataLoss,
    /// Not authenticated.
    Unauthenticated,
    /// A code this library does not know.
    Other(u32),
}

impl Code {
    pub(super) fn from_raw(code: u32) -> Self {
        match code {
            1 => Self::Cancelled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "code {code}"),
            known => write!(f, "{known:?}"),
        }
    }
}

/// The classes of [`Error`], for callers that map them to status codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such plugin file.
    NotFound,
    /// The file is not a PJRT plugin that this process can load.
    NotAPlugin,
    /// The plugin speaks a version of the API that this library does not, or lacks a function.
    ApiVersion,
    /// The plugin loaded but would not initialise.
    Init,
    /// The plugin loaded but there is no device that it can start.
    NoDevice,
    /// A call into the plugin failed.
    Pjrt {
        /// The plugin's status code.
        code: Code,
    },
    /// An argument was wrong; the plugin was not called.
    Argument,
    /// The plugin broke the API's promises.
    Misbehaved,
}

/// An error of the PJRT layer. Its `Display` carries the plugin's or the loader's own message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path does not lead to a file.
    #[error("no PJRT plugin at {}: {reason}; give the path of the plugin's shared library", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
        /// Why it could not be followed.
        reason: String,
    },
    /// The dynamic loader refused the file.
    #[error(
        "cannot load {} as a shared library: {message}; \
         check that it is a PJRT plugin built for this system and that the libraries it needs are installed",
        path.display()
    )]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// The loader's message.
        message: String,
    },
    /// A shared library, but not one of PJRT's.
    #[error("{} is not a PJRT plugin: {reason}; give the path of a library that exports GetPjrtApi", path.display())]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The plugin predates what this library was written for.
    #[error(
        "the plugin {} speaks PJRT API {version}, too old for this library, which needs 0.{MIN_API_MINOR} or newer; \
         install a newer release of the plugin",
        path.display()
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// What the plugin reports.
        version: ApiVersion,
    },
    /// The plugin's API has another major version, whose structs may lie differently.
    #[error(
        "the plugin {} speaks PJRT API {version}, too new for this library, which knows major version 0 only; \
         install an older release of the plugin or a newer one of this library",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// What the plugin reports.
        version: ApiVersion,
    },
    /// A function that is needed is not in the plugin's table.
    #[error("the plugin {} (PJRT API {version}) does not offer {function}; install a newer release of it", path.display())]
    MissingFunction {
        /// The file.
        path: PathBuf,
        /// What the plugin reports.
        version: ApiVersion,
        /// The function's name in the C API.
        function: &'static str,
    },
    /// `PJRT_Plugin_Initialize` failed.
    #[error("the plugin {} failed to initialise: {message} ({code}){}", path.display(), init_hint(message))]
    Init {
        /// The file.
        path: PathBuf,
        /// The plugin's code.
        code: Code,
        /// The plugin's message.
        message: String,
    },
    /// libtpu was not started, for it would take minutes to find no TPU.
    #[error(
        "this host has no TPU, and {} was not started: it would ask a metadata server for minutes. Compiling ahead of \
         time for a topology works here with {} in the environment before the process starts; sampling works with the built-in backend \
         and with other plugins",
        path.display(),
        ahead_environment()
    )]
    TpuEnvironment {
        /// The file.
        path: PathBuf,
    },
    /// libtpu started, and found no TPU that it could use.
    #[error(
        "the TPU plugin loaded but started no TPU: {message} ({code}). Without one, compiling ahead of time for a topology \
         works (nuc_compile_ahead, `nucleus compile`), and sampling with the built-in backend and with other plugins. \
         Plugin: {}",
        path.display()
    )]
    NoTpu {
        /// The file.
        path: PathBuf,
        /// The plugin's code.
        code: Code,
        /// The plugin's message.
        message: String,
    },
    /// A call into the plugin failed.
    #[error("{function}: {message} ({code})")]
    Pjrt {
        /// The function of the C API that reported it.
        function: &'static str,
        /// The plugin's code.
        code: Code,
        /// The plugin's message.
        message: String,
    },
    /// The caller's argument is wrong; nothing was called.
    #[error("{0}")]
    Argument(String),
    /// The plugin broke the API's promises.
    #[error("the plugin broke the PJRT API: {0}")]
    Misbehaved(String),
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NotLoadable { .. } | Self::NotAPlugin { .. } => ErrorKind::NotAPlugin,
            Self::TooOld { .. } | Self::TooNew { .. } | Self::MissingFunction { .. } => ErrorKind::ApiVersion,
            Self::Init { .. } => ErrorKind::Init,
            Self::TpuEnvironment { .. } | Self::NoTpu { .. } => ErrorKind::NoDevice,
            Self::Pjrt { code, .. } => ErrorKind::Pjrt { code: *code },
            Self::Argument(_) => ErrorKind::Argument,
            Self::Misbehaved(_) => ErrorKind::Misbehaved,
        }
    }

    /// Whether the plugin said that it does not offer what was asked, so that another way may be tried.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::MissingFunction { .. } | Self::Pjrt { code: Code::Unimplemented, .. })
    }
}

/// libtpu takes a lock in the temporary folder and refuses a second process; its own message does not say that
/// compiling ahead of time, which touches no chip, is safe beside another process.
fn init_hint(message: &str) -> &'static str {
    if message.to_ascii_lowercase().contains("lockfile") {
        "; another process holds the plugin's lock: end it, or, to compile ahead of time only, \
         set ALLOW_MULTIPLE_LIBTPU_LOAD=1 in the environment"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lockfile_refusal_names_the_way_out() {
        let error = |message: &str| Error::Init {
            path: "/opt/libtpu.so".into(),
            code: Code::Aborted,
            message: message.into(),
        };
        let locked = error("Internal error when accessing libtpu multi-process lockfile.").to_string();
        assert!(locked.contains("multi-process lockfile"), "{locked}");
        assert!(locked.contains("ALLOW_MULTIPLE_LIBTPU_LOAD=1"), "{locked}");
        assert!(locked.contains("Aborted"), "{locked}");
        assert!(!error("no device").to_string().contains("ALLOW_MULTIPLE"));
    }
}
