//! Lists of programs without duplicates.

use std::collections::HashSet;
use std::hash::Hash;

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
    pub(crate) fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        self.list.extend(items.into_iter().filter(|item| self.known.insert(item.clone())));
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
        list.extend([3, 1, 3]);
        list.extend([2, 1, 0]);
        assert_eq!(list.into_vec(), [3, 1, 2, 0]);
    }
}
