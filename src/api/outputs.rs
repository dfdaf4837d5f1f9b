//! The arrays of the caller that a call fills.

use crate::batch::Batch;
use crate::dtype::{Dtype, LogitsMut};
use crate::error::Error;
use crate::outputs;

/// The caller's arrays for the results of a call: [`Sampler::sample_into`](crate::Sampler::sample_into) fills them. An
/// array that is not set is not computed.
///
/// `[num_rows]` and so on are the shapes. An array of another length makes the call fail. A server can use the same
/// arrays in every step, so that the results need no allocation.
///
/// ```
/// use nucleus::{Batch, Outputs, RowStatus, Sampler};
///
/// let sampler = Sampler::builder().build()?;
/// let logits = [1.0_f32, 2.0, f32::NAN, 0.5];
/// let (mut tokens, mut row_status) = ([0; 2], [0; 2]);
/// let mut probs = [0; 4];
/// let outputs = Outputs::new()
///     .tokens(&mut tokens)
///     .row_status(&mut row_status)
///     .topk_topp_unnorm_probs_i32_unsorted(&mut probs);
/// sampler.sample_into(&Batch::new(&logits, 2)?, outputs)?;
/// assert!(RowStatus::from_bits(row_status[0]).is_empty());
/// assert!(RowStatus::from_bits(row_status[1]).had_nan());
/// assert!(tokens[1] == 1 && probs[2] == 0 && probs[3] > 0);
/// # Ok::<(), nucleus::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Outputs<'a>(outputs::Outputs<'a>);

impl<'a> Outputs<'a> {
    /// No arrays.
    pub fn new() -> Outputs<'a> {
        Outputs::default()
    }

    /// `[num_rows]`: the token of each row; −1 if the row has none.
    pub fn tokens(mut self, array: &'a mut [i32]) -> Self {
        self.0.tokens = Some(array);
        self
    }

    /// `[num_rows]`: the bits of the [`RowStatus`](crate::RowStatus) of each row. If this array is set, an impossible
    /// parameter affects only its own row. Otherwise it makes the call fail.
    pub fn row_status(mut self, array: &'a mut [u32]) -> Self {
        self.0.row_status = Some(array);
        self
    }

    /// `[num_rows]`: the lowest index of the row's maximum; −1 if there is no candidate.
    pub fn greedy_sampled(mut self, array: &'a mut [i32]) -> Self {
        self.0.greedy_sampled = Some(array);
        self
    }

    /// `[num_rows, vocab]`, of the type of the logits: the cleaned logit if top-k kept the entry, otherwise
    /// [`replace_val`](crate::Batch::replace_val).
    pub fn topk_logits_unsorted(mut self, array: impl Into<LogitsMut<'a>>) -> Self {
        self.0.wide.topk_logits = Some(array.into());
        self
    }

    /// `[num_rows, vocab]`: the integer weight, 0 to 2^28, if top-k, top-p and min-p kept the entry, otherwise 0.
    pub fn topk_topp_unnorm_probs_i32_unsorted(mut self, array: &'a mut [i32]) -> Self {
        self.0.wide.weights = Some(array);
        self
    }

    /// `[num_rows]`: bits 32 to 63 of r, the random number modulo the total of the kept weights.
    pub fn random_unnorm_cdf_sampled_high(mut self, array: &'a mut [u32]) -> Self {
        self.0.random_high = Some(array);
        self
    }

    /// `[num_rows]`: bits 0 to 31 of r.
    pub fn random_unnorm_cdf_sampled_low(mut self, array: &'a mut [u32]) -> Self {
        self.0.random_low = Some(array);
        self
    }

    /// `[num_rows]`: the lowest index whose inclusive prefix sum of kept weights exceeds r; −1 if there is no
    /// candidate.
    pub fn next_tokens(mut self, array: &'a mut [i32]) -> Self {
        self.0.next_tokens = Some(array);
        self
    }

    /// `[num_rows, max_k]`: the indices that top-k kept, ascending; −1 in unused slots. This array and the next two are
    /// the k-slices: every row needs 1 ≤ k ≤ max_k, or `vocab` ≤ max_k, and the arbitrary path does not have them.
    pub fn topk_indices_k(mut self, array: &'a mut [i32]) -> Self {
        self.0.wide.indices_k = Some(array);
        self
    }

    /// `[num_rows, max_k]`, of the type of the logits: `topk_logits_unsorted` at these indices;
    /// [`replace_val`](crate::Batch::replace_val) in unused slots.
    pub fn topk_logits_k(mut self, array: impl Into<LogitsMut<'a>>) -> Self {
        self.0.wide.topk_logits_k = Some(array.into());
        self
    }

    /// `[num_rows, max_k]`: `topk_topp_unnorm_probs_i32_unsorted` at these indices; 0 in unused slots.
    pub fn topk_topp_unnorm_probs_i32_k(mut self, array: &'a mut [i32]) -> Self {
        self.0.wide.weights_k = Some(array);
        self
    }

    /// Checks the lengths and the types of the arrays.
    pub(super) fn checked(self, batch: &Batch<'_>, max_k: usize) -> Result<outputs::Outputs<'a>, Error> {
        fn len<T>(array: &Option<&mut [T]>) -> Option<usize> {
            array.as_ref().map(|array| array.len())
        }
        let arrays = &self.0;
        let wide = &arrays.wide;
        let lengths = [
            ("tokens", len(&arrays.tokens), 1),
            ("row_status", len(&arrays.row_status), 1),
            ("greedy_sampled", len(&arrays.greedy_sampled), 1),
            ("random_unnorm_cdf_sampled_high", len(&arrays.random_high), 1),
            ("random_unnorm_cdf_sampled_low", len(&arrays.random_low), 1),
            ("next_tokens", len(&arrays.next_tokens), 1),
            ("topk_topp_unnorm_probs_i32_unsorted", len(&wide.weights), batch.vocab()),
            ("topk_indices_k", len(&wide.indices_k), max_k),
            ("topk_topp_unnorm_probs_i32_k", len(&wide.weights_k), max_k),
            ("topk_logits_unsorted", wide.topk_logits.as_ref().map(LogitsMut::len), batch.vocab()),
            ("topk_logits_k", wide.topk_logits_k.as_ref().map(LogitsMut::len), max_k),
        ];
        for (name, found, per_row) in lengths {
            // If the product overflows, no array has this length.
            let right = batch.len().checked_mul(per_row);
            if found.is_some() && found != right {
                return Err(Error::named_argument(
                    name,
                    format!(
                        "{name} has {} elements; it must have {per_row} for each of the {} rows",
                        found.unwrap_or_default(),
                        batch.len()
                    ),
                ));
            }
        }
        let dtype = batch.logits().dtype();
        let types = [
            ("topk_logits_unsorted", wide.topk_logits.as_ref().map(LogitsMut::dtype)),
            ("topk_logits_k", wide.topk_logits_k.as_ref().map(LogitsMut::dtype)),
        ];
        let is_wrong = |(_, found): &&(&str, Option<Dtype>)| found.is_some_and(|found| found != dtype);
        if let Some((name, Some(found))) = types.iter().find(is_wrong) {
            let message = format!("{name} has elements of the type {found:?}; the logits have {dtype:?}");
            return Err(Error::named_argument(name, message));
        }
        Ok(self.0)
    }
}
