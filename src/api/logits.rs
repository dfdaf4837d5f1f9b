//! Conversions of slices to arrays of logits, and an array of logits that owns its memory.

use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::dtype::{Dtype, Logits, LogitsMut};
use crate::error::Error;
use crate::memory;

macro_rules! from_slices {
    ($element:ty, $slice:ident => $logits:expr, $slice_mut:ident => $logits_mut:expr) => {
        impl<'a> From<&'a [$element]> for Logits<'a> {
            fn from($slice: &'a [$element]) -> Logits<'a> {
                $logits
            }
        }
        impl<'a> From<&'a Vec<$element>> for Logits<'a> {
            fn from(vector: &'a Vec<$element>) -> Logits<'a> {
                vector.as_slice().into()
            }
        }
        impl<'a, const N: usize> From<&'a [$element; N]> for Logits<'a> {
            fn from(array: &'a [$element; N]) -> Logits<'a> {
                array.as_slice().into()
            }
        }
        impl<'a> From<&'a mut [$element]> for LogitsMut<'a> {
            fn from($slice_mut: &'a mut [$element]) -> LogitsMut<'a> {
                $logits_mut
            }
        }
        impl<'a> From<&'a mut Vec<$element>> for LogitsMut<'a> {
            fn from(vector: &'a mut Vec<$element>) -> LogitsMut<'a> {
                vector.as_mut_slice().into()
            }
        }
    };
}

from_slices!(f32, slice => Logits::F32(slice), slice => LogitsMut::F32(slice));
from_slices!(bf16, slice => Logits::Bf16(slice.reinterpret_cast()), slice => LogitsMut::Bf16(slice.reinterpret_cast_mut()));
from_slices!(f16, slice => Logits::F16(slice.reinterpret_cast()), slice => LogitsMut::F16(slice.reinterpret_cast_mut()));

/// An array of the type of the logits.
#[derive(Clone, Debug, PartialEq)]
pub enum LogitsArray {
    /// IEEE binary32.
    F32(Vec<f32>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// IEEE binary16.
    F16(Vec<f16>),
}

impl LogitsArray {
    /// `len` zeros.
    pub(crate) fn zeros(dtype: Dtype, len: usize) -> Result<LogitsArray, Error> {
        const PURPOSE: &str = "a debug array";
        Ok(match dtype {
            Dtype::F32 => LogitsArray::F32(memory::zeroed(len, PURPOSE)?),
            Dtype::Bf16 => LogitsArray::Bf16(memory::zeroed::<u16>(len, PURPOSE)?.reinterpret_into()),
            Dtype::F16 => LogitsArray::F16(memory::zeroed::<u16>(len, PURPOSE)?.reinterpret_into()),
        })
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            LogitsArray::F32(_) => Dtype::F32,
            LogitsArray::Bf16(_) => Dtype::Bf16,
            LogitsArray::F16(_) => Dtype::F16,
        }
    }

    /// The bits of each element, in the low bits of the result. Like [`Vec::clone`], this ends the process if the
    /// memory does not suffice.
    pub fn to_bits(&self) -> Vec<u32> {
        match self {
            LogitsArray::F32(values) => values.iter().map(|value| value.to_bits()).collect(),
            LogitsArray::Bf16(values) => values.iter().map(|value| value.to_bits().into()).collect(),
            LogitsArray::F16(values) => values.iter().map(|value| value.to_bits().into()).collect(),
        }
    }

    /// The elements as f32. The conversion is exact. Like [`Vec::clone`], this ends the process if the memory does not
    /// suffice.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            LogitsArray::F32(values) => values.clone(),
            LogitsArray::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
            LogitsArray::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
        }
    }
}

impl<'a> From<&'a LogitsArray> for Logits<'a> {
    fn from(array: &'a LogitsArray) -> Logits<'a> {
        match array {
            LogitsArray::F32(values) => values.into(),
            LogitsArray::Bf16(values) => values.into(),
            LogitsArray::F16(values) => values.into(),
        }
    }
}

impl<'a> From<&'a mut LogitsArray> for LogitsMut<'a> {
    fn from(array: &'a mut LogitsArray) -> LogitsMut<'a> {
        match array {
            LogitsArray::F32(values) => values.into(),
            LogitsArray::Bf16(values) => values.into(),
            LogitsArray::F16(values) => values.into(),
        }
    }
}
