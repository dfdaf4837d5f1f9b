//! The output arrays of a batch.

use crate::dtype::{split_off_front, LogitsMut};
use crate::error::Error;
use crate::memory;
use crate::semantics::rules::NO_TOKEN;

pub use crate::semantics::rules::{ROW_BAD_PARAMETER, ROW_HAD_INF, ROW_HAD_NAN, ROW_NO_CANDIDATE};

/// The results of a row that are single numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowOutcome {
    /// The drawn token; −1 if there is no candidate. In a greedy row it equals `greedy_sampled`.
    pub next_token: i32,
    /// The lowest index of the maximum; −1 if there is no candidate.
    pub greedy_sampled: i32,
    /// The random number modulo the total of the kept weights; 0 if there is no candidate.
    pub random_unnorm_cdf_sampled: u64,
    /// `ROW_*` bits.
    pub status: u32,
}

/// The wide arrays that calls request, as groups. Each array costs memory traffic, so a program returns only the arrays
/// that its calls request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "pjrt", derive(serde::Serialize, serde::Deserialize))]
pub struct Wanted {
    /// `topk_logits_unsorted`.
    pub topk_logits: bool,
    /// `topk_topp_unnorm_probs_i32_unsorted`.
    pub weights: bool,
    /// The k-slices of the bounded path.
    pub slices: bool,
}

impl Wanted {
    /// Whether any array with `vocab` columns is wanted.
    pub fn full_width(&self) -> bool {
        self.topk_logits || self.weights
    }

    /// Whether the caller can see which entries top-k kept, including entries without a weight.
    pub fn shows_top_k(&self) -> bool {
        self.topk_logits || self.slices
    }
}

/// The wide outputs of one row, or of a whole batch as consecutive rows. An array that is `None` is not computed.
#[derive(Debug, Default)]
pub struct RowArrays<'a> {
    /// `[vocab]` per row: the cleaned logit if top-k kept the entry, otherwise the replace value.
    pub topk_logits: Option<LogitsMut<'a>>,
    /// `[vocab]` per row: the weight if top-k, top-p and min-p kept the entry, otherwise 0.
    pub weights: Option<&'a mut [i32]>,
    /// `[max_k]` per row: the indices that top-k kept, ascending; −1 in unused slots.
    pub indices_k: Option<&'a mut [i32]>,
    /// `[max_k]` per row: `topk_logits` at `indices_k`; the replace value in unused slots.
    pub topk_logits_k: Option<LogitsMut<'a>>,
    /// `[max_k]` per row: `weights` at `indices_k`; 0 in unused slots.
    pub weights_k: Option<&'a mut [i32]>,
}

impl RowArrays<'_> {
    /// Whether any array is wanted.
    pub fn wants_any(&self) -> bool {
        self.topk_logits.is_some() || self.weights.is_some() || self.wants_slices()
    }

    /// Whether any k-slice is wanted.
    pub fn wants_slices(&self) -> bool {
        self.indices_k.is_some() || self.topk_logits_k.is_some() || self.weights_k.is_some()
    }

    /// Writes one slot of the k-slices that are wanted. `topk_logit` is in the bits of the logits' type.
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

    /// The same arrays, borrowed for a shorter lifetime.
    pub(crate) fn reborrow(&mut self) -> RowArrays<'_> {
        RowArrays {
            topk_logits: self.topk_logits.as_mut().map(LogitsMut::reborrow),
            weights: self.weights.as_deref_mut(),
            indices_k: self.indices_k.as_deref_mut(),
            topk_logits_k: self.topk_logits_k.as_mut().map(LogitsMut::reborrow),
            weights_k: self.weights_k.as_deref_mut(),
        }
    }

    /// Writes the arrays of a row in which no entry is kept. `replace_val` contains the bits of a number of the logits'
    /// type.
    fn clear(&mut self, replace_val: u32) {
        for array in [&mut self.topk_logits, &mut self.topk_logits_k].into_iter().flatten() {
            array.fill(replace_val);
        }
        for array in [&mut self.weights, &mut self.weights_k].into_iter().flatten() {
            array.fill(0);
        }
        if let Some(array) = &mut self.indices_k {
            array.fill(NO_TOKEN);
        }
    }

    /// The length of the requested k-slices; 0 if none is requested.
    pub fn slots(&self) -> usize {
        let logits = self.topk_logits_k.as_ref().map_or(0, |x| x.len());
        let ints = [&self.indices_k, &self.weights_k].map(|a| a.as_ref().map_or(0, |x| x.len()));
        logits.max(ints[0]).max(ints[1])
    }
}

/// The outputs of a batch, one element per row unless stated otherwise. An array that is `None` is not wanted.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// See [`RowOutcome::next_token`].
    pub tokens: Option<&'a mut [i32]>,
    /// See [`RowOutcome::status`].
    pub row_status: Option<&'a mut [u32]>,
    /// See [`RowOutcome::greedy_sampled`].
    pub greedy_sampled: Option<&'a mut [i32]>,
    /// Bits 32 to 63 of [`RowOutcome::random_unnorm_cdf_sampled`].
    pub random_high: Option<&'a mut [u32]>,
    /// Bits 0 to 31 of [`RowOutcome::random_unnorm_cdf_sampled`].
    pub random_low: Option<&'a mut [u32]>,
    /// See [`RowOutcome::next_token`].
    pub next_tokens: Option<&'a mut [i32]>,
    /// The wide arrays, `vocab` or `max_k` elements per row.
    pub wide: RowArrays<'a>,
}

impl<'a> Outputs<'a> {
    /// The same arrays, borrowed for a shorter lifetime.
    pub(crate) fn reborrow(&mut self) -> Outputs<'_> {
        Outputs {
            tokens: self.tokens.as_deref_mut(),
            row_status: self.row_status.as_deref_mut(),
            greedy_sampled: self.greedy_sampled.as_deref_mut(),
            random_high: self.random_high.as_deref_mut(),
            random_low: self.random_low.as_deref_mut(),
            next_tokens: self.next_tokens.as_deref_mut(),
            wide: self.wide.reborrow(),
        }
    }

    /// Writes the outputs of rows with impossible parameters: no token, and no entry kept. `rows` contains their
    /// indices, ascending. `num_rows` is the number of rows of the batch. `replace_val` contains the bits of a number
    /// of the logits' type.
    pub(crate) fn set_bad_rows(&mut self, rows: &[usize], num_rows: usize, replace_val: u32) {
        fn put<T: Copy>(array: &mut Option<&mut [T]>, rows: &[usize], value: T) {
            if let Some(array) = array {
                rows.iter().for_each(|&row| array[row] = value);
            }
        }
        put(&mut self.tokens, rows, NO_TOKEN);
        put(&mut self.row_status, rows, ROW_BAD_PARAMETER);
        put(&mut self.greedy_sampled, rows, NO_TOKEN);
        put(&mut self.random_high, rows, 0);
        put(&mut self.random_low, rows, 0);
        put(&mut self.next_tokens, rows, NO_TOKEN);
        let mut bad = rows.iter().peekable();
        for (row, mut arrays) in self.reborrow().split_rows(num_rows).enumerate() {
            if bad.next_if_eq(&&row).is_some() {
                arrays.clear(replace_val);
            }
        }
    }

    /// Writes the outcomes of all rows.
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

    /// Splits the wide arrays into one [`RowArrays`] per row. After an error they are unchanged.
    pub fn take_rows(&mut self, rows: usize) -> Result<Vec<RowArrays<'a>>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_their_own_part() {
        let (mut weights, mut slots) = ([1, 2, 3, 4, 5, 6], [0.0, 1.0]);
        let mut outputs = Outputs::default();
        outputs.wide.weights = Some(&mut weights);
        outputs.wide.topk_logits_k = Some(LogitsMut::F32(&mut slots));
        assert!(matches!(outputs.take_rows(usize::MAX / 8), Err(Error::OutOfMemory(_))));
        let mut rows = outputs.take_rows(2).unwrap();
        assert_eq!(rows.iter().map(RowArrays::slots).collect::<Vec<_>>(), [1, 1]);
        rows[1].set_slot(0, 7, 2.0f32.to_bits(), 8);
        assert_eq!(rows[1].weights.as_deref(), Some(&mut [4, 5, 6][..]).map(|x| &*x));
        assert_eq!(slots, [0.0, 2.0]);
    }
}
