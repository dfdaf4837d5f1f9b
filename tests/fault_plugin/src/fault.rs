//! The faults that the proxy can inject.

use crate::functions::{self, index};
use crate::ledger::Contents;

/// A fault and the call at which it happens.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of the fault.
    pub kind: Kind,
    /// The position of the call, counted from 0. If `function` is not negative, only calls of this function count.
    pub at: u64,
    /// The position in the function table of the only function whose calls count. A negative number means all
    /// functions.
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

/// What the proxy does instead of the real call.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Error `INTERNAL`.
    Internal,
    /// Error `RESOURCE_EXHAUSTED`.
    Exhausted,
    /// Error `UNIMPLEMENTED`. After this error, callers may use another method.
    Unimplemented,
    /// An error with an unknown code and a long text of invalid UTF-8, NUL and control characters.
    OddError,
    /// An error whose text has the size `usize::MAX`, and whose code cannot be read.
    BadError,
    /// Error `INTERNAL` at this call and at every later call, including destructors.
    AllFail,
    /// Success without outputs: objects are null, and counts and numbers are 0.
    Empty,
    /// Success, and counts and sizes are `usize::MAX`, which is −1 as a signed number.
    Huge,
    /// Success, but a list or a pair of outputs contains null instead of an object, or a text is null and its length is
    /// not 0.
    Nulls,
    /// Success, but numbers are negative, or one output is missing.
    Negative,
    /// Success, but elements, values or the bytes of a text have a wrong type, or the outputs are in the wrong order.
    WrongType,
    /// Success, but the asynchronous work fails with the error `INTERNAL`. Every use of a new buffer fails. A copy or a
    /// program fails at its end. A callback receives the error.
    Late,
    /// Like [`Kind::Late`], with the error `RESOURCE_EXHAUSTED`.
    LateExhausted,
    /// The results hold the token 2147483647 in every row.
    TokenTooLarge,
    /// The results hold the token −2 in every row.
    TokenNegative,
    /// The results hold the greedy token 2147483647 in every row.
    GreedyTooLarge,
    /// The results hold the token −1, "no candidate", in every row, but the status does not say this.
    TokenMissing,
    /// The results hold an unknown status bit.
    UnknownStatus,
    /// The results hold a random number of nearly 2^64, which is larger than any total of weights.
    RandomBeyondTotal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 19] = [
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
        Kind::Late,
        Kind::LateExhausted,
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

    /// Whether the call succeeds, but its asynchronous work fails.
    pub fn is_late(self) -> bool {
        matches!(self, Kind::Late | Kind::LateExhausted)
    }

    /// Whether the call succeeds and changes the contents of the results.
    pub fn is_content(self) -> bool {
        self >= Kind::TokenTooLarge
    }

    /// Whether this kind applies to a call. If the call copies a buffer to the host, `contents` describes this buffer.
    pub fn applies(self, function: usize, contents: Contents) -> bool {
        use Kind::*;
        if self.is_error() {
            return true;
        }
        if self.is_content() {
            return match contents {
                Contents::Other => false,
                Contents::Results => true,
                // The copy contains only tokens. A token of −1 is valid, because rows without candidates have it.
                Contents::Tokens => matches!(self, TokenTooLarge | TokenNegative),
            };
        }
        if self.is_late() {
            return matches!(
                function,
                index::PJRT_Client_BufferFromHostBuffer
                    | index::PJRT_LoadedExecutable_Execute
                    | index::PJRT_Buffer_ToHostBuffer
                    | index::PJRT_Buffer_ReadyEvent
                    | index::PJRT_Event_OnReady
            );
        }
        match function {
            index::PJRT_Client_Create
            | index::PJRT_Client_Compile
            | index::PJRT_Client_TopologyDescription
            | index::PJRT_Executable_DeserializeAndLoad
            | index::PJRT_LoadedExecutable_GetExecutable
            | index::PJRT_Device_GetDescription
            | index::PJRT_Buffer_Device
            | index::PJRT_Buffer_ReadyEvent
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
