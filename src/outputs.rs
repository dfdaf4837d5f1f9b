//! Where the answers of a batch go.

use crate::dtype::{split_off_front, LogitsMut};
use crate::error::Error;
use crate::memory;

pub use crate::semantics::rules::{ROW_HAD_NAN, ROW_NO_CANDIDATE};

/// The answers of a row that are one number each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowOutcome {
    /// The drawn token, −1 where there was no candidate. Equals `greedy_sampled` in greedy rows.
    pub next_token: i32,
    /// Lowest index of the maximum, −1 where there was no candidate.
    pub greedy_sampled: i32,
    /// `U mod total` of the kept weights; 0 where there was no candidate.
    pub random_unnorm_cdf_sampled: u64,
    /// `ROW_*` flags.
    pub status: u32,
}

/// The wide answers of one row; what is `None` is not wanted and not computed.
#[derive(Debug, Default)]
pub struct RowArrays<'a> {
    /// `[vocab]`: the cleaned value where top-k kept it, else the replace value.
    pub topk_logits: Option<LogitsMut<'a>>,
    /// `[vocab]`: the weight where top-k, top-p and min-p kept it, else 0.
    pub weights: Option<&'a mut [i32]>,
    /// `[max_k]`: indices that top-k kept, ascending; −1 in unused slots.
    pub indices_k: Option<&'a mut [i32]>,
    /// `[max_k]`: `topk_logits` at `indices_k`; the replace value in unused slots.
    pub topk_logits_k: Option<LogitsMut<'a>>,
    /// `[max_k]`: `weights` at `indices_k`; 0 in unused slots.
    pub weights_k: Option<&'a mut [i32]>,
}

impl RowArrays<'_> {
    /// Whether anything is wanted.
    pub fn wants_any(&self) -> bool {
        self.topk_logits.is_some() || self.weights.is_some() || self.wants_slices()
    }

    /// Whether any k-slice is wanted.
    pub fn wants_slices(&self) -> bool {
        self.indices_k.is_some() || self.topk_logits_k.is_some() || self.weights_k.is_some()
    }

    /// Writes one slot of the k-slices that are wanted; `topk_logit` is bits of the logits' type.
    pub fn set_slot(&mut self, slot: usize, index: i32, topk_logit: u32, weight: i32) {
        if let Some(array) = &mut self.indices_k {
            array[slot] = index;
        }
        if let Some(array) = &mut self.topk_logits_k {
            array.set(slot, topk_logit);
        }
        if let Some(array) = &mut self.weights_k {
            array[slot] = weight;
        }
    }

    /// Length of the k-slices that are wanted; 0 where none is.
    pub fn slots(&self) -> usize {
        let logits = self.topk_logits_k.as_ref().map_or(0, |x| x.len());
        let ints = [&self.indices_k, &self.weights_k].map(|a| a.as_ref().map_or(0, |x| x.len()));
        logits.max(ints[0]).max(ints[1])
    }
}

/// The answers of a batch; arrays have one element a row, wide ones `vocab` or `max_k` a row.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// One a row.
    pub tokens: Option<&'a mut [i32]>,
    /// `ROW_*` flags.
    pub row_status: Option<&'a mut [u32]>,
    /// See [`RowOutcome::greedy_sampled`].
    pub greedy_sampled: Option<&'a mut [i32]>,
    /// See [`RowOutcome::random_unnorm_cdf_sampled`], bits 32 to 63.
    pub random_high: Option<&'a mut [u32]>,
    /// Bits 0 to 31.
    pub random_low: Option<&'a mut [u32]>,
    /// See [`RowOutcome::next_token`].
    pub next_tokens: Option<&'a mut [i32]>,
    /// The wide arrays, whole.
    pub wide: RowArrays<'a>,
}

impl<'a> Outputs<'a> {
    /// Writes what is one number a row.
    pub fn set_outcomes(&mut self, outcomes: &[RowOutcome]) {
        fn put<T>(array: &mut Option<&mut [T]>, outcomes: &[RowOutcome], field: impl Fn(&RowOutcome) -> T) {
            if let Some(array) = array {
                array.iter_mut().zip(outcomes).for_each(|(slot, outcome)| *slot = field(outcome));
            }
        }
        put(&mut self.tokens, outcomes, |o| o.next_token);
        put(&mut self.row_status, outcomes, |o| o.status);
        put(&mut self.greedy_sampled, outcomes, |o| o.greedy_sampled);
        put(&mut self.random_high, outcomes, |o| (o.random_unnorm_cdf_sampled >> 32) as u32);
        put(&mut self.random_low, outcomes, |o| o.random_unnorm_cdf_sampled as u32);
        put(&mut self.next_tokens, outcomes, |o| o.next_token);
    }

    /// Splits the wide arrays into one [`RowArrays`] per row.
    pub fn take_rows(&mut self, rows: usize) -> Vec<RowArrays<'a>> {
        self.split_rows(rows).collect()
    }

    /// Splits the wide arrays into one [`RowArrays`] per row. An error leaves them whole.
    pub fn try_take_rows(&mut self, rows: usize) -> Result<Vec<RowArrays<'a>>, Error> {
        let mut list = memory::with_capacity(rows, "the outputs of the rows")?;
        list.extend(self.split_rows(rows));
        Ok(list)
    }

    fn split_rows(&mut self, rows: usize) -> impl Iterator<Item = RowArrays<'a>> {
        let RowArrays { topk_logits, weights, indices_k, topk_logits_k, weights_k } =
            std::mem::take(&mut self.wide);
        let mut logits = [topk_logits, topk_logits_k].map(|array| {
            let width = array.as_ref().map_or(0, |array| array.len() / rows.max(1));
            (array, width)
        });
        let mut ints = [weights, indices_k, weights_k].map(|array| {
            let width = array.as_ref().map_or(0, |array| array.len() / rows.max(1));
            (array, width)
        });
        (0..rows).map(move |_| {
            let [topk_logits, topk_logits_k] = logits
                .each_mut()
                .map(|(array, width)| array.as_mut().map(|array| array.split_off_front(*width)));
            let [weights, indices_k, weights_k] = ints
                .each_mut()
                .map(|(array, width)| array.as_mut().map(|array| split_off_front(array, *width)));
            RowArrays { topk_logits, weights, indices_k, topk_logits_k, weights_k }
        })
    }
}
