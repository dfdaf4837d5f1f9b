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
use super::plugin_data::slice;

/// An array on a device, freed when dropped. It may still be being computed or copied: whatever reads it waits.
/// Thread-safe; holds its client.
pub struct Buffer {
    client: Arc<Client>,
    handle: Handle<PJRT_Buffer>,
    /// Whether this value destroys the buffer.
    owned: bool,
    element: ElementType,
    dims: Vec<i64>,
}

impl Buffer {
    /// Takes ownership of a buffer that `function` returned.
    ///
    /// # Safety
    /// `buffer` must be null or a live buffer of `client` that nobody else destroys.
    pub(super) unsafe fn from_output(
        client: &Arc<Client>,
        buffer: *mut PJRT_Buffer,
        function: &str,
    ) -> Result<Self> {
        Self::new(client, Handle::from_output(buffer, function)?, true)
    }

    /// Wraps a buffer that stays its owner's: it is read where it lies and not destroyed here.
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
        // Made before the queries below, so that one that fails destroys the buffer.
        let mut buffer =
            Self { client: client.clone(), handle, owned, element: ElementType::Pred, dims: Vec::new() };
        buffer.element = buffer.query_element()?;
        buffer.dims = buffer.query_dims()?;
        Ok(buffer)
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The type of its elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Its dimensions, the slowest first. Empty for a scalar.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// The bytes of its contents as [`Buffer::to_host`] gives them: dense, whatever the device pads.
    pub fn host_size(&self) -> Result<usize> {
        self.element.dense_size(&self.dims).ok_or_else(|| {
            Error::Misbehaved(format!("a buffer of {:?} with dimensions {:?}", self.element, self.dims))
        })
    }

    /// The bytes that it occupies on the device, padding included.
    pub fn device_size(&self) -> Result<usize> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_OnDeviceSizeInBytes_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_OnDeviceSizeInBytes)?, &mut args)? };
        Ok(args.on_device_size_in_bytes)
    }

    /// Copies the contents to `dst`, dense and row-major whatever the layout on the device. Waits for the buffer to be
    /// computed and for the copy to end; an error of the computation is returned here. `dst` must be of
    /// [`Buffer::host_size`] bytes; after an error its contents are unspecified.
    pub fn to_host(&self, dst: &mut [u8]) -> Result<()> {
        let expected = self.host_size()?;
        if dst.len() != expected {
            return Err(Error::Argument(format!(
                "{} bytes of room for an array of {:?} with dimensions {:?}, which takes {expected}",
                dst.len(),
                self.element,
                self.dims
            )));
        }
        let minor_to_major: Vec<i64> = (0..self.dims.len() as i64).rev().collect();
        let mut layout = dense_layout(&minor_to_major);
        match self.copy_to_host(dst, &mut layout) {
            Err(error) if error.is_unimplemented() => {
                // Without a layout of our choice the copy comes in the device's.
                if !self.is_dense()? {
                    return Err(error);
                }
                self.copy_to_host(dst, std::ptr::null_mut())
            }
            outcome => outcome,
        }
    }

    fn copy_to_host(&self, dst: &mut [u8], layout: *mut PJRT_Buffer_MemoryLayout) -> Result<()> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_ToHostBuffer_Args>::new();
        args.src = self.handle.as_ptr();
        args.host_layout = layout;
        args.dst = dst.as_mut_ptr().cast();
        args.dst_size = dst.len();
        // SAFETY: the buffer is alive; `dst` is good for `dst_size` bytes, which the plugin checks against its own
        // reckoning, and stays borrowed until the event has been waited for; the layout outlives the call.
        unsafe {
            plugin.call(function!(plugin, PJRT_Buffer_ToHostBuffer)?, &mut args)?;
            Event::from_output(plugin, args.event, "PJRT_Buffer_ToHostBuffer")?.wait()
        }
    }

    /// Whether the device holds the array densely in row-major order, as far as the plugin tells.
    fn is_dense(&self) -> Result<bool> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_GetMemoryLayout_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_GetMemoryLayout)?, &mut args)? };
        let layout = &args.layout;
        match layout.type_ {
            PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Tiled => {
                // SAFETY: the tag says that this member is set; its list lives as long as the buffer.
                let (order, tiles) = unsafe {
                    let tiled = layout.__bindgen_anon_1.tiled;
                    (slice(tiled.minor_to_major, tiled.minor_to_major_size), tiled.num_tiles)
                };
                Ok(tiles == 0 && order.iter().rev().copied().eq(0..self.dims.len() as i64))
            }
            PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Strides => {
                // SAFETY: as above.
                let strides = unsafe {
                    let strides = layout.__bindgen_anon_1.strides;
                    slice(strides.byte_strides, strides.num_byte_strides)
                };
                Ok(strides == dense_strides(self.element, &self.dims))
            }
            _ => Ok(false),
        }
    }

    /// The plugin's object. It lives as long as this value.
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
            Error::Misbehaved(format!(
                "a buffer of element type {}, which this library does not use",
                args.type_
            ))
        })
    }

    fn query_dims(&self) -> Result<Vec<i64>> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_Dimensions_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive, and with it the list that is copied.
        unsafe {
            plugin.call(function!(plugin, PJRT_Buffer_Dimensions)?, &mut args)?;
            Ok(slice(args.dims, args.num_dims).to_vec())
        }
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
        // SAFETY: this value owned the buffer and is gone after this. Work in flight that uses the buffer's memory
        // keeps it itself.
        unsafe { plugin.call_in_drop(function!(plugin, PJRT_Buffer_Destroy), &mut args) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?}{:?})", self.element, self.dims)
    }
}

/// A layout without tiles in the given order, which must outlive it.
fn dense_layout(minor_to_major: &[i64]) -> PJRT_Buffer_MemoryLayout {
    let tiled = PJRT_Buffer_MemoryLayout_Tiled {
        struct_size: size_of::<PJRT_Buffer_MemoryLayout_Tiled>(),
        minor_to_major: minor_to_major.as_ptr(),
        minor_to_major_size: minor_to_major.len(),
        ..Default::default()
    };
    PJRT_Buffer_MemoryLayout {
        struct_size: size_of::<PJRT_Buffer_MemoryLayout>(),
        type_: PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Tiled,
        __bindgen_anon_1: PJRT_Buffer_MemoryLayout__bindgen_ty_1 { tiled },
        ..Default::default()
    }
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
