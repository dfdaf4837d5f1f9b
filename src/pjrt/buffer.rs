//! Arrays on a device.

use std::fmt;
use std::ptr::null_mut;
use std::sync::Arc;

use bytemuck::Pod;
use pjrt_sys::*;

use super::args::Args;
use super::client::Client;
use super::element::ElementType;
use super::error::{Error, Result};
use super::event::Event;
use super::handle::Handle;
use super::plugin::{function, Plugin};
use super::plugin_data::{name, slice, zeroed};
use super::short_list::ShortList;

/// An array on a device. Thread-safe. Keeps its client alive. Dropping it frees the device memory. The computation
/// or copy that fills the buffer may still be running; every call that reads the buffer waits for it.
pub struct Buffer {
    object: Object,
    array: Array,
}

/// The type of a buffer. The outputs of a program share their types.
enum Array {
    Own(ArrayType),
    Shared(Arc<ArrayType>),
}

impl Array {
    fn get(&self) -> &ArrayType {
        match self {
            Array::Own(array) => array,
            Array::Shared(array) => array,
        }
    }
}

/// The plugin's object for a buffer. Dropping it destroys the object if this value owns it.
struct Object {
    client: Arc<Client>,
    handle: Handle<PJRT_Buffer>,
    owned: bool,
}

/// The type of an array.
#[derive(Clone)]
pub(super) struct ArrayType {
    element: ElementType,
    dims: ShortList<i64, 3>,
    /// The size in bytes of the dense contents.
    host_size: usize,
}

impl PartialEq for ArrayType {
    fn eq(&self, other: &Self) -> bool {
        (self.element, self.dims.as_slice()) == (other.element, other.dims.as_slice())
    }
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
        // The object gets an owner before the queries, so that it is destroyed if a query fails.
        let object =
            Object { client: client.clone(), handle: Handle::from_output(buffer, function)?, owned: true };
        let array = Array::Own(object.query_type()?);
        Ok(Self { object, array })
    }

    /// Like [`Buffer::from_output`], for a buffer whose type is known.
    ///
    /// # Safety
    /// As for [`Buffer::from_output`]. The type must be that of the buffer.
    pub(super) unsafe fn of_type(
        client: &Arc<Client>,
        buffer: *mut PJRT_Buffer,
        function: &str,
        array: &Arc<ArrayType>,
    ) -> Result<Self> {
        let object =
            Object { client: client.clone(), handle: Handle::from_output(buffer, function)?, owned: true };
        Ok(Self { object, array: Array::Shared(array.clone()) })
    }

    /// Wraps a buffer that belongs to the caller. This does not copy the buffer, and dropping the result does not
    /// destroy it. Fails if this library does not know the element type.
    ///
    /// # Safety
    /// `buffer` must be null or a buffer of `client` that stays alive until the result is dropped.
    pub unsafe fn borrow(client: &Arc<Client>, buffer: *mut PJRT_Buffer) -> Result<Self> {
        let handle =
            Handle::new(buffer).ok_or_else(|| Error::Argument("the caller's PJRT buffer is null".into()))?;
        let object = Object { client: client.clone(), handle, owned: false };
        let array = match object.query_element()? {
            Ok(element) => object.query_type_of(element)?,
            Err(unknown) => return Err(Error::Argument(unknown)),
        };
        Ok(Self { object, array: Array::Own(array) })
    }

    /// The type of the array, for later buffers of the same type.
    pub(super) fn array_type(&self) -> Arc<ArrayType> {
        match &self.array {
            Array::Own(array) => Arc::new(array.clone()),
            Array::Shared(array) => array.clone(),
        }
    }

    /// The client of this buffer.
    pub fn client(&self) -> &Arc<Client> {
        &self.object.client
    }

    /// The type of the elements.
    pub fn element(&self) -> ElementType {
        self.array.get().element
    }

    /// The dimensions, the slowest-varying first. Empty for a scalar.
    pub fn dims(&self) -> &[i64] {
        self.array.get().dims.as_slice()
    }

    /// The size in bytes of the contents that [`Buffer::to_host`] copies: dense, without the device's padding.
    pub fn host_size(&self) -> usize {
        self.array.get().host_size
    }

    /// Copies the contents to the host, dense and row-major for any layout on the device. Waits until the buffer is
    /// computed and the copy ends. Returns an error if the computation failed. The size of `T` must divide
    /// [`Buffer::host_size`].
    pub fn to_host<T: Pod>(&self) -> Result<Vec<T>> {
        self.start_copy_to_host()?.wait()
    }

    /// Like [`Buffer::to_host`], but does not wait. If a program has yet to compute the contents, the copy waits for
    /// it.
    pub fn start_copy_to_host<T: Pod>(&self) -> Result<HostCopy<T>> {
        let row_major: Vec<i64> = (0..self.dims().len() as i64).rev().collect();
        match self.start_copy(Some(&row_major)) {
            // The plugin can copy only in the device's layout.
            Err(error) if error.is_unimplemented() && self.is_dense()? => self.start_copy(None),
            started => started,
        }
    }

    /// Starts a copy to the host. `minor_to_major` lists the dimensions of the copy. The dimension that varies fastest
    /// is the first. `None` means the device's layout.
    fn start_copy<T: Pod>(&self, minor_to_major: Option<&[i64]>) -> Result<HostCopy<T>> {
        // The programs of this library define the sizes of their outputs, so another size is an error of the plugin.
        if !self.host_size().is_multiple_of(size_of::<T>()) {
            return Err(Error::Misbehaved(format!(
                "an array of {:?} with dimensions {:?} takes {} bytes, and elements of {} bytes were expected",
                self.element(),
                self.dims(),
                self.host_size(),
                size_of::<T>()
            )));
        }
        let mut values = zeroed::<T>(self.host_size() / size_of::<T>(), "a copy of a buffer")?;
        let mut layout = minor_to_major.map(dense_layout);
        let plugin = self.object.client.plugin();
        let mut args = Args::<PJRT_Buffer_ToHostBuffer_Args>::new();
        args.src = self.object.handle.as_ptr();
        args.host_layout = layout.as_mut().map_or(null_mut(), Args::as_mut_ptr);
        args.dst = values.as_mut_ptr().cast();
        args.dst_size = self.host_size();
        // SAFETY: the buffer is alive. `dst` is valid for `dst_size` bytes, which the plugin compares with the size
        // that it computes itself. The values of a `Pod` type can have any bytes. The memory stays valid until the copy
        // ends: `HostCopy` waits before it frees the memory, and without an event the memory is never freed. The layout
        // outlives the call.
        let event = unsafe {
            plugin.call(function!(plugin, PJRT_Buffer_ToHostBuffer)?, &mut args)?;
            Event::from_output(plugin, args.event, "PJRT_Buffer_ToHostBuffer")
        };
        match event {
            Ok(event) => Ok(HostCopy { event: Some(event), values }),
            Err(error) => {
                // The plugin may still copy to the memory, and nothing reports the end of the copy.
                std::mem::forget(values);
                Err(error)
            }
        }
    }

    /// Whether the device stores the array densely in row-major order, according to the plugin.
    pub fn is_dense(&self) -> Result<bool> {
        Ok(match self.layout()? {
            Layout::Tiled { minor_to_major, tiles } => tiles == 0 && is_descending(minor_to_major),
            Layout::Strides(strides) => strides == dense_strides(self.element(), self.dims()),
            Layout::Unknown => false,
        })
    }

    /// Returns the order of the dimensions in the device's memory, the fastest-varying first, if the array is not
    /// row-major. Returns `None` if the array is row-major, with or without tiles, or if its layout is unknown. Fails
    /// if there are gaps between the elements.
    pub fn other_order(&self) -> Result<Option<Vec<usize>>> {
        let rank = self.dims().len();
        let order: Vec<usize> = match self.layout() {
            Err(error) if error.is_unimplemented() => return Ok(None),
            Err(error) => return Err(error),
            Ok(Layout::Tiled { minor_to_major, .. }) if is_descending(minor_to_major) => return Ok(None),
            Ok(Layout::Tiled { minor_to_major, .. }) => minor_to_major.iter().map(|&dim| dim as usize).collect(),
            Ok(Layout::Strides(strides)) => match order_of_strides(self.element(), self.dims(), strides) {
                Some(order) if order.iter().rev().copied().eq(0..rank) => return Ok(None),
                Some(order) => order,
                None => {
                    return Err(Error::Argument(format!(
                        "a buffer with the dimensions {:?} has the byte strides {strides:?}; the elements must be \
                         adjacent in memory",
                        self.dims()
                    )))
                }
            },
            Ok(Layout::Unknown) => return Ok(None),
        };
        match (0..rank).all(|dim| order.contains(&dim)) && order.len() == rank {
            true => Ok(Some(order)),
            false => Err(Error::Misbehaved(format!(
                "PJRT_Buffer_GetMemoryLayout returned the order {order:?} for an array of {rank} dimensions"
            ))),
        }
    }

    fn layout(&self) -> Result<Layout<'_>> {
        let plugin = self.client().plugin();
        let function = function!(plugin, PJRT_Buffer_GetMemoryLayout)?;
        let name = function.name;
        let mut args = Args::<PJRT_Buffer_GetMemoryLayout_Args>::new();
        args.buffer = self.as_raw();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function, &mut args)? };
        let layout = &args.layout;
        // SAFETY: the type says which member is set. Its list lives as long as the buffer.
        unsafe {
            match layout.type_ {
                PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Tiled => {
                    let tiled = layout.__bindgen_anon_1.tiled;
                    let minor_to_major = slice(tiled.minor_to_major, tiled.minor_to_major_size, name)?;
                    Ok(Layout::Tiled { minor_to_major, tiles: tiled.num_tiles })
                }
                PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Strides => {
                    let strides = layout.__bindgen_anon_1.strides;
                    Ok(Layout::Strides(slice(strides.byte_strides, strides.num_byte_strides, name)?))
                }
                _ => Ok(Layout::Unknown),
            }
        }
    }

    /// Whether the buffer was deleted or donated to a program. A deleted or donated buffer has no contents.
    pub fn is_deleted(&self) -> Result<bool> {
        let plugin = self.object.client.plugin();
        let mut args = Args::<PJRT_Buffer_IsDeleted_Args>::new();
        args.buffer = self.object.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_IsDeleted)?, &mut args)? };
        Ok(args.is_deleted)
    }

    /// Deletes the contents. The device memory is freed when all running work that uses it has ended. The plugin's
    /// object stays alive until its owner destroys it.
    pub fn delete(&self) -> Result<()> {
        let plugin = self.client().plugin();
        let mut args = Args::<PJRT_Buffer_Delete_Args>::new();
        args.buffer = self.as_raw();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_Delete)?, &mut args) }
    }

    /// Whether the buffer is certainly in the default memory of the device, in which programs expect their inputs, and
    /// on this device. The result is also `false` if the plugin does not report memories, or if devices share their
    /// default memory.
    pub fn is_in_own_memory_of(&self, device: usize) -> Result<bool> {
        match self.client().own_memory(device)? {
            Some(own) => Ok(self.memory()? == Some(own.as_ptr())),
            None => Ok(false),
        }
    }

    /// Returns the kind of the memory that contains the buffer, for example `pinned_host`. Returns `None` if this kind
    /// is that of the device's default memory, in which programs expect their inputs. Also returns `None` if the plugin
    /// does not report memories.
    pub fn other_memory(&self, device: usize) -> Result<Option<String>> {
        let plugin = self.client().plugin();
        let Some(default) = self.client().default_memory(device)? else { return Ok(None) };
        let Some(memory) = self.memory()?.filter(|&memory| memory != default.as_ptr()) else {
            return Ok(None);
        };
        let memory = Handle::from_output(memory, "PJRT_Buffer_Memory")?;
        // SAFETY: the plugin returned these memories, which live as long as the client.
        let [kind, default] = unsafe { [memory_kind(plugin, memory)?, memory_kind(plugin, default)?] };
        Ok((kind != default).then_some(kind))
    }

    /// The memory that contains the buffer. `None` if the plugin does not report it.
    fn memory(&self) -> Result<Option<*mut PJRT_Memory>> {
        let plugin = self.client().plugin();
        let Ok(function) = function!(plugin, PJRT_Buffer_Memory) else { return Ok(None) };
        let mut args = Args::<PJRT_Buffer_Memory_Args>::new();
        args.buffer = self.as_raw();
        // SAFETY: the buffer is alive.
        match unsafe { plugin.call(function, &mut args) } {
            Err(error) if error.is_unimplemented() => Ok(None),
            outcome => outcome.map(|()| Some(args.memory)),
        }
    }

    /// The device of the buffer, as an index into [`Client::devices`]. `None` if the device is not in this list.
    pub fn device(&self) -> Result<Option<usize>> {
        let plugin = self.object.client.plugin();
        let mut args = Args::<PJRT_Buffer_Device_Args>::new();
        args.buffer = self.object.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_Device)?, &mut args)? };
        Ok(self.object.client.device_index(args.device))
    }

    /// Transfers ownership of the plugin's object to the caller. The caller must destroy it with the plugin's
    /// `PJRT_Buffer_Destroy`.
    pub fn into_raw(mut self) -> *mut PJRT_Buffer {
        self.object.owned = false;
        self.object.handle.as_ptr()
    }

    /// The plugin's object. It is valid as long as this value exists.
    pub fn as_raw(&self) -> *mut PJRT_Buffer {
        self.object.handle.as_ptr()
    }
}

impl Object {
    fn query_type(&self) -> Result<ArrayType> {
        self.query_type_of(self.query_element()?.map_err(Error::Misbehaved)?)
    }

    fn query_type_of(&self, element: ElementType) -> Result<ArrayType> {
        let dims = self.query_dims()?;
        match element.dense_size(dims.as_slice()) {
            Some(host_size) => Ok(ArrayType { element, dims, host_size }),
            None => Err(Error::Misbehaved(format!(
                "a buffer of {element:?} has the dimensions {:?}",
                dims.as_slice()
            ))),
        }
    }

    /// Returns the type of the elements, or a text that describes an unknown type.
    fn query_element(&self) -> Result<std::result::Result<ElementType, String>> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_ElementType_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive.
        unsafe { plugin.call(function!(plugin, PJRT_Buffer_ElementType)?, &mut args)? };
        Ok(ElementType::from_raw(args.type_).ok_or_else(|| {
            format!(
                "a buffer has the element type {} of the PJRT API, which this library does not know",
                args.type_
            )
        }))
    }

    fn query_dims(&self) -> Result<ShortList<i64, 3>> {
        let plugin = self.client.plugin();
        let mut args = Args::<PJRT_Buffer_Dimensions_Args>::new();
        args.buffer = self.handle.as_ptr();
        // SAFETY: the buffer is alive. The list lives as long as the buffer and is copied.
        unsafe {
            plugin.call(function!(plugin, PJRT_Buffer_Dimensions)?, &mut args)?;
            let dims = slice(args.dims, args.num_dims, "PJRT_Buffer_Dimensions")?;
            let mut copy = ShortList::filled(0, dims.len(), "the dimensions of a buffer")?;
            copy.as_mut_slice().copy_from_slice(dims);
            Ok(copy)
        }
    }
}

/// A copy to the host that was started. Dropping it waits until the copy ends.
pub struct HostCopy<T> {
    /// `None` after a wait for the copy.
    event: Option<Event>,
    values: Vec<T>,
}

impl<T> HostCopy<T> {
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

    /// Waits until the copy ends, and returns the contents.
    pub fn wait(mut self) -> Result<Vec<T>> {
        self.finish()?;
        Ok(std::mem::take(&mut self.values))
    }

    /// Waits until the copy ends.
    pub fn finish(&mut self) -> Result<()> {
        let Some(event) = self.event.take() else { return Ok(()) };
        let outcome = event.wait();
        if outcome.is_err() && !event.has_ended() {
            // The wait itself failed, so the plugin may still copy to the memory. The memory is never freed.
            std::mem::forget(std::mem::take(&mut self.values));
        }
        outcome
    }
}

impl<T> Drop for HostCopy<T> {
    fn drop(&mut self) {
        // The outcome does not matter, because nothing reads the values.
        let _ = self.finish();
    }
}

impl<T> fmt::Debug for HostCopy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCopy").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

impl Drop for Object {
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
        write!(f, "Buffer({:?}{:?})", self.element(), self.dims())
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

/// The layout of a buffer on the device, as the plugin describes it.
enum Layout<'a> {
    /// The dimensions in the order of the memory, the fastest-varying first, and the number of levels of tiles.
    Tiled { minor_to_major: &'a [i64], tiles: usize },
    /// The distance in bytes between the elements along each dimension.
    Strides(&'a [i64]),
    /// A description that a newer API defines.
    Unknown,
}

/// Whether a list of dimensions, the fastest-varying first, is that of a row-major array.
fn is_descending(minor_to_major: &[i64]) -> bool {
    minor_to_major.iter().rev().copied().eq(0..minor_to_major.len() as i64)
}

/// The dimensions in the order of the memory, the fastest-varying first. `None` if the elements are not adjacent.
fn order_of_strides(element: ElementType, dims: &[i64], strides: &[i64]) -> Option<Vec<usize>> {
    if strides.len() != dims.len() {
        return None;
    }
    let mut order: Vec<usize> = (0..dims.len()).rev().collect();
    // A dimension of length 1 can have the same stride as another one. The sort is stable, so the order of these two
    // dimensions stays row-major.
    order.sort_by_key(|&dim| strides[dim]);
    let sorted: Vec<i64> = order.iter().rev().map(|&dim| dims[dim]).collect();
    let dense = dense_strides(element, &sorted);
    order.iter().rev().zip(dense).all(|(&dim, stride)| strides[dim] == stride).then_some(order)
}

/// The kind of a memory, for example `device` or `pinned_host`.
///
/// # Safety
/// `memory` must be a live memory of a client of the plugin.
unsafe fn memory_kind(plugin: &Plugin, memory: Handle<PJRT_Memory>) -> Result<String> {
    let function = function!(plugin, PJRT_Memory_Kind)?;
    let name_of_function = function.name;
    let mut args = Args::<PJRT_Memory_Kind_Args>::new();
    args.memory = memory.as_ptr();
    // SAFETY: the caller guarantees the memory. The string lives as long as the memory and is copied.
    unsafe {
        plugin.call(function, &mut args)?;
        name(args.kind, args.kind_size, name_of_function)
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

    #[test]
    fn strides_define_the_order_of_adjacent_elements() {
        let order = |dims: &[i64], strides: &[i64]| order_of_strides(ElementType::F32, dims, strides);
        assert_eq!(order(&[2, 3, 5], &[60, 20, 4]), Some(vec![2, 1, 0]));
        assert_eq!(order(&[2, 3], &[4, 8]), Some(vec![0, 1]));
        assert_eq!(order(&[2, 1, 3], &[12, 12, 4]), Some(vec![2, 1, 0]));
        for (dims, strides) in [(&[2, 3][..], &[16, 4][..]), (&[2, 3], &[-12, 4]), (&[2, 3], &[4])] {
            assert_eq!(order(dims, strides), None, "{dims:?} {strides:?}");
        }
    }
}
