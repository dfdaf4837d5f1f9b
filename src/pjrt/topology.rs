//! Compiling ahead of time. This host need not have the devices.

use std::fmt;
use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::client::Client;
use super::compile_options::CompileOptions;
use super::compiled_program::{program, CompiledProgram};
use super::description::DeviceDescription;
use super::error::{Error, Result};
use super::handle::Handle;
use super::named_values::{NamedValues, OptionValue};
use super::plugin::{function, Plugin};
use super::plugin_data::{name, slice};

/// A description of a system of devices to compile for. Thread-safe.
pub struct Topology {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_TopologyDescription>,
    /// The client that owns the description. If it is `None`, this value destroys the description.
    owner: Option<Arc<Client>>,
}

impl Plugin {
    /// Describes a system by the plugin's name for it, for example `v5e:2x2` for libtpu. The devices need not exist.
    pub fn topology(self: &Arc<Self>, topology: &str, options: &[(String, OptionValue)]) -> Result<Topology> {
        let size = if options.is_empty() { None } else { self.named_value_size() };
        let values = NamedValues::new(options, size);
        let mut args = Args::<PJRT_TopologyDescription_Create_Args>::new();
        args.topology_name = topology.as_ptr().cast();
        args.topology_name_size = topology.len();
        args.create_options = values.as_ptr();
        args.num_options = values.len();
        // SAFETY: name and options outlive the call.
        unsafe { self.call(function!(self, PJRT_TopologyDescription_Create)?, &mut args)? };
        let handle = Handle::from_output(args.topology, "PJRT_TopologyDescription_Create")?;
        Ok(Topology { plugin: self.clone(), handle, owner: None })
    }

    /// Compiles for `topology` and returns the serialized program, for [`Client::deserialize`]. `options` name a
    /// device of the topology ([`Topology::devices`]). Does not log, because the caller may hold a lock.
    pub fn compile_ahead(
        self: &Arc<Self>,
        topology: &Topology,
        mlir: &str,
        options: &CompileOptions,
    ) -> Result<Vec<u8>> {
        if !Arc::ptr_eq(self, &topology.plugin) {
            return Err(Error::Argument("the topology belongs to another plugin".into()));
        }
        let options = options.encode();
        let mut program = program(mlir);
        let mut args = Args::<PJRT_Compile_Args>::new();
        args.topology = topology.handle.as_ptr();
        args.program = program.as_mut_ptr();
        args.compile_options = options.as_ptr().cast();
        args.compile_options_size = options.len();
        // SAFETY: the topology is alive. Program and options outlive the call, which only reads them. The executable is
        // new, and nothing else destroys it.
        let compiled = unsafe {
            self.call(function!(self, PJRT_Compile)?, &mut args)?;
            CompiledProgram::from_output(self, args.executable, "PJRT_Compile")?
        };
        compiled.serialize()
    }
}

impl Client {
    /// The system that this client runs on.
    pub fn topology(self: &Arc<Self>) -> Result<Topology> {
        let plugin = self.plugin();
        let mut args = Args::<PJRT_Client_TopologyDescription_Args>::new();
        args.client = self.as_raw();
        // SAFETY: the client is alive. The result keeps the client alive as long as it uses the description.
        unsafe { plugin.call(function!(plugin, PJRT_Client_TopologyDescription)?, &mut args)? };
        let handle = Handle::from_output(args.topology, "PJRT_Client_TopologyDescription")?;
        Ok(Topology { plugin: plugin.clone(), handle, owner: Some(self.clone()) })
    }
}

impl Topology {
    /// The name of the platform, such as `tpu`.
    pub fn platform_name(&self) -> Result<String> {
        let function = function!(self.plugin, PJRT_TopologyDescription_PlatformName)?;
        let function_name = function.name;
        let mut args = Args::<PJRT_TopologyDescription_PlatformName_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the description is alive. The string lives as long as the description and is copied.
        unsafe {
            self.plugin.call(function, &mut args)?;
            name(args.platform_name, args.platform_name_size, function_name)
        }
    }

    /// The version of the platform. The plugin defines its format.
    pub fn platform_version(&self) -> Result<String> {
        let function = function!(self.plugin, PJRT_TopologyDescription_PlatformVersion)?;
        let function_name = function.name;
        let mut args = Args::<PJRT_TopologyDescription_PlatformVersion_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the description is alive. The string lives as long as the description and is copied.
        unsafe {
            self.plugin.call(function, &mut args)?;
            name(args.platform_version, args.platform_version_size, function_name)
        }
    }

    /// The devices of the system.
    pub fn devices(&self) -> Result<Vec<DeviceDescription>> {
        let function = function!(self.plugin, PJRT_TopologyDescription_GetDeviceDescriptions)?;
        let name = function.name;
        let mut args = Args::<PJRT_TopologyDescription_GetDeviceDescriptions_Args>::new();
        args.topology = self.handle.as_ptr();
        // SAFETY: the topology is alive. The list and its descriptions live as long as the topology.
        unsafe {
            self.plugin.call(function, &mut args)?;
            slice(args.descriptions, args.num_descriptions, name)?
                .iter()
                .map(|&device| DeviceDescription::read(&self.plugin, Handle::from_output(device, name)?))
                .collect()
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
        // SAFETY: this value owns the description, and nothing uses it afterwards.
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
