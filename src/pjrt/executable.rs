//! Programs that are loaded on devices, and their execution.

use std::fmt;
use std::marker::PhantomData;
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

/// A running program: see [`Executable::launch`]. It borrows the program, because a running program must not be
/// unloaded.
pub struct Launch<'a> {
    complete: Vec<Event>,
    /// All outputs of the first device, then all outputs of the next device.
    outputs: Vec<Buffer>,
    num_outputs: usize,
    executable: PhantomData<&'a Executable>,
}

/// A running program that keeps itself loaded: see [`Executable::launch_shared`].
pub struct SharedLaunch {
    // Fields are dropped in this order: the event and the outputs, then the program.
    complete: Event,
    outputs: Vec<Buffer>,
    _executable: Arc<Executable>,
}

impl SharedLaunch {
    /// The outputs. They can be used before the program ends, because every use waits for it.
    pub fn outputs(&self) -> &[Buffer] {
        &self.outputs
    }

    /// Takes all outputs out of the launch.
    pub fn take_outputs(&mut self) -> Vec<Buffer> {
        std::mem::take(&mut self.outputs)
    }

    /// Waits until the program ends.
    pub fn wait(&self) -> Result<()> {
        self.complete.wait()
    }

    /// Calls `action` with the outcome when the program ends. The call happens on a thread of the plugin, or on this
    /// thread before the function returns. If the function fails, it does not call `action`.
    pub fn on_ready(&self, action: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        self.complete.on_ready(action)
    }
}

impl Drop for SharedLaunch {
    fn drop(&mut self) {
        // A program must stay loaded while it runs. The outcome does not matter, because nothing reads it.
        let _ = self.wait();
    }
}

/// The plugin's object for a loaded program.
struct Loaded {
    client: Arc<Client>,
    handle: Handle<PJRT_LoadedExecutable>,
}

impl Executable {
    /// Takes ownership of an executable that `function` returned, and checks that it runs on the devices in `options`.
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
        let mut ids: Vec<i32> = devices.iter().map(|&device| client.devices()[device].id()).collect();
        let mut wanted = options.devices().to_vec();
        ids.sort_unstable();
        wanted.sort_unstable();
        if ids != wanted {
            return Err(Error::Misbehaved(format!(
                "{function} returned a program for the device ids {ids:?}, not for {wanted:?}"
            )));
        }
        let (output_types, last_types) = (OnceLock::new(), Mutex::default());
        Ok(Self { compiled, loaded, num_outputs, output_types, last_types, devices })
    }

    /// The client of this program.
    pub fn client(&self) -> &Arc<Client> {
        &self.loaded.client
    }

    /// The number of arrays that the program returns on each device.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// The devices that the program runs on, as indices into [`Client::devices`], in the order in which
    /// [`Executable::launch`] takes inputs.
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

    /// Runs a program for one device and waits for its end.
    pub fn execute(&self, inputs: &[&Buffer]) -> Result<Vec<Buffer>> {
        if self.devices.len() != 1 {
            return Err(Error::Argument(format!(
                "the program runs on {} devices; launch it with one list of inputs per device",
                self.devices.len()
            )));
        }
        let mut outputs = self.launch(&[inputs])?.wait()?;
        outputs.pop().ok_or_else(|| Error::Misbehaved("a run returned no list of outputs".into()))
    }

    /// Starts the program with one list of inputs per device, in the order of [`Executable::devices`]. Inputs are
    /// never donated: they keep their contents, and may be dropped at once. Plugins check the number, size and
    /// device of the inputs, but not their element type and dimensions: they accept an S32 buffer in place of an F32
    /// buffer of the same size.
    pub fn launch(&self, inputs: &[&[&Buffer]]) -> Result<Launch<'_>> {
        let num_args = self.check_inputs(inputs)?;
        let (num_devices, num_outputs) = (inputs.len(), self.num_outputs);
        let arguments: Vec<*mut PJRT_Buffer> =
            inputs.iter().flat_map(|list| list.iter().map(|buffer| buffer.as_raw())).collect();
        let mut outputs = vec![null_mut::<PJRT_Buffer>(); num_devices * num_outputs];
        let start_of_outputs = outputs.as_mut_ptr();
        let (argument_lists, output_lists): (Vec<_>, Vec<_>) = (0..num_devices)
            .map(|device| {
                let first_output = start_of_outputs.wrapping_add(device * num_outputs);
                (arguments.as_ptr().wrapping_add(device * num_args), first_output)
            })
            .unzip();
        let mut events = vec![null_mut(); num_devices];
        let kept: Vec<i64> = (0..num_args as i64).collect();
        // SAFETY: the inputs are alive and belong to the client. Each list has the length that the function needs. The
        // returned events and buffers are new, and nothing else destroys them.
        unsafe {
            self.start(num_args, &argument_lists, &output_lists, &mut events, &kept)?;
            // Every object gets an owner before an error can be returned, so that none leaks.
            let complete: Vec<Result<Event>> = events.iter().map(|&event| self.event(event)).collect();
            let outputs = self.outputs(&outputs);
            let complete = complete.into_iter().collect::<Result<_>>()?;
            Ok(Launch { complete, outputs: outputs?, num_outputs, executable: PhantomData })
        }
    }

    /// Starts a program that was compiled for one device. The result keeps the program loaded. See
    /// [`Executable::launch`].
    ///
    /// `donated` is the index of an input whose memory an output may use, if the program was compiled for this. If an
    /// output uses the memory, the buffer of the input is deleted. Otherwise the buffer keeps its contents.
    pub fn launch_shared(
        self: &Arc<Self>,
        inputs: &[&Buffer],
        donated: Option<usize>,
    ) -> Result<SharedLaunch> {
        let num_args = self.check_inputs(&[inputs])?;
        let list = |len| ShortList::<_, FEW>::filled(null_mut(), len, "the inputs and outputs of a program");
        let (mut arguments, mut outputs) = (list(num_args)?, list(self.num_outputs)?);
        arguments.as_mut_slice().iter_mut().zip(inputs).for_each(|(slot, input)| *slot = input.as_raw());
        let mut kept = ShortList::<i64, FEW>::filled(0, num_args, "the inputs of a program")?;
        let not_donated = (0..num_args).filter(|&input| Some(input) != donated);
        let num_kept =
            kept.as_mut_slice().iter_mut().zip(not_donated).map(|(slot, input)| *slot = input as i64).count();
        let mut events = [null_mut()];
        // SAFETY: as in `launch`.
        unsafe {
            let argument_lists = [arguments.as_slice().as_ptr()];
            let output_lists = [outputs.as_mut_slice().as_mut_ptr()];
            self.start(num_args, &argument_lists, &output_lists, &mut events, &kept.as_slice()[..num_kept])?;
            // Every object gets an owner before an error can be returned, so that none leaks.
            let (complete, outputs) = (self.event(events[0]), self.outputs(outputs.as_slice()));
            Ok(SharedLaunch { complete: complete?, outputs: outputs?, _executable: self.clone() })
        }
    }

    /// Calls `PJRT_LoadedExecutable_Execute`. `kept` has the indices of the inputs whose memory no output may use.
    /// These are all inputs that are not donated, even if the program was compiled to reuse their memory. Threads share
    /// programs, and programs share inputs. So an output must not overwrite an input that is not donated.
    ///
    /// # Safety
    /// There is one list of arguments, one list of outputs and one event per device. Each list of arguments has
    /// `num_args` live buffers of the client. Each list of outputs has space for the outputs of the program.
    unsafe fn start(
        &self,
        num_args: usize,
        argument_lists: &[*const *mut PJRT_Buffer],
        output_lists: &[*mut *mut PJRT_Buffer],
        events: &mut [*mut PJRT_Event],
        kept: &[i64],
    ) -> Result<()> {
        let mut options = Args::<PJRT_ExecuteOptions>::new();
        options.non_donatable_input_indices = kept.as_ptr();
        options.num_non_donatable_input_indices = kept.len();
        let mut args = Args::<PJRT_LoadedExecutable_Execute_Args>::new();
        args.executable = self.loaded.handle.as_ptr();
        args.options = options.as_mut_ptr();
        args.argument_lists = argument_lists.as_ptr();
        args.num_devices = argument_lists.len();
        args.num_args = num_args;
        args.output_lists = output_lists.as_ptr();
        args.device_complete_events = events.as_mut_ptr();
        let plugin = self.loaded.client.plugin();
        // SAFETY: the executable is alive. The caller guarantees the lists, which outlive the call.
        unsafe { plugin.call(function!(plugin, PJRT_LoadedExecutable_Execute)?, &mut args) }
    }

    /// Checks the inputs of a launch and returns their number per device.
    fn check_inputs(&self, inputs: &[&[&Buffer]]) -> Result<usize> {
        if inputs.len() != self.devices.len() {
            return Err(Error::Argument(format!(
                "{} lists of inputs were passed for a program that runs on {} device(s)",
                inputs.len(),
                self.devices.len()
            )));
        }
        let num_args = inputs.first().map_or(0, |list| list.len());
        let client = self.client().as_raw();
        for list in inputs {
            if list.len() != num_args {
                return Err(Error::Argument(format!(
                    "one device gets {num_args} inputs, another one {}",
                    list.len()
                )));
            }
            // A plugin would use a pointer of another client as if it were its own. The check compares the plugin's
            // objects and not the Rust values, because the caller's client may have been borrowed twice.
            if list.iter().any(|buffer| buffer.client().as_raw() != client) {
                return Err(Error::Argument("an input belongs to another client".into()));
            }
        }
        Ok(num_args)
    }

    /// Takes ownership of an event that a run returned.
    ///
    /// # Safety
    /// The event must be null or a live event of this client that nothing else destroys.
    unsafe fn event(&self, event: *mut PJRT_Event) -> Result<Event> {
        // SAFETY: the caller guarantees this.
        unsafe { Event::from_output(self.client().plugin(), event, EXECUTE) }
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
                // SAFETY: the caller guarantees this. The outputs of every run and device have the same types.
                Some(types) => unsafe {
                    Buffer::of_type(client, output, EXECUTE, &types[number % types.len()])
                },
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
            self.compare_types(&owned[..self.num_outputs]);
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

impl Launch<'_> {
    /// Waits for all devices, even if one fails, and returns the outputs of each device.
    pub fn wait(self) -> Result<Vec<Vec<Buffer>>> {
        let outcomes: Vec<Result<()>> = self.complete.iter().map(Event::wait).collect();
        outcomes.into_iter().collect::<Result<()>>()?;
        let mut outputs = self.outputs.into_iter();
        let num_devices = self.complete.len();
        Ok((0..num_devices).map(|_| outputs.by_ref().take(self.num_outputs).collect()).collect())
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
