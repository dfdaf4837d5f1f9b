//! Argument structs of the C API, with space for the fields of newer versions.

use pjrt_sys::*;

/// The number of zeroed words after each argument struct.
///
/// The bindings are those of API 0.54. The API evolves by appending fields to argument structs. A plugin rejects a
/// struct whose `struct_size` is smaller than the struct that the plugin was compiled with. Of the structs used
/// here, these have grown since 0.54:
/// - `PJRT_Client_Create_Args` by `kv_try_get_callback` and `kv_try_get_user_arg`;
/// - `PJRT_ExecuteOptions` by `context`, `call_location`, `num_tasks`, `task_ids` and `incarnation_ids`;
/// - `PJRT_Executable_DeserializeAndLoad_Args` by `overridden_serialized_compile_options` and its size.
///
/// In all of these fields zero means "not given", because the API guarantees this to callers that are older than the
/// plugin. So a zeroed tail that `struct_size` includes is correct for the known new fields and for future fields. A
/// plugin accepts a struct that is larger than its own struct, because it must accept newer callers. If a plugin writes
/// output fields that the bindings do not know, it writes them into the tail.
const RESERVE: usize = 16;

/// An argument struct followed by its zeroed tail. The size of each struct is a multiple of a word. So with `repr(C)`
/// the tail starts at the offset where the plugin expects newer fields.
#[repr(C)]
pub(super) struct Args<T> {
    base: T,
    reserve: [usize; RESERVE],
}

impl<T: Extensible> Args<T> {
    /// All zero except `struct_size`.
    pub(super) fn new() -> Self {
        let mut base = T::default();
        *base.struct_size_mut() = size_of::<Self>();
        Self { base, reserve: [0; RESERVE] }
    }

    /// The pointer to pass to the plugin. It is valid for the struct and its tail.
    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        std::ptr::from_mut(self).cast()
    }
}

impl Args<PJRT_Executable_DeserializeAndLoad_Args> {
    /// Sets `overridden_serialized_compile_options` and its size, which newer versions of the API appended. The
    /// options must outlive the call.
    pub(super) fn override_compile_options(&mut self, options: &[u8]) {
        self.reserve[0] = options.as_ptr().expose_provenance();
        self.reserve[1] = options.len();
    }
}

/// Asserts that the structs have their sizes of API 0.54. The appended fields start at these offsets. If the bindings
/// had larger structs, the tail would start at wrong offsets.
macro_rules! size_in_api_0_54 {
    ($($name:ident $size:literal)*) => {$(
        const _: () = assert!(size_of::<$name>() == $size, "the bindings are no longer those of API 0.54");
    )*};
}

size_in_api_0_54! {
    PJRT_Client_Create_Args 72
    PJRT_ExecuteOptions 72
    PJRT_Executable_DeserializeAndLoad_Args 48
    PJRT_NamedValue 56
    PJRT_Buffer_MemoryLayout 80
}

impl<T> std::ops::Deref for Args<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.base
    }
}

impl<T> std::ops::DerefMut for Args<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.base
    }
}

/// A struct of the C API that starts with its own size.
pub(super) trait Extensible: Default {
    /// The field that tells the plugin how large the struct is.
    fn struct_size_mut(&mut self) -> &mut usize;
}

macro_rules! extensible {
    ($($name:ident)*) => {$(
        impl Extensible for $name {
            fn struct_size_mut(&mut self) -> &mut usize {
                &mut self.struct_size
            }
        }
        const _: () = assert!(size_of::<$name>() % size_of::<usize>() == 0);
    )*};
}

extensible! {
    PJRT_Error_Destroy_Args PJRT_Error_Message_Args PJRT_Error_GetCode_Args PJRT_Plugin_Initialize_Args
    PJRT_Plugin_Attributes_Args PJRT_Event_Destroy_Args PJRT_Event_Await_Args PJRT_Event_IsReady_Args
    PJRT_Event_OnReady_Args PJRT_Client_Create_Args
    PJRT_Client_Destroy_Args PJRT_Client_PlatformName_Args PJRT_Client_PlatformVersion_Args
    PJRT_Client_AddressableDevices_Args PJRT_Client_Compile_Args PJRT_Client_BufferFromHostBuffer_Args
    PJRT_Client_TopologyDescription_Args PJRT_Device_GetDescription_Args PJRT_DeviceDescription_Id_Args
    PJRT_DeviceDescription_Kind_Args PJRT_DeviceDescription_DebugString_Args
    PJRT_DeviceDescription_Attributes_Args PJRT_Program PJRT_Executable_Destroy_Args
    PJRT_Executable_NumOutputs_Args PJRT_Executable_Serialize_Args PJRT_Executable_DeserializeAndLoad_Args
    PJRT_LoadedExecutable_Destroy_Args PJRT_LoadedExecutable_GetExecutable_Args
    PJRT_LoadedExecutable_Execute_Args PJRT_LoadedExecutable_AddressableDevices_Args PJRT_ExecuteOptions
    PJRT_Buffer_Destroy_Args PJRT_Buffer_Delete_Args PJRT_Buffer_IsDeleted_Args PJRT_Buffer_Device_Args
    PJRT_Buffer_Memory_Args PJRT_Memory_Kind_Args PJRT_Device_DefaultMemory_Args
    PJRT_Buffer_ElementType_Args PJRT_Buffer_Dimensions_Args
    PJRT_Buffer_ToHostBuffer_Args PJRT_Buffer_GetMemoryLayout_Args
    PJRT_Buffer_MemoryLayout PJRT_TopologyDescription_Create_Args PJRT_TopologyDescription_Destroy_Args
    PJRT_TopologyDescription_PlatformName_Args PJRT_TopologyDescription_PlatformVersion_Args
    PJRT_TopologyDescription_GetDeviceDescriptions_Args PJRT_Compile_Args
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_tail_covers_the_growth_seen_so_far() {
        // Sizes that plugins of API 0.81 to 0.117 require.
        assert!(size_of::<Args<PJRT_Client_Create_Args>>() >= 88);
        assert!(size_of::<Args<PJRT_ExecuteOptions>>() >= 112);
        let mut args = Args::<PJRT_ExecuteOptions>::new();
        assert_eq!(args.struct_size, size_of::<Args<PJRT_ExecuteOptions>>());
        assert_eq!(args.as_mut_ptr() as usize, std::ptr::from_ref(&args.struct_size) as usize);
        assert!(args.reserve.iter().all(|&word| word == 0));
    }

    #[test]
    fn appended_fields_start_behind_the_struct() {
        type Deserialize = Args<PJRT_Executable_DeserializeAndLoad_Args>;
        assert_eq!(offset_of!(Deserialize, reserve), 48);
        let mut args = Deserialize::new();
        args.override_compile_options(b"options");
        assert_eq!((args.reserve[0], args.reserve[1]), (b"options".as_ptr() as usize, 7));
    }
}
