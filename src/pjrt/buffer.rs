//! Arrays on a device.

use std::fmt;
use std::sync::Arc;

use pjrt_sys::*;

use super::args::Args;
use super::client::Client;
use super::element::ElementType;
use super::error::{Error, Result};
use super::event::Event;
use super::handle::Handle;
use super::plugin::function;
use super::plugin_data::{copied, slice, zeroed};

/// An array on a device. Thread-safe. Keeps its client alive. Dropping it frees the device memory. The computation
/// or copy that fills the buffer may still be running; every call that reads the buffer waits for it.
pub struct Buffer {
    client: Arc<Client>,
    handle: Handle<PJRT_Buffer>,
    /// Whether this value destroys the buffer.
    owned: bool,
    element: ElementType,
    dims: Vec<i64>,
    host_size: usize,
}

impl Buffer {
    /// Takes ownership of a buffer that `function` returned.
    ///
    /// # Safety
    /// `buffer` must be null or a live buffer of `client` that nothing else destroys.
    pub(super) unsafe fn from_output(
        client: &Arc<Client>,
        buffer: *mut PJRT_Buffer,
        function: &str,
    ) -> Result<Self> {
        Self::new(client, Handle::from_output(buffer, function)?, true)
    }

    /// Wraps a buffer that belongs to the caller. The buffer is neither copied nor destroyed.
    ///
    /// # Safety
    /// `buffer` must be null or a buffer of `client` that stays alive, and is not donated to a program, until the
    /// result is dropped.
    pub unsafe fn borrow(client: &Arc<Client>, buffer: *mut PJRT_Buffer) -> Result<Self> {
        let handle =
            Handle::new(buffer).ok_or_else(|| Error::Argument("the caller's PJRT buffer is null".into()))?;
        Self::new(client, handle, false)
    }

    fn new(client: &Arc<Client>, handle: Handle<PJRT_Buffer>, owned: bool) -> Result<Self> {
        // Constructed before the queries, so that the buffer is destroyed if a query fails.
        let mut buffer = Self {
            client: client.clone(),
            handle,
            owned,
            element: ElementType::Pred,
            dims: Vec::new(),
            host_size: 0,
        };
        buffer.element = buffer.query_element()?;
        buffer.dims = buffer.query_dims()?;
        buffer.host_size = buffer.element.dense_size(&buffer.dims).ok_or_else(|| {
            Error::Misbehaved(format!(
                "a buffer of {:?} has the dimensions {:?}",
                buffer.element, buffer.dims
            ))
        })?;
        Ok(buffer)
    }

    /// The client of this buffer.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The type of the elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The dimensions, the slowest-varying first. Empty for a scalar.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// The size in bytes of the contents that [`Buffer::to_host`] copies. They are dense, without the device's padding.
    pub fn host_size(&self) -> usize {
        self.host_size
    }

    /// The size in bytes that the buffer occupies on the device, including padding.
    pub fn device_size(&self) -> Result<usize> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_OnDeviceSizeInBytes_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_OnDeviceSizeInBytes)?, &mut args)? };
        match args.on_device_size_in_bytes {
            size if isize::try_from(size).is_ok() => Ok(size),
            size => Err(Error::Misbehaved(format!("PJRT_Buffer_OnDeviceSizeInBytes returned {size}"))),
        }
    }

    /// Copies the contents to `dst`, dense and row-major for any layout on the device. Waits until the buffer is
    /// computed and the copy ends. Returns an error if the computation failed. `dst` must have [`Buffer::host_size`]
    /// bytes. The programs of this library define the sizes of their outputs, so another size is an error of the
    /// plugin. After an error the contents of `dst` are unspecified.
    pub fn to_host(&self, dst: &mut [u8]) -> Result<()> {
        if dst.len() != self.host_size {
            return Err(Error::Misbehaved(format!(
                "an array of {:?} with dimensions {:?} takes {} bytes, and {} bytes were expected",
                self.element,
                self.dims,
                self.host_size,
                dst.len()
            )));
        }
        let minor_to_major: Vec<i64> = (0..self.dims.len() as i64).rev().collect();
        let mut layout = dense_layout(&minor_to_major);
        match self.copy_to_host(dst, layout.as_mut_ptr()) {
            Err(error) if error.is_unimplemented() => {
                // The plugin can copy only in the device's layout.
                if !self.is_dense()? {
                    return Err(error);
                }
                self.copy_to_host(dst, std::ptr::null_mut())
            }
            outcome => outcome,
        }
    }

    fn copy_to_host(&self, dst: &mut [u8], layout: *mut PJRT_Buffer_MemoryLayout) -> Result<()> {
        self.start_copy(dst, layout)?.wait()
    }

    /// Starts a copy of the contents to `dst`. The caller must keep the memory of `dst` valid until the event is ready.
    fn start_copy(&self, dst: &mut [u8], layout: *mut PJRT_Buffer_MemoryLayout) -> Result<Event> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_ToHostBuffer_Args>::new();
        args.src = self.handle.as_ptr();
        args.host_layout = layout;
        args.dst = dst.as_mut_ptr().cast();
        args.dst_size = dst.len();
        // SAFETY: the buffer is alive. `dst` is valid for `dst_size` bytes, which the plugin compares with the size
        // that it computes itself. Both callers keep it valid until the event is ready: `copy_to_host` waits, and
        // `start_copy_to_host` moves it to a `HostCopy`, which waits before it frees the memory. The layout outlives
        // the call.
        unsafe {
            plugin.call(function!(plugin, PJRT_Buffer_ToHostBuffer)?, &mut args)?;
            Event::from_output(plugin, args.event, "PJRT_Buffer_ToHostBuffer")
        }
    }

    /// Whether the device stores the array densely in row-major order, according to the plugin.
    pub fn is_dense(&self) -> Result<bool> {
        let plugin = self.client.plugin();
        let function = function!(plugin, PJRT_Buffer_GetMemoryLayout)?;
        let name = function.name;
        let mut args = Args::<PJRT_Buffer_GetMemoryLayout_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function, &mut args)? };
        let layout = &args.layout;
        match layout.type_ {
            PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Tiled => {
                // SAFETY: the type says which member is set. Its list lives as long as the buffer.
                let (order, tiles) = unsafe {
                    let tiled = layout.__bindgen_anon_1.tiled;
                    (slice(tiled.minor_to_major, tiled.minor_to_major_size, name)?, tiled.num_tiles)
                };
                Ok(tiles == 0 && order.iter().rev().copied().eq(0..self.dims.len() as i64))
            }
            PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Strides => {
                // SAFETY: as above.
                let strides = unsafe {
                    let strides = layout.__bindgen_anon_1.strides;
                    slice(strides.byte_strides, strides.num_byte_strides, name)?
                };
                Ok(strides == dense_strides(self.element, &self.dims))
            }
            _ => Ok(false),
        }
    }

    /// Whether the buffer was deleted, or donated to a program. Then it has no contents.
    pub fn is_deleted(&self) -> Result<bool> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_IsDeleted_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_IsDeleted)?, &mut args)? };
        Ok(args.is_deleted)
    }

    /// The device that has the buffer, as an index into [`Client::devices`]. `None` if the list does not have the
    /// device.
    pub fn device(&self) -> Result<Option<usize>> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_Device_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_Device)?, &mut args)? };
        Ok(self.client.device_index(args.device))
    }

    /// Starts a copy of the contents to the host, dense and row-major. If a program has yet to compute the contents,
    /// the copy waits for it.
    pub fn start_copy_to_host(&self) -> Result<HostCopy> {
        let mut bytes = zeroed(self.host_size, "a copy of a buffer")?;
        let minor_to_major: Vec<i64> = (0..self.dims.len() as i64).rev().collect();
        let mut layout = dense_layout(&minor_to_major);
        let event = match self.start_copy(&mut bytes, layout.as_mut_ptr()) {
            // The plugin can copy only in the device's layout.
            Err(error) if error.is_unimplemented() && self.is_dense()? => {
                self.start_copy(&mut bytes, std::ptr::null_mut())?
            }
            Err(error @ Error::Misbehaved(_)) => {
                // The plugin can be copying to the memory, and no event says when the copy ends. So the memory is never
                // freed.
                std::mem::forget(bytes);
                return Err(error);
            }
            started => started?,
        };
        Ok(HostCopy { event: Some(event), bytes })
    }

    /// Waits until the contents are on the device. Returns an error if the computation or the copy that fills the buffer
    /// failed. Does nothing if the plugin does not have this function. Then every use of the buffer reports the failure.
    pub fn wait_until_ready(&self) -> Result<()> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_ReadyEvent_Args>::new();
        args.buffer = self.handle.as_ptr();
        let called = function!(plugin, PJRT_Buffer_ReadyEvent).and_then(|function| {
            // SAFETY: the buffer is alive.
            unsafe { plugin.call(function, &mut args) }
        });
        match called {
            Err(error) if error.is_unimplemented() => return Ok(()),
            called => called?,
        }
        // SAFETY: the caller of this API function must destroy the event that it returns.
        unsafe { Event::from_output(plugin, args.event, "PJRT_Buffer_ReadyEvent")? }.wait()
    }

    /// Transfers ownership of the plugin's object to the caller. The caller must destroy it with the plugin's
    /// `PJRT_Buffer_Destroy`.
    pub fn into_raw(mut self) -> *mut PJRT_Buffer {
        self.owned = false;
        self.handle.as_ptr()
    }

    /// The plugin's object. It is valid as long as this value exists.
    pub fn as_raw(&self) -> *mut PJRT_Buffer {
        self.handle.as_ptr()
    }

    fn query_element(&self) -> Result<ElementType> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_ElementType_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_ElementType)?, &mut args)? };
        ElementType::from_raw(args.type_).ok_or_else(|| {
            Error::Misbehaved(format!("a buffer has element type {}, which no program here uses", args.type_))
        })
    }

    fn query_dims(&self) -> Result<Vec<i64>> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_Dimensions_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive. The list lives as long as the buffer and is copied.
        unsafe {
            plugin.call(function!(plugin, PJRT_Buffer_Dimensions)?, &mut args)?;
            copied(slice(args.dims, args.num_dims, "PJRT_Buffer_Dimensions")?, "the dimensions of a buffer")
        }
    }
}

/// A copy to the host that was started. Dropping it waits until the copy ends.
pub struct HostCopy {
    /// `None` after a wait for the copy.
    event: Option<Event>,
    bytes: Vec<u8>,
}

impl HostCopy {
    /// Calls `action` with the outcome when the copy ends. The call happens on a thread of the plugin, or on this
    /// thread before the function returns. If the function fails, it does not call `action`.
    pub fn on_ready(&self, action: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        match &self.event {
            Some(event) => event.on_ready(action),
            None => {
                action(Ok(()));
                Ok(())
            }
        }
    }

    /// Whether the copy has ended.
    pub fn is_ready(&self) -> Result<bool> {
        self.event.as_ref().map_or(Ok(true), Event::is_ready)
    }

    /// Waits until the copy ends, and returns the contents.
    pub fn wait(mut self) -> Result<Vec<u8>> {
        self.finish()?;
        Ok(std::mem::take(&mut self.bytes))
    }

    fn finish(&mut self) -> Result<()> {
        self.event.take().map_or(Ok(()), |event| event.wait())
    }
}

impl Drop for HostCopy {
    fn drop(&mut self) {
        // The outcome does not matter. The copy has ended in any case, and nothing reads the bytes.
        let _ = self.finish();
    }
}

impl fmt::Debug for HostCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCopy").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_Destroy_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: this value owns the buffer, and nothing uses the buffer afterwards. The plugin keeps the memory as
        // long as running work needs it.
        unsafe { plugin.call_in_drop(function!(plugin, PJRT_Buffer_Destroy), &mut args) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?}{:?})", self.element, self.dims)
    }
}

/// A layout without tiles in the given order of dimensions. The result points into `minor_to_major`.
fn dense_layout(minor_to_major: &[i64]) -> Args<PJRT_Buffer_MemoryLayout> {
    let mut layout = Args::<PJRT_Buffer_MemoryLayout>::new();
    layout.type_ = PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Tiled;
    layout.__bindgen_anon_1.tiled = PJRT_Buffer_MemoryLayout_Tiled {
        struct_size: size_of::<PJRT_Buffer_MemoryLayout_Tiled>(),
        minor_to_major: minor_to_major.as_ptr(),
        minor_to_major_size: minor_to_major.len(),
        ..Default::default()
    };
    layout
}

fn dense_strides(element: ElementType, dims: &[i64]) -> Vec<i64> {
    let mut strides = vec![0; dims.len()];
    let mut stride = element.size() as i64;
    for (out, &dim) in strides.iter_mut().zip(dims).rev() {
        *out = stride;
        stride = stride.saturating_mul(dim);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_of_dense_arrays() {
        assert!(dense_strides(ElementType::F32, &[]).is_empty());
        assert_eq!(dense_strides(ElementType::F32, &[2, 3, 5]), [60, 20, 4]);
    }
}
