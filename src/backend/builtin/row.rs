//! One row from logits to token: which passes to make, and in which order.

use fearless_simd::Level;

use super::arrays::{self, Chosen, Weighed};
use super::lanes::LANES;
use super::nucleus::{self, Temper};
use super::parts::{self, Part};
use super::scan::{self, floor_of_key, Layout, Summary};
use super::scratch::{Scratch, Workspace};
use super::search::pad;
use super::select::{self, Estimate, Kept, LEAST_KEY};
use crate::batch::CallOptions;
use crate::dtype::Logits;
use crate::outputs::{RowArrays, RowOutcome, ROW_HAD_NAN, ROW_NO_CANDIDATE};
use crate::semantics::arith::Scalar;
use crate::semantics::clean::{clean, order_key};
use crate::semantics::draw::remainder;
use crate::semantics::params::RowParams;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// Up to this k the bound comes from maxima of parts of the row, which can't fail; beyond it, from a sample.
const LARGEST_K_BY_MAXIMA: usize = 384;

/// Vectors of group maxima without top-k: enough of them to make up most of a row's weight.
const MAXIMA_WITHOUT_K: usize = 128;

/// Samples one row on `level`'s instructions and fills the arrays that are wanted. With `parts` above 1 the passes are
/// split into as many tasks of the current thread pool.
pub fn sample_row(
    level: Level,
    parts: usize,
    row: Logits<'_>,
    params: &RowParams,
    options: CallOptions,
    arrays: &mut RowArrays<'_>,
    scratch: &mut Scratch,
) -> RowOutcome {
    let mut cleaned = std::mem::take(&mut scratch.cleaned);
    let mut task = Task { level, parts, original: row, row, plain: false, params, options };
    let outcome = task.sample(arrays, scratch).unwrap_or_else(|| {
        // The row holds a NaN or +inf: clean it first, so that no pass has to.
        let values = cleaned.take(row.len());
        let had_nan = scan::clean_row(level, row, values);
        (task.row, task.plain) = (Logits::F32(values), true);
        let mut outcome = task.sample(arrays, scratch).expect("a cleaned row is plain");
        outcome.status |= if had_nan { ROW_HAD_NAN } else { 0 };
        outcome
    });
    scratch.cleaned = cleaned;
    outcome
}

/// What is asked of a row, and how it may be worked on.
struct Task<'a> {
    level: Level,
    /// Threads that share the passes over the row.
    parts: usize,
    /// The row as it was given.
    original: Logits<'a>,
    /// The row to work on: the original or its cleaned copy.
    row: Logits<'a>,
    /// The row is known to hold neither NaN nor +inf.
    plain: bool,
    params: &'a RowParams,
    options: CallOptions,
}

/// The entries that a pass over the row collected for top-k: all that are at least `bound`.
#[derive(Clone, Copy)]
struct Collected {
    bound: f32,
    /// Fewer than k probably reach this order key.
    above: i32,
    len: usize,
}

/// What the first pass or two over the row found.
struct Scanned {
    /// Cleaned; −inf where there is no candidate.
    max: f32,
    /// Lowest index of the maximum.
    greedy: Option<usize>,
    /// Only where top-k is on and matters.
    collected: Option<Collected>,
}

/// The draw.
struct Drawn {
    index: usize,
    remainder: u64,
    weighed: Weighed,
}

impl<'a> Task<'a> {
    /// `None` where the row turned out not to be plain.
    fn sample(&self, arrays: &mut RowArrays<'_>, scratch: &mut Scratch) -> Option<RowOutcome> {
        let params = self.params;
        let wants_arrays = arrays.wants_any();
        let k = if params.greedy && !wants_arrays { 0 } else { params.k as usize };
        let whole =
            Part::whole(self.row, Layout::new(self.row.len(), if k == 0 { MAXIMA_WITHOUT_K } else { k }));
        let parts = self.parts.min(whole.layout.groups());
        let mut work = scratch.workspace(&whole, parts);

        let guess = if k > LARGEST_K_BY_MAXIMA {
            select::estimate(self.level, self.row, k, work.keys, work.spare)
        } else {
            None
        };
        let scanned = match guess {
            Some(estimate) => self.scan_by_guess(whole, parts, estimate, k, &mut work)?,
            None => self.scan_by_maxima(whole, parts, k, &mut work)?,
        };
        let collected = scanned.collected.map(|collected| {
            select::keys_in_place(self.level, work.keys, collected.len);
            if collected.len < k {
                // The rest of the k are −inf, of weight 0.
                return (collected, Kept::ALL);
            }
            let keys = &work.keys[..collected.len.next_multiple_of(LANES)];
            let range = (cleaned_key(collected.bound), collected.above, cleaned_key(scanned.max));
            (collected, select::keep(self.level, keys, work.spare, k, range, self.options.stable))
        });
        let drawn = scanned.greedy.map(|greedy| {
            if params.greedy {
                let remainder = self.remainder(MAX_WEIGHT as u64);
                return Drawn { index: greedy, remainder, weighed: Weighed::Only(greedy) };
            }
            let temper = Temper { max: scanned.max, scale: params.scale };
            match collected {
                Some((collected, kept)) => self.draw_collected(collected, kept, temper, &mut work),
                None if params.top_p.mantissa == 0 => self.draw_above(whole, parts, temper, &mut work),
                None => self.draw_from_row(whole, parts, temper, &mut work),
            }
        });
        if wants_arrays {
            let chosen = Chosen {
                k,
                collected: collected.map(|(collected, kept)| (collected.bound, collected.len, kept)),
                weighed: drawn.as_ref().map_or(Weighed::Nothing, |drawn| drawn.weighed),
            };
            arrays::write(self.level, self.row, self.original, self.options, &chosen, work, arrays);
        }
        Some(match (scanned.greedy, drawn) {
            (Some(greedy), Some(drawn)) => RowOutcome {
                next_token: drawn.index as i32,
                greedy_sampled: greedy as i32,
                random_unnorm_cdf_sampled: drawn.remainder,
                status: 0,
            },
            _ => RowOutcome {
                next_token: -1,
                greedy_sampled: -1,
                random_unnorm_cdf_sampled: 0,
                status: ROW_NO_CANDIDATE,
            },
        })
    }

    fn remainder(&self, total: u64) -> u64 {
        remainder(Scalar, self.params.words.map(|word| word as i32), total)
    }

    /// The maximum, cleaned, and its order key; `None` where the row is not plain.
    fn maximum(&self, summary: Summary) -> Option<(f32, i32)> {
        (self.plain || summary.is_plain()).then(|| {
            let bits = clean(Scalar, summary.max.to_bits() as i32);
            (f32::from_bits(bits as u32), order_key(Scalar, bits))
        })
    }

    /// Scans first; with k on, what to collect follows from the maxima.
    fn scan_by_maxima(
        &self,
        whole: Part<'a>,
        parts: usize,
        k: usize,
        work: &mut Workspace<'_>,
    ) -> Option<Scanned> {
        let level = self.level;
        let summary = parts::scan(whole, parts, work.bins, work.tops, |part, bins, tops| {
            scan::scan(level, part.row, part.layout.group, bins, tops)
        });
        let (max, key) = self.maximum(summary)?;
        let greedy = if key < LEAST_KEY {
            None
        } else {
            let bound = floor_of_key(key);
            scan::first_at_least(level, self.row, whole.layout, work.bins, work.tops, bound)
        };
        let collected = (k > 0).then(|| {
            let bound = select::bound_from_maxima(level, work.tops, k, work.keys, work.spare)
                .unwrap_or(floor_of_key(LEAST_KEY));
            let (bins, tops) = (&*work.bins, &*work.tops);
            let ((), len) = parts::collect(
                whole,
                parts,
                work.keys,
                work.offsets,
                |part, values, offsets| {
                    let maxima = part.maxima(bins, tops);
                    ((), select::collect(level, part.row, part.layout.group, maxima, bound, values, offsets))
                },
                |(), ()| (),
            );
            Collected { bound, above: i32::MAX, len }
        });
        Some(Scanned { max, greedy, collected })
    }

    /// Scans and collects in one pass, and once more with the lowest bound if the guess was too high.
    fn scan_by_guess(
        &self,
        whole: Part<'a>,
        parts: usize,
        guess: Estimate,
        k: usize,
        work: &mut Workspace<'_>,
    ) -> Option<Scanned> {
        let level = self.level;
        let mut collected = Collected { bound: guess.bound, above: guess.above, len: 0 };
        let mut summary = Summary::EMPTY;
        for bound in [guess.bound, floor_of_key(LEAST_KEY)] {
            let (found, len) = parts::collect(
                whole,
                parts,
                work.keys,
                work.offsets,
                |part, values, offsets| select::scan_and_collect(level, part.row, bound, values, offsets),
                Summary::and,
            );
            (summary, collected) = (found, Collected { bound, above: guess.above, len });
            if !(self.plain || summary.is_plain()) || len >= k {
                break;
            }
        }
        let (max, key) = self.maximum(summary)?;
        let values = &work.keys[..collected.len];
        let greedy = select::first_at_least(level, values, floor_of_key(key))
            .map(|position| select::locate(level, self.row, work.offsets, collected.bound, position));
        Some(Scanned { max, greedy, collected: Some(collected) })
    }

    fn draw_collected(
        &self,
        collected: Collected,
        kept: Kept,
        temper: Temper,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let level = self.level;
        let padded = collected.len.next_multiple_of(LANES);
        let weights = &mut work.weights[..padded];
        let total = select::weigh(level, &work.keys[..padded], kept, temper, weights);
        // Every kept key is at least the threshold, so every kept weight at least this.
        let least = order_key(Scalar, kept.threshold);
        let least = quantize(Scalar, temper.max, f32::from_bits(least as u32), temper.scale);
        let least = weight(Scalar, least).max(1);
        let sums = (total, total);
        let found = nucleus::nucleus(level, weights, work.spare, least, MAX_WEIGHT, sums, self.params)
            .expect("every weight was collected");
        let remainder = self.remainder(found.measure);
        let position = nucleus::draw(level, weights, found.threshold, remainder);
        let position = position.expect("the remainder is below the sum of the kept weights");
        let index = select::locate(level, self.row, work.offsets, collected.bound, position);
        Drawn { index, remainder, weighed: Weighed::Collected { least: found.threshold } }
    }

    /// Without top-p it is known beforehand which weights count, and nothing has to be collected.
    fn draw_above(&self, whole: Part<'a>, parts: usize, temper: Temper, work: &mut Workspace<'_>) -> Drawn {
        let level = self.level;
        let least = self.params.min_weight.max(1);
        let (bins, tops) = (&*work.bins, &*work.tops);
        let (total, len) = parts::collect(
            whole,
            parts,
            work.weights,
            work.offsets,
            |part, sums, offsets| {
                let (bins, _) = part.maxima(bins, tops);
                nucleus::weigh_blocks(level, part.row, bins, temper, least, (sums, offsets))
            },
            |a, b| a + b,
        );
        let remainder = self.remainder(total);
        let index = nucleus::draw_by_blocks(level, self.row, &work.weights[..len], temper, least, remainder)
            .expect("the remainder is below the sum of the kept weights");
        Drawn { index, remainder, weighed: Weighed::Row { temper, least } }
    }

    /// With top-p.
    fn draw_from_row(
        &self,
        whole: Part<'a>,
        parts: usize,
        temper: Temper,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let level = self.level;
        let (guess, hint) =
            nucleus::estimate(level, self.row, work.tops, temper, self.params, work.weights, work.spare);
        let (bins, tops) = (&*work.bins, &*work.tops);
        for least in [guess, 1] {
            let (sums, len) = parts::collect(
                whole,
                parts,
                work.weights,
                work.offsets,
                |part, values, offsets| {
                    let maxima = part.maxima(bins, tops);
                    nucleus::weigh_and_collect(
                        level,
                        part.row,
                        part.layout.group,
                        maxima,
                        temper,
                        least,
                        (values, offsets),
                    )
                },
                |a, b| a.and(b),
            );
            pad(work.weights, len);
            let weights = &work.weights[..len.next_multiple_of(LANES)];
            let found = nucleus::nucleus(
                level,
                weights,
                work.spare,
                least,
                hint,
                (sums.collected, sums.all),
                self.params,
            );
            if let Some(found) = found {
                let remainder = self.remainder(found.measure);
                let position = nucleus::draw(level, weights, found.threshold, remainder);
                let position = position.expect("the remainder is below the sum of the kept weights");
                let index = nucleus::locate(level, self.row, work.offsets, temper, least, position);
                return Drawn { index, remainder, weighed: Weighed::Row { temper, least: found.threshold } };
            }
        }
        unreachable!("the second round collects every weight")
    }
}

fn cleaned_key(value: f32) -> i32 {
    order_key(Scalar, clean(Scalar, value.to_bits() as i32))
}
