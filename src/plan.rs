//! Which programs a call runs: rows → path → bucket → program.
//!
//! Sampling, prewarming and compiling ahead of time all use this module. So a prewarmed program is the program that
//! a later call looks up.

pub(crate) mod buckets;
pub(crate) mod device;
pub(crate) mod distinct;
pub(crate) mod needed;

pub use buckets::{Buckets, LARGEST_BUCKET, LARGEST_DEFAULT_BUCKET, LARGEST_NUM_BUCKETS};

use crate::batch::{BadRows, Batch};
use crate::dtype::Dtype;
use crate::error::Error;
use crate::kernels::{Path, Source, Spec, Wanted};
use crate::memory;
use crate::semantics::params::RowParams;

/// The default number of slots of the bounded path.
pub const DEFAULT_MAX_K: usize = 128;

/// The largest `max_k`. It is small because the bounded kernels compare all pairs of slots.
pub const LARGEST_MAX_K: usize = 1024;

/// The four entry points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Selects a path for each row.
    Automatic,
    /// Every row takes the arbitrary path, which accepts any k.
    Arbitrary,
    /// Every row takes the bounded path, which accepts 1 ≤ k ≤ max_k.
    Bounded,
    /// The reference implementation, which sorts, on the host CPU.
    Reference,
}

/// The properties of calls that decide which programs they need.
#[derive(Clone, Copy, Debug)]
pub struct CallShape {
    /// The entry point.
    pub entry: Entry,
    /// The number of rows of a call. With logits on the device, the number of rows of their buffer.
    pub batch: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// The type of the logits.
    pub dtype: Dtype,
    /// [`crate::batch::CallOptions::stable`].
    pub stable: bool,
    /// The wide arrays that the calls request.
    pub wanted: Wanted,
    /// Where the logits are.
    pub logits: LogitsPlace,
}

/// Where the logits of calls are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogitsPlace {
    /// In the memory of the host.
    #[default]
    Host,
    /// In a buffer on the device.
    Device {
        /// Whether the buffer has a middle dimension of length 1.
        singleton: bool,
        /// Whether the calls report rows with impossible parameters. If false, these rows make a call fail.
        bad_rows: bool,
    },
}

/// Rows that run as one program call, by their index in the caller's batch.
pub(crate) struct Piece {
    pub(crate) spec: Spec,
    pub(crate) rows: Vec<usize>,
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
fn fits_bounded(k: i32, vocab: usize, max_k: usize) -> bool {
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
    check_slices(entry, wants_slices)?;
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

/// Checks that the entry point supports the k-slices if they are requested.
fn check_slices(entry: Entry, wants_slices: bool) -> Result<(), Error> {
    if wants_slices && entry == Entry::Arbitrary {
        return Err(Error::named_argument(
            "nuc_debug_arrays",
            "a k-slice (topk_indices_k, topk_logits_k, topk_topp_unnorm_probs_i32_k) is set; the arbitrary path has \
             no k-slices, so all three must be null",
        ));
    }
    Ok(())
}

/// The error of a row whose k is not valid for the bounded path.
fn unfit(row: usize, k: i32, vocab: usize, max_k: usize) -> Error {
    let k = match k {
        0 => format!("off (top_k <= 0, or top_k >= vocab = {vocab})"),
        k => k.to_string(),
    };
    let message = format!(
        "top_k[{row}] is {k}; the bounded path needs 1 <= top_k <= max_k = {max_k} in every row. Use the automatic or \
         the arbitrary entry point, without k-slices, for other values"
    );
    Error::row_argument("top_k", row, message)
}

/// Returns the path of each row of a batch whose logits are on the device, or the error if the row cannot be sampled.
pub(crate) fn paths_of_rows<'r>(
    calls: &CallShape,
    max_k: usize,
    rows: impl Iterator<Item = Result<&'r RowParams, &'r Error>>,
) -> Result<Vec<Result<Path, Error>>, Error> {
    let (entry, slices) = (calls.entry, calls.wanted.slices);
    check_slices(entry, slices)?;
    if entry == Entry::Reference {
        return Err(Error::named_argument("path", "the reference does not run on a device"));
    }
    if slices && !calls.stable {
        return Err(Error::named_argument(
            "keep_ties",
            "keep_ties is 1 and a k-slice is requested; with logits on a device, k-slices need keep_ties = 0",
        ));
    }
    let path_of_row = |(row, params): (usize, Result<&RowParams, &Error>)| {
        Ok(params.map_err(Error::clone).and_then(|params| {
            let needs_slots = entry == Entry::Bounded || slices;
            match needs_slots && !fits_bounded(params.k, calls.vocab, max_k) {
                true => Err(unfit(row, params.k, calls.vocab, max_k)),
                false => Ok(path_of(calls, max_k, params)),
            }
        }))
    };
    memory::collected(calls.batch, "the plan of a batch", rows.enumerate().map(path_of_row))
}

/// Whether the bounded path can sample a row. The path can sample every greedy row if the caller does not want the
/// output of top-k, because the row then needs only the maximum.
fn bounded_samples(row: &RowParams, vocab: usize, wanted: Wanted, max_k: usize) -> bool {
    let only_maximum = row.greedy && !wanted.shows_top_k();
    fits_bounded(row.k, vocab, max_k) || only_maximum
}

/// The path that a row takes.
fn path_of(calls: &CallShape, max_k: usize, row: &RowParams) -> Path {
    let fits = bounded_samples(row, calls.vocab, calls.wanted, max_k);
    // If `stable` is false, the kept ties can outnumber the slots. So only the arbitrary kernel runs these calls.
    match calls.stable && calls.entry != Entry::Arbitrary && fits {
        true => Path::Bounded(max_k),
        false => Path::Arbitrary,
    }
}

/// Every path that a row of such calls can take.
fn paths(calls: &CallShape, max_k: usize) -> Vec<Path> {
    match calls.entry {
        Entry::Reference => vec![],
        Entry::Arbitrary => vec![Path::Arbitrary],
        _ if !calls.stable => vec![Path::Arbitrary],
        Entry::Bounded => vec![Path::Bounded(max_k)],
        // `check_entry` rejects k-slices for rows that do not fit the slots. If a whole row fits, every row fits.
        Entry::Automatic if calls.wanted.slices || fits_bounded(0, calls.vocab, max_k) => {
            vec![Path::Bounded(max_k)]
        }
        Entry::Automatic => vec![Path::Bounded(max_k), Path::Arbitrary],
    }
}

/// Returns the program that runs `batch` rows of these calls on a path, for logits on the host.
pub(crate) fn program(calls: &CallShape, path: Path, batch: usize) -> Spec {
    Spec {
        path,
        batch,
        vocab: calls.vocab,
        dtype: calls.dtype,
        stable: calls.stable,
        wanted: Wanted { slices: calls.wanted.slices && path != Path::Arbitrary, ..calls.wanted },
        source: Source::Batch,
    }
}

/// Assigns every row of a batch to a path and cuts the rows of each path into pieces.
pub(crate) fn pieces(
    entry: Entry,
    max_k: usize,
    buckets: &Buckets,
    batch: &Batch<'_>,
    wanted: Wanted,
) -> Result<Vec<Piece>, Error> {
    let calls = CallShape {
        entry,
        batch: batch.len(),
        vocab: batch.vocab(),
        dtype: batch.logits().dtype(),
        stable: batch.options().stable,
        wanted,
        logits: LogitsPlace::Host,
    };
    let mut pieces = Vec::new();
    for path in paths(&calls, max_k) {
        let mut rows = memory::with_capacity(batch.len(), "the plan of a batch")?;
        rows.extend((0..batch.len()).filter(|&row| path_of(&calls, max_k, &batch.rows()[row]) == path));
        for rows in rows.chunks(buckets.largest()) {
            let spec = program(&calls, path, buckets.of_piece(rows.len()));
            pieces.push(Piece { spec, rows: rows.to_vec() });
        }
    }
    Ok(pieces)
}

impl Piece {
    /// The parameters that the program receives for a row. If the k of a row does not fit the slots but the row is on
    /// the bounded path, the row is greedy and needs only the maximum. The program then receives k = 1.
    pub(crate) fn params(&self, row: &RowParams) -> RowParams {
        params_for(self.spec.path, self.spec.vocab, row)
    }
}

/// Like [`Piece::params`], for a program of the given path and vocabulary.
pub(crate) fn params_for(path: Path, vocab: usize, row: &RowParams) -> RowParams {
    match path {
        Path::Bounded(max_k) if !fits_bounded(row.k, vocab, max_k) => RowParams { k: 1, ..*row },
        _ => *row,
    }
}

/// Returns the parameters that a program receives for a row. Returns an error if the row needs the slots of the bounded
/// path but its k does not fit them.
pub(crate) fn params_in_program(spec: &Spec, row: usize, params: &RowParams) -> Result<RowParams, Error> {
    match spec.path {
        Path::Bounded(max_k) if !bounded_samples(params, spec.vocab, spec.wanted, max_k) => {
            Err(unfit(row, params.k, spec.vocab, max_k))
        }
        path => Ok(params_for(path, spec.vocab, params)),
    }
}
