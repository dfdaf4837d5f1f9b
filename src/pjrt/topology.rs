//! Compiling ahead of time, for devices that this machine need not have.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pjrt_sys::*;

use super::args::Args;
use super::client::Client;
use super::compile_options::CompileOptions;
use super::compiled_program::{program, CompiledProgram};
use super::description::DeviceDescription;
use super::error::{Error, Result};
use super::handle::Handle;
use super::named_values::{read_named_values, NamedValues, OptionValue};
use super::plugin::{function, Plugin};
use super::plugin_data::{slice, string};

/// A description of a system of devices to compile for. Thread-safe.
pub struct Topology {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_TopologyDescription>,
    /// The client that owns the description, if one does; otherwise it is destroyed with this value.
    owner: Option<Arc<Client>>,
}

impl Plugin {
    /// Describes a system by the plugin's name for it, such as `v5e:2x2` of libtpu. The devices need not exist.
    pub fn topology(self: &Arc<Self>, name: &str, options: &[(String, OptionValue)]) -> Result<Topology> {
        let values = NamedValues::new(options);
        let mut args = Args::<PJRT_TopologyDescription_Create_Args>::new();
        args.topology_name = name.as_ptr().cast();
        args.topology_name_size = name.len();
        args.create_options = values.as_ptr();
        args.num_options = values.len();
        // SAFETY: name and options outlive the call.
        unsafe { self.call(function!(self, PJRT_TopologyDescription_Create)?, &mut args)? };
        let handle = Handle::from_output(args.topology, "PJRT_TopologyDescription_Create")?;
        Ok(Topology { plugin: self.clone(), handle, owner: None })
    }

    /// Compiles for `topology` and returns the program as [`Client::deserialize`] takes it. `options` name devices of
    /// the topology ([`Topology::devices`]).
    pub fn compile_ahead(
        self: &Arc<Self>,
        topology: &Topology,
        mlir: &str,
        options: &CompileOptions,
    ) -> Result<Vec<u8>> {
        if !Arc::ptr_eq(self, &topology.plugin) {
            return Err(Error::Argument("the topology belongs to another plugin".into()));
        }
        let start = Instant::now();
        let options = options.encode()?;
        let mut program = program(mlir);
        let mut args = Args::<PJRT_Compile_Args>::new();
        args.topology = topology.handle.as_ptr();
        args.program = program.as_mut_ptr();
        args.compile_options = options.as_ptr().cast();
        args.compile_options_size = options.len();
        // SAFETY: the topology is alive; program and options outlive the call, which does not write to them. What
        // comes back is ours to destroy.
        let executable = unsafe {
            self.call(function!(self, PJRT_Compile)?, &mut args)?;
            CompiledProgram::from_output(self, args.executable, "PJRT_Compile")?
        };
        log::debug!("compiled {} bytes of MLIR ahead of time in {:?}", mlir.len(), start.elapsed());
        executable.serialize()
    }
}

impl Client {
    /// The system that this client runs on.
    pub fn topology(self: &Arc<Self>) -> Result<Topology> {
        let plugin = self.plugin();
        let mut args = Args::<PJRT_Client_TopologyDescription_Args>::new();
        args.client = self.as_raw();
        // SAFETY: the client is alive, and the value returned keeps it so as long as it uses the description.
        unsafe { plugin.call(function!(plugin, PJRT_Client_TopologyDescription)?, &mut args)? };
        let handle = Handle::from_output(args.topology, "PJRT_Client_TopologyDescription")?;
        Ok(Topology { plugin: plugin.clone(), handle, owner: Some(self.clone()) })
    }
}

impl Topology {
    /// The platform, such as `tpu`.
    pub fn platform_name(&self) -> Result<String> {
        let mut args = Args::<PJRT_TopologyDescription_PlatformName_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the description is alive, and with it the string that is copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_TopologyDescription_PlatformName)?, &mut args)?;
            Ok(string(args.platform_name, args.platform_name_size))
        }
    }

    /// The platform's version, in the plugin's own words.
    pub fn platform_version(&self) -> Result<String> {
        let mut args = Args::<PJRT_TopologyDescription_PlatformVersion_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the description is alive, and with it the string that is copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_TopologyDescription_PlatformVersion)?, &mut args)?;
            Ok(string(args.platform_version, args.platform_version_size))
        }
    }

    /// Its devices.
    pub fn devices(&self) -> Result<Vec<DeviceDescription>> {
        let name = "PJRT_TopologyDescription_GetDeviceDescriptions";
        let mut args = Args::<PJRT_TopologyDescription_GetDeviceDescriptions_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the topology is alive, and with it the list and the descriptions in it.
        unsafe {
            self.plugin
                .call(function!(self.plugin, PJRT_TopologyDescription_GetDeviceDescriptions)?, &mut args)?;
            slice(args.descriptions, args.num_descriptions)
                .iter()
                .map(|&device| DeviceDescription::read(&self.plugin, Handle::from_output(device, name)?))
                .collect()
        }
    }

    /// The plugin's own facts about the system, by name. Empty if it has none.
    pub fn attributes(&self) -> Result<Vec<(String, OptionValue)>> {
        let mut args = Args::<PJRT_TopologyDescription_Attributes_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the topology is alive, and with it the values that are copied.
        unsafe {
            let told = function!(self.plugin, PJRT_TopologyDescription_Attributes)
                .and_then(|function| self.plugin.call(function, &mut args));
            match told {
                Err(error) if error.is_unimplemented() => Ok(Vec::new()),
                other => {
                    other?;
                    read_named_values(args.attributes, args.num_attributes)
                }
            }
        }
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if self.owner.is_some() {
            return;
        }
        let mut args = Args::<PJRT_TopologyDescription_Destroy_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: this value owned the description and is gone after this.
        unsafe {
            self.plugin.call_in_drop(function!(self.plugin, PJRT_TopologyDescription_Destroy), &mut args)
        }
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
