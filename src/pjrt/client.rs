//! Clients: a plugin's devices, and the way onto them.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pjrt_sys::*;

use super::args::Args;
use super::buffer::Buffer;
use super::compile_options::CompileOptions;
use super::compiled_program::program;
use super::description::DeviceDescription;
use super::element::ElementType;
use super::error::{Error, Result};
use super::event::Event;
use super::executable::Executable;
use super::handle::Handle;
use super::named_values::{NamedValues, OptionValue};
use super::plugin::{function, Plugin};
use super::plugin_data::{slice, string};

/// A plugin's client: its devices, its memory, its compiler. Thread-safe; destroyed when the last `Arc` goes, and the
/// buffers and executables made from it hold one each.
pub struct Client {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_Client>,
    /// Whether this value destroys the client.
    owned: bool,
    platform_name: String,
    platform_version: String,
    process_index: i32,
    devices: Vec<Device>,
}

/// A device that this process can address.
#[derive(Clone)]
pub struct Device {
    handle: Handle<PJRT_Device>,
    description: DeviceDescription,
    local_hardware_id: Option<i32>,
}

/// What a device says of its memory, in bytes. What a plugin does not report is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryStats {
    /// In use now.
    pub bytes_in_use: i64,
    /// The most that was ever in use.
    pub peak_bytes_in_use: Option<i64>,
    /// What may be used.
    pub bytes_limit: Option<i64>,
    /// The largest block that is free.
    pub largest_free_block_bytes: Option<i64>,
}

impl Client {
    /// Creates a client. `options` are the plugin's own (for example `cpu_device_count`, or how much GPU memory to
    /// reserve). Whether unknown names are refused is up to the plugin. Types must be right: XLA's CPU plugins end the
    /// whole process (an uncaught C++ exception) on a string where they want an integer, and no caller can catch that.
    pub fn create(plugin: Arc<Plugin>, options: &[(String, OptionValue)]) -> Result<Arc<Client>> {
        let start = Instant::now();
        let values = NamedValues::new(options);
        let mut args = Args::<PJRT_Client_Create_Args>::new();
        args.create_options = values.as_ptr();
        args.num_options = values.len();
        // SAFETY: the options outlive the call; no callbacks are given.
        let created = unsafe { plugin.call(function!(plugin, PJRT_Client_Create)?, &mut args) };
        created.map_err(|error| match error {
            Error::Pjrt { code, message, .. } if plugin.is_libtpu() => {
                Error::NoTpu { path: plugin.path().to_owned(), code, message }
            }
            other => other,
        })?;
        let client = Self::new(plugin, Handle::from_output(args.client, "PJRT_Client_Create")?, true)?;
        log::debug!(
            "created a {} client with {} devices in {:?}",
            client.platform_name,
            client.devices.len(),
            start.elapsed()
        );
        Ok(client)
    }

    /// Wraps a client that stays its owner's: it is not destroyed here.
    ///
    /// # Safety
    /// `client` must be null or a client of `plugin` that stays alive until the result and everything made from it,
    /// buffers and executables included, is dropped.
    pub unsafe fn borrow(plugin: Arc<Plugin>, client: *mut PJRT_Client) -> Result<Arc<Client>> {
        let handle =
            Handle::new(client).ok_or_else(|| Error::Argument("the caller's PJRT client is null".into()))?;
        Self::new(plugin, handle, false)
    }

    fn new(plugin: Arc<Plugin>, handle: Handle<PJRT_Client>, owned: bool) -> Result<Arc<Client>> {
        // Made before the queries below, so that one that fails destroys the client.
        let mut client = Client {
            plugin,
            handle,
            owned,
            platform_name: String::new(),
            platform_version: String::new(),
            process_index: 0,
            devices: Vec::new(),
        };
        client.platform_name = client.query_platform_name()?;
        client.platform_version = client.query_platform_version()?;
        client.process_index = client.query_process_index()?;
        client.devices = client.query_devices()?;
        Ok(Arc::new(client))
    }

    /// The plugin that it belongs to.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The platform, such as `cpu`, `cuda` or `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.platform_name
    }

    /// The platform's version, in the plugin's own words; may hold several lines.
    pub fn platform_version(&self) -> &str {
        &self.platform_version
    }

    /// Which process of a multi-process system this is; 0 where there is one.
    pub fn process_index(&self) -> i32 {
        self.process_index
    }

    /// The devices of this process. Methods that take a device take an index into this list.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The memory statistics of a device; `None` if the plugin keeps none.
    pub fn memory_stats(&self, device: usize) -> Result<Option<MemoryStats>> {
        let mut args = Args::<PJRT_Device_MemoryStats_Args>::new();
        args.device = self.device(device)?.handle.as_ptr();
        // SAFETY: devices live as long as their client; the call writes outputs only.
        let outcome = function!(self.plugin, PJRT_Device_MemoryStats)
            .and_then(|function| unsafe { self.plugin.call(function, &mut args) });
        match outcome {
            Err(error) if error.is_unimplemented() => return Ok(None),
            other => other?,
        }
        Ok(Some(MemoryStats {
            bytes_in_use: args.bytes_in_use,
            peak_bytes_in_use: args.peak_bytes_in_use_is_set.then_some(args.peak_bytes_in_use),
            bytes_limit: args.bytes_limit_is_set.then_some(args.bytes_limit),
            largest_free_block_bytes: args
                .largest_free_block_bytes_is_set
                .then_some(args.largest_free_block_bytes),
        }))
    }

    /// Compiles a program given as StableHLO in MLIR's text form (or its portable bytecode).
    pub fn compile(self: &Arc<Self>, mlir: &str, options: &CompileOptions) -> Result<Arc<Executable>> {
        let start = Instant::now();
        self.check_devices(options)?;
        let options = options.encode()?;
        let mut program = program(mlir);
        let mut args = Args::<PJRT_Client_Compile_Args>::new();
        args.client = self.handle.as_ptr();
        args.program = program.as_mut_ptr();
        args.compile_options = options.as_ptr().cast();
        args.compile_options_size = options.len();
        // SAFETY: the client is alive; program and options outlive the call, which does not write to them.
        unsafe { self.plugin.call(function!(self.plugin, PJRT_Client_Compile)?, &mut args)? };
        // SAFETY: a fresh executable of this client, which nobody else destroys.
        let executable = unsafe { Executable::from_output(self, args.executable, "PJRT_Client_Compile")? };
        log::debug!(
            "compiled {} bytes of MLIR for {} device(s) in {:?}",
            mlir.len(),
            executable.devices().len(),
            start.elapsed()
        );
        Ok(Arc::new(executable))
    }

    /// Loads what [`Executable::serialize`] or [`Plugin::compile_ahead`] gave, for the devices in `options` whatever it
    /// was compiled for. The bytes are trusted: a plugin executes what they hold. They fit only the plugin release,
    /// platform and topology they were made for.
    pub fn deserialize(
        self: &Arc<Self>,
        serialized: &[u8],
        options: &CompileOptions,
    ) -> Result<Arc<Executable>> {
        let start = Instant::now();
        self.check_devices(options)?;
        let options = options.encode()?;
        let mut args = Args::<PJRT_Executable_DeserializeAndLoad_Args>::new();
        args.client = self.handle.as_ptr();
        args.serialized_executable = serialized.as_ptr().cast();
        args.serialized_executable_size = serialized.len();
        // `overridden_serialized_compile_options` and its size. Plugins older than these fields use the options that
        // the program was compiled with.
        args.set_appended(0, options.as_ptr().expose_provenance());
        args.set_appended(1, options.len());
        // SAFETY: the client is alive; bytes and options outlive the call.
        unsafe { self.plugin.call(function!(self.plugin, PJRT_Executable_DeserializeAndLoad)?, &mut args)? };
        // SAFETY: a fresh executable of this client, which nobody else destroys.
        let executable = unsafe {
            Executable::from_output(self, args.loaded_executable, "PJRT_Executable_DeserializeAndLoad")?
        };
        log::debug!("loaded {} bytes of compiled program in {:?}", serialized.len(), start.elapsed());
        Ok(Arc::new(executable))
    }

    /// Copies a dense row-major array to a device. Returns when `bytes` is no longer needed, which may be before the
    /// buffer is ready; uses of the buffer wait by themselves.
    pub fn buffer_from_host(
        self: &Arc<Self>,
        bytes: &[u8],
        element: ElementType,
        dims: &[i64],
        device: usize,
    ) -> Result<Buffer> {
        if element.dense_size(dims) != Some(bytes.len()) {
            return Err(Error::Argument(format!(
                "{} bytes are not an array of {element:?} with dimensions {dims:?}",
                bytes.len()
            )));
        }
        let mut args = Args::<PJRT_Client_BufferFromHostBuffer_Args>::new();
        args.client = self.handle.as_ptr();
        args.data = bytes.as_ptr().cast();
        args.type_ = element.to_raw();
        args.dims = dims.as_ptr();
        args.num_dims = dims.len();
        // The variants that alias the host's memory would tie its lifetime to the buffer's.
        args.host_buffer_semantics =
            PJRT_HostBufferSemantics_PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
        args.device = self.device(device)?.handle.as_ptr();
        let name = "PJRT_Client_BufferFromHostBuffer";
        // SAFETY: client and device are alive; `bytes` holds as many bytes as type and dimensions say and stays
        // borrowed until the event below says that the plugin is done with it.
        let (buffer, done) = unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_BufferFromHostBuffer)?, &mut args)?;
            // Both outputs are taken before either may fail, so that neither leaks.
            let buffer = Buffer::from_output(self, args.buffer, name);
            (buffer, Event::from_output(&self.plugin, args.done_with_host_buffer, name))
        };
        done?.wait()?;
        buffer
    }

    fn check_devices(&self, options: &CompileOptions) -> Result<()> {
        for &id in options.devices() {
            if !self.devices.iter().any(|device| device.id() == id) {
                let ids: Vec<i32> = self.devices.iter().map(Device::id).collect();
                return Err(Error::Argument(format!(
                    "there is no device id {id}: this client has the ids {ids:?}"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn device(&self, index: usize) -> Result<&Device> {
        self.devices.get(index).ok_or_else(|| {
            Error::Argument(format!(
                "no device {index}: this client has {} device(s), counted from 0",
                self.devices.len()
            ))
        })
    }

    pub(super) fn device_index(&self, device: *mut PJRT_Device) -> Option<usize> {
        self.devices.iter().position(|known| known.handle.as_ptr() == device)
    }

    /// The plugin's object, for code that shares this client. It lives as long as this value.
    pub fn as_raw(&self) -> *mut PJRT_Client {
        self.handle.as_ptr()
    }

    fn query_platform_name(&self) -> Result<String> {
        let mut args = Args::<PJRT_Client_PlatformName_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: the client is alive, and with it the string that is copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_PlatformName)?, &mut args)?;
            Ok(string(args.platform_name, args.platform_name_size))
        }
    }

    fn query_platform_version(&self) -> Result<String> {
        let mut args = Args::<PJRT_Client_PlatformVersion_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: the client is alive, and with it the string that is copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_PlatformVersion)?, &mut args)?;
            Ok(string(args.platform_version, args.platform_version_size))
        }
    }

    fn query_process_index(&self) -> Result<i32> {
        let mut args = Args::<PJRT_Client_ProcessIndex_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: the client is alive.
        unsafe { self.plugin.call(function!(self.plugin, PJRT_Client_ProcessIndex)?, &mut args)? };
        Ok(args.process_index)
    }

    fn query_devices(&self) -> Result<Vec<Device>> {
        let mut args = Args::<PJRT_Client_AddressableDevices_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: the client is alive, and with it the list that is copied.
        let devices = unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_AddressableDevices)?, &mut args)?;
            slice(args.addressable_devices, args.num_addressable_devices)
        };
        devices.iter().map(|&device| Device::query(&self.plugin, device)).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let mut args = Args::<PJRT_Client_Destroy_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: this value owned the client; buffers and executables hold an `Arc` of it, so none is left.
        unsafe { self.plugin.call_in_drop(function!(self.plugin, PJRT_Client_Destroy), &mut args) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("plugin", &self.plugin)
            .field("platform_name", &self.platform_name)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// The global id, which [`CompileOptions`] takes. Not an index.
    pub fn id(&self) -> i32 {
        self.description.id
    }

    /// What the plugin calls this kind of device, such as `TPU v5 lite` or `NVIDIA H100 80GB HBM3`.
    pub fn kind(&self) -> &str {
        &self.description.kind
    }

    /// Everything that the plugin says of the device without using it.
    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// The hardware's number on this host, if the plugin knows one.
    pub fn local_hardware_id(&self) -> Option<i32> {
        self.local_hardware_id
    }

    /// The plugin's description for humans.
    pub fn debug_string(&self) -> &str {
        &self.description.debug_string
    }

    fn query(plugin: &Plugin, device: *mut PJRT_Device) -> Result<Self> {
        let handle = Handle::from_output(device, "PJRT_Client_AddressableDevices")?;
        let mut description = Args::<PJRT_Device_GetDescription_Args>::new();
        description.device = device;
        // SAFETY: the device lives as long as its client, which the caller holds.
        unsafe { plugin.call(function!(plugin, PJRT_Device_GetDescription)?, &mut description)? };
        let description = Handle::from_output(description.device_description, "PJRT_Device_GetDescription")?;
        // SAFETY: the description lives as long as the device.
        let description = unsafe { DeviceDescription::read(plugin, description)? };

        let mut hardware = Args::<PJRT_Device_LocalHardwareId_Args>::new();
        hardware.device = device;
        // SAFETY: the device is alive. A plugin without such numbers reports an error or -1.
        let known = function!(plugin, PJRT_Device_LocalHardwareId)
            .and_then(|function| unsafe { plugin.call(function, &mut hardware) });
        let local_hardware_id = known.ok().map(|()| hardware.local_hardware_id).filter(|&id| id >= 0);
        Ok(Self { handle, description, local_hardware_id })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debug_string())
    }
}
