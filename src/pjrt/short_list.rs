//! Lists that are usually short.

use super::error::{Error, Result};

/// A list of fixed length. Up to `N` values are stored in place, so that a call does not allocate memory for them.
#[derive(Clone)]
pub(super) enum ShortList<T, const N: usize> {
    InPlace([T; N], usize),
    Allocated(Vec<T>),
}

impl<T: Copy, const N: usize> ShortList<T, N> {
    /// A list of `len` copies of a value. A plugin or a caller can decide the length, so the allocation is fallible.
    pub(super) fn filled(value: T, len: usize, purpose: &'static str) -> Result<Self> {
        if len <= N {
            return Ok(ShortList::InPlace([value; N], len));
        }
        let mut values = Vec::new();
        values
            .try_reserve_exact(len)
            .map_err(|_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()), purpose })?;
        values.resize(len, value);
        Ok(ShortList::Allocated(values))
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            ShortList::InPlace(values, len) => &values[..*len],
            ShortList::Allocated(values) => values,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            ShortList::InPlace(values, len) => &mut values[..*len],
            ShortList::Allocated(values) => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_allocated() {
        for len in 0..6 {
            let mut list = ShortList::<i64, 3>::filled(7, len, "a test").unwrap();
            assert_eq!(matches!(list, ShortList::InPlace(..)), len <= 3);
            list.as_mut_slice().iter_mut().for_each(|value| *value += 1);
            assert_eq!(list.as_slice(), vec![8; len]);
        }
        let error = ShortList::<i64, 3>::filled(0, usize::MAX, "a test").err().unwrap();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }
}
