//! The strings that the getters return. The handle owns them.

use std::ffi::CString;

use crate::sampler::Sampler;

/// The strings of a sampler. They are created once, so that their addresses do not change.
pub(super) struct Strings {
    pub(super) platform_name: CString,
    pub(super) platform_version: CString,
    /// Major and minor version of the plugin's PJRT C API.
    pub(super) api: (i32, i32),
    pub(super) devices: Vec<Device>,
}

/// The description of one device.
pub(super) struct Device {
    pub(super) id: i32,
    pub(super) kind: CString,
    pub(super) description: CString,
}

impl Strings {
    pub(super) fn of(sampler: &Sampler) -> Strings {
        let (name, version, api) = sampler.platform();
        let devices = sampler.devices();
        Strings {
            platform_name: c_string(&name),
            platform_version: c_string(&version),
            api,
            devices: devices
                .iter()
                .map(|device| Device {
                    id: device.id,
                    kind: c_string(&device.kind),
                    description: c_string(&device.description),
                })
                .collect(),
        }
    }
}

/// The text up to its first NUL. No correct plugin returns a NUL.
fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}
