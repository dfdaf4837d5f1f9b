//! Short lists of entries in shared memory. All threads of a block can add entries.

use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::places::Places;
use crate::ptx::{Int, Shared};
use crate::semantics::arith::Arith;

/// A list of entries of two words, in any order.
pub(super) struct SharedList<'k> {
    block: Block<'k>,
    /// Two words for each place. If more entries were added than the capacity, only some of them are here.
    pub(super) words: Shared,
    places: Places<'k>,
}

impl<'k> SharedList<'k> {
    /// Returns a list with space for `capacity` entries. The array in shared memory has space for `len` entries, which
    /// is at least `capacity`.
    pub(super) fn new(block: Block<'k>, len: usize, capacity: usize) -> SharedList<'k> {
        assert!(capacity <= len);
        SharedList { block, words: block.k.shared(2 * len), places: Places::new(block, capacity) }
    }

    /// Removes all entries. [`SharedList::add`] may be called after the next barrier.
    pub(super) fn clear(&self) {
        self.places.clear();
    }

    /// Adds an entry in this thread.
    pub(super) fn add(&self, words: [Int; 2]) {
        let k = self.block.k;
        self.places.add(|at| k.store_shared_words(self.words, k.shl(at, 1), words));
    }

    /// The number of entries that were added, which can exceed the capacity. All threads call this after the last call
    /// of [`SharedList::add`].
    pub(super) fn count(&self) -> Int {
        self.block.k.barrier();
        self.places.count()
    }

    /// The words at a place.
    pub(super) fn load(&self, place: Int) -> [Int; 2] {
        let k = self.block.k;
        k.load_shared_words(self.words, k.shl(place, 1))
    }
}
