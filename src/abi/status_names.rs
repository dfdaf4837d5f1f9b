//! The names of statuses.

use std::ffi::CStr;

use super::types::*;

const NAMES: [(nuc_status, &CStr); 11] = [
    (NUC_OK, c"NUC_OK"),
    (NUC_INVALID_ARGUMENT, c"NUC_INVALID_ARGUMENT"),
    (NUC_PLUGIN_NOT_FOUND, c"NUC_PLUGIN_NOT_FOUND"),
    (NUC_PLUGIN_INVALID, c"NUC_PLUGIN_INVALID"),
    (NUC_PLUGIN_VERSION, c"NUC_PLUGIN_VERSION"),
    (NUC_DEVICE_ERROR, c"NUC_DEVICE_ERROR"),
    (NUC_INTERNAL, c"NUC_INTERNAL"),
    (NUC_OUT_OF_MEMORY, c"NUC_OUT_OF_MEMORY"),
    (NUC_IO_ERROR, c"NUC_IO_ERROR"),
    (NUC_TIMEOUT, c"NUC_TIMEOUT"),
    (NUC_CANCELLED, c"NUC_CANCELLED"),
];

pub(super) fn status_name(status: nuc_status) -> &'static CStr {
    let known = NAMES.iter().find(|(known, _)| *known == status);
    known.map_or(c"unknown status", |(_, name)| name)
}
