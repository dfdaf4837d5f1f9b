//! The errors of the PJRT layer. Each message says what went wrong and what the user can do.

use std::fmt;
use std::path::PathBuf;

use super::text::Shown;
use super::tpu::ahead_environment;
use super::version::{ApiVersion, MIN_API_MINOR};

/// The result of a call of this layer.
pub type Result<T> = std::result::Result<T, Error>;

/// The status code of an error that a plugin reported. The codes are those of `absl::Status`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Code {
    /// The operation was cancelled.
    Cancelled,
    /// The plugin has no more specific code.
    Unknown,
    /// The plugin rejects an argument.
    InvalidArgument,
    /// The operation took too long.
    DeadlineExceeded,
    /// A named object does not exist.
    NotFound,
    /// The object to create already exists.
    AlreadyExists,
    /// The caller lacks a permission.
    PermissionDenied,
    /// Out of memory, most often the device's.
    ResourceExhausted,
    /// The system is not in the state that the operation needs.
    FailedPrecondition,
    /// The operation was aborted, for example because another process uses the device.
    Aborted,
    /// A position is past the end.
    OutOfRange,
    /// The plugin does not offer the operation.
    Unimplemented,
    /// A defect inside the plugin.
    Internal,
    /// A device or service cannot be reached now.
    Unavailable,
    /// Data was lost.
    DataLoss,
    /// The caller is not authenticated.
    Unauthenticated,
    /// A code that this library does not know.
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
    /// The path does not lead to a readable regular file.
    NotFound,
    /// The file is not a PJRT plugin that this process can load.
    NotAPlugin,
    /// The plugin implements an API version that this library does not support, or lacks a function.
    ApiVersion,
    /// The plugin loaded but failed to initialise.
    Init,
    /// The plugin loaded but offers no device.
    NoDevice,
    /// The host or the device is out of memory. The same call may succeed later.
    OutOfMemory,
    /// A call into the plugin failed.
    Pjrt {
        /// The plugin's status code.
        code: Code,
    },
    /// An argument is wrong; the plugin was not called.
    Argument,
    /// The plugin violated the API.
    Misbehaved,
}

/// An error of the PJRT layer. Its `Display` text quotes the message of the plugin or the loader.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path does not lead to a readable regular file.
    #[error("no PJRT plugin at {}: {reason}; give the path of the plugin's shared library", Shown(path))]
    NotFound {
        /// The path that the caller gave.
        path: PathBuf,
        /// Why the file cannot be used.
        reason: String,
    },
    /// The build of a plugin cannot be identified.
    #[error("the build of the PJRT plugin {} cannot be identified: {reason}; compiled programs are stored per build, \
         so use this plugin without program_dir", Shown(path))]
    UnknownBuild {
        /// The path of the plugin's library, if it is known.
        path: PathBuf,
        /// Why the build is unknown.
        reason: String,
    },
    /// The file is not a shared library that this process can load.
    #[error(
        "cannot load {} as a shared library: {message}; it must be a PJRT plugin that was built for this \
         system, and the libraries that it needs must be installed",
        Shown(path)
    )]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// The defect of the file, or the message of the dynamic loader.
        message: String,
    },
    /// This program was linked with `-static`, so it cannot load a shared library.
    #[error(
        "the plugin {} cannot be loaded, because this program was linked with -static; link the program without \
         -static (it can still contain libnucleus.a), or use the built-in backend",
        Shown(path)
    )]
    StaticProgram {
        /// The file.
        path: PathBuf,
    },
    /// The file is a shared library but not a PJRT plugin.
    #[error(
        "{} is not a PJRT plugin: {reason}; give the path of a library that exports GetPjrtApi",
        Shown(path)
    )]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The plugin is older than the API version that this library needs.
    #[error(
        "the plugin {} implements PJRT API {version}, and this library needs 0.{MIN_API_MINOR} or newer: \
         install a newer release of the plugin",
        Shown(path)
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// The version that the plugin reports.
        version: ApiVersion,
    },
    /// The plugin's API has another major version, whose structs may have another layout.
    #[error(
        "the plugin {} implements PJRT API {version}, and this library supports only major version 0: \
         install an older release of the plugin or a newer release of this library",
        Shown(path)
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version that the plugin reports.
        version: ApiVersion,
    },
    /// The plugin's table lacks a function that is needed.
    #[error(
        "the plugin {} (PJRT API {version}) does not offer {function}: install a newer release of the plugin",
        Shown(path)
    )]
    MissingFunction {
        /// The file.
        path: PathBuf,
        /// The version that the plugin reports.
        version: ApiVersion,
        /// The function's name in the C API.
        function: &'static str,
    },
    /// `PJRT_Plugin_Initialize` failed.
    #[error("the plugin {} failed to initialise: {message} ({code}){}", Shown(path), init_hint(message))]
    Init {
        /// The file.
        path: PathBuf,
        /// The plugin's code.
        code: Code,
        /// The plugin's message.
        message: String,
    },
    /// The client offers no device to this process.
    #[error("the plugin {} offers no device to this process", Shown(path))]
    NoDevices {
        /// The file.
        path: PathBuf,
    },
    /// libtpu was not initialised, because it would search for minutes before it reports that there is no TPU.
    #[error(
        "this host has no TPU, so the plugin {} was not initialised: without a TPU it queries a \
         metadata server for minutes. To compile ahead of time for a topology on this host, set {} in the \
         environment before the process starts. To sample on this host, use the built-in backend or another plugin",
        Shown(path),
        ahead_environment()
    )]
    TpuEnvironment {
        /// The file.
        path: PathBuf,
    },
    /// libtpu was initialised and found no usable TPU.
    #[error(
        "the TPU plugin started no TPU: {message} ({code}). Without a TPU, this library can compile ahead of \
         time for a topology (nuc_compile_ahead, `nucleus compile`) and sample with the built-in backend or \
         another plugin. Plugin: {}",
        Shown(path)
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
        /// The function of the C API that reported the error.
        function: &'static str,
        /// The plugin's code.
        code: Code,
        /// The plugin's message.
        message: String,
    },
    /// This host has no memory for a copy of a plugin's data.
    #[error("out of memory: {bytes} bytes for {purpose} could not be allocated")]
    OutOfMemory {
        /// The size of the allocation that failed.
        bytes: usize,
        /// The purpose of the allocation.
        purpose: &'static str,
    },
    /// The caller's argument is wrong; the plugin was not called.
    #[error("{0}")]
    Argument(String),
    /// The plugin violated the API.
    #[error("the plugin violated the PJRT API: {0}")]
    Misbehaved(String),
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfMemory { .. }
            | Self::Init { code: Code::ResourceExhausted, .. }
            | Self::NoTpu { code: Code::ResourceExhausted, .. }
            | Self::Pjrt { code: Code::ResourceExhausted, .. } => ErrorKind::OutOfMemory,
            Self::NotFound { .. } | Self::UnknownBuild { .. } => ErrorKind::NotFound,
            Self::NotLoadable { .. } | Self::StaticProgram { .. } | Self::NotAPlugin { .. } => {
                ErrorKind::NotAPlugin
            }
            Self::TooOld { .. } | Self::TooNew { .. } | Self::MissingFunction { .. } => ErrorKind::ApiVersion,
            Self::Init { .. } => ErrorKind::Init,
            Self::NoDevices { .. } | Self::TpuEnvironment { .. } | Self::NoTpu { .. } => ErrorKind::NoDevice,
            Self::Pjrt { code, .. } => ErrorKind::Pjrt { code: *code },
            Self::Argument(_) => ErrorKind::Argument,
            Self::Misbehaved(_) => ErrorKind::Misbehaved,
        }
    }

    /// Whether the plugin does not offer the operation, so that the caller can try an alternative.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::MissingFunction { .. } | Self::Pjrt { code: Code::Unimplemented, .. })
    }
}

/// libtpu takes a lock in the temporary directory and rejects a second process. Its message does not say that
/// compiling ahead of time, which uses no chip, is safe while another process runs.
fn init_hint(message: &str) -> &'static str {
    if message.to_ascii_lowercase().contains("lockfile") {
        "; another process holds the plugin's lock: end that process, or, to compile ahead of time only, \
         set ALLOW_MULTIPLE_LIBTPU_LOAD=1 in the environment"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(code: Code, message: &str) -> Error {
        Error::Init { path: "/opt/libtpu.so".into(), code, message: message.into() }
    }

    #[test]
    fn a_lockfile_error_names_the_way_out() {
        let locked = init(Code::Aborted, "Internal error when accessing libtpu multi-process lockfile.");
        let text = locked.to_string();
        assert!(text.contains("multi-process lockfile"), "{text}");
        assert!(text.contains("ALLOW_MULTIPLE_LIBTPU_LOAD=1"), "{text}");
        assert!(text.contains("Aborted"), "{text}");
        assert!(!init(Code::Aborted, "no device").to_string().contains("ALLOW_MULTIPLE"));
    }

    #[test]
    fn exhausted_resources_are_out_of_memory_wherever_they_are_reported() {
        let code = Code::ResourceExhausted;
        let message = || "no memory left".to_owned();
        for error in [
            init(code, "no memory left"),
            Error::NoTpu { path: PathBuf::new(), code, message: message() },
            Error::Pjrt { function: "PJRT_Client_Compile", code, message: message() },
            Error::OutOfMemory { bytes: 8, purpose: "a test" },
        ] {
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        }
        assert_eq!(init(Code::Aborted, "").kind(), ErrorKind::Init);
    }
}
