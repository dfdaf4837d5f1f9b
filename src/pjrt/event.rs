//! Events. A plugin signals an event when asynchronous work ends.

use std::ffi::c_void;
use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::error::Result;
use super::handle::Handle;
use super::plugin::{function, Plugin};
use crate::panics::Inherited;

/// An event. Dropping it destroys it without waiting.
pub(super) struct Event {
    plugin: Arc<Plugin>,
    handle: Handle<PJRT_Event>,
}

impl Event {
    /// Takes ownership of an event that `function` returned.
    ///
    /// # Safety
    /// `event` must be null or a live event of `plugin` that nothing else destroys.
    pub(super) unsafe fn from_output(
        plugin: &Arc<Plugin>,
        event: *mut PJRT_Event,
        function: &str,
    ) -> Result<Self> {
        Ok(Self { plugin: plugin.clone(), handle: Handle::from_output(event, function)? })
    }

    /// Blocks until the work ends, and returns its error if it failed.
    pub(super) fn wait(&self) -> Result<()> {
        let mut args = Args::<PJRT_Event_Await_Args>::new();
        args.event = self.handle.as_ptr();
        // SAFETY: the event is alive until this value is dropped.
        unsafe { self.plugin.call(function!(self.plugin, PJRT_Event_Await)?, &mut args) }
    }

    /// Whether the work has certainly ended. `false` if the plugin cannot answer.
    ///
    /// The error of a wait can be that of the work or that of the wait itself. After an error, this function tells
    /// whether the plugin may still use the memory of the work.
    pub(super) fn has_ended(&self) -> bool {
        let Ok(function) = function!(self.plugin, PJRT_Event_IsReady) else { return false };
        let mut args = Args::<PJRT_Event_IsReady_Args>::new();
        args.event = self.handle.as_ptr();
        // SAFETY: the event is alive until this value is dropped.
        let answered = unsafe { self.plugin.call(function, &mut args) };
        answered.is_ok() && args.is_ready
    }

    /// Calls `action` with the outcome when the work ends. The call happens on a thread of the plugin, or on this
    /// thread before the function returns. If the function fails, it drops `action` without a call. A panic of `action`
    /// is ignored.
    pub(super) fn on_ready(&self, action: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        let function = function!(self.plugin, PJRT_Event_OnReady)?;
        let panics = Inherited::from_this_thread();
        let pending = Box::into_raw(Box::new(Pending { plugin: self.plugin.clone(), action, panics }));
        let mut args = Args::<PJRT_Event_OnReady_Args>::new();
        args.event = self.handle.as_ptr();
        args.callback = Some(callback_for(&pending));
        args.user_arg = pending.cast();
        // SAFETY: the event is alive. If the call succeeds, the plugin calls `ready` exactly once, with the pointer.
        let registered = unsafe { self.plugin.call(function, &mut args) };
        if registered.is_err() {
            // SAFETY: the plugin rejected the call, so it does not use the pointer.
            drop(unsafe { Box::from_raw(pending) });
        }
        registered
    }
}

/// The data of the callback `ready`.
struct Pending<A> {
    plugin: Arc<Plugin>,
    action: A,
    panics: Inherited,
}

/// The callback for this type of data.
fn callback_for<A: FnOnce(Result<()>)>(
    _pending: &*mut Pending<A>,
) -> unsafe extern "C" fn(*mut PJRT_Error, *mut c_void) {
    ready::<A>
}

/// # Safety
/// `pending` must be a `Pending<A>` from [`Event::on_ready`], and this must be its only use. `error` must be null or an
/// error of its plugin that nothing else uses.
unsafe extern "C" fn ready<A: FnOnce(Result<()>)>(error: *mut PJRT_Error, pending: *mut c_void) {
    // SAFETY: the caller guarantees this.
    let Pending { plugin, action, panics } = *unsafe { Box::from_raw(pending.cast::<Pending<A>>()) };
    // No panic may reach the plugin.
    let _ = panics.catch(move || {
        // SAFETY: the caller guarantees this.
        let outcome = unsafe { plugin.outcome(error, "PJRT_Event_OnReady") };
        action(outcome);
    });
}

impl Drop for Event {
    fn drop(&mut self) {
        let mut args = Args::<PJRT_Event_Destroy_Args>::new();
        args.event = self.handle.as_ptr();
        // SAFETY: this value owns the event, and nothing uses it afterwards.
        unsafe { self.plugin.call_in_drop(function!(self.plugin, PJRT_Event_Destroy), &mut args) }
    }
}
