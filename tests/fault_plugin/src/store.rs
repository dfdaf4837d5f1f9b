//! Clients and compiled programs that are kept for reuse.
//!
//! A sweep creates the same client and compiles the same programs thousands of times. The proxy keeps destroyed objects
//! and returns them again. A caller cannot detect this, because each object has only one owner between creation and
//! destruction.

use std::ffi::c_void;

use pjrt_sys::*;

use crate::errors;
use crate::functions::index;
use crate::ledger::Object;
use crate::real::{Real, Tailed};
use crate::state;

/// How an object was created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Recipe {
    /// A client with these options.
    Client(String),
    /// A program on a client.
    Program { client: usize, executable: Vec<u8>, options: Vec<u8> },
}

/// Takes an object out of the store.
fn take(recipe: &Recipe) -> Option<usize> {
    state::with(|state| {
        let object = state.stored.get_mut(recipe)?.pop()?;
        state.recipes.insert(object, recipe.clone());
        Some(object)
    })
}

/// Records how an object was created.
fn remember<T>(object: *mut T, recipe: Recipe) {
    state::with(|state| state.recipes.insert(object as usize, recipe));
}

/// Puts an object into the store instead of destroying it. Returns false if the proxy does not know how the object was
/// created.
pub(crate) fn keep(object: *mut c_void) -> bool {
    state::with(|state| {
        let Some(recipe) = state.recipes.remove(&(object as usize)) else { return false };
        state.stored.entry(recipe).or_default().push(object as usize);
        true
    })
}

/// Creates a client, or takes one with the same options from the store.
pub(crate) unsafe fn create_client(real: &Real, args: *mut PJRT_Client_Create_Args) -> *mut PJRT_Error {
    let recipe = client_options(&*args).map(Recipe::Client);
    if let Some(client) = recipe.as_ref().and_then(take) {
        (*args).client = client as *mut PJRT_Client;
        return std::ptr::null_mut();
    }
    let error = real.call(index::PJRT_Client_Create, args.cast());
    if let (true, Some(recipe)) = (error.is_null(), recipe) {
        remember((*args).client, recipe);
    }
    error
}

/// The options of a client as text, if all of them are integers.
unsafe fn client_options(args: &PJRT_Client_Create_Args) -> Option<String> {
    let mut text = String::new();
    for at in 0..args.num_options {
        let option = &*args.create_options.add(at);
        if option.type_ != PJRT_NamedValue_Type_PJRT_NamedValue_kInt64 {
            return None;
        }
        let name = std::slice::from_raw_parts(option.name.cast::<u8>(), option.name_size);
        let value = option.__bindgen_anon_1.int64_value;
        text += &format!("{}={value};", String::from_utf8_lossy(name));
    }
    Some(text)
}

/// Compiles a program. If the same program was compiled before, loads it instead.
pub(crate) unsafe fn compile(real: &Real, args: *mut PJRT_Client_Compile_Args) -> *mut PJRT_Error {
    let program = &*(*args).program;
    let text = std::slice::from_raw_parts(program.code.cast::<u8>(), program.code_size);
    let options = (*args).compile_options.cast::<u8>();
    let options = std::slice::from_raw_parts(options, (*args).compile_options_size);
    let key = [text, b"\0", options].concat();
    let client = (*args).client as usize;
    if let Some(executable) = state::with(|state| state.compiled.get(&key).cloned()) {
        let recipe = Recipe::Program { client, executable, options: options.to_vec() };
        match load(real, &recipe) {
            Ok(loaded) => {
                (*args).executable = loaded;
                return std::ptr::null_mut();
            }
            Err(error) => errors::discard(real, error),
        }
    }
    let error = real.call(index::PJRT_Client_Compile, args.cast());
    if error.is_null() {
        if let Some(executable) = serialize(real, (*args).executable) {
            state::with(|state| state.compiled.insert(key, executable.clone()));
            remember((*args).executable, Recipe::Program { client, executable, options: options.to_vec() });
        }
    }
    error
}

/// Loads a program. If the same program is in the store, returns it instead.
pub(crate) unsafe fn deserialize(
    real: &Real,
    args: *mut PJRT_Executable_DeserializeAndLoad_Args,
) -> *mut PJRT_Error {
    let tailed = &*args.cast::<Tailed<PJRT_Executable_DeserializeAndLoad_Args>>();
    // The bindings do not contain `overridden_serialized_compile_options` and its size, because these fields are newer.
    let known = size_of::<PJRT_Executable_DeserializeAndLoad_Args>() + 2 * size_of::<usize>();
    let options = match tailed.base.struct_size >= known && tailed.tail[0] != 0 {
        true => std::slice::from_raw_parts(tailed.tail[0] as *const u8, tailed.tail[1]).to_vec(),
        false => return real.call(index::PJRT_Executable_DeserializeAndLoad, args.cast()),
    };
    let executable = (*args).serialized_executable.cast::<u8>();
    let executable = match (*args).serialized_executable_size {
        0 => vec![],
        size => std::slice::from_raw_parts(executable, size).to_vec(),
    };
    match load(real, &Recipe::Program { client: (*args).client as usize, executable, options }) {
        Ok(loaded) => {
            (*args).loaded_executable = loaded;
            std::ptr::null_mut()
        }
        Err(error) => error,
    }
}

unsafe fn load(real: &Real, recipe: &Recipe) -> Result<*mut PJRT_LoadedExecutable, *mut PJRT_Error> {
    if let Some(loaded) = take(recipe) {
        return Ok(loaded as *mut PJRT_LoadedExecutable);
    }
    let Recipe::Program { client, executable, options } = recipe else { unreachable!() };
    let mut args = Tailed::<PJRT_Executable_DeserializeAndLoad_Args>::new();
    args.base.client = *client as *mut PJRT_Client;
    args.base.serialized_executable = executable.as_ptr().cast();
    args.base.serialized_executable_size = executable.len();
    (args.tail[0], args.tail[1]) = (options.as_ptr() as usize, options.len());
    let error = real.ask(index::PJRT_Executable_DeserializeAndLoad, &mut args);
    if !error.is_null() {
        return Err(error);
    }
    remember(args.base.loaded_executable, recipe.clone());
    Ok(args.base.loaded_executable)
}

/// Serializes a program. For a loaded program, returns the bytes that it was loaded from. The reason is that XLA's CPU
/// plugin loses functions when it serializes a loaded program.
pub(crate) unsafe fn serialize_call(
    real: &Real,
    args: *mut PJRT_Executable_Serialize_Args,
) -> *mut PJRT_Error {
    let executable = state::with(|state| {
        let Object::Executable { loaded } = state.ledger.get((*args).executable)? else { return None };
        match state.recipes.get(&loaded)? {
            Recipe::Program { executable, .. } => Some(executable.clone()),
            Recipe::Client(_) => None,
        }
    });
    let Some(executable) = executable else {
        return real.call(index::PJRT_Executable_Serialize, args.cast());
    };
    let bytes = Box::new(executable);
    ((*args).serialized_bytes, (*args).serialized_bytes_size) = (bytes.as_ptr().cast(), bytes.len());
    (*args).serialized_executable = Box::into_raw(bytes).cast();
    (*args).serialized_executable_deleter = Some(delete);
    std::ptr::null_mut()
}

unsafe extern "C" fn delete(executable: *mut PJRT_SerializedExecutable) {
    drop(Box::from_raw(executable.cast::<Vec<u8>>()));
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
