//! The parameters of a row.

use crate::kernels::program_arrays::{Column, COLUMNS};
use crate::kernels::spec::{Source, Spec};
use crate::ptx::{Address, Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::draw::remainder_of_maximum;
use crate::semantics::philox::random_words_of;

/// The parameters of one row of a program.
pub(super) struct Parameters<'k> {
    k: &'k Ptx,
    address: Address,
    row: Int,
    /// The values of all columns, if they were loaded together.
    loaded: Option<[Int; COLUMNS]>,
}

impl<'k> Parameters<'k> {
    /// `parameters` is the address of the parameter array.
    pub(super) fn new(k: &'k Ptx, parameters: Wide, row: Int) -> Parameters<'k> {
        let address = k.address(parameters, row, COLUMNS * 4);
        Parameters { k, address, row, loaded: None }
    }

    /// Like [`Parameters::new`], but loads all columns here, so that the kernel waits for memory only once. The kernel
    /// needs enough registers.
    pub(super) fn load(k: &'k Ptx, parameters: Wide, row: Int) -> Parameters<'k> {
        let parameters = Parameters::new(k, parameters, row);
        let loaded = std::array::from_fn(|column| k.load(parameters.address, column * 4));
        Parameters { loaded: Some(loaded), ..parameters }
    }

    pub(super) fn get(&self, column: Column) -> Int {
        match &self.loaded {
            Some(loaded) => loaded[column as usize],
            None => self.k.load(self.address, column as usize * 4),
        }
    }

    /// The number of entries that top-k keeps. Only for the bounded path.
    pub(super) fn top_k(&self, spec: &Spec) -> Int {
        let k = self.k;
        // k is 0 if top-k keeps the whole row. On the bounded path, the slots are then at least as many as the entries
        // of the row.
        let asked = self.get(Column::K);
        k.select(k.eq(asked, k.int(0)), k.int(spec.slots() as i32), asked)
    }

    /// Whether the results of the row depend only on its maximum: the row is greedy, and the caller cannot see which
    /// entries top-k keeps. `None` if this is false for all rows.
    pub(super) fn need_only_maximum(&self, spec: &Spec) -> Option<Mask> {
        let k = self.k;
        (!spec.wanted.shows_top_k()).then(|| k.not(k.eq(self.get(Column::Greedy), k.int(0))))
    }

    /// The number of this row in the array of logits.
    pub(super) fn row_of_logits(&self, spec: &Spec) -> Int {
        match spec.source {
            Source::Buffer { in_order: false, .. } => self.get(Column::Row),
            _ => self.row,
        }
    }

    /// Lets the last warp compute the random words and store them in shared memory. Most kernels call this at their
    /// start, because the other warps then wait for their first loads. All threads can read the words after the next
    /// barrier.
    pub(super) fn share_random_words(&self, step: Option<Wide>) -> Shared {
        let k = self.k;
        let shared = k.shared(4);
        k.when(k.le(k.int((k.threads() - WARP) as i32), k.thread()), || {
            let words = self.random_words(step);
            k.when(k.eq(k.lane(), k.int(0)), || k.store_shared_words(shared, k.int(0), words));
        });
        shared
    }

    /// The random words. With `step`, the columns of the words contain the seed and the offset, and `step` is the
    /// address of a number that is added to the offset.
    fn random_words(&self, step: Option<Wide>) -> [Int; 4] {
        let k = self.k;
        let words = Column::WORDS.map(|column| self.get(column));
        let Some(step) = step else { return words };
        let wide = |low: usize| k.wor(k.wshl(k.widen(words[low + 1]), 32), k.widen(words[low]));
        let step = k.load_wide(k.address(step, k.int(0), 8));
        random_words_of(k, wide(0), k.wadd(wide(2), step))
    }
}

/// The remainder of the draw of a row that keeps only its maximum. `words` is the array that
/// [`Parameters::share_random_words`] returned. All threads of the block call this, because it contains a barrier.
pub(super) fn shared_remainder_of_maximum(k: &Ptx, words: Shared, no_candidate: Mask) -> Wide {
    // After this barrier, all threads can read the words that the last warp stored.
    k.barrier();
    let words = k.load_shared_words_at(words, 0);
    k.widen(remainder_of_maximum(k, words, no_candidate))
}
