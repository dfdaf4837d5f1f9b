//! Integers in C structs that represent enumerators, flags and bits.

use std::fmt::Debug;

use super::pointers::{bad, Result};
use super::types::*;
use crate::dtype::Dtype;
use crate::kernels::Wanted;
use crate::plan::Entry;
use crate::sampler::BackendChoice;

/// The meaning of the enumerator `value` of `enumeration`.
fn lookup<T: Copy>(value: i32, name: &str, enumeration: &str, known: &[(i32, T)]) -> Result<T> {
    match known.iter().find(|(enumerator, _)| *enumerator == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => bad(format!("{name} is {value}; it must be a {enumeration}, 0 to {}", known.len() - 1)),
    }
}

pub(super) fn backend(value: i32) -> Result<BackendChoice> {
    use nuc_backend::*;
    let known = [
        (NUC_BACKEND_AUTO as i32, BackendChoice::Auto),
        (NUC_BACKEND_BUILTIN as i32, BackendChoice::Builtin),
        (NUC_BACKEND_PJRT as i32, BackendChoice::Pjrt),
    ];
    lookup(value, "backend", "nuc_backend", &known)
}

pub(super) fn dtype(value: i32) -> Result<Dtype> {
    use nuc_dtype::*;
    let known = [
        (NUC_DTYPE_F32 as i32, Dtype::F32),
        (NUC_DTYPE_BF16 as i32, Dtype::Bf16),
        (NUC_DTYPE_F16 as i32, Dtype::F16),
    ];
    lookup(value, "dtype", "nuc_dtype", &known)
}

pub(super) fn entry(path: i32) -> Result<Entry> {
    use nuc_path::*;
    let known = [
        (NUC_PATH_AUTO as i32, Entry::Automatic),
        (NUC_PATH_ARBITRARY as i32, Entry::Arbitrary),
        (NUC_PATH_BOUNDED as i32, Entry::Bounded),
    ];
    lookup(path, "path", "nuc_path", &known)
}

pub(super) fn option_type(value: i32, name: &str) -> Result<nuc_option_type> {
    use nuc_option_type::*;
    let known = [NUC_OPTION_STRING, NUC_OPTION_INT64, NUC_OPTION_FLOAT, NUC_OPTION_BOOL];
    lookup(value, name, "nuc_option_type", &known.map(|known| (known as i32, known)))
}

pub(super) fn flag(value: i32, name: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => bad(format!("{name} is {other}; it must be 0 or 1")),
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

/// Checks that a reserved field is zero. `advice` tells the caller how to achieve this.
pub(super) fn check_reserved<T: Debug + Default + PartialEq>(
    name: &str,
    value: T,
    advice: &str,
) -> Result<()> {
    if value == T::default() {
        return Ok(());
    }
    bad(format!("{name} is {value:?}; it must be zero: {advice}"))
}
