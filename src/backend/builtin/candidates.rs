//! The first one or two passes over a row. They find the maximum and, with top-k, the entries that top-k may keep.

use super::bounds::{bound_of_key, key_of, Limit, LEAST_KEY};
use super::collect::{collect, scan_and_collect};
use super::collect_few::collect_few;
use super::lanes::LANES;
use super::layout::{Part, BIN, BLOCK};
use super::locate::{first_collected, first_in_row, index_of};
use super::page_output::Staging;
use super::pages::Pages;
use super::reaching::{scan_and_collect_reaching, Bounds, Reaching};
use super::row_kind::RowKind;
use super::row_task::{Collected, RowTask};
use super::scan::{scan, Summary};
use super::split::{split_collect, split_scan};
use super::strided_sample::{share_of_part, stride_of};
use super::top_k::{self, bound_from_maxima, keys_in_place, Estimate, Kept};
use super::weighing::WeightScale;
use super::workspace::Workspace;
use crate::semantics::arith::Scalar;
use crate::semantics::clean::clean;
use crate::semantics::rules::is_candidate;

/// Up to this k, the bound comes from the group maxima. That bound is always low enough. For a larger k, the bound
/// comes from a sample of the row where possible. If that bound is too high, the pass is repeated.
const LARGEST_K_BY_MAXIMA: usize = 384;
/// Up to this k, few enough entries usually reach the bound for [`collect_few`].
const LARGEST_FEW_K: usize = 160;

/// In a row without top-k, the backend first scans the first part of the row: its number of groups is that of the row,
/// divided by this number. The share of the logits of this part that may have a weight decides which pass reads the
/// row. The maximum of a longer part is closer to that of the row.
const FIRST_PART: usize = 6;
/// If the share is below this limit, most blocks have no logit with a weight. Then it is faster to scan the row first,
/// and to read only the other blocks again.
const LEAST_SHARE: f32 = 0.015;
/// Below this share, it is faster to collect the logits that may have a weight and weigh them than to weigh all logits.
pub(super) const LARGEST_SHARE: f32 = 0.85;

/// From this share on, a plain draw collects the logits in several pages. Below this share, a page has few
/// collected logits. Then weighing the padding takes more time than the pages save.
const LEAST_SHARE_FOR_PAGES: f32 = 0.2;

/// Below this share, a row with top-p is sampled from the weights of all logits that have a weight above 0. Above this
/// share, it is faster to compute bounds on the sum of the small weights than to compute the small weights.
pub(super) const LARGEST_SHARE_FOR_TOP_P: f32 = 0.2;

/// The results of these passes.
pub(super) struct Candidates {
    /// The maximum, cleaned; −inf if there is no candidate.
    pub(super) max: f32,
    /// The lowest index of the maximum.
    pub(super) greedy: Option<usize>,
    /// With top-k: the collected entries.
    pub(super) collected: Option<Collected>,
    /// Without top-k: the logits that may have a weight, if they were collected.
    pub(super) reaching: Option<Reaching>,
}

impl RowTask<'_> {
    /// Finds the maximum and collects the entries for top-k. Returns `None` if the row may hold NaN or +inf. The caller
    /// must then clean the row first.
    pub(super) fn find_candidates(&self, work: &mut Workspace<'_>) -> Option<Candidates> {
        let RowKind::TopK(k) = self.kind else { return self.scan_without_top_k(work) };
        let estimate = if k > LARGEST_K_BY_MAXIMA {
            top_k::estimate(self.level, self.row(), k, work.keys, work.spare)
        } else {
            None
        };
        match estimate {
            Some(estimate) => self.scan_by_estimate(estimate, k, work),
            None => self.scan_by_maxima(Some(k), work),
        }
    }

    /// Decides which of the collected entries top-k keeps. Replaces the bits of the entries in the workspace with their
    /// order keys.
    pub(super) fn keep(&self, k: usize, found: &Candidates, work: &mut Workspace<'_>) -> Option<Kept> {
        let collected = found.collected?;
        keys_in_place(self.level, work.keys, collected.len);
        if collected.len < k {
            // All candidates were collected. The remaining entries of the top k are −inf and have no weight.
            return Some(Kept::ALL);
        }
        let keys = &work.keys[..collected.len.next_multiple_of(LANES)];
        let range = (key_of(collected.limit.bound), collected.above, key_of(found.max));
        Some(top_k::keep(self.level, (keys, collected.len), work.spare, k, range, self.options.stable))
    }

    /// The maximum, cleaned, and its order key. `None` if the row may hold NaN or +inf.
    fn maximum(&self, summary: Summary) -> Option<(f32, i32)> {
        (self.plain || summary.is_plain()).then(|| {
            let bits = clean(Scalar, summary.max.to_bits() as i32);
            (f32::from_bits(bits as u32), key_of(summary.max))
        })
    }

    /// Scans the row. Depending on the share of the logits of a sample that may have a weight, the pass also collects
    /// these logits.
    fn scan_without_top_k(&self, work: &mut Workspace<'_>) -> Option<Candidates> {
        if self.kind == RowKind::Greedy || self.parts > 1 || stride_of(self.row().len()).is_none() {
            return self.scan_by_maxima(None, work);
        }
        let level = self.level;
        let scan_part = |part: Part<'_>, bins: &mut [f32], tops: &mut [f32]| {
            scan(level, part.row, part.layout.group, bins, tops)
        };
        let groups = self.whole.layout.groups().div_ceil(FIRST_PART);
        let [first, rest] = self.whole.split_at(groups);
        let (bins, rest_bins) = work.bins.split_at_mut(first.row.len() / BLOCK * BIN);
        let (tops, rest_tops) = work.tops.split_at_mut(groups * LANES);
        let summary = scan_part(first, bins, tops);
        let (max, _) = self.maximum(summary)?;
        let scale = WeightScale { max, scale: self.params.scale };
        let share = share_of_part(level, first.row, scale.floor(self.least_counted()));
        let largest = if self.kind == RowKind::TopP { LARGEST_SHARE_FOR_TOP_P } else { LARGEST_SHARE };
        if !(LEAST_SHARE..largest).contains(&share) {
            let summary = summary.and(scan_part(rest, rest_bins, rest_tops));
            let (max, key) = self.maximum(summary)?;
            let greedy = self.first_maximum(key, work);
            return Some(Candidates { max, greedy, collected: None, reaching: None });
        }
        let pages = if self.kind == RowKind::Plain && share >= LEAST_SHARE_FOR_PAGES {
            Pages::several(self.row(), work.weights)
        } else {
            Pages::one(self.row())
        };
        let arrays = (&mut *work.weights, &mut *work.offsets, &mut *work.counts);
        let least = self.least_counted();
        let (summary, reaching) =
            scan_and_collect_reaching(level, self.row(), scale, least, pages, arrays, work.tops);
        let (max, key) = self.maximum(summary)?;
        let greedy = reaching
            .first_maximum(level, (work.weights, work.counts), bound_of_key(key))
            .map(|position| Bounds::Chunks(work.tops).index_of(level, self.row(), work.offsets, position));
        let greedy = greedy.filter(|_| is_candidate(Scalar, key));
        Some(Candidates { max, greedy, collected: None, reaching: Some(reaching) })
    }

    /// The lowest index of the maximum, whose order key is `key`. `None` if the maximum is no candidate.
    fn first_maximum(&self, key: i32, work: &Workspace<'_>) -> Option<usize> {
        if !is_candidate(Scalar, key) {
            return None;
        }
        first_in_row(self.level, self.row(), self.whole.layout, work.tops, bound_of_key(key))
    }

    /// Scans the row. With top-k, a second pass collects the entries that reach a bound from the group maxima.
    fn scan_by_maxima(&self, k: Option<usize>, work: &mut Workspace<'_>) -> Option<Candidates> {
        let level = self.level;
        let summary = split_scan(self.whole, self.parts, work.bins, work.tops, |part, bins, tops| {
            scan(level, part.row, part.layout.group, bins, tops)
        });
        let (max, key) = self.maximum(summary)?;
        let bound = k.and_then(|k| bound_from_maxima(level, work.tops, k, work.keys, work.spare));
        if let Some((k, bound)) = k.zip(bound) {
            if let Some(collected) = self.collect_few_by_maxima(k, bound, work) {
                let position = first_collected(level, &work.keys[..collected.len], bound_of_key(key));
                let greedy = position.map(|position| work.indices[position] as usize);
                return Some(Candidates { max, greedy, collected: Some(collected), reaching: None });
            }
        }
        let greedy = self.first_maximum(key, work);
        let collected = k.map(|k| self.collect_by_maxima(k, bound, work));
        Some(Candidates { max, greedy, collected, reaching: None })
    }

    /// Collects the entries that reach the bound, with their indices. Returns `None` if there are too many.
    fn collect_few_by_maxima(&self, k: usize, bound: f32, work: &mut Workspace<'_>) -> Option<Collected> {
        if k > LARGEST_FEW_K || self.parts > 1 {
            return None;
        }
        let len = collect_few(self.level, self.row(), work.bins, bound, (work.keys, work.indices))?;
        Some(Collected { limit: Limit::fixed(bound), above: i32::MAX, len, indexed: true })
    }

    /// Collects the entries that reach the bound. Without a bound, collects all candidates.
    fn collect_by_maxima(&self, k: usize, bound: Option<f32>, work: &mut Workspace<'_>) -> Collected {
        let limit = self.limit(k, bound.unwrap_or_else(|| bound_of_key(LEAST_KEY)));
        let len = self.collect_reaching(limit, (work.bins, work.tops), work.keys, work.offsets);
        Collected { limit, above: i32::MAX, len, indexed: false }
    }

    /// Collects the elements that reach the limit. Returns their number. `bins` contains the maxima of all blocks, and
    /// `tops` those of all groups.
    pub(super) fn collect_reaching(
        &self,
        limit: Limit,
        (bins, tops): (&[f32], &[f32]),
        values: &mut [i32],
        offsets: &mut [u32],
    ) -> usize {
        let pass = |part: Part<'_>, values: &mut [i32], offsets: &mut [u32]| {
            let maxima = part.maxima(bins, tops);
            ((), collect(self.level, part.row, part.layout.group, maxima, limit, values, offsets))
        };
        split_collect(self.whole, self.parts, values, offsets, pass, |(), ()| ()).1
    }

    /// Returns the limit of a pass that collects the entries for top-k. If top-k keeps all ties, the pass collects all
    /// ties. A pass that is split into parts also collects all ties, because no part knows how many entries the other
    /// parts have collected.
    fn limit(&self, k: usize, bound: f32) -> Limit {
        if self.options.stable && self.parts <= 1 {
            Limit::of_first(k, bound)
        } else {
            Limit::fixed(bound)
        }
    }

    /// Scans the row and collects entries in one pass, with an estimated bound. If the estimate was too high, repeats
    /// the pass with the lowest bound.
    fn scan_by_estimate(&self, estimate: Estimate, k: usize, work: &mut Workspace<'_>) -> Option<Candidates> {
        let level = self.level;
        let limit = Limit::fixed(estimate.bound);
        let mut collected = Collected { limit, above: estimate.above, len: 0, indexed: false };
        let mut summary = Summary::EMPTY;
        for bound in [estimate.bound, bound_of_key(LEAST_KEY)] {
            let limit = self.limit(k, bound);
            let (found, len) = split_collect(
                self.whole,
                self.parts,
                work.keys,
                work.offsets,
                |part, values, offsets| {
                    let mut staging = Staging::if_faster(level);
                    scan_and_collect(level, part.row, limit, (values, offsets), staging.as_mut())
                },
                Summary::and,
            );
            (summary, collected) = (found, Collected { limit, len, ..collected });
            if !(self.plain || summary.is_plain()) || len >= k {
                break;
            }
        }
        let (max, key) = self.maximum(summary)?;
        let values = &work.keys[..collected.len];
        let greedy = first_collected(level, values, bound_of_key(key))
            .map(|position| index_of(level, self.row(), work.offsets, collected.limit, position));
        Some(Candidates { max, greedy, collected: Some(collected), reaching: None })
    }
}
