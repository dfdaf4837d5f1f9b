//! Checks whether calls of a shape can return the k-slices.

use super::{CallShape, Entry, LogitsPlace};
use crate::error::Error;

/// Returns an error if the calls request the k-slices but cannot return them. Every such call fails, so no program is
/// made for it.
pub(crate) fn check_slices(calls: &CallShape) -> Result<(), Error> {
    if !calls.wanted.slices {
        return Ok(());
    }
    if calls.entry == Entry::Arbitrary {
        return Err(no_slices());
    }
    if !calls.stable && calls.logits != LogitsPlace::Host {
        return Err(Error::named_argument(
            "keep_ties",
            "keep_ties is 1 and a k-slice is requested; with logits on a device, keep_ties must be 0 for k-slices",
        ));
    }
    Ok(())
}

/// The error of calls that request the k-slices on the arbitrary path.
pub(crate) fn no_slices() -> Error {
    Error::named_argument(
        "debug_arrays",
        "debug_arrays has the k-slices, which only the bounded path returns; set path to the bounded path",
    )
}
