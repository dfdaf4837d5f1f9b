//! Which calls can return the k-slices, as far as the shape of the calls decides this.

use super::{CallShape, Entry, LogitsPlace};
use crate::error::Error;

/// Checks that calls can return the k-slices if they request them. Otherwise every such call fails, so no program should
/// be made for it.
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
            "keep_ties is 1 and a k-slice is requested; with logits on a device, k-slices need keep_ties = 0",
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
