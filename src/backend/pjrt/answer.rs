//! The answer of a program call: it is copied to the host, checked, and then written to the caller's arrays.

use bytemuck::Pod;

use crate::batch::Batch;
use crate::dtype::{Dtype, LogitsMut};
use crate::error::Error;
use crate::kernels::{Spec, RESULTS};
use crate::memory;
use crate::outputs::{RowArrays, RowOutcome};
use crate::pjrt::{Buffer, ElementType};
use crate::plan::Piece;
use crate::reference;
use crate::semantics::params::RowParams;
use crate::semantics::rules::{NO_TOKEN, ROW_BAD_PARAMETER, ROW_HAD_INF, ROW_NO_CANDIDATE, ROW_STATUS_BITS};
use crate::semantics::weights::MAX_WEIGHT;

/// The purpose of allocations, for error messages.
const ANSWER: &str = "the answer of a program call";

/// The checked answer for a piece. The wide arrays have one row per row of the program, including padding.
pub(super) struct Answer {
    /// One per row of the piece.
    outcomes: Vec<RowOutcome>,
    topk_logits: Option<LogitsArray>,
    weights: Option<Vec<i32>>,
    slices: Option<Slices>,
}

/// The k-slices of a piece, `slots` elements per row.
struct Slices {
    slots: usize,
    indices: Vec<i32>,
    topk_logits: LogitsArray,
    weights: Vec<i32>,
}

/// An array whose element type is that of the logits, grouped by element width.
enum LogitsArray {
    Bits32(Vec<f32>),
    Bits16(Vec<u16>),
}

impl Answer {
    /// Copies the outputs of the program of `piece` to the host and checks them. `slots_wanted` is the width of the
    /// k-slices that the caller wants; 0 if it wants none.
    ///
    /// If `stable` is false, the kept ties can outnumber the slots. So no program returns k-slices for these calls, and
    /// the reference computes them instead.
    pub(super) fn fetch(
        piece: &Piece,
        outputs: &[Buffer],
        batch: &Batch<'_>,
        slots_wanted: usize,
    ) -> Result<Answer, Error> {
        let spec = &piece.spec;
        let mut fetch = Fetch { spec, outputs: outputs.iter() };
        let results = fetch.ints([RESULTS, spec.batch])?;
        let topk_logits = spec.wanted.topk_logits.then(|| fetch.logits(spec.vocab)).transpose()?;
        let weights = spec.wanted.weights.then(|| fetch.ints([spec.batch, spec.vocab])).transpose()?;
        let slices = match (spec.wanted.slices, slots_wanted) {
            (true, _) => Some(fetch.slices(spec.slots())?),
            (false, 0) => None,
            (false, slots) => Some(Slices::from_reference(piece, batch, slots)?),
        };
        let outcomes = outcomes(&results, piece.rows.len(), spec.batch)?;
        let answer = Answer { outcomes, topk_logits, weights, slices };
        answer.check(piece, batch)?;
        Ok(answer)
    }

    /// Returns an error if no correct program can return this answer.
    fn check(&self, piece: &Piece, batch: &Batch<'_>) -> Result<(), Error> {
        let spec = &piece.spec;
        for (place, (&row, outcome)) in piece.rows.iter().zip(&self.outcomes).enumerate() {
            let params = &batch.rows()[row];
            let problem = impossible_outcome(outcome, params, spec)
                .or_else(|| impossible_indices(self.slices.as_ref()?.indices(place), spec.vocab));
            if let Some(problem) = problem {
                return Err(Error::Internal(format!(
                    "the plugin returned an impossible answer for row {row} of {}: {problem}",
                    spec.name()
                )));
            }
        }
        Ok(())
    }

    /// One per row of the piece, in its order.
    pub(super) fn outcomes(&self) -> &[RowOutcome] {
        &self.outcomes
    }

    /// Writes the wide arrays of the row at `place` in the piece. `replace` is the replace value as bits of the
    /// logits' type.
    pub(super) fn write_row(&self, place: usize, replace: u32, arrays: &mut RowArrays<'_>) {
        if let (Some(from), Some(to)) = (&self.topk_logits, &mut arrays.topk_logits) {
            from.copy_row(place, to.len(), to);
        }
        if let (Some(from), Some(to)) = (&self.weights, &mut arrays.weights) {
            let width = to.len();
            to.copy_from_slice(&from[place * width..][..width]);
        }
        let Some(slices) = &self.slices else { return };
        for unused in slices.slots..arrays.slots() {
            arrays.set_slot(unused, NO_TOKEN, replace, 0);
        }
        let ints = [(&slices.indices, &mut arrays.indices_k), (&slices.weights, &mut arrays.weights_k)];
        for (from, to) in ints {
            if let Some(to) = to {
                to[..slices.slots].copy_from_slice(&from[place * slices.slots..][..slices.slots]);
            }
        }
        if let Some(to) = &mut arrays.topk_logits_k {
            slices.topk_logits.copy_row(place, slices.slots, to);
        }
    }
}

impl Slices {
    fn new(dtype: Dtype, rows: usize, slots: usize) -> Result<Slices, Error> {
        Ok(Slices {
            slots,
            indices: memory::zeroed(rows * slots, ANSWER)?,
            topk_logits: LogitsArray::new(dtype, rows * slots)?,
            weights: memory::zeroed(rows * slots, ANSWER)?,
        })
    }

    fn from_reference(piece: &Piece, batch: &Batch<'_>, slots: usize) -> Result<Slices, Error> {
        let dtype = piece.spec.dtype;
        let mut slices = Slices::new(dtype, piece.rows.len(), slots)?;
        let mut scratch = reference::Scratch::new(batch.vocab())?;
        for (place, &row) in piece.rows.iter().enumerate() {
            let range = place * slots..(place + 1) * slots;
            let mut arrays = RowArrays {
                indices_k: Some(&mut slices.indices[range.clone()]),
                topk_logits_k: Some(slices.topk_logits.view(dtype, range.clone())),
                weights_k: Some(&mut slices.weights[range]),
                ..RowArrays::default()
            };
            let params = &batch.rows()[row];
            reference::sample_row(batch.row(row), params, batch.options(), &mut arrays, &mut scratch);
        }
        Ok(slices)
    }

    fn indices(&self, place: usize) -> &[i32] {
        &self.indices[place * self.slots..][..self.slots]
    }
}

impl LogitsArray {
    fn new(dtype: Dtype, len: usize) -> Result<LogitsArray, Error> {
        Ok(match dtype {
            Dtype::F32 => LogitsArray::Bits32(memory::zeroed(len, ANSWER)?),
            Dtype::Bf16 | Dtype::F16 => LogitsArray::Bits16(memory::zeroed(len, ANSWER)?),
        })
    }

    fn view(&mut self, dtype: Dtype, range: std::ops::Range<usize>) -> LogitsMut<'_> {
        match (self, dtype) {
            (LogitsArray::Bits32(values), _) => LogitsMut::F32(&mut values[range]),
            (LogitsArray::Bits16(values), Dtype::Bf16) => LogitsMut::Bf16(&mut values[range]),
            (LogitsArray::Bits16(values), _) => LogitsMut::F16(&mut values[range]),
        }
    }

    /// Copies the first `width` elements of one row to the start of `to`.
    fn copy_row(&self, row: usize, width: usize, to: &mut LogitsMut<'_>) {
        let range = row * width..(row + 1) * width;
        match (self, to) {
            (LogitsArray::Bits32(from), LogitsMut::F32(to)) => to[..width].copy_from_slice(&from[range]),
            (LogitsArray::Bits16(from), LogitsMut::Bf16(to) | LogitsMut::F16(to)) => {
                to[..width].copy_from_slice(&from[range]);
            }
            (LogitsArray::Bits32(_), _) | (LogitsArray::Bits16(_), _) => {
                unreachable!("the caller's arrays have the type of the logits")
            }
        }
    }
}

/// Copies the outputs to the host, in order.
struct Fetch<'a> {
    spec: &'a Spec,
    outputs: std::slice::Iter<'a, Buffer>,
}

impl Fetch<'_> {
    fn ints(&mut self, dims: [usize; 2]) -> Result<Vec<i32>, Error> {
        self.array(ElementType::S32, dims)
    }

    /// Programs return logits as raw bits, so that no conversion can change them.
    fn logits(&mut self, width: usize) -> Result<LogitsArray, Error> {
        let dims = [self.spec.batch, width];
        Ok(match self.spec.dtype {
            Dtype::F32 => LogitsArray::Bits32(self.array(ElementType::S32, dims)?),
            Dtype::Bf16 | Dtype::F16 => LogitsArray::Bits16(self.array(ElementType::U16, dims)?),
        })
    }

    fn slices(&mut self, slots: usize) -> Result<Slices, Error> {
        let dims = [self.spec.batch, slots];
        Ok(Slices {
            slots,
            indices: self.ints(dims)?,
            topk_logits: self.logits(slots)?,
            weights: self.ints(dims)?,
        })
    }

    /// Copies the next output to the host. `T` has the size of `element`.
    fn array<T: Pod>(&mut self, element: ElementType, dims: [usize; 2]) -> Result<Vec<T>, Error> {
        let wrong = |returned: String| {
            Error::Internal(format!(
                "{} returned {returned} instead of an array of {element:?} with dimensions {dims:?}",
                self.spec.name()
            ))
        };
        let Some(buffer) = self.outputs.next() else { return Err(wrong("nothing".to_owned())) };
        if buffer.element() != element || buffer.dims() != dims.map(|dim| dim as i64) {
            return Err(wrong(format!("{buffer:?}")));
        }
        Ok(buffer.to_host()?)
    }
}

/// The outcomes of the first `rows` rows. `results` is `[RESULTS, batch]`, see [`crate::kernels::ResultRow`].
pub(super) fn outcomes(results: &[i32], rows: usize, batch: usize) -> Result<Vec<RowOutcome>, Error> {
    memory::collected(
        rows,
        ANSWER,
        (0..rows).map(|row| {
            let [next_token, greedy_sampled, high, low, status] =
                std::array::from_fn::<i32, RESULTS, _>(|result| results[result * batch + row]);
            Ok(RowOutcome {
                next_token,
                greedy_sampled,
                random_unnorm_cdf_sampled: u64::from(high as u32) << 32 | u64::from(low as u32),
                status: status as u32,
            })
        }),
    )
}

/// Checks that each token is an index below `vocab`, or −1.
pub(super) fn check_tokens(tokens: impl Iterator<Item = i32>, vocab: usize) -> Result<(), Error> {
    let fits = |token: i32| token == NO_TOKEN || usize::try_from(token).is_ok_and(|token| token < vocab);
    match tokens.enumerate().find(|&(_, token)| !fits(token)) {
        None => Ok(()),
        Some((row, token)) => Err(Error::Internal(format!(
            "the plugin returned an impossible answer for row {row}: token {token}; vocab is {vocab}"
        ))),
    }
}

/// Checks the numbers of a call on device logits. The parameters of the rows are not known here. The check accepts rows
/// with impossible parameters, which were not sampled.
pub(super) fn check_outcomes(outcomes: &[RowOutcome], vocab: usize) -> Result<(), Error> {
    const BAD_PARAMETER: RowOutcome = RowOutcome {
        next_token: NO_TOKEN,
        greedy_sampled: NO_TOKEN,
        random_unnorm_cdf_sampled: 0,
        status: ROW_BAD_PARAMETER,
    };
    let mut sampled = outcomes.iter().enumerate().filter(|(_, outcome)| **outcome != BAD_PARAMETER);
    let problem = sampled.find_map(|(row, outcome)| Some((row, impossible_numbers(outcome, vocab, vocab)?)));
    match problem {
        None => Ok(()),
        Some((row, problem)) => {
            Err(Error::Internal(format!("the plugin returned an impossible answer for row {row}: {problem}")))
        }
    }
}

/// Returns the reason why no correct program can return this outcome for a row. `None` means that the outcome is
/// possible.
fn impossible_outcome(outcome: &RowOutcome, params: &RowParams, spec: &Spec) -> Option<String> {
    let most_kept = match params {
        RowParams { greedy: true, .. } => 1,
        RowParams { k, .. } if spec.stable && *k > 0 => *k as usize,
        _ => spec.vocab,
    };
    let RowOutcome { next_token, greedy_sampled, .. } = *outcome;
    impossible_numbers(outcome, spec.vocab, most_kept).or_else(|| {
        (params.greedy && next_token != greedy_sampled)
            .then(|| format!("next_token {next_token} and greedy_sampled {greedy_sampled} in a greedy row"))
    })
}

/// Like [`impossible_outcome`], for a row in which at most `most_kept` entries are kept.
fn impossible_numbers(outcome: &RowOutcome, vocab: usize, most_kept: usize) -> Option<String> {
    let RowOutcome { next_token, greedy_sampled, random_unnorm_cdf_sampled: random, status } = *outcome;
    if status & !ROW_STATUS_BITS != 0 {
        return Some(format!("status {status:#x}; the status bits are {ROW_STATUS_BITS:#x}"));
    }
    let no_candidate = status & ROW_NO_CANDIDATE != 0;
    if no_candidate && status & ROW_HAD_INF != 0 {
        return Some(format!("status {status:#x} says no candidate and +inf, but +inf is a candidate"));
    }
    for (name, token) in [("next_token", next_token), ("greedy_sampled", greedy_sampled)] {
        let fits = match no_candidate {
            true => token == NO_TOKEN,
            false => usize::try_from(token).is_ok_and(|token| token < vocab),
        };
        if !fits {
            return Some(format!("{name} {token} with status {status:#x}; vocab is {vocab}"));
        }
    }
    // `r` is a remainder modulo the total of the kept weights. The number of kept entries limits this total, and so it
    // limits `r`.
    let kept = if no_candidate { 0 } else { most_kept };
    let largest = (kept as u64 * MAX_WEIGHT as u64).saturating_sub(1);
    (random > largest)
        .then(|| format!("random_unnorm_cdf_sampled {random}; the weights allow at most {largest}"))
}

/// Returns the reason why no correct program can return these k-slice indices. Correct indices ascend, and the unused
/// slots follow them.
fn impossible_indices(indices: &[i32], vocab: usize) -> Option<String> {
    let mut previous = None;
    for (slot, &index) in indices.iter().enumerate() {
        let fits = match (index, previous) {
            (NO_TOKEN, _) => true,
            (_, Some(NO_TOKEN)) => false,
            (index, previous) => {
                usize::try_from(index).is_ok_and(|index| index < vocab)
                    && previous.is_none_or(|previous| previous < index)
            }
        };
        if !fits {
            let after = previous.map_or(String::new(), |previous| format!(" after {previous}"));
            return Some(format!("k-slice index {index}{after} in slot {slot}; vocab is {vocab}"));
        }
        previous = Some(index);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::CallOptions;
    use crate::dtype::Logits;
    use crate::kernels::{Path, Source, Wanted};
    use crate::semantics::rules::ROW_HAD_NAN;

    const VOCAB: usize = 1000;
    const TOTAL: u64 = VOCAB as u64 * MAX_WEIGHT as u64;
    const GOOD: RowOutcome =
        RowOutcome { next_token: 999, greedy_sampled: 0, random_unnorm_cdf_sampled: 5, status: ROW_HAD_NAN };
    const NONE: RowOutcome = RowOutcome {
        next_token: NO_TOKEN,
        greedy_sampled: NO_TOKEN,
        random_unnorm_cdf_sampled: 0,
        status: ROW_NO_CANDIDATE | ROW_HAD_NAN,
    };

    fn spec(stable: bool) -> Spec {
        let wanted = Wanted { slices: true, ..Wanted::default() };
        Spec {
            path: Path::Bounded(4),
            batch: 2,
            vocab: VOCAB,
            dtype: Dtype::F32,
            stable,
            wanted,
            source: Source::Batch,
        }
    }

    fn params(k: i32, temperature: f32) -> RowParams {
        RowParams::new(k, 1.0, 0.0, temperature, [0; 4], VOCAB)
    }

    #[test]
    fn impossible_outcomes_are_refused() {
        let check = |outcome: RowOutcome, k: i32, temperature: f32, stable: bool| {
            impossible_outcome(&outcome, &params(k, temperature), &spec(stable))
        };
        let random = |random_unnorm_cdf_sampled| RowOutcome { random_unnorm_cdf_sampled, ..GOOD };
        for (outcome, k, temperature, stable) in [
            (GOOD, 0, 1.0, true),
            (NONE, 0, 1.0, true),
            (RowOutcome { status: ROW_NO_CANDIDATE, ..NONE }, 3, 0.0, false),
            (RowOutcome { next_token: 0, status: 0, ..GOOD }, 3, 0.0, true),
            (random(TOTAL - 1), 0, 1.0, true),
            (random(TOTAL - 1), 3, 1.0, false),
            (random(3 * MAX_WEIGHT as u64 - 1), 3, 1.0, true),
            (RowOutcome { next_token: 0, ..random(MAX_WEIGHT as u64 - 1) }, 0, 0.0, true),
        ] {
            assert_eq!(check(outcome, k, temperature, stable), None, "{outcome:?}");
        }
        for (outcome, k, temperature, stable, words) in [
            (RowOutcome { next_token: i32::MAX, ..GOOD }, 0, 1.0, true, "next_token 2147483647"),
            (RowOutcome { next_token: 1000, ..GOOD }, 0, 1.0, true, "next_token 1000"),
            (RowOutcome { next_token: -2, ..GOOD }, 0, 1.0, true, "next_token -2"),
            (RowOutcome { next_token: -1, ..GOOD }, 0, 1.0, true, "next_token -1"),
            (RowOutcome { greedy_sampled: -1, ..GOOD }, 0, 1.0, true, "greedy_sampled -1"),
            (RowOutcome { greedy_sampled: 1000, ..GOOD }, 0, 1.0, true, "greedy_sampled 1000"),
            (RowOutcome { next_token: 3, ..NONE }, 0, 1.0, true, "next_token 3"),
            (RowOutcome { greedy_sampled: -2, ..NONE }, 0, 1.0, true, "greedy_sampled -2"),
            (RowOutcome { random_unnorm_cdf_sampled: 1, ..NONE }, 0, 1.0, true, "at most 0"),
            (RowOutcome { status: 8, ..GOOD }, 0, 1.0, true, "status 0x8"),
            (
                RowOutcome { status: ROW_NO_CANDIDATE | ROW_HAD_INF, ..NONE },
                0,
                1.0,
                true,
                "no candidate and +inf",
            ),
            (RowOutcome { status: 1 << 31, ..GOOD }, 0, 1.0, true, "status 0x80000000"),
            (GOOD, 0, 0.0, true, "in a greedy row"),
            (random(u64::MAX), 0, 1.0, true, "random_unnorm_cdf_sampled"),
            (random(TOTAL), 0, 1.0, true, "random_unnorm_cdf_sampled"),
            (random(3 * MAX_WEIGHT as u64), 3, 1.0, true, "random_unnorm_cdf_sampled"),
            (RowOutcome { next_token: 0, ..random(MAX_WEIGHT as u64) }, 0, 0.0, true, "at most 268435455"),
        ] {
            let problem = check(outcome, k, temperature, stable);
            assert!(problem.as_ref().is_some_and(|text| text.contains(words)), "{outcome:?}: {problem:?}");
        }
    }

    /// Calls on device logits run every check that does not need the parameters.
    #[test]
    fn impossible_numbers_of_device_calls_are_refused() {
        let bad_parameter = RowOutcome { status: ROW_BAD_PARAMETER, ..NONE };
        let largest = RowOutcome { random_unnorm_cdf_sampled: TOTAL - 1, ..GOOD };
        check_outcomes(&[GOOD, NONE, bad_parameter, largest], VOCAB).unwrap();
        for (outcome, words) in [
            (RowOutcome { next_token: -1, ..GOOD }, "next_token -1"),
            (RowOutcome { greedy_sampled: 1000, ..GOOD }, "greedy_sampled 1000"),
            (RowOutcome { status: 64, ..GOOD }, "status 0x40"),
            (RowOutcome { random_unnorm_cdf_sampled: TOTAL, ..GOOD }, "random_unnorm_cdf_sampled"),
            (RowOutcome { next_token: 3, ..bad_parameter }, "status 0x8"),
        ] {
            let error = check_outcomes(&[GOOD, outcome], VOCAB).unwrap_err().to_string();
            assert!(error.contains("row 1") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn impossible_indices_are_refused() {
        for good in [&[0, 5, 999][..], &[7, -1, -1], &[-1, -1], &[]] {
            assert_eq!(impossible_indices(good, VOCAB), None, "{good:?}");
        }
        for bad in [&[0, 0][..], &[5, 4], &[1000], &[-2], &[i32::MIN], &[3, -1, 4], &[-1, 0], &[3, -2]] {
            assert!(impossible_indices(bad, VOCAB).is_some(), "{bad:?}");
        }
    }

    /// The check covers every row and names the caller's row. It ignores rows of padding.
    #[test]
    fn an_answer_is_checked_row_by_row() {
        let (logits, rows) = (vec![0.0; 3 * VOCAB], vec![params(3, 1.0); 3]);
        let batch = Batch::from_params(Logits::F32(&logits), VOCAB, 0, rows, CallOptions::default()).unwrap();
        let piece = |rows: &[usize]| Piece { spec: spec(true), rows: rows.to_vec() };
        let check = |rows: &[usize], results: [[i32; 2]; RESULTS], indices: [[i32; 4]; 2]| {
            let mut slices = Slices::new(Dtype::F32, 2, 4).unwrap();
            slices.indices = indices.concat();
            let outcomes = outcomes(&results.concat(), rows.len(), 2).unwrap();
            let answer = Answer { outcomes, topk_logits: None, weights: None, slices: Some(slices) };
            answer.check(&piece(rows), &batch).map_err(|error| match error {
                Error::Internal(text) => text,
                other => panic!("{other:?}"),
            })
        };
        let (good, indices) = ([[1, 2], [0, 0], [0, 0], [7, 7], [0, 2]], [[1, 2, 5, -1], [0, 1, 2, -1]]);
        assert_eq!(check(&[2, 0], good, indices), Ok(()));
        let mut bad = good;
        bad[0][1] = 1000;
        assert_eq!(check(&[2], bad, indices), Ok(()));
        let text = check(&[0, 2], bad, indices).unwrap_err();
        assert!(
            text.contains("row 2 of nucleus_bounded4_2x1000") && text.contains("next_token 1000"),
            "{text}"
        );
        let text = check(&[2, 1], good, [[1, 2, 5, -1], [3, 1, -1, -1]]).unwrap_err();
        assert!(text.contains("row 1 of") && text.contains("k-slice index 1 after 3 in slot 1"), "{text}");
    }

    #[test]
    fn absurd_sizes_are_out_of_memory() {
        let error = Slices::new(Dtype::F32, usize::MAX / 64, 4).err();
        assert!(matches!(error, Some(Error::OutOfMemory(_))), "{error:?}");
    }
}
