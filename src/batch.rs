//! A batch to sample: logits and the parameters of their rows.

use crate::dtype::Logits;
use crate::semantics::params::RowParams;

/// Options that hold for a whole call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallOptions {
    /// Keep exactly k (ties at the threshold by lowest index); otherwise every tie at the threshold stays.
    pub stable: bool,
    /// What `topk_logits_unsorted` holds where an entry was masked. Not NaN.
    pub replace_val: f32,
}

impl Default for CallOptions {
    fn default() -> Self {
        CallOptions { stable: true, replace_val: -1e12 }
    }
}

/// Logits and parameters of a batch, checked.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// `(batch − 1) · row_stride + vocab` elements.
    pub logits: Logits<'a>,
    /// Elements of a row, at least 1.
    pub vocab: usize,
    /// Elements from one row's start to the next's, at least `vocab`.
    pub row_stride: usize,
    /// One a row.
    pub rows: Vec<RowParams>,
    /// Of the call.
    pub options: CallOptions,
}

impl<'a> Batch<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The logits of one row.
    pub fn row(&self, row: usize) -> Logits<'a> {
        self.logits.slice(row * self.row_stride, self.vocab)
    }
}
