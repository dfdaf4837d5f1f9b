//! Events. A plugin signals an event when asynchronous work ends.

use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::error::Result;
use super::handle::Handle;
use super::plugin::{function, Plugin};

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
}

impl Drop for Event {
    fn drop(&mut self) {
        let mut args = Args::<PJRT_Event_Destroy_Args>::new();
        args.event = self.handle.as_ptr();
        // SAFETY: this value owns the event, and nothing uses it afterwards.
        unsafe { self.plugin.call_in_drop(function!(self.plugin, PJRT_Event_Destroy), &mut args) }
    }
}
