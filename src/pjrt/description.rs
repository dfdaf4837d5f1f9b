//! Descriptions of devices. A client describes devices that exist. A topology describes devices that need not exist.

use pjrt_sys::*;

use super::args::Args;
use super::error::{Error, Result};
use super::handle::Handle;
use super::named_values::{read_named_values, OptionValue};
use super::plugin::{function, Plugin};
use super::plugin_data::name;

/// A plugin's description of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceDescription {
    /// The global id, as in [`CompileOptions`](super::CompileOptions).
    pub id: i32,
    /// The plugin's name for this kind of device.
    pub kind: String,
    /// The plugin's description, for people to read.
    pub debug_string: String,
    /// Plugin-specific properties by name. Empty if there are none.
    pub attributes: Vec<(String, OptionValue)>,
}

impl DeviceDescription {
    /// The number of cores that form this device, if the plugin reports it. libtpu does.
    pub fn num_cores(&self) -> Option<usize> {
        match self.attributes.iter().find(|(name, _)| name == "num_cores") {
            Some((_, OptionValue::I64(cores))) => usize::try_from(*cores).ok(),
            _ => None,
        }
    }

    /// The position of the device in its topology, if the plugin reports it. libtpu does.
    pub fn coords(&self) -> Option<&[i64]> {
        match self.attributes.iter().find(|(name, _)| name == "coords") {
            Some((_, OptionValue::I64List(coords))) => Some(coords),
            _ => None,
        }
    }

    /// # Safety
    /// `handle` must be a description of `plugin` that is alive during the call.
    pub(super) unsafe fn read(plugin: &Plugin, handle: Handle<PJRT_DeviceDescription>) -> Result<Self> {
        let mut id = Args::<PJRT_DeviceDescription_Id_Args>::new();
        id.device_description = handle.as_ptr();
        let mut kind = Args::<PJRT_DeviceDescription_Kind_Args>::new();
        kind.device_description = handle.as_ptr();
        let mut debug = Args::<PJRT_DeviceDescription_DebugString_Args>::new();
        debug.device_description = handle.as_ptr();
        // SAFETY: the caller promises that the description is alive, and its strings live as long. They are copied.
        unsafe {
            plugin.call(function!(plugin, PJRT_DeviceDescription_Id)?, &mut id)?;
            // XLA's compilers end the process if a device assignment contains a negative id.
            if id.id < 0 {
                return Err(Error::Misbehaved(format!("PJRT_DeviceDescription_Id returned {}", id.id)));
            }
            plugin.call(function!(plugin, PJRT_DeviceDescription_Kind)?, &mut kind)?;
            plugin.call(function!(plugin, PJRT_DeviceDescription_DebugString)?, &mut debug)?;
            Ok(Self {
                id: id.id,
                kind: name(kind.device_kind, kind.device_kind_size, "PJRT_DeviceDescription_Kind")?,
                debug_string: name(
                    debug.debug_string,
                    debug.debug_string_size,
                    "PJRT_DeviceDescription_DebugString",
                )?,
                attributes: read_attributes(plugin, handle)?,
            })
        }
    }
}

/// # Safety
/// As for [`DeviceDescription::read`].
unsafe fn read_attributes(
    plugin: &Plugin,
    handle: Handle<PJRT_DeviceDescription>,
) -> Result<Vec<(String, OptionValue)>> {
    let mut args = Args::<PJRT_DeviceDescription_Attributes_Args>::new();
    args.device_description = handle.as_ptr();
    // SAFETY: the caller promises that the description is alive, and its attributes live as long. They are copied.
    unsafe {
        let outcome = function!(plugin, PJRT_DeviceDescription_Attributes)
            .and_then(|function| plugin.call(function, &mut args));
        match outcome {
            Err(error) if error.is_unimplemented() => return Ok(Vec::new()),
            other => other?,
        }
        read_named_values(args.attributes, args.num_attributes)
    }
}
