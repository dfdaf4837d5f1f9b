//! Argument structs of the C API, as a newer plugin expects them.

use pjrt_sys::*;

/// Words appended to every argument struct.
///
/// The bindings know API 0.54. The API evolves by appending fields to argument structs, and a plugin refuses a struct
/// whose `struct_size` is smaller than the one it was compiled with. Since 0.54 have grown, of the structs used here:
/// `PJRT_Client_Create_Args` by `kv_try_get_callback`, `kv_try_get_user_arg`; `PJRT_ExecuteOptions` by `context`,
/// `call_location`, `num_tasks`, `task_ids`, `incarnation_ids`; `PJRT_Executable_DeserializeAndLoad_Args` by
/// `overridden_serialized_compile_options` and its size. In all of them zero means "not given", as it must wherever the
/// API keeps its promise to callers that know less than the plugin; so a zeroed tail, counted in `struct_size`, serves
/// the fields known today and some that are not. A plugin takes a struct larger than its own: that is how it serves
/// callers newer than itself. What a plugin writes to an output field we don't know lands in the tail.
const RESERVE: usize = 16;

/// An argument struct followed by its zeroed tail. `repr(C)` puts the tail where the plugin looks for newer fields:
/// every struct here is a multiple of a word long.
#[repr(C)]
pub(super) struct Args<T> {
    base: T,
    reserve: [usize; RESERVE],
}

impl<T: Extensible> Args<T> {
    /// All zero but `struct_size`.
    pub(super) fn new() -> Self {
        let mut base = T::default();
        *base.struct_size_mut() = size_of::<Self>();
        Self { base, reserve: [0; RESERVE] }
    }

    /// Sets a field that was appended after the bindings were made: the word of that index in the tail.
    pub(super) fn set_appended(&mut self, word: usize, value: usize) {
        self.reserve[word] = value;
    }

    /// The pointer for the plugin, good for the struct and its tail.
    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        std::ptr::from_mut(self).cast()
    }
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
    /// The field that tells the plugin how much of the struct there is.
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
    PJRT_Error_Destroy_Args PJRT_Error_Message_Args PJRT_Error_GetCode_Args
    PJRT_Plugin_Initialize_Args PJRT_Plugin_Attributes_Args
    PJRT_Event_Destroy_Args PJRT_Event_Await_Args PJRT_Event_IsReady_Args
    PJRT_Client_Create_Args PJRT_Client_Destroy_Args PJRT_Client_PlatformName_Args PJRT_Client_PlatformVersion_Args
    PJRT_Client_ProcessIndex_Args PJRT_Client_AddressableDevices_Args PJRT_Client_Compile_Args
    PJRT_Client_BufferFromHostBuffer_Args PJRT_Client_TopologyDescription_Args
    PJRT_Device_GetDescription_Args PJRT_Device_LocalHardwareId_Args PJRT_Device_MemoryStats_Args
    PJRT_DeviceDescription_Id_Args PJRT_DeviceDescription_Kind_Args PJRT_DeviceDescription_DebugString_Args
    PJRT_DeviceDescription_ProcessIndex_Args PJRT_DeviceDescription_Attributes_Args
    PJRT_Program
    PJRT_Executable_Destroy_Args PJRT_Executable_NumOutputs_Args PJRT_Executable_NumReplicas_Args
    PJRT_Executable_NumPartitions_Args PJRT_Executable_OutputElementTypes_Args PJRT_Executable_Serialize_Args
    PJRT_Executable_DeserializeAndLoad_Args PJRT_Executable_SizeOfGeneratedCodeInBytes_Args
    PJRT_LoadedExecutable_Destroy_Args PJRT_LoadedExecutable_GetExecutable_Args PJRT_LoadedExecutable_Execute_Args
    PJRT_LoadedExecutable_AddressableDevices_Args PJRT_ExecuteOptions
    PJRT_Buffer_Destroy_Args PJRT_Buffer_ElementType_Args PJRT_Buffer_Dimensions_Args PJRT_Buffer_ToHostBuffer_Args
    PJRT_Buffer_GetMemoryLayout_Args PJRT_Buffer_OnDeviceSizeInBytes_Args
    PJRT_TopologyDescription_Create_Args PJRT_TopologyDescription_Destroy_Args
    PJRT_TopologyDescription_PlatformName_Args PJRT_TopologyDescription_PlatformVersion_Args
    PJRT_TopologyDescription_GetDeviceDescriptions_Args PJRT_TopologyDescription_Attributes_Args PJRT_Compile_Args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_covers_the_growth_seen_so_far() {
        // Sizes that plugins of API 0.81 to 0.117 ask for.
        assert!(size_of::<Args<PJRT_Client_Create_Args>>() >= 88);
        assert!(size_of::<Args<PJRT_ExecuteOptions>>() >= 112);
        let mut args = Args::<PJRT_ExecuteOptions>::new();
        assert_eq!(args.struct_size, size_of::<Args<PJRT_ExecuteOptions>>());
        assert_eq!(args.as_mut_ptr() as usize, std::ptr::from_ref(&args.struct_size) as usize);
        assert!(args.reserve.iter().all(|&word| word == 0));
    }
}
