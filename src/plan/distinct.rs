//! Lists of programs without duplicates.

use std::collections::HashSet;
use std::hash::Hash;

use crate::error::Error;
use crate::memory;

/// The purpose of the allocations of such lists, for error messages.
pub(super) const PURPOSE: &str = "the list of the programs of a call";

/// A list in the order of the first insertions. A call can need tens of thousands of programs, so the list is not
/// searched for each new item.
pub(crate) struct Distinct<T> {
    list: Vec<T>,
    known: HashSet<T>,
}

impl<T: Clone + Eq + Hash> Distinct<T> {
    pub(crate) fn new() -> Self {
        Distinct { list: Vec::new(), known: HashSet::new() }
    }

    /// Adds the items that the list does not have.
    pub(crate) fn extend(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), Error> {
        for item in items {
            self.known.try_reserve(1).map_err(|_| {
                Error::out_of_memory((self.known.len() + 1).saturating_mul(size_of::<T>()), PURPOSE)
            })?;
            if self.known.insert(item.clone()) {
                memory::push(&mut self.list, item, PURPOSE)?;
            }
        }
        Ok(())
    }

    pub(crate) fn into_vec(self) -> Vec<T> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_insertion_determines_the_place() {
        let mut list = Distinct::new();
        list.extend([3, 1, 3]).unwrap();
        list.extend([2, 1, 0]).unwrap();
        assert_eq!(list.into_vec(), [3, 1, 2, 0]);
    }
}
