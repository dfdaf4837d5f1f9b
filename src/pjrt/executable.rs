//! Compiled programs and running them.

use std::fmt;
use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::buffer::Buffer;
use super::client::Client;
use super::compiled_program::CompiledProgram;
use super::error::{Error, Result};
use super::event::Event;
use super::handle::Handle;
use super::plugin::function;
use super::plugin_data::slice;

/// A compiled program, loaded on its devices; unloaded when dropped. Any number of threads may run it at once.
pub struct Executable {
    // Fields drop in order: the description goes before the program, the client last.
    description: CompiledProgram,
    loaded: Loaded,
    num_outputs: usize,
    devices: Vec<usize>,
}

/// Work that a device has been given: see [`Executable::launch`].
pub struct Launch<'a> {
    // Dropped before the buffers: nothing depends on it, but a completion event is the smaller thing to hold.
    complete: Vec<Event>,
    outputs: Vec<Vec<Buffer>>,
    executable: &'a Executable,
}

/// The program as a thing loaded on devices.
struct Loaded {
    client: Arc<Client>,
    handle: Handle<PJRT_LoadedExecutable>,
}

impl Executable {
    /// Takes ownership of an executable that `function` returned.
    ///
    /// # Safety
    /// `executable` must be null or a live executable of `client` that nobody else destroys.
    pub(super) unsafe fn from_output(
        client: &Arc<Client>,
        executable: *mut PJRT_LoadedExecutable,
        function: &str,
    ) -> Result<Self> {
        let loaded = Loaded { client: client.clone(), handle: Handle::from_output(executable, function)? };
        let description = loaded.description()?;
        let num_outputs = description.num_outputs()?;
        let devices = loaded.devices()?;
        Ok(Self { description, loaded, num_outputs, devices })
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Arc<Client> {
        &self.loaded.client
    }

    /// How many arrays each device returns.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// The devices of this process that it runs on, as indices into [`Client::devices`], in the order in which
    /// [`Executable::launch`] takes inputs.
    pub fn devices(&self) -> &[usize] {
        &self.devices
    }

    /// The size of the generated code, if the plugin tells.
    pub fn code_size(&self) -> Result<Option<usize>> {
        self.description.code_size()
    }

    /// The compiled program as bytes, which [`Client::deserialize`] takes.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.description.serialize()
    }

    /// Runs a single-device program and waits for it to end.
    pub fn execute(&self, inputs: &[&Buffer]) -> Result<Vec<Buffer>> {
        if self.devices.len() != 1 {
            return Err(Error::Argument(format!(
                "the program runs on {} devices; launch it with one list of inputs for each",
                self.devices.len()
            )));
        }
        let mut outputs = self.launch(&[inputs])?.wait()?;
        outputs.pop().ok_or_else(|| Error::Misbehaved("no list of outputs".into()))
    }

    /// Starts the program with one list of inputs per device of [`Executable::devices`]. Inputs are never donated:
    /// they stay as they are, and may be dropped at once. Plugins check the inputs' number, size and device, not their
    /// element type or dimensions: an S32 buffer passes for an F32 one of the same size.
    pub fn launch(&self, inputs: &[&[&Buffer]]) -> Result<Launch<'_>> {
        let client = &self.loaded.client;
        let plugin = client.plugin();
        if inputs.len() != self.devices.len() {
            return Err(Error::Argument(format!(
                "{} lists of inputs for a program that runs on {} device(s)",
                inputs.len(),
                self.devices.len()
            )));
        }
        let num_args = inputs.first().map_or(0, |list| list.len());
        for list in inputs {
            if list.len() != num_args {
                return Err(Error::Argument(format!(
                    "one device has {num_args} inputs, another {}",
                    list.len()
                )));
            }
            // A plugin would take a foreign pointer for one of its own objects. One client may have been borrowed twice.
            if list.iter().any(|buffer| buffer.client().as_raw() != client.as_raw()) {
                return Err(Error::Argument("an input belongs to another client".into()));
            }
        }

        let arguments: Vec<Vec<*mut PJRT_Buffer>> =
            inputs.iter().map(|list| list.iter().map(|buffer| buffer.as_raw()).collect()).collect();
        let argument_lists: Vec<*const *mut PJRT_Buffer> =
            arguments.iter().map(|list| list.as_ptr()).collect();
        let mut outputs = vec![vec![std::ptr::null_mut::<PJRT_Buffer>(); self.num_outputs]; inputs.len()];
        let output_lists: Vec<*mut *mut PJRT_Buffer> =
            outputs.iter_mut().map(|list| list.as_mut_ptr()).collect();
        let mut events = vec![std::ptr::null_mut::<PJRT_Event>(); inputs.len()];
        // Programs are shared between threads and inputs between programs, so no program may take an input's memory,
        // whatever aliasing it was compiled with.
        let kept: Vec<i64> = (0..num_args as i64).collect();
        let mut options = Args::<PJRT_ExecuteOptions>::new();
        options.non_donatable_input_indices = kept.as_ptr();
        options.num_non_donatable_input_indices = kept.len();

        let mut args = Args::<PJRT_LoadedExecutable_Execute_Args>::new();
        args.executable = self.loaded.handle.as_ptr();
        args.options = options.as_mut_ptr();
        args.argument_lists = argument_lists.as_ptr();
        args.num_devices = inputs.len();
        args.num_args = num_args;
        args.output_lists = output_lists.as_ptr();
        args.device_complete_events = events.as_mut_ptr();
        let name = "PJRT_LoadedExecutable_Execute";
        // SAFETY: executable and inputs are alive and of one client. The lists are as long as `num_devices`,
        // `num_args` and the plugin's own number of outputs say, and outlive the call.
        unsafe { plugin.call(function!(plugin, PJRT_LoadedExecutable_Execute)?, &mut args)? };

        // Everything is owned before anything is checked, so that an error leaks nothing.
        // SAFETY: fresh events of this plugin, fresh buffers of this client, in nobody else's hands.
        let complete: Vec<Result<Event>> =
            events.iter().map(|&event| unsafe { Event::from_output(plugin, event, name) }).collect();
        let outputs: Vec<Vec<Result<Buffer>>> = outputs
            .iter()
            // SAFETY: as above.
            .map(|list| list.iter().map(|&out| unsafe { Buffer::from_output(client, out, name) }).collect())
            .collect();
        Ok(Launch {
            complete: complete.into_iter().collect::<Result<_>>()?,
            outputs: outputs.into_iter().map(|list| list.into_iter().collect()).collect::<Result<_>>()?,
            executable: self,
        })
    }
}

impl Launch<'_> {
    /// The program that runs.
    pub fn executable(&self) -> &Executable {
        self.executable
    }

    /// Whether every device is done, well or not.
    pub fn is_done(&self) -> Result<bool> {
        for event in &self.complete {
            if !event.is_ready()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for every device to end and returns each device's outputs. All are waited for even if one fails.
    pub fn wait(self) -> Result<Vec<Vec<Buffer>>> {
        let outcomes: Vec<Result<()>> = self.complete.iter().map(Event::wait).collect();
        outcomes.into_iter().collect::<Result<()>>()?;
        Ok(self.outputs)
    }

    /// The outputs as they are, perhaps still being computed: whatever reads them waits, and learns of errors then.
    pub fn into_outputs(self) -> Vec<Vec<Buffer>> {
        self.outputs
    }
}

impl Loaded {
    fn description(&self) -> Result<CompiledProgram> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_LoadedExecutable_GetExecutable_Args>::new();
        args.loaded_executable = self.handle.as_ptr();
        let name = "PJRT_LoadedExecutable_GetExecutable";
        // SAFETY: the executable is alive; what comes back is ours to destroy.
        unsafe {
            plugin.call(function!(plugin, PJRT_LoadedExecutable_GetExecutable)?, &mut args)?;
            CompiledProgram::from_output(plugin, args.executable, name)
        }
    }

    fn devices(&self) -> Result<Vec<usize>> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_LoadedExecutable_AddressableDevices_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: the executable is alive, and with it the list that is read.
        let devices = unsafe {
            plugin.call(function!(plugin, PJRT_LoadedExecutable_AddressableDevices)?, &mut args)?;
            slice(args.addressable_devices, args.num_addressable_devices)
        };
        let index = |&device: &*mut PJRT_Device| {
            self.client.device_index(device).ok_or_else(|| {
                Error::Misbehaved("an executable on a device that its client does not list".into())
            })
        };
        devices.iter().map(index).collect()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_LoadedExecutable_Destroy_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: this value owned the executable and is gone after this. Runs in flight keep what they need.
        unsafe { plugin.call_in_drop(function!(plugin, PJRT_LoadedExecutable_Destroy), &mut args) }
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable")
            .field("devices", &self.devices)
            .field("num_outputs", &self.num_outputs)
            .finish_non_exhaustive()
    }
}
