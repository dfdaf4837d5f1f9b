//! Invalid data that the proxy returns with success.

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};

use pjrt_sys::*;

use crate::dispatch::genuine;
use crate::errors;
use crate::events;
use crate::fault::Kind::{self, *};
use crate::functions::index;
use crate::ledger::{Contents, Object};
use crate::real::{Real, Tailed};
use crate::state;

/// A text that is not UTF-8.
const ODD_TEXT: &[u8] = b"\xff\xfe\0\x1b[31m";

/// A list whose objects are null.
struct NullList([*const c_void; 2]);
unsafe impl Sync for NullList {}
static NULL_LIST: NullList = NullList([null(); 2]);

static NEGATIVE_DIMS: [i64; 2] = [-1, 4];
static LARGE_DIMS: [i64; 2] = [i64::MAX; 2];

/// Writes an invalid result for a call for which [`Kind::applies`] is true.
pub(crate) unsafe fn nonsense(
    real: &Real,
    function: usize,
    args: *mut c_void,
    kind: Kind,
) -> *mut PJRT_Error {
    if kind == Empty {
        // The outputs keep the zeros that the caller wrote.
        if function == index::PJRT_Executable_NumOutputs {
            told((*args.cast::<PJRT_Executable_NumOutputs_Args>()).executable, 0);
        }
        return null_mut();
    }
    if kind.is_late() && function == index::PJRT_Event_OnReady {
        let error = events::on_ready(real, &mut *args.cast(), Some(kind));
        errors::note(error);
        return error;
    }
    let error = genuine(real, function, args);
    if error.is_null() && kind.is_late() {
        fail_late(function, args, kind);
    } else if error.is_null() {
        distort(real, function, args, kind);
    }
    error
}

/// Makes the asynchronous work of a call fail. The call itself has succeeded.
unsafe fn fail_late(function: usize, args: *mut c_void, kind: Kind) {
    match function {
        index::PJRT_Client_BufferFromHostBuffer => {
            let args = &*args.cast::<PJRT_Client_BufferFromHostBuffer_Args>();
            state::with(|state| state.ledger.set_failure(args.buffer, kind));
        }
        index::PJRT_Buffer_ToHostBuffer => {
            let args = &*args.cast::<PJRT_Buffer_ToHostBuffer_Args>();
            state::with(|state| state.ledger.set_failure(args.event, kind));
        }
        index::PJRT_Buffer_ReadyEvent => {
            let args = &*args.cast::<PJRT_Buffer_ReadyEvent_Args>();
            state::with(|state| state.ledger.set_failure(args.event, kind));
        }
        index::PJRT_LoadedExecutable_Execute => {
            let args = &*args.cast::<PJRT_LoadedExecutable_Execute_Args>();
            state::with(|state| {
                let Some(Object::Loaded { outputs, .. }) = state.ledger.get(args.executable) else { return };
                for device in 0..args.num_devices {
                    for output in 0..outputs {
                        state.ledger.set_failure(*(*args.output_lists.add(device)).add(output), kind);
                    }
                    if !args.device_complete_events.is_null() {
                        state.ledger.set_failure(*args.device_complete_events.add(device), kind);
                    }
                }
            });
        }
        _ => {}
    }
}

/// Changes the result of the real call.
unsafe fn distort(real: &Real, function: usize, args: *mut c_void, kind: Kind) {
    macro_rules! text {
        ($type:ident, $text:ident, $size:ident) => {{
            let args = &mut *args.cast::<$type>();
            distort_text(&mut args.$text, &mut args.$size, kind);
        }};
    }
    macro_rules! list {
        ($type:ident, $list:ident, $size:ident) => {{
            let args = &mut *args.cast::<$type>();
            match kind {
                Huge => args.$size = usize::MAX,
                _ => (args.$list, args.$size) = (NULL_LIST.0.as_ptr().cast(), 1),
            }
        }};
    }
    macro_rules! values {
        ($type:ident) => {{
            let args = &mut *args.cast::<$type>();
            distort_values(&mut args.attributes, &mut args.num_attributes, kind);
        }};
    }
    match function {
        index::PJRT_Client_PlatformName => {
            text!(PJRT_Client_PlatformName_Args, platform_name, platform_name_size)
        }
        index::PJRT_Client_PlatformVersion => {
            text!(PJRT_Client_PlatformVersion_Args, platform_version, platform_version_size)
        }
        index::PJRT_DeviceDescription_Kind => {
            text!(PJRT_DeviceDescription_Kind_Args, device_kind, device_kind_size)
        }
        index::PJRT_DeviceDescription_DebugString => {
            text!(PJRT_DeviceDescription_DebugString_Args, debug_string, debug_string_size)
        }
        index::PJRT_TopologyDescription_PlatformName => {
            text!(PJRT_TopologyDescription_PlatformName_Args, platform_name, platform_name_size)
        }
        index::PJRT_TopologyDescription_PlatformVersion => {
            text!(PJRT_TopologyDescription_PlatformVersion_Args, platform_version, platform_version_size)
        }
        index::PJRT_DeviceDescription_Attributes => values!(PJRT_DeviceDescription_Attributes_Args),
        index::PJRT_Plugin_Attributes => values!(PJRT_Plugin_Attributes_Args),
        index::PJRT_TopologyDescription_Attributes => values!(PJRT_TopologyDescription_Attributes_Args),
        index::PJRT_Client_AddressableDevices => {
            list!(PJRT_Client_AddressableDevices_Args, addressable_devices, num_addressable_devices)
        }
        index::PJRT_LoadedExecutable_AddressableDevices => {
            list!(PJRT_LoadedExecutable_AddressableDevices_Args, addressable_devices, num_addressable_devices)
        }
        index::PJRT_TopologyDescription_GetDeviceDescriptions => {
            list!(PJRT_TopologyDescription_GetDeviceDescriptions_Args, descriptions, num_descriptions)
        }
        index::PJRT_Executable_Serialize => {
            let args = &mut *args.cast::<PJRT_Executable_Serialize_Args>();
            distort_text(&mut args.serialized_bytes, &mut args.serialized_bytes_size, kind);
        }
        index::PJRT_Client_ProcessIndex => (*args.cast::<PJRT_Client_ProcessIndex_Args>()).process_index = -7,
        index::PJRT_DeviceDescription_Id => (*args.cast::<PJRT_DeviceDescription_Id_Args>()).id = -7,
        index::PJRT_Executable_NumOutputs => {
            let args = &mut *args.cast::<PJRT_Executable_NumOutputs_Args>();
            args.num_outputs = match kind {
                Huge => usize::MAX,
                Negative => args.num_outputs - 1,
                _ => args.num_outputs + 1,
            };
            told(args.executable, args.num_outputs);
        }
        index::PJRT_Client_BufferFromHostBuffer => {
            let args = &mut *args.cast::<PJRT_Client_BufferFromHostBuffer_Args>();
            match kind {
                Nulls => destroy_event(real, &mut args.done_with_host_buffer),
                _ => destroy_buffer(real, &mut args.buffer),
            }
        }
        index::PJRT_LoadedExecutable_Execute => distort_launch(real, &*args.cast(), kind),
        index::PJRT_Buffer_ElementType => {
            let args = &mut *args.cast::<PJRT_Buffer_ElementType_Args>();
            let float = PJRT_Buffer_Type_PJRT_Buffer_Type_F32;
            args.type_ = match kind {
                Huge => u32::MAX,
                // Another type with the same size.
                _ if args.type_ == float => PJRT_Buffer_Type_PJRT_Buffer_Type_S32,
                _ => float,
            };
        }
        index::PJRT_Buffer_Dimensions => {
            let args = &mut *args.cast::<PJRT_Buffer_Dimensions_Args>();
            match kind {
                Huge => args.num_dims = usize::MAX,
                Nulls => args.dims = null(),
                Negative => (args.dims, args.num_dims) = (NEGATIVE_DIMS.as_ptr(), 2),
                _ => (args.dims, args.num_dims) = (LARGE_DIMS.as_ptr(), 2),
            }
        }
        index::PJRT_Buffer_ToHostBuffer => distort_results(real, &*args.cast(), kind),
        _ => {}
    }
}

fn distort_text(text: &mut *const c_char, size: &mut usize, kind: Kind) {
    match kind {
        Huge => *size = usize::MAX,
        Nulls => (*text, *size) = (null(), 10),
        _ => (*text, *size) = (ODD_TEXT.as_ptr().cast(), ODD_TEXT.len()),
    }
}

struct Values([PJRT_NamedValue; 2]);
unsafe impl Sync for Values {}

/// Values without a name. Their contents are null, and their size is large.
fn null_values() -> &'static Values {
    named_values(|value| {
        value.struct_size = size_of::<PJRT_NamedValue>();
        value.name_size = 10;
        value.type_ = PJRT_NamedValue_Type_PJRT_NamedValue_kInt64List;
        value.value_size = 10;
    })
}

/// Values whose type is unknown and whose size is impossible.
fn untyped_values() -> &'static Values {
    named_values(|value| {
        value.struct_size = 3;
        (value.name, value.name_size) = (ODD_TEXT.as_ptr().cast(), ODD_TEXT.len());
        value.type_ = 99;
    })
}

fn named_values(change: impl Fn(&mut PJRT_NamedValue)) -> &'static Values {
    let mut values = Values([PJRT_NamedValue::default(), PJRT_NamedValue::default()]);
    values.0.iter_mut().for_each(change);
    // The caller may read the values until the process exits.
    Box::leak(Box::new(values))
}

fn distort_values(values: &mut *const PJRT_NamedValue, size: &mut usize, kind: Kind) {
    match kind {
        Huge => (*values, *size) = (null_values().0.as_ptr(), usize::MAX),
        Nulls => (*values, *size) = (null_values().0.as_ptr(), 2),
        _ => (*values, *size) = (untyped_values().0.as_ptr(), 2),
    }
}

unsafe fn distort_launch(real: &Real, args: &PJRT_LoadedExecutable_Execute_Args, kind: Kind) {
    let Some(Object::Loaded { outputs, .. }) = state::with(|state| state.ledger.get(args.executable)) else {
        return;
    };
    for device in 0..args.num_devices {
        let list = std::slice::from_raw_parts_mut(*args.output_lists.add(device), outputs);
        match kind {
            Nulls => destroy_event(real, &mut *args.device_complete_events.add(device)),
            Negative => destroy_buffer(real, &mut list[outputs - 1]),
            _ => list.reverse(),
        }
    }
}

/// Waits until the results or the tokens have been copied, and then changes them.
unsafe fn distort_results(real: &Real, args: &PJRT_Buffer_ToHostBuffer_Args, kind: Kind) {
    let mut wait = Tailed::<PJRT_Event_Await_Args>::new();
    wait.base.event = args.event;
    errors::discard(real, real.ask(index::PJRT_Event_Await, &mut wait));
    let results = std::slice::from_raw_parts_mut(args.dst.cast::<i32>(), args.dst_size / 4);
    let rows = match state::with(|state| state.ledger.get(args.src)) {
        Some(Object::Buffer { contents: Contents::Tokens, .. }) => results.len(),
        _ => results.len() / 5,
    };
    let (row, change): (usize, fn(i32) -> i32) = match kind {
        TokenTooLarge => (0, |_| i32::MAX),
        TokenNegative => (0, |_| -2),
        TokenMissing => (0, |_| -1),
        GreedyTooLarge => (1, |_| i32::MAX),
        RandomBeyondTotal => (2, |_| -1),
        _ => (4, |status| status | 0x40),
    };
    results[row * rows..][..rows].iter_mut().for_each(|value| *value = change(*value));
}

/// Stores the number of outputs that the proxy reported to the caller for this program.
fn told<T>(executable: *mut T, outputs: usize) {
    state::with(|state| {
        let Some(Object::Executable { loaded }) = state.ledger.get(executable) else { return };
        if let Some(Object::Loaded { told, .. }) = state.ledger.get_mut(loaded) {
            *told = outputs;
        }
    });
}

unsafe fn destroy_event(real: &Real, event: &mut *mut PJRT_Event) {
    let mut args = Tailed::<PJRT_Event_Destroy_Args>::new();
    args.base.event = std::mem::replace(event, null_mut());
    state::with(|state| state.ledger.remove(args.base.event));
    // The caller does not receive the event, so it cannot wait. The proxy waits instead.
    let mut wait = Tailed::<PJRT_Event_Await_Args>::new();
    wait.base.event = args.base.event;
    errors::discard(real, real.ask(index::PJRT_Event_Await, &mut wait));
    errors::discard(real, real.ask(index::PJRT_Event_Destroy, &mut args));
}

unsafe fn destroy_buffer(real: &Real, buffer: &mut *mut PJRT_Buffer) {
    let mut args = Tailed::<PJRT_Buffer_Destroy_Args>::new();
    args.base.buffer = std::mem::replace(buffer, null_mut());
    state::with(|state| state.ledger.remove(args.base.buffer));
    errors::discard(real, real.ask(index::PJRT_Buffer_Destroy, &mut args));
}

/// Replaces the real deleter by the proxy's deleter, so that the ledger records the call of the deleter.
pub(crate) unsafe fn note_serialized(args: &mut PJRT_Executable_Serialize_Args) {
    if let Some(deleter) = args.serialized_executable_deleter.replace(delete_serialized) {
        let deleter = Object::Serialized { deleter: deleter as usize };
        state::with(|state| state.ledger.add(args.serialized_executable, deleter));
    }
}

unsafe extern "C" fn delete_serialized(executable: *mut PJRT_SerializedExecutable) {
    match state::with(|state| state.ledger.remove(executable)) {
        Some(Object::Serialized { deleter }) => {
            type Deleter = unsafe extern "C" fn(*mut PJRT_SerializedExecutable);
            std::mem::transmute::<usize, Deleter>(deleter)(executable);
        }
        other => state::with(|state| state.violations.push(format!("deleter of {other:?}"))),
    }
}
