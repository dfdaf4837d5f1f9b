//! A short list of entries in shared memory. All threads of a block can add entries.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Int, Shared};
use crate::semantics::arith::Arith;

/// Entries of two words, in any order.
pub(super) struct SharedList<'k> {
    block: Block<'k>,
    /// Two words for each place.
    pub(super) places: Shared,
    /// The number of entries that were added. If it exceeds `capacity`, `places` contains only some of them.
    len: Shared,
    capacity: usize,
}

impl<'k> SharedList<'k> {
    /// Returns a list with space for `capacity` entries. `places` is the number of places in shared memory, at least
    /// `capacity`.
    pub(super) fn new(block: Block<'k>, places: usize, capacity: usize) -> SharedList<'k> {
        assert!(capacity <= places);
        let k = block.k;
        SharedList { block, places: k.shared(2 * places), len: k.shared(1), capacity }
    }

    /// Removes all entries. [`SharedList::add`] may be called after the next barrier.
    pub(super) fn clear(&self) {
        let k = self.block.k;
        k.when(self.block.is_first(), || k.store_shared_at(self.len, 0, k.int(0)));
    }

    /// Adds an entry in this thread.
    pub(super) fn add(&self, words: [Int; 2]) {
        let k = self.block.k;
        let at = k.fetch_add_shared(self.len, 0, k.int(1));
        k.when(k.lt(at, k.int(self.capacity as i32)), || {
            k.store_shared_words(self.places, k.shl(at, 1), words);
        });
    }

    /// The number of entries that were added, which can exceed the capacity. All threads call this after the last call
    /// of [`SharedList::add`].
    pub(super) fn count(&self) -> Int {
        let k = self.block.k;
        k.barrier();
        k.load_shared_at(self.len, 0)
    }

    /// The words at a place.
    pub(super) fn load(&self, place: Int) -> [Int; 2] {
        let k = self.block.k;
        k.load_shared_words(self.places, k.shl(place, 1))
    }
}
