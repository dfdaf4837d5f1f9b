//! Integers in C structs that represent enumerators, flags and bits.

use std::fmt::Debug;

use super::pointers::{bad, Result};
use super::types::*;
use crate::backend::pjrt::device_call::HostNumbers;
use crate::dtype::Dtype;
use crate::kernels::Wanted;
use crate::plan::Entry;
use crate::sampler::BackendChoice;

/// Looks up the meaning of `value` in `enumeration`. `place` is the path of the value inside the argument `name`.
fn lookup<T: Copy>(
    value: i32,
    name: &'static str,
    place: &str,
    enumeration: &str,
    known: &[(i32, T)],
) -> Result<T> {
    match known.iter().find(|(enumerator, _)| *enumerator == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let last = known.len() - 1;
            bad(name, format!("{place} is {value}; it must be a {enumeration}, 0 to {last}"))
        }
    }
}

pub(super) fn backend(value: nuc_backend) -> Result<BackendChoice> {
    let known = [
        (NUC_BACKEND_AUTO, BackendChoice::Auto),
        (NUC_BACKEND_BUILTIN, BackendChoice::Builtin),
        (NUC_BACKEND_PJRT, BackendChoice::Pjrt),
    ];
    lookup(value, "backend", "backend", "nuc_backend", &known)
}

pub(super) fn dtype(value: nuc_dtype) -> Result<Dtype> {
    let known = [(NUC_DTYPE_F32, Dtype::F32), (NUC_DTYPE_BF16, Dtype::Bf16), (NUC_DTYPE_F16, Dtype::F16)];
    lookup(value, "dtype", "dtype", "nuc_dtype", &known)
}

pub(super) fn entry(value: nuc_path) -> Result<Entry> {
    let known = [
        (NUC_PATH_AUTO, Entry::Automatic),
        (NUC_PATH_ARBITRARY, Entry::Arbitrary),
        (NUC_PATH_BOUNDED, Entry::Bounded),
    ];
    lookup(value, "path", "path", "nuc_path", &known)
}

pub(super) fn host_numbers(value: nuc_host_numbers) -> Result<HostNumbers> {
    let known = [
        (NUC_HOST_TOKENS, HostNumbers::Tokens),
        (NUC_HOST_ALL, HostNumbers::All),
        (NUC_HOST_NONE, HostNumbers::None),
    ];
    lookup(value, "host_numbers", "host_numbers", "nuc_host_numbers", &known)
}

/// Returns whether the logits are on the device.
pub(super) fn is_on_device(value: nuc_logits_place) -> Result<bool> {
    let known = [(NUC_LOGITS_ON_HOST, false), (NUC_LOGITS_ON_DEVICE, true)];
    lookup(value, "logits", "logits", "nuc_logits_place", &known)
}

/// A result of a device call.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum DeviceResult {
    Tokens,
    TopkLogits,
    Weights,
    /// The number of a k-slice.
    Slice(usize),
}

pub(super) fn device_result(value: nuc_buffer) -> Result<DeviceResult> {
    let known = [
        (NUC_BUFFER_TOKENS, DeviceResult::Tokens),
        (NUC_BUFFER_TOPK_LOGITS, DeviceResult::TopkLogits),
        (NUC_BUFFER_TOPK_TOPP_PROBS, DeviceResult::Weights),
        (NUC_BUFFER_TOPK_INDICES_K, DeviceResult::Slice(0)),
        (NUC_BUFFER_TOPK_LOGITS_K, DeviceResult::Slice(1)),
        (NUC_BUFFER_TOPK_TOPP_PROBS_K, DeviceResult::Slice(2)),
    ];
    lookup(value, "which", "which", "nuc_buffer", &known)
}

/// The field of a `nuc_client_option` that contains its value.
#[derive(Clone, Copy)]
pub(super) enum OptionType {
    String,
    Int64,
    Float,
    Bool,
}

/// `place` is the path of the option inside the argument `name`.
pub(super) fn option_type(value: nuc_option_type, name: &'static str, place: &str) -> Result<OptionType> {
    let known = [
        (NUC_OPTION_STRING, OptionType::String),
        (NUC_OPTION_INT64, OptionType::Int64),
        (NUC_OPTION_FLOAT, OptionType::Float),
        (NUC_OPTION_BOOL, OptionType::Bool),
    ];
    lookup(value, name, &format!("{place}.type"), "nuc_option_type", &known)
}

pub(super) fn flag(value: i32, name: &'static str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => bad(name, format!("{name} is {other}; it must be 0 or 1")),
    }
}

/// The debug arrays that change the programs.
pub(super) fn wanted(debug_arrays: u32) -> Result<Wanted> {
    let known = NUC_DEBUG_TOPK_LOGITS | NUC_DEBUG_TOPK_TOPP_PROBS | NUC_DEBUG_K_SLICES;
    if debug_arrays & !known != 0 {
        return bad(
            "debug_arrays",
            format!("debug_arrays is {debug_arrays:#x}; only the NUC_DEBUG_* bits may be set"),
        );
    }
    let wants = |bit| debug_arrays & bit != 0;
    Ok(Wanted {
        topk_logits: wants(NUC_DEBUG_TOPK_LOGITS),
        weights: wants(NUC_DEBUG_TOPK_TOPP_PROBS),
        slices: wants(NUC_DEBUG_K_SLICES),
    })
}

/// Checks that a reserved field is zero. `place` is the field in a struct, or in an element of the argument `name`.
pub(super) fn check_reserved<T: Debug + Default + PartialEq>(
    value: T,
    name: &'static str,
    place: &str,
) -> Result<()> {
    if value == T::default() {
        return Ok(());
    }
    bad(name, format!("{place} is {value:?}; it must be zero: initialize the struct with its _INIT macro"))
}
