//! Clients: the devices of a plugin, and compiling and copying for them.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use pjrt_sys::*;

use super::args::Args;
use super::buffer::Buffer;
use super::compile_options::CompileOptions;
use super::compiled_program::program;
use super::description::DeviceDescription;
use super::element::ElementType;
use super::error::{Code, Error, Result};
use super::event::Event;
use super::executable::Executable;
use super::handle::Handle;
use super::named_values::{NamedValues, OptionValue};
use super::plugin::{function, Plugin};
use super::plugin_data::{name, slice};
use super::release::log_release_failures;

/// The largest upload, in bytes, that does not wait for the device.
const SMALL_UPLOAD: usize = 1 << 16;

/// A client of a plugin, with at least one device. Thread-safe. Its buffers and executables keep it alive. It is
/// destroyed when the last `Arc` is dropped.
pub struct Client {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_Client>,
    /// Whether this value destroys the client.
    owned: bool,
    platform_name: String,
    platform_version: String,
    devices: Vec<Device>,
}

/// A device that this process can address.
#[derive(Clone)]
pub struct Device {
    handle: Handle<PJRT_Device>,
    description: DeviceDescription,
    /// Queried when it is first needed. `None` if the plugin does not report memories.
    default_memory: OnceLock<Option<Handle<PJRT_Memory>>>,
    /// See [`Client::own_memory`].
    own_memory: OnceLock<Option<Handle<PJRT_Memory>>>,
}

impl Client {
    /// Creates a client. `options` are specific to the plugin, for example `cpu_device_count` or the share of GPU
    /// memory to reserve. The plugin decides whether it rejects unknown names. The types must be right: if XLA's CPU
    /// plugins get a string instead of an integer, they throw a C++ exception that no caller can catch, and the process
    /// ends. This function logs, so the caller must hold no lock.
    pub fn create(plugin: Arc<Plugin>, options: &[(String, OptionValue)]) -> Result<Arc<Client>> {
        let start = Instant::now();
        let size = if options.is_empty() { None } else { plugin.named_value_size() };
        let values = NamedValues::new(options, size);
        let mut args = Args::<PJRT_Client_Create_Args>::new();
        args.create_options = values.as_ptr();
        args.num_options = values.len();
        // SAFETY: the options outlive the call. No callbacks are passed.
        let created = unsafe { plugin.call(function!(plugin, PJRT_Client_Create)?, &mut args) };
        created.map_err(|error| match error {
            Error::Pjrt { code, message, .. } if plugin.is_libtpu() && code != Code::ResourceExhausted => {
                Error::NoTpu { path: plugin.path().to_owned(), code, message }
            }
            other => other,
        })?;
        let client = Self::new(plugin, Handle::from_output(args.client, "PJRT_Client_Create")?, true)?;
        log_release_failures();
        log::debug!(
            "created a client for the platform {:?} with {} devices in {:?}",
            client.platform_name,
            client.devices.len(),
            start.elapsed()
        );
        Ok(client)
    }

    /// Wraps a client that belongs to the caller. Dropping the result does not destroy the client.
    ///
    /// # Safety
    /// `client` must be null or a client of `plugin`. It must stay alive until the result and everything created
    /// from it, including buffers and executables, is dropped.
    pub unsafe fn borrow(plugin: Arc<Plugin>, client: *mut PJRT_Client) -> Result<Arc<Client>> {
        let handle =
            Handle::new(client).ok_or_else(|| Error::Argument("the caller's PJRT client is null".into()))?;
        Self::new(plugin, handle, false)
    }

    fn new(plugin: Arc<Plugin>, handle: Handle<PJRT_Client>, owned: bool) -> Result<Arc<Client>> {
        // Constructed before the queries, so that the client is destroyed if a query fails.
        let mut client = Client {
            plugin,
            handle,
            owned,
            platform_name: String::new(),
            platform_version: String::new(),
            devices: Vec::new(),
        };
        client.platform_name = client.query_platform_name()?;
        client.platform_version = client.query_platform_version()?;
        client.devices = client.query_devices()?;
        if client.devices.is_empty() {
            return Err(Error::NoDevices { path: client.plugin.path().to_owned() });
        }
        Ok(Arc::new(client))
    }

    /// The plugin of this client.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The name of the platform, such as `cpu`, `cuda` or `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.platform_name
    }

    /// The version of the platform. The plugin defines its format, which may have several lines.
    pub fn platform_version(&self) -> &str {
        &self.platform_version
    }

    /// The devices that this process can address, at least one. Methods that take a device take an index into this
    /// list.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Compiles a StableHLO program, given as MLIR text. Does not log, because the caller may hold a lock.
    pub fn compile(self: &Arc<Self>, mlir: &str, options: &CompileOptions) -> Result<Arc<Executable>> {
        self.check_device(options)?;
        let encoded = options.encode();
        let mut program = program(mlir);
        let mut args = Args::<PJRT_Client_Compile_Args>::new();
        args.client = self.handle.as_ptr();
        args.program = program.as_mut_ptr();
        args.compile_options = encoded.as_ptr().cast();
        args.compile_options_size = encoded.len();
        // SAFETY: the client is alive. Program and options outlive the call, which only reads them. The executable
        // is new and belongs to this client, and nothing else destroys it.
        let executable = unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_Compile)?, &mut args)?;
            Executable::from_output(self, args.executable, options, "PJRT_Client_Compile")?
        };
        Ok(Arc::new(executable))
    }

    /// Loads a program that [`Executable::serialize`] or [`Plugin::compile_ahead`] returned. It runs on the device in
    /// `options`, even if it was compiled for another device. The caller must trust the bytes, because a plugin
    /// executes them. They fit only the build of the plugin, the platform and the topology that they were compiled for.
    /// Fails if the plugin is too old to load a program for another device. Does not log, because the caller may hold a
    /// lock.
    pub fn deserialize(
        self: &Arc<Self>,
        serialized: &[u8],
        options: &CompileOptions,
    ) -> Result<Arc<Executable>> {
        self.check_device(options)?;
        let encoded = options.encode();
        let function = function!(self.plugin, PJRT_Executable_DeserializeAndLoad)?;
        let name = function.name;
        let mut args = Args::<PJRT_Executable_DeserializeAndLoad_Args>::new();
        args.client = self.handle.as_ptr();
        args.serialized_executable = serialized.as_ptr().cast();
        args.serialized_executable_size = serialized.len();
        args.override_compile_options(&encoded);
        // SAFETY: the client is alive. Bytes and options outlive the call. The executable is new and belongs to this
        // client, and nothing else destroys it.
        let executable = unsafe {
            self.plugin.call(function, &mut args)?;
            Executable::from_output(self, args.loaded_executable, options, name)?
        };
        Ok(Arc::new(executable))
    }

    /// Copies a dense row-major array to a device. Returns when `bytes` is no longer needed. The buffer may not be
    /// ready then; every use of the buffer waits.
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
        let function = function!(self.plugin, PJRT_Client_BufferFromHostBuffer)?;
        let name = function.name;
        let mut args = Args::<PJRT_Client_BufferFromHostBuffer_Args>::new();
        args.client = self.handle.as_ptr();
        args.data = bytes.as_ptr().cast();
        args.type_ = element.to_raw();
        args.dims = dims.as_ptr();
        args.num_dims = dims.len();
        // The other two semantics let the plugin use the host's memory directly. `bytes` would then have to live as
        // long as the buffer. With the first semantics below, the plugin copies the array to its own memory during the
        // call. For a small array, this is faster than a wait for the device: on an H100, 6 µs instead of 27 µs.
        args.host_buffer_semantics = match bytes.len() {
            0..=SMALL_UPLOAD => PJRT_HostBufferSemantics_PJRT_HostBufferSemantics_kImmutableOnlyDuringCall,
            _ => PJRT_HostBufferSemantics_PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes,
        };
        args.device = self.device(device)?.handle.as_ptr();
        // SAFETY: client and device are alive. `bytes` has the size that type and dimensions define, and stays borrowed
        // until the event below says that the plugin no longer needs it. A plugin that returns no event, or that fails
        // to wait for it, violates the API: it may read the memory of the caller later (see the limits in `mod.rs`).
        let (buffer, done) = unsafe {
            self.plugin.call(function, &mut args)?;
            // Each output gets an owner before any check can fail, so that no output leaks.
            let buffer = Buffer::from_output(self, args.buffer, name);
            (buffer, Event::from_output(&self.plugin, args.done_with_host_buffer, name))
        };
        done?.wait()?;
        buffer
    }

    fn check_device(&self, options: &CompileOptions) -> Result<()> {
        let id = options.device();
        if self.devices.iter().any(|device| device.id() == id) {
            return Ok(());
        }
        let ids: Vec<i32> = self.devices.iter().map(Device::id).collect();
        Err(Error::Argument(format!("there is no device id {id}: this client has the ids {ids:?}")))
    }

    fn device(&self, index: usize) -> Result<&Device> {
        self.devices.get(index).ok_or_else(|| {
            Error::Argument(format!(
                "there is no device {index}: this client has {} device(s), counted from 0",
                self.devices.len()
            ))
        })
    }

    /// Returns the memory in which programs on a device expect their inputs. `None` if the plugin does not report
    /// memories.
    pub(super) fn default_memory(&self, device: usize) -> Result<Option<Handle<PJRT_Memory>>> {
        let device = self.device(device)?;
        if let Some(known) = device.default_memory.get() {
            return Ok(*known);
        }
        let mut args = Args::<PJRT_Device_DefaultMemory_Args>::new();
        args.device = device.handle.as_ptr();
        // SAFETY: the device lives as long as the client.
        let asked = function!(self.plugin, PJRT_Device_DefaultMemory)
            .and_then(|function| unsafe { self.plugin.call(function, &mut args) });
        let memory = match asked {
            Err(error) if error.is_unimplemented() => None,
            Err(error) => return Err(error),
            Ok(()) => Some(Handle::from_output(args.memory, "PJRT_Device_DefaultMemory")?),
        };
        Ok(*device.default_memory.get_or_init(|| memory))
    }

    /// Returns the default memory of a device. `None` if the plugin does not report it, or if another device has
    /// the same default memory.
    pub(super) fn own_memory(&self, device: usize) -> Result<Option<Handle<PJRT_Memory>>> {
        let known = &self.device(device)?.own_memory;
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let mut own = self.default_memory(device)?;
        for other in (0..self.devices.len()).filter(|&other| other != device) {
            let memory = self.default_memory(other)?;
            own = own.filter(|own| memory.is_none_or(|memory| memory.as_ptr() != own.as_ptr()));
        }
        Ok(*known.get_or_init(|| own))
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
        // SAFETY: the client is alive. The string lives as long as the client and is copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_PlatformName)?, &mut args)?;
            name(args.platform_name, args.platform_name_size, "PJRT_Client_PlatformName")
        }
    }

    fn query_platform_version(&self) -> Result<String> {
        let mut args = Args::<PJRT_Client_PlatformVersion_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: the client is alive. The string lives as long as the client and is copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Client_PlatformVersion)?, &mut args)?;
            name(args.platform_version, args.platform_version_size, "PJRT_Client_PlatformVersion")
        }
    }

    fn query_devices(&self) -> Result<Vec<Device>> {
        let function = function!(self.plugin, PJRT_Client_AddressableDevices)?;
        let name = function.name;
        let mut args = Args::<PJRT_Client_AddressableDevices_Args>::new();
        args.client = self.handle.as_ptr();
        // SAFETY: the client is alive, and the list lives as long as the client.
        let devices = unsafe {
            self.plugin.call(function, &mut args)?;
            slice(args.addressable_devices, args.num_addressable_devices, name)?
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
        // SAFETY: this value owns the client. Each buffer and executable keeps an `Arc` of the client, so none of them
        // exists now.
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
    /// The global id, as in [`CompileOptions`]. It is not an index into [`Client::devices`].
    pub fn id(&self) -> i32 {
        self.description.id
    }

    /// The plugin's name for this kind of device, such as `TPU v5 lite` or `NVIDIA H100 80GB HBM3`.
    pub fn kind(&self) -> &str {
        &self.description.kind
    }

    /// The plugin's description of the device.
    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// The plugin's description of the device, for people to read.
    pub fn debug_string(&self) -> &str {
        &self.description.debug_string
    }

    fn query(plugin: &Plugin, device: *mut PJRT_Device) -> Result<Self> {
        let handle = Handle::from_output(device, "PJRT_Client_AddressableDevices")?;
        let mut args = Args::<PJRT_Device_GetDescription_Args>::new();
        args.device = device;
        // SAFETY: the device lives as long as its client, which the caller keeps alive.
        unsafe { plugin.call(function!(plugin, PJRT_Device_GetDescription)?, &mut args)? };
        let description = Handle::from_output(args.device_description, "PJRT_Device_GetDescription")?;
        // SAFETY: the description lives as long as the device.
        let description = unsafe { DeviceDescription::read(plugin, description)? };
        let (default_memory, own_memory) = (OnceLock::new(), OnceLock::new());
        Ok(Self { handle, description, default_memory, own_memory })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debug_string())
    }
}
