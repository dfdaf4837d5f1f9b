//! The places of lists in shared memory. All threads of a block can add entries.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Int, Shared};
use crate::semantics::arith::Arith;

/// The places of a list in shared memory. Each entry that a thread adds gets a place.
pub(super) struct Places<'k> {
    block: Block<'k>,
    /// The number of entries that were added.
    len: Shared,
    capacity: usize,
}

impl<'k> Places<'k> {
    /// Returns the places of a list with space for `capacity` entries.
    pub(super) fn new(block: Block<'k>, capacity: usize) -> Places<'k> {
        Places { block, len: block.k.shared(1), capacity }
    }

    /// Removes all entries. [`Places::add`] may be called after the next barrier.
    pub(super) fn clear(&self) {
        let k = self.block.k;
        k.when(self.block.is_first(), || k.store_shared_at(self.len, 0, k.int(0)));
    }

    /// Adds an entry in this thread. Calls `store` with the place of the entry. If the list is full, the entry gets no
    /// place.
    pub(super) fn add(&self, store: impl FnOnce(Int)) {
        let k = self.block.k;
        let at = k.fetch_add_shared(self.len, 0, k.int(1));
        k.when(k.lt(at, k.int(self.capacity as i32)), || store(at));
    }

    /// The number of entries that were added, which can exceed the capacity. It is valid after a barrier that follows
    /// the last call of [`Places::add`].
    pub(super) fn count(&self) -> Int {
        self.block.k.load_shared_at(self.len, 0)
    }
}
