//! The environment variables that configure the library.
//!
//! Their values name code that the process will run. A process with raised privileges (setuid, setgid, file
//! capabilities) therefore ignores them, like `secure_getenv(3)`.

use std::ffi::OsString;
use std::path::PathBuf;

/// Names the plugin if the options do not.
pub const PLUGIN_VARIABLE: &str = "NUCLEUS_PJRT_PLUGIN";

/// Names the directory of compiled programs if the options do not.
pub const PROGRAM_DIR_VARIABLE: &str = "NUCLEUS_PROGRAM_DIR";

/// If `1`, the library also uses directories and files of compiled programs that other users own or can write to.
pub const TRUST_PROGRAM_DIR_VARIABLE: &str = "NUCLEUS_TRUST_PROGRAM_DIR";

/// Sets the level of the log if `nuc_set_log` has not set it.
pub const LOG_VARIABLE: &str = "NUCLEUS_LOG";

/// The value of a variable; `None` if it is not set or empty, or if the process has raised privileges.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    if has_raised_privileges() {
        return None;
    }
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The path in a variable; `None` in the same cases as for [`variable`].
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from)
}

/// Whether the kernel started this process in secure-execution mode (`AT_SECURE` in getauxval(3)).
#[allow(unsafe_code)]
fn has_raised_privileges() -> bool {
    // SAFETY: getauxval only reads the auxiliary vector of the process, and returns 0 for a missing entry.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The effective user id of this process.
#[allow(unsafe_code)]
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid takes no arguments and always succeeds.
    unsafe { libc::geteuid() }
}
