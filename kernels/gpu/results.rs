//! The results of a row, which the last kernel of each path stores.

use crate::kernels::program_arrays::{ResultRow, RESULTS};
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Wide};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::{has_no_candidate, reported_token, row_status};

/// The rows of the second array of results, from which the program computes the wide arrays.
#[derive(Clone, Copy)]
pub(super) enum Threshold {
    MaxKey,
    TopK,
    LastTie,
    LeastWeight,
}

/// The number of rows of the second array of results.
pub(super) const THRESHOLDS: usize = Threshold::LeastWeight as usize + 1;

/// Returns the shapes of the arrays of results, in the order of the arguments of a kernel.
pub(super) fn shapes(spec: &Spec) -> [Vec<usize>; 3] {
    [RESULTS, THRESHOLDS, 1].map(|rows| vec![rows, spec.batch])
}

/// The results of a row except its token.
pub(super) struct Summary {
    /// The key of the maximum, and its lowest index.
    pub(super) max_key: Int,
    pub(super) index: Int,
    pub(super) remainder: Wide,
    /// The status bits of the slices.
    pub(super) status: Int,
    /// The threshold and the last tie of top-k.
    pub(super) top_k: [Int; 2],
    /// The least weight that top-p and min-p keep.
    pub(super) least: Int,
}

/// The arrays of results: the numbers `[RESULTS, batch]`, the thresholds `[THRESHOLDS, batch]`, and the tokens
/// `[1, batch]`.
pub(super) struct Results<'k> {
    k: &'k Ptx,
    row: Int,
    batch: usize,
    numbers: Wide,
    thresholds: Wide,
    tokens: Wide,
}

impl<'k> Results<'k> {
    /// Declares the arrays as the next arguments of the kernel. `row` is the row that is stored.
    pub(super) fn arguments(k: &'k Ptx, spec: &Spec, row: Int) -> Results<'k> {
        let [numbers, thresholds, tokens] = [(); 3].map(|()| k.argument());
        Results { k, row, batch: spec.batch, numbers, thresholds, tokens }
    }

    /// Stores the token in the numbers and in the array of tokens. The tokens have their own array, because XLA would
    /// need another kernel to extract them from the numbers.
    pub(super) fn token(&self, token: Int) {
        self.number(ResultRow::NextToken, token);
        self.store(self.tokens, 0, token);
    }

    fn number(&self, number: ResultRow, value: Int) {
        self.store(self.numbers, number as usize, value);
    }

    pub(super) fn threshold(&self, number: Threshold, value: Int) {
        self.store(self.thresholds, number as usize, value);
    }

    /// Stores all results of a row except its token.
    pub(super) fn summary(&self, summary: &Summary) {
        let k = self.k;
        let no_candidate = has_no_candidate(k, summary.max_key);
        self.numbers(no_candidate, summary.index, summary.remainder, summary.status);
        self.threshold(Threshold::MaxKey, summary.max_key);
        self.threshold(Threshold::TopK, summary.top_k[0]);
        self.threshold(Threshold::LastTie, summary.top_k[1]);
        self.threshold(Threshold::LeastWeight, summary.least);
    }

    /// Stores the numbers of a row. `index` is the lowest index of the maximum, and `status` contains the status bits
    /// of the slices.
    pub(super) fn numbers(&self, no_candidate: Mask, index: Int, remainder: Wide, status: Int) {
        let k = self.k;
        self.number(ResultRow::Greedy, reported_token(k, no_candidate, index));
        self.number(ResultRow::RandomHigh, k.high(remainder));
        self.number(ResultRow::RandomLow, k.low(remainder));
        self.status(status, no_candidate);
    }

    /// Stores the status bits: those of the slices, and the bit of a row without a candidate.
    fn status(&self, of_slices: Int, no_candidate: Mask) {
        let k = self.k;
        let of_row = row_status(k, no_candidate, k.never(), k.never());
        self.number(ResultRow::Status, k.or(of_slices, of_row));
    }

    fn store(&self, array: Wide, number: usize, value: Int) {
        let k = self.k;
        k.store(k.address(array, self.row, 4), number * self.batch * 4, &[value]);
    }
}
