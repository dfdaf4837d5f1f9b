//! The faults that the proxy can inject.

use crate::functions::{self, index};

/// A fault and the call at which it happens.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of the fault.
    pub kind: Kind,
    /// The position of the call, counted from 0. Only calls to `function` count if it is not negative.
    pub at: u64,
    /// The only function whose calls count, as its position in the function table, or a negative number for all.
    pub function: i32,
}

impl Fault {
    /// A fault at the `at`-th call of any function.
    pub fn at_call(kind: Kind, at: usize) -> Fault {
        Fault { kind, at: at as u64, function: -1 }
    }

    /// A fault at the first call of the function with this name.
    pub fn at_function(kind: Kind, name: &str) -> Fault {
        let function = functions::position(name).unwrap_or_else(|| panic!("no function is named {name}"));
        Fault { kind, at: 0, function: function as i32 }
    }
}

/// The behaviour of the proxy instead of the real call.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Error `INTERNAL`.
    Internal,
    /// Error `RESOURCE_EXHAUSTED`.
    Exhausted,
    /// Error `UNIMPLEMENTED`, after which callers may use another method.
    Unimplemented,
    /// An error with an unknown code and a long text of invalid UTF-8, NUL and control characters.
    OddError,
    /// An error whose text has the size `usize::MAX` and whose code cannot be read.
    BadError,
    /// Error `INTERNAL` at this call and at every later one, destructors included.
    AllFail,
    /// Success without outputs: null objects, counts and numbers of 0.
    Empty,
    /// Success with counts and sizes of `usize::MAX`, which is −1 as an unsigned number.
    Huge,
    /// Success with null where a list or a pair of outputs should hold an object, or a null text with a length.
    Nulls,
    /// Success with negative numbers, or one output fewer than there are.
    Negative,
    /// Success with a wrong type: of elements, of values, of bytes in a text; or outputs in the wrong order.
    WrongType,
    /// The results hold the token 2147483647 in every row.
    TokenTooLarge,
    /// The results hold the token −2 in every row.
    TokenNegative,
    /// The results hold the greedy token 2147483647 in every row.
    GreedyTooLarge,
    /// The results hold the token −1, "no candidate", in every row, and a status that contradicts it.
    TokenMissing,
    /// The results hold an unknown status bit.
    UnknownStatus,
    /// The results hold a random number of nearly 2^64, more than any total of weights.
    RandomBeyondTotal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 17] = [
        Kind::Internal,
        Kind::Exhausted,
        Kind::Unimplemented,
        Kind::OddError,
        Kind::BadError,
        Kind::AllFail,
        Kind::Empty,
        Kind::Huge,
        Kind::Nulls,
        Kind::Negative,
        Kind::WrongType,
        Kind::TokenTooLarge,
        Kind::TokenNegative,
        Kind::GreedyTooLarge,
        Kind::TokenMissing,
        Kind::UnknownStatus,
        Kind::RandomBeyondTotal,
    ];

    /// Whether the call returns an error.
    pub fn is_error(self) -> bool {
        self <= Kind::AllFail
    }

    /// Whether the call succeeds and changes the contents of the results.
    pub fn is_content(self) -> bool {
        self >= Kind::TokenTooLarge
    }

    /// Whether this kind applies to a call. `results` is true if the call copies the results of a program to the host.
    pub fn applies(self, function: usize, results: bool) -> bool {
        use Kind::*;
        if self.is_error() {
            return true;
        }
        if self.is_content() {
            return results;
        }
        match function {
            index::PJRT_Client_Create
            | index::PJRT_Client_Compile
            | index::PJRT_Client_TopologyDescription
            | index::PJRT_Executable_DeserializeAndLoad
            | index::PJRT_LoadedExecutable_GetExecutable
            | index::PJRT_Device_GetDescription
            | index::PJRT_Buffer_ToHostBuffer => self == Empty,
            index::PJRT_Client_ProcessIndex | index::PJRT_DeviceDescription_Id => self == Negative,
            index::PJRT_Client_PlatformName
            | index::PJRT_Client_PlatformVersion
            | index::PJRT_DeviceDescription_Kind
            | index::PJRT_DeviceDescription_DebugString
            | index::PJRT_TopologyDescription_PlatformName
            | index::PJRT_TopologyDescription_PlatformVersion
            | index::PJRT_DeviceDescription_Attributes
            | index::PJRT_Plugin_Attributes
            | index::PJRT_TopologyDescription_Attributes => {
                matches!(self, Empty | Huge | Nulls | WrongType)
            }
            index::PJRT_Client_AddressableDevices
            | index::PJRT_LoadedExecutable_AddressableDevices
            | index::PJRT_TopologyDescription_GetDeviceDescriptions
            | index::PJRT_Executable_Serialize => matches!(self, Empty | Huge | Nulls),
            index::PJRT_Executable_NumOutputs => matches!(self, Empty | Huge | Negative | WrongType),
            index::PJRT_Client_BufferFromHostBuffer => matches!(self, Empty | Nulls | Negative),
            index::PJRT_LoadedExecutable_Execute => matches!(self, Empty | Nulls | Negative | WrongType),
            index::PJRT_Buffer_ElementType => matches!(self, Empty | Huge | WrongType),
            index::PJRT_Buffer_Dimensions => true,
            _ => false,
        }
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Kind) -> Option<std::cmp::Ordering> {
        Some((*self as u32).cmp(&(*other as u32)))
    }
}
