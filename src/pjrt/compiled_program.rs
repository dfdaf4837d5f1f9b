//! Programs as MLIR text, and compiled programs that no device has loaded.

use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::error::{Error, Result};
use super::handle::Handle;
use super::plugin::{function, Plugin};
use super::plugin_data::{copied, slice};

/// A plugin that reports more outputs than this is assumed to return garbage.
const MOST_OUTPUTS: usize = 1 << 16;

/// The compiled form of a program. Destroyed when dropped.
pub(super) struct CompiledProgram {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_Executable>,
}

impl CompiledProgram {
    /// Takes ownership of an executable that `function` returned.
    ///
    /// # Safety
    /// `executable` must be null or a live executable of `plugin` that nothing else destroys.
    pub(super) unsafe fn from_output(
        plugin: &Arc<Plugin>,
        executable: *mut PJRT_Executable,
        function: &str,
    ) -> Result<Self> {
        Ok(Self { plugin: plugin.clone(), handle: Handle::from_output(executable, function)? })
    }

    /// The number of arrays that the program returns on each device.
    pub(super) fn num_outputs(&self) -> Result<usize> {
        let mut args = Args::<PJRT_Executable_NumOutputs_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: the executable is alive.
        unsafe { self.plugin.call(function!(self.plugin, PJRT_Executable_NumOutputs)?, &mut args)? };
        match args.num_outputs {
            count @ 0..=MOST_OUTPUTS => Ok(count),
            count => Err(Error::Misbehaved(format!("PJRT_Executable_NumOutputs returned {count}"))),
        }
    }

    /// The serialized program.
    pub(super) fn serialize(&self) -> Result<Vec<u8>> {
        let mut args = Args::<PJRT_Executable_Serialize_Args>::new();
        args.executable = self.handle.as_ptr();
        let function = function!(self.plugin, PJRT_Executable_Serialize)?;
        let name = function.name;
        // SAFETY: the executable is alive. The bytes live until their deleter is called, and are copied before that.
        unsafe {
            self.plugin.call(function, &mut args)?;
            let bytes = slice(args.serialized_bytes.cast::<u8>(), args.serialized_bytes_size, name)
                .and_then(|bytes| copied(bytes, "a serialized program"));
            if let Some(delete) = args.serialized_executable_deleter {
                delete(args.serialized_executable);
            }
            bytes
        }
    }
}

impl Drop for CompiledProgram {
    fn drop(&mut self) {
        let mut args = Args::<PJRT_Executable_Destroy_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: this value owns the executable, and nothing uses it afterwards.
        unsafe { self.plugin.call_in_drop(function!(self.plugin, PJRT_Executable_Destroy), &mut args) }
    }
}

/// Describes a program, given as MLIR text, to the plugin. The result points into `mlir`.
pub(super) fn program(mlir: &str) -> Args<PJRT_Program> {
    let format = "mlir";
    let mut program = Args::<PJRT_Program>::new();
    // The field is not const, because another function of the API writes programs to it. A compile only reads it.
    program.code = mlir.as_ptr().cast_mut().cast();
    program.code_size = mlir.len();
    program.format = format.as_ptr().cast();
    program.format_size = format.len();
    program
}
