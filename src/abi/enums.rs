//! Integers that stand for enumerators, bits and flags: checked, and turned into Rust values.

use super::pointers::{bad, Result};
use super::types::*;
use crate::dtype::Dtype;
use crate::kernels::Wanted;
use crate::plan::Entry;

pub(super) const DTYPE_F32: i32 = nuc_dtype::NUC_DTYPE_F32 as i32;
const DTYPE_BF16: i32 = nuc_dtype::NUC_DTYPE_BF16 as i32;
const DTYPE_F16: i32 = nuc_dtype::NUC_DTYPE_F16 as i32;
pub(super) const PATH_AUTO: i32 = nuc_path::NUC_PATH_AUTO as i32;
const PATH_ARBITRARY: i32 = nuc_path::NUC_PATH_ARBITRARY as i32;
const PATH_BOUNDED: i32 = nuc_path::NUC_PATH_BOUNDED as i32;

pub(super) fn flag(value: i32, name: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => bad(format!("{name} is {other}; it must be 0 or 1")),
    }
}

pub(super) fn dtype(value: i32) -> Result<Dtype> {
    match value {
        DTYPE_F32 => Ok(Dtype::F32),
        DTYPE_BF16 => Ok(Dtype::Bf16),
        DTYPE_F16 => Ok(Dtype::F16),
        other => bad(format!("dtype is {other}; use a nuc_dtype, 0 to 2")),
    }
}

pub(super) fn entry(path: i32) -> Result<Entry> {
    match path {
        PATH_AUTO => Ok(Entry::Automatic),
        PATH_ARBITRARY => Ok(Entry::Arbitrary),
        PATH_BOUNDED => Ok(Entry::Bounded),
        other => bad(format!("path is {other}; use a nuc_path, 0 to 2")),
    }
}

pub(super) fn wanted(wide_arrays: u32) -> Result<Wanted> {
    let known = NUC_WIDE_TOPK_LOGITS | NUC_WIDE_PROBS | NUC_WIDE_K_SLICES;
    if wide_arrays & !known != 0 {
        return bad(format!("wide_arrays is {wide_arrays:#x}; only the NUC_WIDE_* bits may be set"));
    }
    let wants = |bit| wide_arrays & bit != 0;
    Ok(Wanted {
        topk_logits: wants(NUC_WIDE_TOPK_LOGITS),
        weights: wants(NUC_WIDE_PROBS),
        slices: wants(NUC_WIDE_K_SLICES),
    })
}
