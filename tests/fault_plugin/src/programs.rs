//! The proxy's cache of compiled programs.

use pjrt_sys::*;

use crate::errors;
use crate::functions::index;
use crate::real::{Real, Tailed};
use crate::state;

/// Compiles a program, or loads it when the same program was compiled before.
pub(crate) unsafe fn compile(real: &Real, args: *mut PJRT_Client_Compile_Args) -> *mut PJRT_Error {
    let key = key(&*args);
    if let Some(executable) = state::with(|state| state.programs.get(&key).cloned()) {
        let mut load = Tailed::<PJRT_Executable_DeserializeAndLoad_Args>::new();
        load.base.client = (*args).client;
        load.base.serialized_executable = executable.as_ptr().cast();
        load.base.serialized_executable_size = executable.len();
        // `overridden_serialized_compile_options` and its size, which are newer than the bindings.
        load.tail[0] = (*args).compile_options as usize;
        load.tail[1] = (*args).compile_options_size;
        let error = real.ask(index::PJRT_Executable_DeserializeAndLoad, &mut load);
        if error.is_null() {
            (*args).executable = load.base.loaded_executable;
            return error;
        }
        errors::discard(real, error);
    }
    let error = real.call(index::PJRT_Client_Compile, args.cast());
    if error.is_null() {
        if let Some(executable) = serialize(real, (*args).executable) {
            state::with(|state| state.programs.insert(key, executable));
        }
    }
    error
}

/// What a compile depends on.
unsafe fn key(args: &PJRT_Client_Compile_Args) -> Vec<u8> {
    let program = &*args.program;
    let text = std::slice::from_raw_parts(program.code.cast::<u8>(), program.code_size);
    let options = std::slice::from_raw_parts(args.compile_options.cast::<u8>(), args.compile_options_size);
    [text, b"\0", options].concat()
}

unsafe fn serialize(real: &Real, loaded: *mut PJRT_LoadedExecutable) -> Option<Vec<u8>> {
    with_executable(real, loaded, |executable| {
        let mut args = Tailed::<PJRT_Executable_Serialize_Args>::new();
        args.base.executable = executable;
        let error = real.ask(index::PJRT_Executable_Serialize, &mut args);
        if !error.is_null() {
            errors::discard(real, error);
            return None;
        }
        let (bytes, size) = (args.base.serialized_bytes.cast::<u8>(), args.base.serialized_bytes_size);
        let bytes = std::slice::from_raw_parts(bytes, size).to_vec();
        if let Some(delete) = args.base.serialized_executable_deleter {
            delete(args.base.serialized_executable);
        }
        Some(bytes)
    })
}

/// The number of outputs of a program.
pub(crate) unsafe fn num_outputs(real: &Real, loaded: *mut PJRT_LoadedExecutable) -> Option<usize> {
    with_executable(real, loaded, |executable| {
        let mut args = Tailed::<PJRT_Executable_NumOutputs_Args>::new();
        args.base.executable = executable;
        let error = real.ask(index::PJRT_Executable_NumOutputs, &mut args);
        errors::discard(real, error);
        error.is_null().then_some(args.base.num_outputs)
    })
}

unsafe fn with_executable<R>(
    real: &Real,
    loaded: *mut PJRT_LoadedExecutable,
    body: impl FnOnce(*mut PJRT_Executable) -> Option<R>,
) -> Option<R> {
    let mut args = Tailed::<PJRT_LoadedExecutable_GetExecutable_Args>::new();
    args.base.loaded_executable = loaded;
    let error = real.ask(index::PJRT_LoadedExecutable_GetExecutable, &mut args);
    if !error.is_null() {
        errors::discard(real, error);
        return None;
    }
    let outcome = body(args.base.executable);
    let mut destroy = Tailed::<PJRT_Executable_Destroy_Args>::new();
    destroy.base.executable = args.base.executable;
    errors::discard(real, real.ask(index::PJRT_Executable_Destroy, &mut destroy));
    outcome
}
