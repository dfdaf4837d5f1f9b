//! Samples one row.

use fearless_simd::Level;

use super::clean_row::{clean_row, Specials};
use super::layout::Part;
use super::row_kind::RowKind;
use super::row_task::{Choice, KeptWeights, RowTask};
use super::wide_arrays;
use super::workspace::Scratch;
use crate::batch::CallOptions;
use crate::dtype::Logits;
use crate::error::Error;
use crate::outputs::{RowArrays, RowOutcome};
use crate::semantics::arith::Scalar;
use crate::semantics::params::RowParams;
use crate::semantics::rules::{reported_token, row_status};

/// Samples one row with the instruction set `level` and fills the requested arrays. If `parts` is above 1, each pass
/// over the row is split into at most `parts` tasks of the current Rayon thread pool.
///
/// The only error is [`Error::OutOfMemory`]. If the function returns an error, it has written no array.
pub fn sample_row(
    level: Level,
    parts: usize,
    row: Logits<'_>,
    params: &RowParams,
    options: CallOptions,
    arrays: &mut RowArrays<'_>,
    scratch: &mut Scratch,
) -> Result<RowOutcome, Error> {
    let kind = RowKind::of(params, arrays.wants_any());
    let layout = kind.layout(row.len());
    let parts = parts.min(layout.groups());
    let mut task = RowTask {
        level,
        kind,
        whole: Part::whole(row, layout),
        parts,
        original: row,
        plain: false,
        params,
        options,
    };
    if let Some(outcome) = task.sample(Specials::default(), arrays, scratch)? {
        return Ok(outcome);
    }
    // The row may hold NaN or +inf. The passes do not handle these values, so they run on a cleaned copy.
    let mut cleaned = std::mem::take(&mut scratch.cleaned);
    let outcome = cleaned.reserve(row.len()).and_then(|()| {
        let values = cleaned.take(row.len());
        let specials = clean_row(level, row, values);
        task.whole = Part::whole(Logits::F32(values), layout);
        task.plain = true;
        task.sample(specials, arrays, scratch)
    });
    scratch.cleaned = cleaned;
    Ok(outcome?.expect("a cleaned row holds neither NaN nor +inf"))
}

impl RowTask<'_> {
    /// Runs the passes. Returns `None` if the row must be cleaned first. In that case it has written no array.
    fn sample(
        &self,
        specials: Specials,
        arrays: &mut RowArrays<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<RowOutcome>, Error> {
        let mut work = scratch.workspace(&self.kind.sizes(self.whole.layout, self.parts))?;
        let Some(found) = self.find_candidates(&mut work) else { return Ok(None) };
        let kept = match self.kind {
            RowKind::TopK(k) => self.keep(k, &found, &mut work),
            _ => None,
        };
        let drawn = found.greedy.map(|greedy| self.choose_token(greedy, &found, kept, &mut work));
        if arrays.wants_any() {
            let weights = drawn.as_ref().map_or(KeptWeights::None, |drawn| drawn.weights);
            let choice = Choice { top_k: found.collected.zip(kept), weights };
            wide_arrays::write(self, &choice, work, arrays);
        }
        let no_candidate = found.greedy.is_none();
        let token = |index: Option<usize>| {
            reported_token(Scalar, no_candidate, index.map_or(0, |index| index as i32))
        };
        Ok(Some(RowOutcome {
            next_token: token(drawn.as_ref().map(|drawn| drawn.index)),
            greedy_sampled: token(found.greedy),
            random_unnorm_cdf_sampled: drawn.map_or(0, |drawn| drawn.remainder),
            status: row_status(Scalar, no_candidate, specials.had_nan, specials.had_inf) as u32,
        }))
    }
}
