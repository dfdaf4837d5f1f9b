//! The path of each row, and the programs that run the rows of a path.

use super::buckets::Buckets;
use super::call_shape::{CallShape, LogitsPlace};
use super::entry::{fits_bounded, unfit, Entry, LARGEST_MAX_K};
use super::k_slices::check_slices;
use crate::batch::Batch;
use crate::error::Error;
use crate::kernels::{tpu, Path, Source, Spec, Wanted};
use crate::memory;
use crate::semantics::params::RowParams;

// The TPU kernels support every allowed `max_k`. So every call on a known TPU has a kernel.
const _: () = assert!(LARGEST_MAX_K <= tpu::LARGEST_SLOTS);

/// The purpose of the allocations in this file, for error messages.
const PURPOSE: &str = "the plan of a batch";

/// Rows that run as one program call, by their index in the caller's batch.
pub(crate) struct Piece {
    pub(crate) spec: Spec,
    pub(crate) rows: Vec<usize>,
}

/// Returns the path of each row of a batch whose logits are on the device, or the error if the row cannot be sampled.
pub(crate) fn paths_of_rows<'r>(
    calls: &CallShape,
    max_k: usize,
    rows: impl Iterator<Item = Result<&'r RowParams, &'r Error>>,
) -> Result<Vec<Result<Path, Error>>, Error> {
    let (entry, slices) = (calls.entry, calls.wanted.slices);
    check_slices(calls)?;
    if entry == Entry::Reference {
        return Err(Error::named_argument("path", "the reference does not run on a device"));
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
    memory::collected(calls.batch, PURPOSE, rows.enumerate().map(path_of_row))
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
pub(super) fn paths(calls: &CallShape, max_k: usize) -> Vec<Path> {
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
    let (paths, largest) = (paths(&calls, max_k), buckets.largest());
    // Every path can have one piece that is not full.
    let mut pieces = memory::with_capacity(batch.len() / largest + paths.len(), PURPOSE)?;
    for path in paths {
        let mut rows = memory::with_capacity(batch.len(), PURPOSE)?;
        rows.extend((0..batch.len()).filter(|&row| path_of(&calls, max_k, &batch.rows()[row]) == path));
        for rows in rows.chunks(largest) {
            let spec = program(&calls, path, buckets.of_piece(rows.len()));
            let rows = memory::collected(rows.len(), PURPOSE, rows.iter().copied().map(Ok))?;
            pieces.push(Piece { spec, rows });
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
