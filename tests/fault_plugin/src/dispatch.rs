//! The steps of a call: the trampoline, the checks, the fault or the real call, and the ledger.

use std::ffi::c_void;
use std::ptr::null_mut;

use pjrt_sys::*;

use crate::answers;
use crate::errors;
use crate::events;
use crate::fault::Kind;
use crate::functions::{index, name};
use crate::ledger::{Contents, Object};
use crate::real::{Entry, Real, Tailed};
use crate::state::{self, Call};
use crate::store;

/// The function of the proxy at position `16 * ROW + COLUMN` of the table.
unsafe extern "C" fn trampoline<const ROW: usize, const COLUMN: usize>(args: *mut c_void) -> *mut PJRT_Error {
    dispatch(16 * ROW + COLUMN, args)
}

macro_rules! row {
    ($row:literal: $($column:literal)*) => { [$(trampoline::<$row, $column> as Entry),*] };
}
macro_rules! rows {
    ($($row:literal)*) => { [$(row!($row: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*] };
}

const ROWS: [[Entry; 16]; 12] = rows!(0 1 2 3 4 5 6 7 8 9 10 11);

/// One function per position of the table.
pub(crate) static TRAMPOLINES: &[Entry] = ROWS.as_flattened();

unsafe fn dispatch(function: usize, args: *mut c_void) -> *mut PJRT_Error {
    let Some(real) = Real::get() else { return null_mut() };
    match function {
        // These functions read and destroy errors. The kind of an error defines their faults.
        index::PJRT_Error_Destroy => {
            errors::destroy(real, args);
            return null_mut();
        }
        index::PJRT_Error_Message => {
            errors::message(real, args);
            return null_mut();
        }
        index::PJRT_Error_GetCode => return errors::code(real, args),
        _ => {}
    }
    if let Some(violation) = violation(function, args) {
        state::with(|state| state.violations.push(violation));
        return errors::make(Kind::Internal);
    }
    if state::QUIET.get() {
        return genuine(real, function, args);
    }
    let contents = match state::with(|state| state.ledger.get(subject(args))) {
        Some(Object::Buffer { contents, .. }) if function == index::PJRT_Buffer_ToHostBuffer => contents,
        _ => Contents::Other,
    };
    match state::with(|state| state.note(Call { function, contents })) {
        None => genuine(real, function, args),
        Some(kind) if kind.is_error() => fail(real, function, args, kind),
        Some(kind) => answers::nonsense(real, function, args, kind),
    }
}

/// The object that a function works on. It is the first field of most argument structs.
unsafe fn subject(args: *mut c_void) -> *mut c_void {
    *args.cast::<*mut c_void>().add(2)
}

/// Checks whether a call may use its object. Returns a description of the violation, if there is one.
unsafe fn violation(function: usize, args: *mut c_void) -> Option<String> {
    let name = name(function).to_str().ok()?;
    let is_kind: fn(Object) -> bool = match name.split('_').nth(1)? {
        "Event" => |object| matches!(object, Object::Event { .. }),
        "Buffer" => |object| matches!(object, Object::Buffer { .. }),
        "LoadedExecutable" => |object| matches!(object, Object::Loaded { .. }),
        "Executable" if function != index::PJRT_Executable_DeserializeAndLoad => {
            |object| matches!(object, Object::Executable { .. })
        }
        "Client" | "Executable" if function != index::PJRT_Client_Create => |object| object == Object::Client,
        _ => return None,
    };
    let (object, of_clients) =
        state::with(|state| (state.ledger.get(subject(args)), state.ledger.of_clients()));
    if !object.is_some_and(is_kind) {
        return Some(format!("{name} on {object:?}"));
    }
    match function {
        index::PJRT_Client_Destroy if of_clients > 0 => {
            Some(format!("{name} while {of_clients} objects of the client are alive"))
        }
        index::PJRT_LoadedExecutable_Execute => launch_violation(&*args.cast(), object?),
        _ => None,
    }
}

unsafe fn launch_violation(args: &PJRT_LoadedExecutable_Execute_Args, program: Object) -> Option<String> {
    let Object::Loaded { outputs, told } = program else { return None };
    // With too little space, the real plugin would write beyond the end of the caller's lists.
    if told < outputs {
        return Some(format!("a program of {outputs} outputs was started with room for {told}"));
    }
    for device in 0..args.num_devices {
        let list = std::slice::from_raw_parts(*args.argument_lists.add(device), args.num_args);
        let live = |&&buffer: &&*mut PJRT_Buffer| state::with(|state| state.ledger.get(buffer).is_some());
        if list.iter().filter(live).count() != list.len() {
            return Some("a program was started with a dead input".to_owned());
        }
    }
    None
}

/// Injects an error and returns it.
unsafe fn fail(real: &Real, function: usize, args: *mut c_void, kind: Kind) -> *mut PJRT_Error {
    let name = name(function).to_bytes();
    // A destructor and a wait first do their work and then fail. So the caller need not destroy the object again, and
    // no running work uses the caller's memory. Every other function fails without any effect.
    if name.ends_with(b"_Destroy") || function == index::PJRT_Event_Await {
        let error = genuine(real, function, args);
        state::with(|state| state.ledger.remove(error));
        errors::discard(real, error);
    }
    errors::make(kind)
}

/// Calls the real function.
pub(crate) unsafe fn genuine(real: &Real, function: usize, args: *mut c_void) -> *mut PJRT_Error {
    if name(function).to_bytes().ends_with(b"_Destroy") {
        state::with(|state| state.ledger.remove(subject(args)));
    }
    let error = match function {
        index::PJRT_Client_Create => store::create_client(real, args.cast()),
        index::PJRT_Client_Compile => store::compile(real, args.cast()),
        index::PJRT_Executable_DeserializeAndLoad => store::deserialize(real, args.cast()),
        index::PJRT_Executable_Serialize => store::serialize_call(real, args.cast()),
        index::PJRT_Event_Await | index::PJRT_Event_Error => events::outcome(real, function, args),
        index::PJRT_Event_OnReady => events::on_ready(real, &mut *args.cast(), None),
        index::PJRT_Client_Destroy | index::PJRT_LoadedExecutable_Destroy if store::keep(subject(args)) => {
            null_mut()
        }
        _ => real.call(function, args),
    };
    if error.is_null() {
        note_outputs(real, function, args);
    } else {
        errors::note(error);
    }
    error
}

/// Records the objects that a call returned.
unsafe fn note_outputs(real: &Real, function: usize, args: *mut c_void) {
    let add = |pointer: *mut c_void, object| state::with(|state| state.ledger.add(pointer, object));
    let buffer = Object::Buffer { contents: Contents::Other, fails: None };
    let event = Object::Event { fails: None };
    match function {
        index::PJRT_Client_Create => {
            add((*args.cast::<PJRT_Client_Create_Args>()).client.cast(), Object::Client);
        }
        index::PJRT_Client_Compile => {
            note_loaded(real, (*args.cast::<PJRT_Client_Compile_Args>()).executable);
        }
        index::PJRT_Executable_DeserializeAndLoad => {
            note_loaded(real, (*args.cast::<PJRT_Executable_DeserializeAndLoad_Args>()).loaded_executable);
        }
        index::PJRT_LoadedExecutable_GetExecutable => {
            let args = &*args.cast::<PJRT_LoadedExecutable_GetExecutable_Args>();
            add(args.executable.cast(), Object::Executable { loaded: args.loaded_executable as usize });
        }
        index::PJRT_Compile => {
            add((*args.cast::<PJRT_Compile_Args>()).executable.cast(), Object::Executable { loaded: 0 });
        }
        index::PJRT_Client_BufferFromHostBuffer => {
            let args = &*args.cast::<PJRT_Client_BufferFromHostBuffer_Args>();
            add(args.buffer.cast(), buffer);
            add(args.done_with_host_buffer.cast(), event);
        }
        index::PJRT_LoadedExecutable_Execute => note_launch(real, &*args.cast()),
        index::PJRT_Buffer_ToHostBuffer => {
            let args = &*args.cast::<PJRT_Buffer_ToHostBuffer_Args>();
            let fails = state::with(|state| state.ledger.failure(args.src));
            add(args.event.cast(), Object::Event { fails });
        }
        index::PJRT_Buffer_ReadyEvent => {
            let args = &*args.cast::<PJRT_Buffer_ReadyEvent_Args>();
            let fails = state::with(|state| state.ledger.failure(args.buffer));
            add(args.event.cast(), Object::Event { fails });
        }
        index::PJRT_TopologyDescription_Create => {
            add((*args.cast::<PJRT_TopologyDescription_Create_Args>()).topology.cast(), Object::Topology);
        }
        index::PJRT_Executable_Serialize => answers::note_serialized(&mut *args.cast()),
        _ => {}
    }
}

unsafe fn note_loaded(real: &Real, loaded: *mut PJRT_LoadedExecutable) {
    let outputs = store::num_outputs(real, loaded).unwrap_or(0);
    state::with(|state| state.ledger.add(loaded, Object::Loaded { outputs, told: outputs }));
}

/// Records the outputs of a program. If the proxy reports an error for an input, it reports this error for all outputs.
unsafe fn note_launch(real: &Real, args: &PJRT_LoadedExecutable_Execute_Args) {
    let Some(Object::Loaded { outputs, .. }) = state::with(|state| state.ledger.get(args.executable)) else {
        return;
    };
    for device in 0..args.num_devices {
        let inputs = std::slice::from_raw_parts(*args.argument_lists.add(device), args.num_args);
        let list = std::slice::from_raw_parts(*args.output_lists.add(device), outputs);
        let second = list.get(1).is_some_and(|&buffer| has_one_dimension(real, buffer));
        state::with(|state| {
            let fails = inputs.iter().find_map(|&input| state.ledger.failure(input));
            for (output, &buffer) in list.iter().enumerate() {
                let contents = match output {
                    0 => Contents::Results,
                    1 if second => Contents::Tokens,
                    _ => Contents::Other,
                };
                state.ledger.add(buffer, Object::Buffer { contents, fails });
            }
            if !args.device_complete_events.is_null() {
                state.ledger.add(*args.device_complete_events.add(device), Object::Event { fails });
            }
        });
    }
}

unsafe fn has_one_dimension(real: &Real, buffer: *mut PJRT_Buffer) -> bool {
    let mut args = Tailed::<PJRT_Buffer_Dimensions_Args>::new();
    args.base.buffer = buffer;
    let error = real.ask(index::PJRT_Buffer_Dimensions, &mut args);
    errors::discard(real, error);
    error.is_null() && args.base.num_dims == 1
}
