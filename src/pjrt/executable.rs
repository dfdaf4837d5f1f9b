//! Programs that are loaded on devices, and their execution.

use std::fmt;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pjrt_sys::*;

use super::args::Args;
use super::buffer::{ArrayType, Buffer};
use super::client::Client;
use super::compile_options::CompileOptions;
use super::compiled_program::CompiledProgram;
use super::error::{Error, Result};
use super::event::Event;
use super::handle::Handle;
use super::plugin::function;
use super::plugin_data::slice;
use super::short_list::ShortList;

/// The name of the function that runs a program.
const EXECUTE: &str = "PJRT_LoadedExecutable_Execute";

/// Most programs have at most this many inputs, and at most this many outputs.
const FEW: usize = 8;

/// A compiled program that is loaded on its devices. Thread-safe: any number of threads may run it at the same time.
/// Dropping it unloads the program.
pub struct Executable {
    // Fields are dropped in this order: the compiled program, then the loaded program with its client.
    compiled: CompiledProgram,
    loaded: Loaded,
    num_outputs: usize,
    /// The types of the outputs. They are set when two consecutive runs return the same types. Later runs do not query
    /// the types. Two runs must return the same types, so that one wrong answer of the plugin does not affect later
    /// runs.
    output_types: OnceLock<Vec<Arc<ArrayType>>>,
    /// The types of the last run, until `output_types` is set.
    last_types: Mutex<Vec<Arc<ArrayType>>>,
    devices: Vec<usize>,
}

/// A running program: see [`Executable::launch`]. It keeps the program loaded. Dropping it waits for the program.
pub struct Launch {
    // Fields are dropped in this order: the event and the outputs, then the program.
    complete: Event,
    /// Whether a wait for the program has returned.
    waited: bool,
    outputs: Vec<Buffer>,
    _executable: Arc<Executable>,
}

impl Launch {
    /// The outputs. They can be used before the program ends, because every use waits for it.
    pub fn outputs(&self) -> &[Buffer] {
        &self.outputs
    }

    /// Takes all outputs out of the launch.
    pub fn take_outputs(&mut self) -> Vec<Buffer> {
        std::mem::take(&mut self.outputs)
    }

    /// Waits until the program ends, and returns the outputs.
    pub fn wait(mut self) -> Result<Vec<Buffer>> {
        let outcome = self.complete.wait();
        self.waited = true;
        outcome.map(|()| self.take_outputs())
    }

    /// Calls `action` with the outcome when the program ends. The call happens on a thread of the plugin, or on this
    /// thread before the function returns. If the function fails, it does not call `action`.
    pub fn on_ready(&self, action: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        self.complete.on_ready(action)
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // A plugin keeps a running program, even if the program is destroyed. But the API does not say that a client
        // may be destroyed while it runs a program. So the drop waits. The outcome does not matter, because nothing
        // reads it.
        if !self.waited {
            let _ = self.complete.wait();
        }
    }
}

/// The plugin's object for a loaded program.
struct Loaded {
    client: Arc<Client>,
    handle: Handle<PJRT_LoadedExecutable>,
}

impl Executable {
    /// Takes ownership of an executable that `function` returned, and checks that it runs on the device in `options`.
    ///
    /// # Safety
    /// `executable` must be null or a live executable of `client` that nothing else destroys.
    pub(super) unsafe fn from_output(
        client: &Arc<Client>,
        executable: *mut PJRT_LoadedExecutable,
        options: &CompileOptions,
        function: &str,
    ) -> Result<Self> {
        let loaded = Loaded { client: client.clone(), handle: Handle::from_output(executable, function)? };
        let compiled = loaded.compiled()?;
        let num_outputs = compiled.num_outputs()?;
        let devices = loaded.devices()?;
        let ids: Vec<i32> = devices.iter().map(|&device| client.devices()[device].id()).collect();
        if ids != [options.device()] {
            return Err(Error::Misbehaved(format!(
                "{function} returned a program for the device ids {ids:?}, not for {}",
                options.device()
            )));
        }
        let (output_types, last_types) = (OnceLock::new(), Mutex::default());
        Ok(Self { compiled, loaded, num_outputs, output_types, last_types, devices })
    }

    /// The client of this program.
    pub fn client(&self) -> &Arc<Client> {
        &self.loaded.client
    }

    /// The number of arrays that the program returns.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// The device that the program runs on, as a list of one index into [`Client::devices`].
    pub fn devices(&self) -> &[usize] {
        &self.devices
    }

    /// The plugin's object. It is valid as long as this value exists.
    pub fn as_raw(&self) -> *mut PJRT_LoadedExecutable {
        self.loaded.handle.as_ptr()
    }

    /// The serialized program, for [`Client::deserialize`].
    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.compiled.serialize()
    }

    /// Runs the program and waits for its end. See [`Executable::launch`].
    pub fn execute(self: &Arc<Self>, inputs: &[&Buffer]) -> Result<Vec<Buffer>> {
        self.launch(inputs, None)?.wait()
    }

    /// Starts the program. The result keeps the program loaded. The inputs may be dropped at once. Plugins check the
    /// number, size and device of the inputs, but not their element type and dimensions: they accept an S32 buffer in
    /// place of an F32 buffer of the same size.
    ///
    /// `donated` is the index of an input whose memory an output may use, if the program was compiled for this. If an
    /// output uses the memory, the buffer of the input is deleted. Otherwise the buffer keeps its contents. All other
    /// inputs keep their contents.
    pub fn launch(self: &Arc<Self>, inputs: &[&Buffer], donated: Option<usize>) -> Result<Launch> {
        // A plugin would use a pointer of another client as if it were its own. The check compares the plugin's
        // objects and not the Rust values, because the caller's client may have been borrowed twice.
        let client = self.client().as_raw();
        if inputs.iter().any(|buffer| buffer.client().as_raw() != client) {
            return Err(Error::Argument("an input belongs to another client".into()));
        }
        let list = |len| ShortList::<_, FEW>::filled(null_mut(), len, "the inputs and outputs of a program");
        let (mut arguments, mut outputs) = (list(inputs.len())?, list(self.num_outputs)?);
        arguments.as_mut_slice().iter_mut().zip(inputs).for_each(|(slot, input)| *slot = input.as_raw());
        // Threads share programs, and programs share inputs. So an output must not overwrite an input that is not
        // donated, even if the program was compiled to reuse its memory.
        let mut kept = ShortList::<i64, FEW>::filled(0, inputs.len(), "the inputs of a program")?;
        let not_donated = (0..inputs.len()).filter(|&input| Some(input) != donated);
        let num_kept =
            kept.as_mut_slice().iter_mut().zip(not_donated).map(|(slot, input)| *slot = input as i64).count();
        let mut options = Args::<PJRT_ExecuteOptions>::new();
        options.non_donatable_input_indices = kept.as_slice().as_ptr();
        options.num_non_donatable_input_indices = num_kept;
        let (argument_list, output_list) =
            (arguments.as_slice().as_ptr(), outputs.as_mut_slice().as_mut_ptr());
        let mut event = null_mut();
        let mut args = Args::<PJRT_LoadedExecutable_Execute_Args>::new();
        args.executable = self.as_raw();
        args.options = options.as_mut_ptr();
        args.argument_lists = &argument_list;
        args.num_devices = 1;
        args.num_args = inputs.len();
        args.output_lists = &output_list;
        args.device_complete_events = &mut event;
        let plugin = self.client().plugin();
        // SAFETY: the executable and the inputs are alive and belong to one client. There is one list of inputs, one
        // list of outputs and one event for the one device. The lists have the lengths that the function needs, and
        // outlive the call. The returned event and buffers are new, and nothing else destroys them.
        let (complete, outputs) = unsafe {
            plugin.call(function!(plugin, PJRT_LoadedExecutable_Execute)?, &mut args)?;
            // Every object gets an owner before an error can be returned. So no object leaks.
            (Event::from_output(plugin, event, EXECUTE), self.outputs(outputs.as_slice()))
        };
        // If an output is missing, the program still runs. Dropping the launch then waits for it.
        let mut launch =
            Launch { complete: complete?, waited: false, outputs: Vec::new(), _executable: self.clone() };
        launch.outputs = outputs?;
        Ok(launch)
    }

    /// Takes ownership of the buffers that a run returned.
    ///
    /// # Safety
    /// All pointers must be null or live buffers of this client that nothing else destroys.
    unsafe fn outputs(&self, outputs: &[*mut PJRT_Buffer]) -> Result<Vec<Buffer>> {
        let (client, types) = (self.client(), self.output_types.get());
        let mut owned = Vec::with_capacity(outputs.len());
        let mut failed = None;
        for (number, &output) in outputs.iter().enumerate() {
            let buffer = match types {
                // SAFETY: the caller guarantees this. The outputs of every run have the same types.
                Some(types) => unsafe { Buffer::of_type(client, output, EXECUTE, &types[number]) },
                // SAFETY: the caller guarantees this.
                None => unsafe { Buffer::from_output(client, output, EXECUTE) },
            };
            // After a failure, the other buffers still get an owner, so that none leaks.
            match buffer {
                Ok(buffer) => owned.push(buffer),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if types.is_none() {
            self.compare_types(&owned);
        }
        Ok(owned)
    }

    /// Sets `output_types` if this run and the last run returned the same types.
    fn compare_types(&self, outputs: &[Buffer]) {
        let types: Vec<Arc<ArrayType>> = outputs.iter().map(Buffer::array_type).collect();
        let mut last = self.last_types.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == types {
            self.output_types.get_or_init(|| types);
        } else {
            *last = types;
        }
    }
}

impl Loaded {
    fn compiled(&self) -> Result<CompiledProgram> {
        let plugin = self.client.plugin();
        let function = function!(plugin, PJRT_LoadedExecutable_GetExecutable)?;
        let name = function.name;
        let mut args = Args::<PJRT_LoadedExecutable_GetExecutable_Args>::new();
        args.loaded_executable = self.handle.as_ptr();
        // SAFETY: the executable is alive. The caller of this API function must destroy the object that it returns.
        unsafe {
            plugin.call(function, &mut args)?;
            CompiledProgram::from_output(plugin, args.executable, name)
        }
    }

    fn devices(&self) -> Result<Vec<usize>> {
        let plugin = self.client.plugin();
        let function = function!(plugin, PJRT_LoadedExecutable_AddressableDevices)?;
        let name = function.name;
        let mut args = Args::<PJRT_LoadedExecutable_AddressableDevices_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: the executable is alive, and the list lives as long as the executable.
        let devices = unsafe {
            plugin.call(function, &mut args)?;
            slice(args.addressable_devices, args.num_addressable_devices, name)?
        };
        let index = |&device: &*mut PJRT_Device| {
            self.client.device_index(device).ok_or_else(|| {
                Error::Misbehaved("a program is loaded on a device that its client does not list".into())
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
        // SAFETY: this value owns the executable, and nothing uses it afterwards. The plugin keeps the objects that
        // running work needs.
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
