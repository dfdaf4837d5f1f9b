//! The two backends: the host's own cores, and any device behind a PJRT plugin.

pub mod builtin;
pub mod pjrt;

/// One device that a sampler could use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The plugin's global id.
    pub id: i32,
    /// The plugin's name for this kind of device.
    pub kind: String,
    /// The plugin's one-line description.
    pub description: String,
}
