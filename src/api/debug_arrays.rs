//! Every result of a call, in arrays that own their memory.

use crate::api::{LogitsArray, Outputs, RowStatus};
use crate::batch::Batch;
use crate::error::Error;
use crate::memory;
use crate::plan::Entry;

/// All results of a call, for validation. They are bit-identical on every backend and path.
/// [`Outputs`] describes each array.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct DebugArrays {
    pub tokens: Vec<i32>,
    pub row_status: Vec<RowStatus>,
    pub greedy_sampled: Vec<i32>,
    pub topk_logits_unsorted: LogitsArray,
    pub topk_topp_unnorm_probs_i32_unsorted: Vec<i32>,
    pub random_unnorm_cdf_sampled_high: Vec<u32>,
    pub random_unnorm_cdf_sampled_low: Vec<u32>,
    pub next_tokens: Vec<i32>,
    /// Only with [`Path::Bounded`](crate::Path::Bounded).
    pub k_slices: Option<KSlices>,
}

/// The arrays of the bounded path, `[num_rows, max_k]`. [`Outputs`] describes each array.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct KSlices {
    pub topk_indices_k: Vec<i32>,
    pub topk_logits_k: LogitsArray,
    pub topk_topp_unnorm_probs_i32_k: Vec<i32>,
}

const PURPOSE: &str = "the debug arrays";

impl DebugArrays {
    /// Runs `sample` on arrays of the sizes that a batch needs.
    pub(super) fn filled_by(
        batch: &Batch<'_>,
        path: Entry,
        max_k: usize,
        sample: impl FnOnce(Outputs<'_>) -> Result<(), Error>,
    ) -> Result<DebugArrays, Error> {
        let (rows, dtype) = (batch.len(), batch.logits().dtype());
        // If the product overflows, no allocation of this size succeeds.
        let (row_wide, k_wide) = (rows.saturating_mul(batch.vocab()), rows.saturating_mul(max_k));
        let ints = |len| memory::zeroed::<i32>(len, PURPOSE);
        let words = || memory::zeroed::<u32>(rows, PURPOSE);
        let mut bits = words()?;
        let mut arrays = DebugArrays {
            tokens: ints(rows)?,
            row_status: memory::filled(rows, RowStatus::default(), PURPOSE)?,
            greedy_sampled: ints(rows)?,
            topk_logits_unsorted: LogitsArray::zeros(dtype, row_wide)?,
            topk_topp_unnorm_probs_i32_unsorted: ints(row_wide)?,
            random_unnorm_cdf_sampled_high: words()?,
            random_unnorm_cdf_sampled_low: words()?,
            next_tokens: ints(rows)?,
            k_slices: match path {
                Entry::Bounded => Some(KSlices {
                    topk_indices_k: ints(k_wide)?,
                    topk_logits_k: LogitsArray::zeros(dtype, k_wide)?,
                    topk_topp_unnorm_probs_i32_k: ints(k_wide)?,
                }),
                _ => None,
            },
        };
        let mut outputs = Outputs::new()
            .tokens(&mut arrays.tokens)
            .row_status(&mut bits)
            .greedy_sampled(&mut arrays.greedy_sampled)
            .topk_logits_unsorted(&mut arrays.topk_logits_unsorted)
            .topk_topp_unnorm_probs_i32_unsorted(&mut arrays.topk_topp_unnorm_probs_i32_unsorted)
            .random_unnorm_cdf_sampled_high(&mut arrays.random_unnorm_cdf_sampled_high)
            .random_unnorm_cdf_sampled_low(&mut arrays.random_unnorm_cdf_sampled_low)
            .next_tokens(&mut arrays.next_tokens);
        if let Some(slices) = &mut arrays.k_slices {
            outputs = outputs
                .topk_indices_k(&mut slices.topk_indices_k)
                .topk_logits_k(&mut slices.topk_logits_k)
                .topk_topp_unnorm_probs_i32_k(&mut slices.topk_topp_unnorm_probs_i32_k);
        }
        sample(outputs)?;
        for (status, bits) in arrays.row_status.iter_mut().zip(bits) {
            *status = RowStatus::from_bits(bits);
        }
        Ok(arrays)
    }
}
