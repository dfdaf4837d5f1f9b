//! Element types of buffers.

use pjrt_sys::*;

/// The element types that this library exchanges with devices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ElementType {
    /// Booleans, one byte each.
    Pred,
    /// Signed 8-bit integers.
    S8,
    /// Signed 16-bit integers.
    S16,
    /// Signed 32-bit integers.
    S32,
    /// Signed 64-bit integers.
    S64,
    /// Unsigned 8-bit integers.
    U8,
    /// Unsigned 16-bit integers.
    U16,
    /// Unsigned 32-bit integers.
    U32,
    /// Unsigned 64-bit integers.
    U64,
    /// IEEE 754 half precision.
    F16,
    /// The upper 16 bits of an F32 (bfloat16).
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl ElementType {
    const ALL: [(Self, PJRT_Buffer_Type, usize); 13] = [
        (Self::Pred, PJRT_Buffer_Type_PJRT_Buffer_Type_PRED, 1),
        (Self::S8, PJRT_Buffer_Type_PJRT_Buffer_Type_S8, 1),
        (Self::S16, PJRT_Buffer_Type_PJRT_Buffer_Type_S16, 2),
        (Self::S32, PJRT_Buffer_Type_PJRT_Buffer_Type_S32, 4),
        (Self::S64, PJRT_Buffer_Type_PJRT_Buffer_Type_S64, 8),
        (Self::U8, PJRT_Buffer_Type_PJRT_Buffer_Type_U8, 1),
        (Self::U16, PJRT_Buffer_Type_PJRT_Buffer_Type_U16, 2),
        (Self::U32, PJRT_Buffer_Type_PJRT_Buffer_Type_U32, 4),
        (Self::U64, PJRT_Buffer_Type_PJRT_Buffer_Type_U64, 8),
        (Self::F16, PJRT_Buffer_Type_PJRT_Buffer_Type_F16, 2),
        (Self::BF16, PJRT_Buffer_Type_PJRT_Buffer_Type_BF16, 2),
        (Self::F32, PJRT_Buffer_Type_PJRT_Buffer_Type_F32, 4),
        (Self::F64, PJRT_Buffer_Type_PJRT_Buffer_Type_F64, 8),
    ];

    /// Bytes per element on the host.
    pub fn size(self) -> usize {
        Self::ALL[self as usize].2
    }

    pub(super) fn to_raw(self) -> PJRT_Buffer_Type {
        Self::ALL[self as usize].1
    }

    /// `None` for types that this library does not use.
    pub(super) fn from_raw(raw: PJRT_Buffer_Type) -> Option<Self> {
        Self::ALL.iter().find(|entry| entry.1 == raw).map(|entry| entry.0)
    }

    /// The size of a dense array in bytes. `None` if a dimension is negative or no allocation can be that large.
    pub(super) fn dense_size(self, dims: &[i64]) -> Option<usize> {
        dims.iter()
            .try_fold(self.size(), |size, &dim| size.checked_mul(usize::try_from(dim).ok()?))
            .filter(|&size| isize::try_from(size).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_order_of_the_variants() {
        for (element, raw, _) in ElementType::ALL {
            assert_eq!(element.to_raw(), raw);
            assert_eq!(ElementType::from_raw(raw), Some(element));
        }
        assert_eq!(ElementType::from_raw(0), None);
        assert_eq!(ElementType::BF16.size(), 2);
    }

    #[test]
    fn impossible_sizes_are_rejected() {
        assert_eq!(ElementType::F32.dense_size(&[]), Some(4));
        assert_eq!(ElementType::F32.dense_size(&[3, 5]), Some(60));
        assert_eq!(ElementType::F32.dense_size(&[3, 0]), Some(0));
        assert_eq!(ElementType::F32.dense_size(&[-1]), None);
        assert_eq!(ElementType::F32.dense_size(&[i64::MAX, 4]), None);
        assert_eq!(ElementType::U8.dense_size(&[i64::MAX, 2]), None);
    }
}
