//! The end of asynchronous work. The proxy can replace the real outcome by an error.

use std::ffi::c_void;

use pjrt_sys::*;

use crate::errors;
use crate::fault::Kind;
use crate::functions::index;
use crate::real::Real;
use crate::state;

/// Waits for an event, or reads its outcome. Returns the error that the proxy reports for the event, if there is one.
pub(crate) unsafe fn outcome(real: &Real, function: usize, args: *mut c_void) -> *mut PJRT_Error {
    // The argument structs of both functions have the event at the same offset.
    let event = (*args.cast::<PJRT_Event_Await_Args>()).event;
    let error = real.call(function, args);
    match state::with(|state| state.ledger.failure(event)) {
        Some(kind) => {
            errors::discard(real, error);
            errors::make(kind)
        }
        None => error,
    }
}

type CallbackFunction = unsafe extern "C" fn(*mut PJRT_Error, *mut c_void);

/// A callback of the caller. If `fails` is set, the callback receives this error instead of the real outcome.
struct Callback {
    function: PJRT_Event_OnReadyCallback,
    user: *mut c_void,
    fails: Option<Kind>,
}

/// Registers a callback. It receives the error `late`, if there is one. Otherwise it receives the error that the proxy
/// reports for the event, if there is one. Otherwise it receives the real outcome.
pub(crate) unsafe fn on_ready(
    real: &Real,
    args: &mut PJRT_Event_OnReady_Args,
    late: Option<Kind>,
) -> *mut PJRT_Error {
    let fails = late.or_else(|| state::with(|state| state.ledger.failure(args.event)));
    let (function, user) = (args.callback, args.user_arg);
    let callback = Box::into_raw(Box::new(Callback { function, user, fails }));
    (args.callback, args.user_arg) = (Some(ready as CallbackFunction), callback.cast());
    let error = real.call(index::PJRT_Event_OnReady, std::ptr::from_mut(args).cast());
    (args.callback, args.user_arg) = (function, user);
    if !error.is_null() {
        drop(Box::from_raw(callback));
    }
    error
}

unsafe extern "C" fn ready(error: *mut PJRT_Error, callback: *mut c_void) {
    let Callback { function, user, fails } = *Box::from_raw(callback.cast::<Callback>());
    let error = match (fails, Real::get()) {
        (Some(kind), Some(real)) => {
            errors::discard(real, error);
            errors::make(kind)
        }
        _ => {
            errors::note(error);
            error
        }
    };
    if let Some(function) = function {
        function(error, user);
    }
}
