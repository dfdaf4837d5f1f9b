//! A sampling problem and where its answers go: what every backend takes and fills, free of the C ABI.

use serde::{Deserialize, Serialize};

use crate::semantics::arith::Scalar;
use crate::semantics::clean;
use crate::semantics::params::RowParams;

/// The type of a logits array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// `value` rounded to this type (nearest, ties to even), as bits.
    pub fn round(self, value: f32) -> u32 {
        match self {
            Dtype::F32 => value.to_bits(),
            Dtype::Bf16 => u32::from(half::bf16::from_f32(value).to_bits()),
            Dtype::F16 => u32::from(half::f16::from_f32(value).to_bits()),
        }
    }

    /// f32 bits of an element of this type given as its bits. Exact.
    pub fn widen(self, bits: u32) -> u32 {
        match self {
            Dtype::F32 => bits,
            Dtype::Bf16 => clean::widen_bf16(Scalar, bits as i32) as u32,
            Dtype::F16 => clean::widen_f16(Scalar, bits as i32) as u32,
        }
    }

    /// The cleaned value of an element, in the bits of this type.
    pub fn clean(self, bits: u32) -> u32 {
        let wide = self.widen(bits) as i32;
        match self {
            Dtype::F32 => clean::clean(Scalar, wide) as u32,
            Dtype::Bf16 => clean::clean_narrow(Scalar, bits as i32, wide, BF16_NEG_INF) as u32,
            Dtype::F16 => clean::clean_narrow(Scalar, bits as i32, wide, F16_NEG_INF) as u32,
        }
    }
}

/// −inf in the bits of bfloat16.
pub const BF16_NEG_INF: i32 = 0xff80;
/// −inf in the bits of binary16.
pub const F16_NEG_INF: i32 = 0xfc00;

/// Logits of one row or of many, borrowed from the caller; 16-bit types as their bits.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Logits<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
    F16(&'a [u16]),
}

impl<'a> Logits<'a> {
    /// The element type.
    pub fn dtype(self) -> Dtype {
        match self {
            Logits::F32(_) => Dtype::F32,
            Logits::Bf16(_) => Dtype::Bf16,
            Logits::F16(_) => Dtype::F16,
        }
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        match self {
            Logits::F32(x) => x.len(),
            Logits::Bf16(x) | Logits::F16(x) => x.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements `start..start + len`.
    pub fn slice(self, start: usize, len: usize) -> Logits<'a> {
        match self {
            Logits::F32(x) => Logits::F32(&x[start..start + len]),
            Logits::Bf16(x) => Logits::Bf16(&x[start..start + len]),
            Logits::F16(x) => Logits::F16(&x[start..start + len]),
        }
    }

    /// The bits of one element, zero-extended.
    pub fn bits(self, index: usize) -> u32 {
        match self {
            Logits::F32(x) => x[index].to_bits(),
            Logits::Bf16(x) | Logits::F16(x) => u32::from(x[index]),
        }
    }
}

/// A writable array of the logits' type; see [`Logits`].
#[derive(Debug)]
#[allow(missing_docs)]
pub enum LogitsMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
    F16(&'a mut [u16]),
}

impl<'a> LogitsMut<'a> {
    /// Writes the element with these bits.
    #[inline(always)]
    pub fn set(&mut self, index: usize, bits: u32) {
        match self {
            LogitsMut::F32(x) => x[index] = f32::from_bits(bits),
            LogitsMut::Bf16(x) | LogitsMut::F16(x) => x[index] = bits as u16,
        }
    }

    /// Writes these bits everywhere.
    pub fn fill(&mut self, bits: u32) {
        match self {
            LogitsMut::F32(x) => x.fill(f32::from_bits(bits)),
            LogitsMut::Bf16(x) | LogitsMut::F16(x) => x.fill(bits as u16),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            LogitsMut::F32(x) => x.len(),
            LogitsMut::Bf16(x) | LogitsMut::F16(x) => x.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts off the first `len` elements.
    fn split_off_front(&mut self, len: usize) -> LogitsMut<'a> {
        match self {
            LogitsMut::F32(x) => LogitsMut::F32(split_off_front(x, len)),
            LogitsMut::Bf16(x) => LogitsMut::Bf16(split_off_front(x, len)),
            LogitsMut::F16(x) => LogitsMut::F16(split_off_front(x, len)),
        }
    }
}

fn split_off_front<'a, T>(array: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = std::mem::take(array).split_at_mut(len);
    *array = rest;
    front
}

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

/// The row had no finite candidate: token −1.
pub const ROW_NO_CANDIDATE: u32 = 1;
/// The row held a NaN, which counted as −inf.
pub const ROW_HAD_NAN: u32 = 2;

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

    /// Takes the wide arrays apart into one [`RowArrays`] a row.
    pub fn take_rows(&mut self, rows: usize) -> Vec<RowArrays<'a>> {
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
        (0..rows)
            .map(|_| {
                let [topk_logits, topk_logits_k] = logits
                    .each_mut()
                    .map(|(array, width)| array.as_mut().map(|array| array.split_off_front(*width)));
                let [weights, indices_k, weights_k] = ints
                    .each_mut()
                    .map(|(array, width)| array.as_mut().map(|array| split_off_front(array, *width)));
                RowArrays { topk_logits, weights, indices_k, topk_logits_k, weights_k }
            })
            .collect()
    }
}
