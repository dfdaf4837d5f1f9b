//! Fallible allocations. They are used for every size that a caller decides, because a failed infallible allocation
//! would end the process.

use bytemuck::Zeroable;

use crate::error::Error;

/// Allocates `len` zeroed elements. It does not write the memory, because the system supplies zeroed pages for large
/// allocations.
pub(crate) fn zeroed<T: Zeroable>(len: usize, purpose: &str) -> Result<Vec<T>, Error> {
    bytemuck::allocation::try_zeroed_slice_box(len)
        .map(Vec::from)
        .map_err(|()| Error::out_of_memory(len.saturating_mul(size_of::<T>()), purpose))
}

/// `len` copies of `value`.
pub(crate) fn filled<T: Clone>(len: usize, value: T, purpose: &str) -> Result<Vec<T>, Error> {
    let mut list = with_capacity(len, purpose)?;
    list.resize(len, value);
    Ok(list)
}

/// An empty vector with space for `capacity` elements.
pub(crate) fn with_capacity<T>(capacity: usize, purpose: &str) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    list.try_reserve_exact(capacity)
        .map_err(|_| Error::out_of_memory(capacity.saturating_mul(size_of::<T>()), purpose))?;
    Ok(list)
}

/// Appends an element. Use this function for a list whose length is not known in advance.
#[cfg(feature = "pjrt")]
pub(crate) fn push<T>(list: &mut Vec<T>, item: T, purpose: &str) -> Result<(), Error> {
    list.try_reserve(1)
        .map_err(|_| Error::out_of_memory((list.len() + 1).saturating_mul(size_of::<T>()), purpose))?;
    list.push(item);
    Ok(())
}

/// Collects the first `len` items, or returns the first error among them.
pub(crate) fn collected<T>(
    len: usize,
    purpose: &str,
    items: impl Iterator<Item = Result<T, Error>>,
) -> Result<Vec<T>, Error> {
    let mut list = with_capacity(len, purpose)?;
    for item in items.take(len) {
        list.push(item?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_memory_are_errors() {
        for outcome in [
            zeroed::<u64>(usize::MAX / 16, "a test"),
            filled(usize::MAX / 16, 7_u64, "a test"),
            with_capacity(usize::MAX / 4, "a test"),
        ] {
            let error = outcome.unwrap_err();
            assert!(
                matches!(error, Error::OutOfMemory(_)) && error.to_string().contains("a test"),
                "{error}"
            );
        }
    }

    #[test]
    fn lists_have_the_wanted_length() {
        assert_eq!(zeroed::<u16>(3, "a test").unwrap(), [0; 3]);
        assert_eq!(filled(2, 7, "a test").unwrap(), [7; 2]);
        assert_eq!(collected(2, "a test", (0..9).map(Ok)).unwrap(), [0, 1]);
    }
}
