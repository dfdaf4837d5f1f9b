//! What a plugin says of a device, whether a client has it or a topology only describes it.

use pjrt_sys::*;

use super::args::Args;
use super::error::Result;
use super::handle::Handle;
use super::named_values::{read_named_values, OptionValue};
use super::plugin::{function, Plugin};
use super::plugin_data::string;

/// A description of a device that this machine need not have.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceDescription {
    /// The global id, which [`CompileOptions`](super::CompileOptions) takes.
    pub id: i32,
    /// What the plugin calls this kind of device.
    pub kind: String,
    /// The plugin's description for humans.
    pub debug_string: String,
    /// The plugin's own facts, by name. Empty if it has none.
    pub attributes: Vec<(String, OptionValue)>,
}

impl DeviceDescription {
    /// Cores that act as this one device, where the plugin says so, as libtpu does.
    pub fn num_cores(&self) -> Option<usize> {
        match self.attributes.iter().find(|(name, _)| name == "num_cores") {
            Some((_, OptionValue::I64(cores))) => usize::try_from(*cores).ok(),
            _ => None,
        }
    }

    /// Where the device lies among its topology's, where the plugin says so, as libtpu does.
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
        let mut attributes = Args::<PJRT_DeviceDescription_Attributes_Args>::new();
        attributes.device_description = handle.as_ptr();
        // SAFETY: the description is alive by the caller's promise, and with it the strings and values that are copied.
        unsafe {
            plugin.call(function!(plugin, PJRT_DeviceDescription_Id)?, &mut id)?;
            plugin.call(function!(plugin, PJRT_DeviceDescription_Kind)?, &mut kind)?;
            plugin.call(function!(plugin, PJRT_DeviceDescription_DebugString)?, &mut debug)?;
            let told = function!(plugin, PJRT_DeviceDescription_Attributes)
                .and_then(|function| plugin.call(function, &mut attributes));
            let attributes = match told {
                Err(error) if error.is_unimplemented() => Vec::new(),
                other => {
                    other?;
                    read_named_values(attributes.attributes, attributes.num_attributes)?
                }
            };
            Ok(Self {
                id: id.id,
                kind: string(kind.device_kind, kind.device_kind_size),
                debug_string: string(debug.debug_string, debug.debug_string_size),
                attributes,
            })
        }
    }
}
