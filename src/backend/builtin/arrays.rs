//! The wide answers of a row, for callers that want to see them.

use fearless_simd::Level;

use super::nucleus::{write_weights, Temper};
use super::scratch::Workspace;
use super::select::{indices, Kept};
use crate::batch::CallOptions;
use crate::dtype::Logits;
use crate::outputs::RowArrays;
use crate::semantics::arith::Scalar;
use crate::semantics::clean::{clean, NEG_INF_BITS};
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// What the row's passes decided.
pub(super) struct Chosen {
    /// 0 where top-k is off.
    pub(super) k: usize,
    /// With top-k on: the bound, the number of entries collected, and which of them stay.
    pub(super) collected: Option<(f32, usize, Kept)>,
    pub(super) weighed: Weighed,
}

/// Where the kept weights are to be had.
#[derive(Clone, Copy)]
pub(super) enum Weighed {
    /// The row has no candidate.
    Nothing,
    /// All weight lies on this index.
    Only(usize),
    /// Beside the collected keys, where at least `least`.
    Collected { least: i32 },
    /// To be computed from the logits, where at least `least`.
    Row { temper: Temper, least: i32 },
}

/// Fills the arrays that are wanted. `row` is `original` or its cleaned copy.
pub(super) fn write(
    level: Level,
    row: Logits<'_>,
    original: Logits<'_>,
    options: CallOptions,
    chosen: &Chosen,
    work: Workspace<'_>,
    arrays: &mut RowArrays<'_>,
) {
    let replace = original.dtype().round(options.replace_val);
    let slots = arrays.slots();
    if let Some(out) = &mut arrays.indices_k {
        out.fill(-1);
    }
    if let Some(out) = &mut arrays.topk_logits_k {
        out.fill(replace);
    }
    if let Some(out) = &mut arrays.weights_k {
        out.fill(0);
    }
    let mut slot = 0;
    let mut fill_slot = |arrays: &mut RowArrays<'_>, index: usize, weight: i32| {
        if slot == slots {
            return;
        }
        if let Some(out) = &mut arrays.indices_k {
            out[slot] = index as i32;
        }
        if let Some(out) = &mut arrays.topk_logits_k {
            out.set(slot, original.dtype().clean(original.bits(index)));
        }
        if let Some(out) = &mut arrays.weights_k {
            out[slot] = weight;
        }
        slot += 1;
    };

    let Some((bound, len, kept)) = chosen.collected else {
        if let Some(out) = &mut arrays.topk_logits {
            (0..row.len()).for_each(|i| out.set(i, original.dtype().clean(original.bits(i))));
        }
        if let Some(out) = &mut arrays.weights {
            match chosen.weighed {
                Weighed::Row { temper, least } => write_weights(level, row, temper, least, out),
                Weighed::Only(index) => {
                    out.fill(0);
                    out[index] = MAX_WEIGHT;
                }
                _ => out.fill(0),
            }
        }
        (0..row.len().min(slots)).for_each(|i| fill_slot(arrays, i, weight_at(row, i, chosen.weighed)));
        return;
    };

    if let Some(out) = &mut arrays.topk_logits {
        out.fill(replace);
    }
    if let Some(out) = &mut arrays.weights {
        out.fill(0);
    }
    let mut put = |index: usize, weight: i32| {
        if let Some(out) = &mut arrays.topk_logits {
            out.set(index, original.dtype().clean(original.bits(index)));
        }
        if let Some(out) = &mut arrays.weights {
            out[index] = weight;
        }
        fill_slot(arrays, index, weight);
    };
    indices(level, row, work.offsets, bound, len, work.spare);
    let mut entries = (0..len).filter_map(|position| {
        let (key, index) = (work.keys[position], work.spare[position] as usize);
        let stays = key > kept.threshold || (key == kept.threshold && position <= kept.last);
        stays.then(|| {
            let weight = match chosen.weighed {
                Weighed::Collected { least } if work.weights[position] >= least => work.weights[position],
                Weighed::Only(only) if only == index => MAX_WEIGHT,
                _ => 0,
            };
            (index, weight)
        })
    });
    if len >= chosen.k {
        entries.for_each(|(index, weight)| put(index, weight));
        return;
    }
    // The collected entries are all that are above −inf; the first of those that are −inf make up the k.
    let mut missing = if options.stable { chosen.k - len } else { usize::MAX };
    let mut entry = entries.next();
    for index in 0..row.len() {
        if let Some((_, weight)) = entry.filter(|&(at, _)| at == index) {
            put(index, weight);
            entry = entries.next();
        } else if missing > 0 && is_neg_inf(row, index) {
            put(index, 0);
            missing -= 1;
        }
    }
}

fn is_neg_inf(row: Logits<'_>, index: usize) -> bool {
    clean(Scalar, row.dtype().widen(row.bits(index)) as i32) == NEG_INF_BITS
}

fn weight_at(row: Logits<'_>, index: usize, weighed: Weighed) -> i32 {
    match weighed {
        Weighed::Row { temper, least } => {
            let x = f32::from_bits(clean(Scalar, row.dtype().widen(row.bits(index)) as i32) as u32);
            let weight = weight(Scalar, quantize(Scalar, temper.max, x, temper.scale));
            if weight >= least {
                weight
            } else {
                0
            }
        }
        Weighed::Only(only) if only == index => MAX_WEIGHT,
        _ => 0,
    }
}
