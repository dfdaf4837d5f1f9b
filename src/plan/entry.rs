//! The entry points, and which rows each of them accepts.

use crate::batch::{BadRows, Batch};
use crate::error::Error;

/// The default number of slots of the bounded path.
pub const DEFAULT_MAX_K: usize = 128;

/// The largest `max_k`. It is small because the bounded kernels compare all pairs of slots.
pub const LARGEST_MAX_K: usize = 1024;

/// The path of the rows of a call. Every path that accepts a row gives it the same results, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Selects a path for each row.
    Automatic,
    /// Every row takes the arbitrary path, which accepts any k.
    Arbitrary,
    /// Every row takes the bounded path, which accepts 1 ≤ k ≤ max_k.
    Bounded,
    /// The reference implementation, which sorts, on the host CPU. It is slow, but simple enough to compare the others
    /// with.
    Reference,
}

/// Checks the number of slots of the bounded path.
pub(crate) fn check_max_k(max_k: usize) -> Result<(), Error> {
    if max_k == 0 || max_k > LARGEST_MAX_K {
        return Err(Error::named_argument(
            "max_k",
            format!("max_k is {max_k}; it must be 1 to {LARGEST_MAX_K}"),
        ));
    }
    Ok(())
}

/// Whether the entries that top-k keeps fit the slots of the bounded path. `k` is [`RowParams::k`]: 0 keeps the
/// whole row.
pub(super) fn fits_bounded(k: i32, vocab: usize, max_k: usize) -> bool {
    let kept = if k == 0 { vocab } else { k as usize };
    kept <= max_k
}

/// Checks that the entry point supports the requested outputs, and that the k of each row fits. The bounded path and
/// the k-slices need `1 ≤ k ≤ max_k`. `None` if every row fits. Otherwise returns all bad rows of the batch, including
/// the rows whose k does not fit.
pub(crate) fn check_entry(
    entry: Entry,
    max_k: usize,
    batch: &Batch<'_>,
    wants_slices: bool,
) -> Result<Option<BadRows>, Error> {
    if wants_slices && entry == Entry::Arbitrary {
        return Err(Error::named_argument(
            "nuc_debug_arrays",
            "a k-slice (topk_indices_k, topk_logits_k, topk_topp_unnorm_probs_i32_k) is set; the arbitrary path has \
             no k-slices, so all three must be null",
        ));
    }
    if entry != Entry::Bounded && !wants_slices {
        return Ok(None);
    }
    let fits = |row: usize| fits_bounded(batch.rows()[row].k, batch.vocab(), max_k);
    if (0..batch.len()).all(fits) {
        return Ok(None);
    }
    let mut bad_rows = BadRows::default();
    let mut known = batch.bad_rows().rows().iter().peekable();
    for row in 0..batch.len() {
        if known.next_if_eq(&&row).is_some() {
            let known = || batch.bad_rows().error().expect("the first bad row has an error").clone();
            bad_rows.add(row, batch.len(), known)?;
        } else if !fits(row) {
            bad_rows.add(row, batch.len(), || unfit(row, batch.rows()[row].k, batch.vocab(), max_k))?;
        }
    }
    Ok(Some(bad_rows))
}

/// The error of a row whose k is not valid for the bounded path.
pub(super) fn unfit(row: usize, k: i32, vocab: usize, max_k: usize) -> Error {
    let k = match k {
        0 => format!("off (top_k <= 0, or top_k >= vocab = {vocab})"),
        k => k.to_string(),
    };
    let message = format!(
        "top_k[{row}] is {k}; the bounded path needs 1 <= top_k <= max_k = {max_k} in every row. For other \
         values, use the automatic or the arbitrary path, without k-slices"
    );
    Error::row_argument("top_k", row, message)
}
