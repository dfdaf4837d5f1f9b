//! The element types of logits, and arrays of logits.

use crate::semantics::arith::Scalar;
use crate::semantics::clean;

/// The element type of a logits array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "pjrt", derive(serde::Serialize, serde::Deserialize))]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Dtype {
    /// `f32`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }

    /// The size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// The number of lowest bits of an order key that have no meaning for this type: see
    /// [`short_key`](crate::semantics::narrow_keys::short_key).
    #[doc(hidden)]
    pub fn unused_key_bits(self) -> u32 {
        // In f32, a subnormal f16 number is a normal number with a shorter mantissa. So its lowest bits have no meaning
        // either.
        match self {
            Dtype::F32 => 0,
            Dtype::Bf16 => 16,
            Dtype::F16 => 13,
        }
    }

    /// `value` rounded to this type (to nearest, ties to even), as bits.
    #[doc(hidden)]
    pub fn round(self, value: f32) -> u32 {
        match self {
            Dtype::F32 => value.to_bits(),
            Dtype::Bf16 => u32::from(half::bf16::from_f32(value).to_bits()),
            Dtype::F16 => u32::from(half::f16::from_f32(value).to_bits()),
        }
    }

    /// Converts an element of this type to f32. Argument and result are bits. The conversion is exact.
    #[doc(hidden)]
    pub fn widen(self, bits: u32) -> u32 {
        match self {
            Dtype::F32 => bits,
            Dtype::Bf16 => clean::widen_bf16(Scalar, bits as i32) as u32,
            Dtype::F16 => clean::widen_f16(Scalar, bits as i32) as u32,
        }
    }

    /// The cleaned value of an element. Argument and result are bits of this type.
    #[doc(hidden)]
    pub fn clean(self, bits: u32) -> u32 {
        let wide = self.widen(bits) as i32;
        match self {
            Dtype::F32 => clean::clean(Scalar, wide) as u32,
            Dtype::Bf16 => clean::clean_narrow(Scalar, bits as i32, wide, BF16_NEG_INF) as u32,
            Dtype::F16 => clean::clean_narrow(Scalar, bits as i32, wide, F16_NEG_INF) as u32,
        }
    }
}

/// −inf as bits of a bfloat16.
pub const BF16_NEG_INF: i32 = 0xff80;
/// −inf as bits of a binary16.
pub const F16_NEG_INF: i32 = 0xfc00;

/// Logits of one or more rows, borrowed from the caller. Elements of 16-bit types are raw bits.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// IEEE binary32.
    F32(&'a [f32]),
    /// The bits of bfloat16 numbers.
    Bf16(&'a [u16]),
    /// The bits of IEEE binary16 numbers.
    F16(&'a [u16]),
}

impl<'a> Logits<'a> {
    /// The element type.
    pub fn dtype(self) -> Dtype {
        match self {
            Logits::F32(_) => Dtype::F32,
            Logits::Bf16(_) => Dtype::Bf16,
            Logits::F16(_) => Dtype::F16,
        }
    }

    /// The number of elements.
    pub fn len(self) -> usize {
        match self {
            Logits::F32(x) => x.len(),
            Logits::Bf16(x) | Logits::F16(x) => x.len(),
        }
    }

    /// Whether the array is empty.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The address of the first element.
    #[doc(hidden)]
    pub fn address(self) -> usize {
        match self {
            Logits::F32(x) => x.as_ptr() as usize,
            Logits::Bf16(x) | Logits::F16(x) => x.as_ptr() as usize,
        }
    }

    /// The elements `start..start + len`.
    #[doc(hidden)]
    pub fn slice(self, start: usize, len: usize) -> Logits<'a> {
        match self {
            Logits::F32(x) => Logits::F32(&x[start..start + len]),
            Logits::Bf16(x) => Logits::Bf16(&x[start..start + len]),
            Logits::F16(x) => Logits::F16(&x[start..start + len]),
        }
    }

    /// The bits of one element, zero-extended to 32.
    #[doc(hidden)]
    pub fn bits(self, index: usize) -> u32 {
        match self {
            Logits::F32(x) => x[index].to_bits(),
            Logits::Bf16(x) | Logits::F16(x) => u32::from(x[index]),
        }
    }
}

/// A writable array of logits; see [`Logits`].
#[derive(Debug)]
pub enum LogitsMut<'a> {
    /// IEEE binary32.
    F32(&'a mut [f32]),
    /// The bits of bfloat16 numbers.
    Bf16(&'a mut [u16]),
    /// The bits of IEEE binary16 numbers.
    F16(&'a mut [u16]),
}

impl<'a> LogitsMut<'a> {
    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            LogitsMut::F32(_) => Dtype::F32,
            LogitsMut::Bf16(_) => Dtype::Bf16,
            LogitsMut::F16(_) => Dtype::F16,
        }
    }

    /// Writes one element, given as bits.
    #[inline(always)]
    #[doc(hidden)]
    pub fn set(&mut self, index: usize, bits: u32) {
        match self {
            LogitsMut::F32(x) => x[index] = f32::from_bits(bits),
            LogitsMut::Bf16(x) | LogitsMut::F16(x) => x[index] = bits as u16,
        }
    }

    /// Writes the same bits to every element.
    #[doc(hidden)]
    pub fn fill(&mut self, bits: u32) {
        match self {
            LogitsMut::F32(x) => x.fill(f32::from_bits(bits)),
            LogitsMut::Bf16(x) | LogitsMut::F16(x) => x.fill(bits as u16),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            LogitsMut::F32(x) => x.len(),
            LogitsMut::Bf16(x) | LogitsMut::F16(x) => x.len(),
        }
    }

    /// Whether the array is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same array, borrowed for a shorter lifetime.
    pub(crate) fn reborrow(&mut self) -> LogitsMut<'_> {
        match self {
            LogitsMut::F32(x) => LogitsMut::F32(x),
            LogitsMut::Bf16(x) => LogitsMut::Bf16(x),
            LogitsMut::F16(x) => LogitsMut::F16(x),
        }
    }

    /// Removes the first `len` elements and returns them.
    pub(crate) fn split_off_front(&mut self, len: usize) -> LogitsMut<'a> {
        match self {
            LogitsMut::F32(x) => LogitsMut::F32(split_off_front(x, len)),
            LogitsMut::Bf16(x) => LogitsMut::Bf16(split_off_front(x, len)),
            LogitsMut::F16(x) => LogitsMut::F16(split_off_front(x, len)),
        }
    }
}

/// Removes the first `len` elements of a slice and returns them.
pub(crate) fn split_off_front<'a, T>(array: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = std::mem::take(array).split_at_mut(len);
    *array = rest;
    front
}
