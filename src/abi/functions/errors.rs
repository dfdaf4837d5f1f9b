//! Names of statuses.

use libc::c_char;

use crate::abi::status_names::status_name;
use crate::abi::types::nuc_status;

/// Returns the name of a status, for example "NUC_INVALID_ARGUMENT", or "unknown status" if `status` is not a
/// nuc_status. The string is NUL-terminated and valid until the process ends. Any thread may call this function.
#[no_mangle]
pub extern "C" fn nuc_status_string(status: nuc_status) -> *const c_char {
    status_name(status).as_ptr()
}
