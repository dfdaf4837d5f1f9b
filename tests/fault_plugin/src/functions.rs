//! The functions of `PJRT_Api`, by their position in the table.

use std::mem::offset_of;

use pjrt_sys::PJRT_Api;

/// The number of words before the first function: the size, the extensions and the version.
pub(crate) const HEADER_WORDS: usize = offset_of!(PJRT_Api, PJRT_Error_Destroy) / size_of::<usize>();

macro_rules! functions {
    ($($name:ident)*) => {
        /// The position of each function.
        #[allow(non_upper_case_globals, dead_code)]
        pub(crate) mod index {
            use super::{offset_of, PJRT_Api, HEADER_WORDS};
            $(pub(crate) const $name: usize =
                offset_of!(PJRT_Api, $name) / size_of::<usize>() - HEADER_WORDS;)*
        }

        const NAMES: &[(usize, &std::ffi::CStr)] = &[$((
            index::$name,
            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            },
        )),*];
    };
}

functions! {
    PJRT_Error_Destroy PJRT_Error_Message PJRT_Error_GetCode PJRT_Plugin_Initialize PJRT_Plugin_Attributes
    PJRT_Event_Destroy PJRT_Event_IsReady PJRT_Event_Error PJRT_Event_Await PJRT_Event_OnReady
    PJRT_Client_Create PJRT_Client_Destroy PJRT_Client_PlatformName PJRT_Client_ProcessIndex
    PJRT_Client_PlatformVersion PJRT_Client_Devices PJRT_Client_AddressableDevices PJRT_Client_LookupDevice
    PJRT_Client_LookupAddressableDevice PJRT_Client_AddressableMemories PJRT_Client_Compile
    PJRT_Client_DefaultDeviceAssignment PJRT_Client_BufferFromHostBuffer PJRT_DeviceDescription_Id
    PJRT_DeviceDescription_ProcessIndex PJRT_DeviceDescription_Attributes PJRT_DeviceDescription_Kind
    PJRT_DeviceDescription_DebugString PJRT_DeviceDescription_ToString PJRT_Device_GetDescription
    PJRT_Device_IsAddressable PJRT_Device_LocalHardwareId PJRT_Device_AddressableMemories
    PJRT_Device_DefaultMemory PJRT_Device_MemoryStats PJRT_Memory_Id PJRT_Memory_Kind
    PJRT_Memory_DebugString PJRT_Memory_ToString PJRT_Memory_AddressableByDevices PJRT_Executable_Destroy
    PJRT_Executable_Name PJRT_Executable_NumReplicas PJRT_Executable_NumPartitions
    PJRT_Executable_NumOutputs PJRT_Executable_SizeOfGeneratedCodeInBytes PJRT_Executable_GetCostAnalysis
    PJRT_Executable_OutputMemoryKinds PJRT_Executable_OptimizedProgram PJRT_Executable_Serialize
    PJRT_LoadedExecutable_Destroy PJRT_LoadedExecutable_GetExecutable
    PJRT_LoadedExecutable_AddressableDevices PJRT_LoadedExecutable_Delete PJRT_LoadedExecutable_IsDeleted
    PJRT_LoadedExecutable_Execute PJRT_Executable_DeserializeAndLoad PJRT_LoadedExecutable_Fingerprint
    PJRT_Buffer_Destroy PJRT_Buffer_ElementType PJRT_Buffer_Dimensions PJRT_Buffer_UnpaddedDimensions
    PJRT_Buffer_DynamicDimensionIndices PJRT_Buffer_GetMemoryLayout PJRT_Buffer_OnDeviceSizeInBytes
    PJRT_Buffer_Device PJRT_Buffer_Memory PJRT_Buffer_Delete PJRT_Buffer_IsDeleted PJRT_Buffer_CopyToDevice
    PJRT_Buffer_ToHostBuffer PJRT_Buffer_IsOnCpu PJRT_Buffer_ReadyEvent PJRT_Buffer_UnsafePointer
    PJRT_Buffer_IncreaseExternalReferenceCount PJRT_Buffer_DecreaseExternalReferenceCount
    PJRT_Buffer_OpaqueDeviceMemoryDataPointer PJRT_CopyToDeviceStream_Destroy
    PJRT_CopyToDeviceStream_AddChunk PJRT_CopyToDeviceStream_TotalBytes PJRT_CopyToDeviceStream_GranuleSize
    PJRT_CopyToDeviceStream_CurrentBytes PJRT_TopologyDescription_Create PJRT_TopologyDescription_Destroy
    PJRT_TopologyDescription_PlatformName PJRT_TopologyDescription_PlatformVersion
    PJRT_TopologyDescription_GetDeviceDescriptions PJRT_TopologyDescription_Serialize
    PJRT_TopologyDescription_Attributes PJRT_Compile PJRT_Executable_OutputElementTypes
    PJRT_Executable_OutputDimensions PJRT_Buffer_CopyToMemory PJRT_Client_CreateViewOfDeviceBuffer
    PJRT_Executable_Fingerprint PJRT_Client_TopologyDescription PJRT_Executable_GetCompiledMemoryStats
    PJRT_Memory_Kind_Id PJRT_ExecuteContext_Create PJRT_ExecuteContext_Destroy
}

/// The name of a function. Newer plugins have functions that the bindings do not know. These share one placeholder
/// name.
pub(crate) fn name(function: usize) -> &'static std::ffi::CStr {
    NAMES.iter().find(|(known, _)| *known == function).map_or(c"a newer function", |(_, name)| name)
}

/// The position of a function.
pub(crate) fn position(name: &str) -> Option<usize> {
    NAMES.iter().find(|(_, known)| known.to_bytes() == name.as_bytes()).map(|(function, _)| *function)
}
