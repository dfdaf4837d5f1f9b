//! Terminated strings that getters hand out, owned by the handle.

use std::ffi::CString;

use crate::sampler::Sampler;

/// Strings of a sampler, made once so that the pointers stay.
pub(super) struct Strings {
    pub(super) platform_name: CString,
    pub(super) platform_version: CString,
    pub(super) api: (i32, i32),
    /// id, kind, description
    pub(super) devices: Vec<(i32, CString, CString)>,
}

impl Strings {
    pub(super) fn of(sampler: &Sampler) -> Strings {
        let (name, version, api) = sampler.platform();
        let devices = sampler.devices();
        Strings {
            platform_name: terminated(&name),
            platform_version: terminated(&version),
            api,
            devices: devices
                .iter()
                .map(|d| (d.id, terminated(&d.kind), terminated(&d.description)))
                .collect(),
        }
    }
}

/// Up to the first zero byte, which no plugin has a reason to send.
fn terminated(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}
