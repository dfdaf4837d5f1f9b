//! Logits on a device: turns raw arguments into calls and their results.

use std::sync::Arc;

use libc::c_void;

use super::arrays::Array;
use super::callbacks::check_outside;
use super::enums::{check_reserved, device_result, dtype, entry, flag, host_numbers, wanted, DeviceResult};
use super::handle::{self, Opaque};
use super::memory::Memory;
use super::objects::{CallObject, ParametersObject};
use super::options::{call_options_of, flagged};
use super::pointers::{bad, check_pointer, Result};
use super::structs::read_struct;
use super::types::*;
use crate::backend::pjrt::device_call::{DeviceCall, DeviceWants, HostNumbers, HostResults};
use crate::batch::RowSettings;
use crate::error::Error;
use crate::outputs::RowOutcome;
use crate::pjrt::Buffer;

/// Destroys an object, unless this thread runs a callback: see [`check_outside`].
///
/// # Safety
/// As for [`handle::destroy`].
pub(super) unsafe fn destroy<O: Opaque>(pointer: *mut O, function: &str) -> Result<()> {
    if pointer.is_null() {
        return Ok(());
    }
    check_outside(O::NAME, function)?;
    // SAFETY: the same contract.
    unsafe { handle::destroy(pointer) }
}

/// # Safety
/// As for `nuc_parameters_create`.
pub(super) unsafe fn create_parameters(
    memory: &mut Memory,
    sampler: *const nuc_sampler,
    options: *const nuc_parameters_options,
) -> Result<ParametersObject> {
    // SAFETY: the caller guarantees the handle and the struct.
    let (sampler, options) = unsafe { (handle::borrow(sampler)?.sampler(), read_struct(memory, options)?) };
    let call_options = call_options_of(options.keep_ties, options.use_replace_val, options.replace_val)?;
    call_options.check()?;
    let dtype = dtype(options.dtype)?;
    memory.check_overlap()?;
    let parameters = sampler.device_parameters(options.num_rows, options.vocab, dtype, call_options)?;
    Ok(ParametersObject { parameters, sampler: sampler.clone() })
}

/// # Safety
/// `row_parameters` points to a nuc_row_parameters.
pub(super) unsafe fn row_settings(
    memory: &mut Memory,
    row_parameters: *const nuc_row_parameters,
) -> Result<RowSettings> {
    // SAFETY: the same contract.
    let row = unsafe { read_struct(memory, row_parameters)? };
    let defaults = RowSettings::default();
    let top_p = flagged(row.use_top_p, "use_top_p", row.top_p, "top_p")?;
    let temperature = flagged(row.use_temperature, "use_temperature", row.temperature, "temperature")?;
    Ok(RowSettings {
        top_k: row.top_k,
        top_p: top_p.unwrap_or(defaults.top_p),
        min_p: row.min_p,
        temperature: temperature.unwrap_or(defaults.temperature),
        seed: row.seed,
        offset: row.offset,
    })
}

/// # Safety
/// `options` is null or points to a nuc_start_options.
pub(super) unsafe fn start_options(
    memory: &mut Memory,
    options: *const nuc_start_options,
) -> Result<DeviceWants> {
    if options.is_null() {
        return Ok(DeviceWants::default());
    }
    // SAFETY: not null; the caller guarantees the struct.
    let options = unsafe { read_struct(memory, options)? };
    check_reserved(options.reserved, "reserved", "nuc_start_options.reserved")?;
    Ok(DeviceWants {
        host: host_numbers(options.host_numbers)?,
        wide: wanted(options.debug_arrays)?,
        donate_logits: flag(options.donate_logits, "donate_logits")?,
    })
}

/// The arguments that start a call.
pub(super) struct Start {
    pub(super) sampler: *const nuc_sampler,
    pub(super) path: nuc_path,
    pub(super) logits: *mut c_void,
    pub(super) parameters: *const nuc_parameters,
    pub(super) step: u64,
}

impl Start {
    /// # Safety
    /// As for `nuc_sample_start`.
    pub(super) unsafe fn run(&self, wants: DeviceWants) -> Result<CallObject> {
        // SAFETY: the caller guarantees the handles.
        let (sampler, parameters) =
            unsafe { (handle::borrow(self.sampler)?.sampler(), handle::borrow(self.parameters)?) };
        if !Arc::ptr_eq(sampler, &parameters.sampler) {
            return bad(
                "parameters",
                format!(
                    "parameters is {:p}, which belongs to another sampler than {:p}; create it with this sampler",
                    self.parameters, self.sampler
                ),
            );
        }
        let entry = entry(self.path)?;
        check_pointer(self.logits.cast::<usize>(), "logits")?;
        let client = sampler.client().ok_or_else(|| Error::Internal("parameters without a client".into()))?;
        // SAFETY: the caller guarantees a live buffer of this client for the duration of the call. The started call
        // does not use it.
        let logits = unsafe { Buffer::borrow(client, self.logits.cast())? };
        let call = sampler.start(entry, &logits, &parameters.parameters, self.step, wants)?;
        Ok(CallObject { call, wants, _sampler: sampler.clone() })
    }

    /// The number of rows of the batch.
    ///
    /// # Safety
    /// As for `nuc_sample_start`.
    pub(super) unsafe fn rows(&self) -> Result<usize> {
        // SAFETY: the caller guarantees the handle.
        Ok(unsafe { handle::borrow(self.parameters)? }.parameters.rows())
    }
}

/// Checks that a function may wait for a call. It may wait if the call has ended, or if this thread runs no callback.
pub(super) fn check_may_wait(call: &DeviceCall, function: &str) -> Result<()> {
    match call.is_done() {
        true => Ok(()),
        false => check_outside("call", function),
    }
}

/// The arrays for the tokens and the statuses of the rows.
pub(super) struct TokenArrays {
    tokens: Array<i32>,
    row_status: Array<u32>,
}

impl TokenArrays {
    pub(super) fn new(
        memory: &mut Memory,
        rows: usize,
        tokens: *mut i32,
        row_status: *mut u32,
    ) -> Result<TokenArrays> {
        check_pointer(tokens, "tokens")?;
        let tokens = Array::written(memory, "tokens", tokens, Some(rows))?;
        let row_status = Array::written(memory, "row_status", row_status, Some(rows))?;
        memory.check_overlap()?;
        Ok(TokenArrays { tokens, row_status })
    }

    /// Waits for the call and writes its results.
    ///
    /// # Safety
    /// As for [`Array::get_mut`].
    pub(super) unsafe fn write(self, object: &CallObject) -> Result<()> {
        check_on_host(object)?;
        // SAFETY: the same contract.
        let (tokens, status) =
            unsafe { (self.tokens.get_mut().unwrap_or_default(), self.row_status.get_mut()) };
        if status.is_some() && object.wants.host != HostNumbers::All {
            return bad(
                "row_status",
                "row_status is set and the call was started with NUC_HOST_TOKENS; set it to null, or start the call \
                 with NUC_HOST_ALL",
            );
        }
        match &*object.call.results()? {
            HostResults::Tokens(from) => tokens.copy_from_slice(from),
            HostResults::Outcomes(outcomes) => {
                fill(Some(tokens), outcomes, |outcome| outcome.next_token);
                fill(status, outcomes, |outcome| outcome.status);
            }
        }
        Ok(())
    }
}

fn fill<T>(array: Option<&mut [T]>, outcomes: &[RowOutcome], value: impl Fn(&RowOutcome) -> T) {
    for (slot, outcome) in array.into_iter().flatten().zip(outcomes) {
        *slot = value(outcome);
    }
}

fn check_on_host(object: &CallObject) -> Result<()> {
    match object.wants.host {
        HostNumbers::None => bad(
            "call",
            "call was started with NUC_HOST_NONE, so its numbers stay on the device; start it without",
        ),
        HostNumbers::Tokens | HostNumbers::All => Ok(()),
    }
}

/// Waits for a call and writes its debug arrays with one number per row.
///
/// # Safety
/// As for `nuc_call_get_numbers`.
pub(super) unsafe fn write_numbers(
    memory: &mut Memory,
    object: &CallObject,
    debug: *const nuc_debug_arrays,
) -> Result<()> {
    // SAFETY: the caller guarantees the struct.
    let debug = unsafe { read_struct(memory, debug)? };
    check_no_wide_arrays(&debug)?;
    if object.wants.host != HostNumbers::All {
        return bad("call", "call was started without all numbers on the host; start it with NUC_HOST_ALL");
    }
    let rows = Some(object.call.rows());
    let (high, low) = (debug.random_unnorm_cdf_sampled_high, debug.random_unnorm_cdf_sampled_low);
    let greedy = Array::written(memory, "greedy_sampled", debug.greedy_sampled, rows)?;
    let high = Array::written(memory, "random_unnorm_cdf_sampled_high", high, rows)?;
    let low = Array::written(memory, "random_unnorm_cdf_sampled_low", low, rows)?;
    let next = Array::written(memory, "next_tokens", debug.next_tokens, rows)?;
    memory.check_overlap()?;
    let results = object.call.results()?;
    let HostResults::Outcomes(outcomes) = &*results else {
        return Err(Error::Internal("a call has only the tokens instead of all numbers".into()));
    };
    // SAFETY: the overlap check has passed, and the caller guarantees the memory.
    unsafe {
        fill(greedy.get_mut(), outcomes, |outcome| outcome.greedy_sampled);
        fill(high.get_mut(), outcomes, |outcome| (outcome.random_unnorm_cdf_sampled >> 32) as u32);
        fill(low.get_mut(), outcomes, |outcome| outcome.random_unnorm_cdf_sampled as u32);
        fill(next.get_mut(), outcomes, |outcome| outcome.next_token);
    }
    Ok(())
}

fn check_no_wide_arrays(debug: &nuc_debug_arrays) -> Result<()> {
    let wide = [
        ("topk_logits_unsorted", debug.topk_logits_unsorted.is_null()),
        ("topk_topp_unnorm_probs_i32_unsorted", debug.topk_topp_unnorm_probs_i32_unsorted.is_null()),
        ("topk_indices_k", debug.topk_indices_k.is_null()),
        ("topk_logits_k", debug.topk_logits_k.is_null()),
        ("topk_topp_unnorm_probs_i32_k", debug.topk_topp_unnorm_probs_i32_k.is_null()),
    ];
    match wide.into_iter().find(|(_, is_null)| !is_null) {
        Some((name, _)) => bad(
            name,
            format!("{name} is set; it must be null, because this array is on the device: use nuc_call_take_buffer"),
        ),
        None => Ok(()),
    }
}

/// Takes a result of a call as a buffer that the caller destroys.
pub(super) fn take_buffer(object: &CallObject, which: nuc_buffer) -> Result<*mut c_void> {
    let wide = object.wants.wide;
    let (logits, weights) = (usize::from(wide.topk_logits), usize::from(wide.weights));
    let result = device_result(which)?;
    let (is_wanted, number, bit) = match result {
        DeviceResult::Tokens => (true, 0, ""),
        DeviceResult::TopkLogits => (wide.topk_logits, 0, "NUC_DEBUG_TOPK_LOGITS"),
        DeviceResult::Weights => (wide.weights, logits, "NUC_DEBUG_TOPK_TOPP_PROBS"),
        DeviceResult::Slice(slice) => (wide.slices, logits + weights + slice, "NUC_DEBUG_K_SLICES"),
    };
    if !is_wanted {
        return bad(
            "which",
            format!("which is {which}, a debug array that was not requested; start the call with {bit}"),
        );
    }
    let taken = match result {
        DeviceResult::Tokens => object.call.take_tokens_buffer(),
        _ => object.call.take_wide_buffer(number),
    };
    match taken {
        Some(buffer) => Ok(buffer.into_raw().cast()),
        None => bad("which", format!("which is {which}, a buffer that was already taken; take it once")),
    }
}
