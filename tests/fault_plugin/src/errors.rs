//! The error objects of the proxy, and the three functions that read errors.

use std::ffi::c_void;

use pjrt_sys::*;

use crate::fault::Kind;
use crate::functions::index;
use crate::ledger::Object;
use crate::real::Real;
use crate::state;

/// The text of an ordinary injected error.
const TEXT: &str = "injected by the fault plugin";

/// Invalid UTF-8, a NUL, and terminal control characters. The text is longer than a message can be.
static ODD_TEXT: [u8; 1 << 16] = {
    let mut text = [b'x'; 1 << 16];
    let odd = *b"odd \xff\xfe\0\x1b[31m\r\n\x07";
    let mut at = 0;
    while at < odd.len() {
        text[at] = odd[at];
        at += 1;
    }
    text
};

/// Creates an error of the proxy.
pub(crate) fn make(kind: Kind) -> *mut PJRT_Error {
    let error = Box::into_raw(Box::new(kind)).cast::<PJRT_Error>();
    state::with(|state| state.ledger.add(error, Object::OwnError(kind)));
    error
}

/// Records an error of the real plugin that the proxy returns to the caller. Ignores null and errors that the proxy
/// made.
pub(crate) fn note(error: *mut PJRT_Error) {
    state::with(|state| {
        if state.ledger.get(error).is_none() {
            state.ledger.add(error, Object::RealError);
        }
    });
}

/// Destroys an error of the real plugin that the proxy does not return to the caller.
pub(crate) unsafe fn discard(real: &Real, error: *mut PJRT_Error) {
    if !error.is_null() {
        let mut args = PJRT_Error_Destroy_Args::new();
        args.error = error;
        real.call_void(index::PJRT_Error_Destroy, std::ptr::from_mut(&mut args).cast());
    }
}

pub(crate) unsafe fn destroy(real: &Real, args: *mut c_void) {
    let error = (*args.cast::<PJRT_Error_Destroy_Args>()).error;
    match state::with(|state| state.ledger.remove(error)) {
        Some(Object::OwnError(_)) => drop(Box::from_raw(error.cast::<Kind>())),
        Some(Object::RealError) => real.call_void(index::PJRT_Error_Destroy, args),
        other => state::with(|state| state.violations.push(format!("PJRT_Error_Destroy of {other:?}"))),
    }
}

pub(crate) unsafe fn message(real: &Real, args: *mut c_void) {
    let text = args.cast::<PJRT_Error_Message_Args>();
    let (message, size) = match state::with(|state| state.ledger.get((*text).error)) {
        Some(Object::OwnError(Kind::OddError)) => (ODD_TEXT.as_ptr(), ODD_TEXT.len()),
        Some(Object::OwnError(Kind::BadError)) => (TEXT.as_ptr(), usize::MAX),
        Some(Object::OwnError(_)) => (TEXT.as_ptr(), TEXT.len()),
        Some(Object::RealError) => return real.call_void(index::PJRT_Error_Message, args),
        other => {
            return state::with(|state| state.violations.push(format!("PJRT_Error_Message of {other:?}")));
        }
    };
    ((*text).message, (*text).message_size) = (message.cast(), size);
}

pub(crate) unsafe fn code(real: &Real, args: *mut c_void) -> *mut PJRT_Error {
    let code = args.cast::<PJRT_Error_GetCode_Args>();
    (*code).code = match state::with(|state| state.ledger.get((*code).error)) {
        Some(Object::OwnError(Kind::BadError)) => return make(Kind::Internal),
        Some(Object::OwnError(Kind::Exhausted | Kind::LateExhausted)) => {
            PJRT_Error_Code_PJRT_Error_Code_RESOURCE_EXHAUSTED
        }
        Some(Object::OwnError(Kind::Unimplemented)) => PJRT_Error_Code_PJRT_Error_Code_UNIMPLEMENTED,
        Some(Object::OwnError(Kind::OddError)) => 4242,
        Some(Object::OwnError(_)) => PJRT_Error_Code_PJRT_Error_Code_INTERNAL,
        Some(Object::RealError) => return real.call(index::PJRT_Error_GetCode, args),
        other => {
            state::with(|state| state.violations.push(format!("PJRT_Error_GetCode of {other:?}")));
            return std::ptr::null_mut();
        }
    };
    std::ptr::null_mut()
}
