//! Objects of a plugin that belong to the caller, as pointers for the safe interface. The caller promises in one
//! `unsafe` function that the pointer is valid. Later uses of the pointer are safe.

use std::ffi::c_void;
use std::sync::Arc;

use pjrt_sys::{PJRT_Api, PJRT_Buffer, PJRT_Client};

use super::buffer::Buffer;
use super::client::Client;
use super::error::Result;
use super::plugin::Plugin;

/// A `PJRT_Client` of the caller, and the `PJRT_Api` of its plugin.
#[derive(Clone, Copy, Debug)]
pub struct ClientPointer {
    api: *const PJRT_Api,
    client: *mut PJRT_Client,
}

impl ClientPointer {
    /// Wraps the pointers to a client of the caller. If a pointer is null, the use of the client returns an error.
    ///
    /// # Safety
    /// `api` is null, or the function table of an initialised plugin that stays loaded until the process ends. `client`
    /// is null, or a client of that plugin that stays alive until every sampler that was built on it, and everything
    /// that was created with these samplers, is dropped.
    pub unsafe fn new(api: *const c_void, client: *mut c_void) -> ClientPointer {
        ClientPointer { api: api.cast(), client: client.cast() }
    }

    /// Wraps the client.
    pub(crate) fn client(self) -> Result<Arc<Client>> {
        // SAFETY: the caller of `new` guarantees both pointers.
        unsafe { Client::borrow(Plugin::borrow(self.api)?, self.client) }
    }
}

/// A `PJRT_Buffer` of the caller.
#[derive(Clone, Copy, Debug)]
pub struct BufferPointer(*mut PJRT_Buffer);

impl BufferPointer {
    /// Wraps the pointer to a buffer of the caller. If the pointer is null, the use of the buffer returns an error.
    ///
    /// # Safety
    /// `buffer` is null, or a buffer of the client of the sampler that will use it. It stays alive until the
    /// [`device::Buffer`](crate::device::Buffer) that is made from this pointer is dropped.
    pub unsafe fn new(buffer: *mut c_void) -> BufferPointer {
        BufferPointer(buffer.cast())
    }

    /// Wraps the buffer.
    pub(crate) fn buffer(self, client: &Arc<Client>) -> Result<Buffer> {
        // SAFETY: the caller of `new` guarantees the pointer.
        unsafe { Buffer::borrow(client, self.0) }
    }
}
