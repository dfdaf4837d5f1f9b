//! Writes the wide output arrays of a row, which are optional.

use super::bounds::key_of;
use super::locate::indices_of;
use super::row_kind::RowKind;
use super::row_task::{Choice, Collected, KeptWeights, RowTask};
use super::top_k::Kept;
use super::weighing::write_weights;
use super::workspace::Workspace;
use crate::dtype::Logits;
use crate::outputs::RowArrays;
use crate::semantics::arith::Scalar;
use crate::semantics::clean::clean;
use crate::semantics::rules::{is_candidate, kept_weight, row_weight, survives_top_k};
use crate::semantics::weights::{quantize, weight};

/// Writes the requested arrays.
pub(super) fn write(task: &RowTask<'_>, choice: &Choice, work: Workspace<'_>, arrays: &mut RowArrays<'_>) {
    match choice.top_k {
        None => write_all(task, choice.weights, arrays),
        Some((collected, kept)) => write_kept(task, collected, kept, choice.weights, work, arrays),
    }
}

/// Writes the arrays of a row without top-k. Every entry has a logit in the arrays.
fn write_all(task: &RowTask<'_>, weights: KeptWeights, arrays: &mut RowArrays<'_>) {
    let (row, original) = (task.row(), task.original);
    if let Some(out) = &mut arrays.topk_logits {
        (0..row.len()).for_each(|i| out.set(i, cleaned_bits(original, i)));
    }
    if let Some(out) = &mut arrays.weights {
        match weights {
            KeptWeights::Row { scale, least } => write_weights(task.level, row, scale, least, out),
            KeptWeights::Greedy(index) => {
                out.fill(0);
                out[index] = greedy_weight(true);
            }
            KeptWeights::None | KeptWeights::Collected { .. } => out.fill(0),
        }
    }
    let slots = arrays.slots();
    fill_slots(arrays, task);
    for i in 0..row.len().min(slots) {
        arrays.set_slot(i, i as i32, cleaned_bits(original, i), weight_at(row, i, weights));
    }
}

/// The weight of an entry of a row without top-k.
fn weight_at(row: Logits<'_>, index: usize, weights: KeptWeights) -> i32 {
    match weights {
        KeptWeights::Row { scale, least } => {
            let x = clean(Scalar, row.dtype().widen(row.bits(index)) as i32);
            let x = f32::from_bits(x as u32);
            kept_weight(Scalar, weight(Scalar, quantize(Scalar, scale.max, x, scale.scale)), least)
        }
        KeptWeights::Greedy(greedy) => greedy_weight(index == greedy),
        KeptWeights::None | KeptWeights::Collected { .. } => 0,
    }
}

/// The weight of an entry of a greedy row.
fn greedy_weight(is_greedy: bool) -> i32 {
    row_weight(Scalar, true, true, is_greedy, 0)
}

/// Writes the arrays of a row with top-k: the collected entries that top-k keeps.
///
/// If fewer than k entries were collected, the row has no other candidates, and top-k also keeps entries that are −inf.
/// With `stable = 1` it keeps the first of them, until there are k entries. With `stable = 0` it keeps all of them.
fn write_kept(
    task: &RowTask<'_>,
    collected: Collected,
    kept: Kept,
    weights: KeptWeights,
    work: Workspace<'_>,
    arrays: &mut RowArrays<'_>,
) {
    let RowKind::TopK(k) = task.kind else { unreachable!("only top-k collects entries") };
    let row = task.row();
    let indices = if collected.indexed {
        work.indices
    } else {
        indices_of(task.level, row, work.offsets, collected.limit, collected.len, work.spare);
        work.spare
    };
    let mut entries = (0..collected.len).filter_map(|position| {
        let (key, index) = (work.keys[position], indices[position] as usize);
        survives_top_k(Scalar, key, position as i32, kept.threshold, kept.last_tie).then(|| {
            let weight = match weights {
                KeptWeights::Collected { least } => kept_weight(Scalar, work.weights[position], least),
                KeptWeights::Greedy(greedy) => greedy_weight(index == greedy),
                KeptWeights::None | KeptWeights::Row { .. } => 0,
            };
            (index, weight)
        })
    });
    let mut writer = KeptWriter::new(task, arrays);
    if collected.len >= k {
        entries.for_each(|(index, weight)| writer.put(index, weight));
        return;
    }
    let mut missing = if task.options.stable { k - collected.len } else { usize::MAX };
    let mut entry = entries.next();
    for index in 0..row.len() {
        if let Some((_, weight)) = entry.filter(|&(at, _)| at == index) {
            writer.put(index, weight);
            entry = entries.next();
        } else if missing > 0 && !is_candidate(Scalar, key_at(row, index)) {
            writer.put(index, 0);
            missing -= 1;
        }
    }
}

/// Writes the kept entries in ascending order of their index. The arrays are first filled with the values of entries
/// that are not kept.
struct KeptWriter<'w, 'a> {
    original: Logits<'w>,
    arrays: &'w mut RowArrays<'a>,
    slot: usize,
    slots: usize,
}

impl<'w, 'a> KeptWriter<'w, 'a> {
    fn new(task: &RowTask<'w>, arrays: &'w mut RowArrays<'a>) -> Self {
        let original = task.original;
        if let Some(out) = &mut arrays.topk_logits {
            out.fill(original.dtype().round(task.options.replace_val));
        }
        if let Some(out) = &mut arrays.weights {
            out.fill(0);
        }
        fill_slots(arrays, task);
        let slots = arrays.slots();
        KeptWriter { original, arrays, slot: 0, slots }
    }

    fn put(&mut self, index: usize, weight: i32) {
        let logit = cleaned_bits(self.original, index);
        if let Some(out) = &mut self.arrays.topk_logits {
            out.set(index, logit);
        }
        if let Some(out) = &mut self.arrays.weights {
            out[index] = weight;
        }
        // With `stable = 0`, ties can make the number of kept entries larger than the number of slots.
        if self.slot < self.slots {
            self.arrays.set_slot(self.slot, index as i32, logit, weight);
            self.slot += 1;
        }
    }
}

/// Marks every slot of the k-slices as unused.
fn fill_slots(arrays: &mut RowArrays<'_>, task: &RowTask<'_>) {
    let replace = task.original.dtype().round(task.options.replace_val);
    for slot in 0..arrays.slots() {
        arrays.set_slot(slot, -1, replace, 0);
    }
}

/// The cleaned value of an entry, as bits of the logits' type.
fn cleaned_bits(original: Logits<'_>, index: usize) -> u32 {
    original.dtype().clean(original.bits(index))
}

fn key_at(row: Logits<'_>, index: usize) -> i32 {
    key_of(f32::from_bits(row.dtype().widen(row.bits(index))))
}
