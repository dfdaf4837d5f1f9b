//! The state of the scan of a row: the words to which the blocks of all slices of the row add.

use crate::kernels::gpu::block::Block;
use crate::ptx::{Address, Int, Mask, Ptx, Wide};
use crate::semantics::arith::Arith;

/// The number of bins, which count the entries below the bound by their distance from it.
pub(super) const BINS: usize = 2048;
/// The number of words before the bins. The first one is the length of the list. The second one is the number of slices
/// whose weights the scan has summed. The other words align the bins, so that one instruction can load four bins.
const BEFORE_BINS: usize = 4;
/// The number of words of a row.
pub(super) const STATE: usize = BEFORE_BINS + BINS;

/// The state of one row.
pub(super) struct State<'k> {
    k: &'k Ptx,
    array: Wide,
    row: Int,
}

impl<'k> State<'k> {
    /// Declares the array as the next argument of the kernel.
    pub(super) fn argument(k: &'k Ptx, row: Int) -> State<'k> {
        State { k, array: k.argument(), row }
    }

    fn word(&self, number: Int) -> Address {
        let k = self.k;
        k.far_address(self.array, k.far_element(self.row, STATE, number), 4)
    }

    /// The length of the list.
    pub(super) fn len(&self) -> Address {
        self.word(self.k.int(0))
    }

    /// The number of slices whose weights the scan has summed.
    pub(super) fn summed(&self) -> Address {
        self.word(self.k.int(1))
    }

    /// The state of row `row`.
    pub(super) fn of_row(&self, row: Int) -> State<'k> {
        State { k: self.k, array: self.array, row }
    }

    pub(super) fn bin(&self, number: Int) -> Address {
        let k = self.k;
        self.word(k.add(number, k.int(BEFORE_BINS as i32)))
    }

    /// Loads four bins if the mask is true. Otherwise, the bins are 0. `first` is the number of the first bin, a
    /// multiple of 4.
    pub(super) fn load_bins_if(&self, mask: Mask, first: Int) -> [Int; 4] {
        const { assert!(STATE.is_multiple_of(4) && BEFORE_BINS.is_multiple_of(4)) };
        let k = self.k;
        let words = k.load_words_if(mask, self.bin(first), 0, 4, k.int(0));
        words.try_into().expect("four words")
    }

    /// Sets the words before the bins to 0. Sets the bins to 0 if the mask is true.
    pub(super) fn clear(&self, block: &Block<'_>, has_bins: Mask) {
        let k = self.k;
        k.when(block.is_first(), || k.store(self.len(), 0, &[k.int(0); BEFORE_BINS]));
        k.when(has_bins, || {
            k.for_range(block.thread, k.int(BINS as i32), k.threads(), |bin| {
                k.store(self.bin(bin), 0, &[k.int(0)]);
            });
        });
    }
}
