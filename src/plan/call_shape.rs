//! The shape of calls: what a caller knows about them before their logits exist.

use super::entry::Entry;
use crate::dtype::Dtype;
use crate::outputs::Wanted;

/// The properties of calls that decide which programs they need.
#[derive(Clone, Copy, Debug)]
pub struct CallShape {
    /// The entry point.
    pub entry: Entry,
    /// The number of rows of a call. With logits on the device, the number of rows of their buffer.
    pub batch: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// The type of the logits.
    pub dtype: Dtype,
    /// [`crate::batch::CallOptions::stable`].
    pub stable: bool,
    /// The wide arrays that the calls request.
    pub wanted: Wanted,
    /// Where the logits are.
    pub logits: LogitsPlace,
}

/// Where the logits of calls are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogitsPlace {
    /// In the memory of the host.
    #[default]
    Host,
    /// In a buffer on the device.
    Device {
        /// Whether the buffer has a middle dimension of length 1.
        singleton: bool,
        /// Whether the calls report rows with impossible parameters. If false, these rows make a call fail.
        bad_rows: bool,
    },
}
