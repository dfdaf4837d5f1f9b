//! Non-null pointers to a plugin's opaque objects.

use std::ptr::NonNull;

use super::error::{Error, Result};

/// A pointer to an opaque object of a plugin. It owns nothing: the value that holds it says who destroys the object.
pub(super) struct Handle<T>(NonNull<T>);

// A derived `Clone` would ask for `T: Clone`, which opaque types are not.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}

// SAFETY: the pointee is only ever reached through the plugin's functions, and PJRT requires those to be callable from
// any thread on any object (clients, devices, executables, buffers, events); no thread owns an object.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above; PJRT synchronises concurrent calls on one object itself.
unsafe impl<T> Sync for Handle<T> {}

impl<T> Handle<T> {
    pub(super) fn new(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    /// Takes an output pointer of `function`, which null would make a broken promise.
    pub(super) fn from_output(pointer: *mut T, function: &str) -> Result<Self> {
        NonNull::new(pointer).map(Self).ok_or_else(|| {
            Error::Misbehaved(format!("{function} reported success and returned a null object"))
        })
    }

    pub(super) fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}
