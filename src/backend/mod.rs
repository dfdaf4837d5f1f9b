//! The two backends: SIMD code on the processors of this host, and the device of a PJRT plugin.

pub mod builtin;
#[cfg(feature = "pjrt")]
pub mod pjrt;

/// A device that a sampler can use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The plugin's global id of the device.
    pub id: i32,
    /// The plugin's name for this kind of device.
    pub kind: String,
    /// The plugin's one-line description.
    pub description: String,
}
