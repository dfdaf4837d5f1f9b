//! Compiled programs, apart from any device.

use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::error::Result;
use super::handle::Handle;
use super::plugin::{function, Plugin};
use super::plugin_data::slice;

/// The program as a thing to ask about.
pub(super) struct CompiledProgram {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_Executable>,
}

impl CompiledProgram {
    /// # Safety
    /// `executable` must be null or a live executable of `plugin` that nobody else destroys.
    pub(super) unsafe fn from_output(
        plugin: &Arc<Plugin>,
        executable: *mut PJRT_Executable,
        function: &str,
    ) -> Result<Self> {
        Ok(Self { plugin: plugin.clone(), handle: Handle::from_output(executable, function)? })
    }

    pub(super) fn num_outputs(&self) -> Result<usize> {
        let mut args = Args::<PJRT_Executable_NumOutputs_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: the executable is alive.
        unsafe { self.plugin.call(function!(self.plugin, PJRT_Executable_NumOutputs)?, &mut args)? };
        Ok(args.num_outputs)
    }

    pub(super) fn code_size(&self) -> Result<Option<usize>> {
        let mut args = Args::<PJRT_Executable_SizeOfGeneratedCodeInBytes_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: the executable is alive.
        let outcome = function!(self.plugin, PJRT_Executable_SizeOfGeneratedCodeInBytes)
            .and_then(|function| unsafe { self.plugin.call(function, &mut args) });
        match outcome {
            Err(error) if error.is_unimplemented() => Ok(None),
            other => other.map(|()| usize::try_from(args.size_in_bytes).ok()),
        }
    }

    pub(super) fn serialize(&self) -> Result<Vec<u8>> {
        let mut args = Args::<PJRT_Executable_Serialize_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: the executable is alive; the bytes live until their deleter is called, after they were copied.
        unsafe {
            self.plugin.call(function!(self.plugin, PJRT_Executable_Serialize)?, &mut args)?;
            let bytes = slice(args.serialized_bytes.cast::<u8>(), args.serialized_bytes_size).to_vec();
            if let Some(delete) = args.serialized_executable_deleter {
                delete(args.serialized_executable);
            }
            Ok(bytes)
        }
    }
}

impl Drop for CompiledProgram {
    fn drop(&mut self) {
        let mut args = Args::<PJRT_Executable_Destroy_Args>::new();
        args.executable = self.handle.as_ptr();
        // SAFETY: this value owned the executable and is gone after this.
        unsafe { self.plugin.call_in_drop(function!(self.plugin, PJRT_Executable_Destroy), &mut args) }
    }
}

/// A program for the plugin; it points into `mlir`.
pub(super) fn program(mlir: &str) -> Args<PJRT_Program> {
    let format = "mlir";
    let mut program = Args::<PJRT_Program>::new();
    // The field is not const because another function writes programs through it; compiling reads.
    program.code = mlir.as_ptr().cast_mut().cast();
    program.code_size = mlir.len();
    program.format = format.as_ptr().cast();
    program.format_size = format.len();
    program
}
