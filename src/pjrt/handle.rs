//! Non-null pointers to the opaque objects of a plugin.

use std::ptr::NonNull;

use super::error::{Error, Result};

/// A pointer to an opaque object of a plugin. It does not own the object. The value that contains the handle decides
/// when the object is destroyed.
pub(super) struct Handle<T>(NonNull<T>);

// Not derived: a derived `Clone` would require `T: Clone`, and opaque types are not `Clone`.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}

// SAFETY: only the plugin's functions access the object, and PJRT requires that any thread may call them on any object
// (client, device, executable, buffer, event). No thread owns an object.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above; PJRT requires plugins to synchronise concurrent calls on one object.
unsafe impl<T> Sync for Handle<T> {}

impl<T> Handle<T> {
    /// `None` for a null pointer.
    pub(super) fn new(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    /// Takes an output pointer of `function`. A successful function must not return null.
    pub(super) fn from_output(pointer: *mut T, function: &str) -> Result<Self> {
        Self::new(pointer).ok_or_else(|| {
            Error::Misbehaved(format!("{function} reported success and returned a null object"))
        })
    }

    pub(super) fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}
