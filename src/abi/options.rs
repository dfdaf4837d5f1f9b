//! Options structs: their defaults, and their conversion to checked options.

use std::mem::size_of;

use super::arrays::Array;
use super::enums::{backend, check_reserved, dtype, entry, flag, option_type, wanted};
use super::memory::Memory;
use super::pointers::{bad, path, string, Result};
use super::structs::{read_struct, zeroed};
use super::types::*;
use crate::batch::{check_vocab, CallOptions};
use crate::compile_ahead::AheadOptions;
use crate::pjrt::OptionValue;
use crate::plan::{CallShape, DEFAULT_MAX_K};
use crate::sampler::SamplerOptions;

/// The largest number of options for a plugin.
const LARGEST_NUM_OPTIONS: usize = 1024;
/// The largest number of batch sizes to compile for.
const LARGEST_NUM_BATCHES: usize = 4096;
/// The largest thread pool.
const LARGEST_NUM_THREADS: usize = 4096;

pub(super) fn default_sampler_options() -> nuc_sampler_options {
    let defaults = SamplerOptions::default();
    nuc_sampler_options {
        struct_size: size_of::<nuc_sampler_options>(),
        backend: nuc_backend::NUC_BACKEND_AUTO as i32,
        device_index: defaults.device as i32,
        plugin_path: std::ptr::null(),
        client_options: std::ptr::null(),
        num_client_options: 0,
        max_k: defaults.max_k,
        cache_capacity: defaults.cache_capacity,
        num_threads: defaults.num_threads,
        program_dir: std::ptr::null(),
        write_programs: i32::from(defaults.write_programs),
        reserved: 0,
    }
}

pub(super) fn default_call_options() -> nuc_call_options {
    let defaults = CallOptions::default();
    nuc_call_options {
        struct_size: size_of::<nuc_call_options>(),
        stable: i32::from(defaults.stable),
        replace_val: defaults.replace_val,
    }
}

pub(super) fn default_compile_ahead_options() -> nuc_compile_ahead_options {
    nuc_compile_ahead_options {
        struct_size: size_of::<nuc_compile_ahead_options>(),
        plugin_path: std::ptr::null(),
        topology: std::ptr::null(),
        plugin_options: std::ptr::null(),
        num_plugin_options: 0,
        output_dir: std::ptr::null(),
        batches: std::ptr::null(),
        num_batches: 0,
        vocab: 0,
        max_k: DEFAULT_MAX_K,
        dtype: nuc_dtype::NUC_DTYPE_F32 as i32,
        path: nuc_path::NUC_PATH_AUTO as i32,
        stable: i32::from(CallOptions::default().stable),
        wide_arrays: 0,
        smaller_batches: 0,
        reserved: 0,
        programs_written: std::ptr::null_mut(),
    }
}

/// # Safety
/// As for `nuc_sampler_create`.
pub(super) unsafe fn sampler_options(
    memory: &mut Memory,
    options: *const nuc_sampler_options,
) -> Result<SamplerOptions> {
    if options.is_null() {
        return Ok(SamplerOptions::default());
    }
    // SAFETY: not null; the caller guarantees struct_size.
    let options = unsafe { read_struct(memory, options, default_sampler_options())? };
    let advice = "initialize the struct with nuc_sampler_options_init";
    check_reserved("nuc_sampler_options.reserved", options.reserved, advice)?;
    let device = usize::try_from(options.device_index)
        .or_else(|_| bad(format!("device_index is {}; it must be at least 0", options.device_index)))?;
    if options.num_threads > LARGEST_NUM_THREADS {
        return bad(format!(
            "num_threads is {}; it must be at most {LARGEST_NUM_THREADS}, or 0 for one thread per core",
            options.num_threads
        ));
    }
    let (list, count) = (options.client_options, options.num_client_options);
    // SAFETY: the caller guarantees the options and the NUL-terminated strings.
    let (client_options, plugin, program_dir) = unsafe {
        (
            plugin_options(memory, "client_options", list, count)?,
            path(options.plugin_path, "plugin_path")?,
            path(options.program_dir, "program_dir")?,
        )
    };
    Ok(SamplerOptions {
        backend: backend(options.backend)?,
        plugin,
        client_options,
        device,
        max_k: options.max_k,
        cache_capacity: options.cache_capacity,
        num_threads: options.num_threads,
        program_dir,
        write_programs: flag(options.write_programs, "write_programs")?,
        program_dir_capacity: 0,
    })
}

/// # Safety
/// `options` is null or points to a `nuc_call_options`.
pub(super) unsafe fn call_options(
    memory: &mut Memory,
    options: *const nuc_call_options,
) -> Result<CallOptions> {
    if options.is_null() {
        return Ok(CallOptions::default());
    }
    // SAFETY: not null; the caller guarantees struct_size.
    let options = unsafe { read_struct(memory, options, default_call_options())? };
    // All bits must be zero: a caller passes -0.0 to say that the zeros are intended.
    if options.stable == 0 && options.replace_val.to_bits() == 0 {
        return bad(
            "nuc_call_options is zero (stable = 0, replace_val = 0), which looks like a struct that was not \
             initialized; initialize it with nuc_call_options_init, or, if stable = 0 is intended, set replace_val to \
             -0.0",
        );
    }
    Ok(CallOptions { stable: flag(options.stable, "stable")?, replace_val: options.replace_val })
}

/// # Safety
/// As for `nuc_prewarm`.
pub(super) unsafe fn prewarm_spec(memory: &mut Memory, spec: *const nuc_prewarm_spec) -> Result<CallShape> {
    // SAFETY: the caller guarantees struct_size.
    let spec = unsafe { read_struct(memory, spec, zeroed())? };
    check_vocab(spec.vocab)?;
    if spec.batch == 0 {
        return bad("batch is 0; it must be at least 1");
    }
    Ok(CallShape {
        entry: entry(spec.path)?,
        batch: spec.batch,
        vocab: spec.vocab,
        dtype: dtype(spec.dtype)?,
        stable: !flag(spec.unstable, "unstable")?,
        wanted: wanted(spec.wide_arrays)?,
    })
}

/// The options, and the array that receives the number of programs.
///
/// # Safety
/// As for `nuc_compile_ahead`.
pub(super) unsafe fn compile_ahead_options(
    memory: &mut Memory,
    options: *const nuc_compile_ahead_options,
) -> Result<(AheadOptions, Array<usize>)> {
    // SAFETY: the caller guarantees struct_size.
    let options = unsafe { read_struct(memory, options, default_compile_ahead_options())? };
    let advice = "initialize the struct with nuc_compile_ahead_options_init";
    check_reserved("nuc_compile_ahead_options.reserved", options.reserved, advice)?;
    if options.num_batches == 0 || options.num_batches > LARGEST_NUM_BATCHES {
        return bad(format!("num_batches is {}; it must be 1 to {LARGEST_NUM_BATCHES}", options.num_batches));
    }
    let batches = Array::read(memory, "batches", options.batches, Some(options.num_batches))?;
    let count = Array::written(memory, "programs_written", options.programs_written, Some(1))?;
    let (list, length) = (options.plugin_options, options.num_plugin_options);
    // SAFETY: the caller guarantees the options and the NUL-terminated strings.
    let (plugin, topology, plugin_options, output_dir) = unsafe {
        (
            path(options.plugin_path, "plugin_path")?,
            string(options.topology, "topology")?,
            plugin_options(memory, "plugin_options", list, length)?,
            path(options.output_dir, "output_dir")?,
        )
    };
    memory.check_overlap()?;
    // SAFETY: nothing that the call writes overlaps it; the caller guarantees the memory.
    let Some(batches) = (unsafe { batches.get() }) else {
        return bad("batches is null; it must point to num_batches batch sizes");
    };
    let Some(output_dir) = output_dir else {
        return bad("output_dir is null or empty; it must name a directory for the programs");
    };
    let calls = CallShape {
        entry: entry(options.path)?,
        batch: 1,
        vocab: options.vocab,
        dtype: dtype(options.dtype)?,
        stable: flag(options.stable, "stable")?,
        wanted: wanted(options.wide_arrays)?,
    };
    let ahead = AheadOptions {
        plugin,
        topology: topology.filter(|name| !name.is_empty()).map(str::to_owned),
        plugin_options,
        smaller_batches: flag(options.smaller_batches, "smaller_batches")?,
        max_k: options.max_k,
        ..AheadOptions::new(output_dir, batches.to_vec(), calls)
    };
    Ok((ahead, count))
}

/// The options for a plugin from the field `list`.
///
/// # Safety
/// `options` is null or points to `count` options with NUL-terminated strings.
unsafe fn plugin_options(
    memory: &mut Memory,
    list: &'static str,
    options: *const nuc_client_option,
    count: usize,
) -> Result<Vec<(String, OptionValue)>> {
    if count > LARGEST_NUM_OPTIONS {
        return bad(format!("num_{list} is {count}; it must be at most {LARGEST_NUM_OPTIONS}"));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let options = Array::read(memory, list, options, Some(count))?;
    memory.check_overlap()?;
    // SAFETY: nothing that the call writes overlaps it; the caller guarantees the memory.
    let Some(options) = (unsafe { options.get() }) else {
        return bad(format!("{list} is null; it must point to num_{list} = {count} options"));
    };
    let named = options.iter().enumerate().map(|(i, option)| {
        // SAFETY: the caller guarantees the strings.
        unsafe { plugin_option(option, &format!("{list}[{i}]")) }
    });
    named.collect()
}

/// # Safety
/// The name, and the string value if the type is a string, are null or NUL-terminated.
unsafe fn plugin_option(option: &nuc_client_option, place: &str) -> Result<(String, OptionValue)> {
    // SAFETY: the caller guarantees the string.
    let name = unsafe { string(option.name, &format!("{place}.name"))? };
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return bad(format!("{place}.name is null or empty; it must be the name of an option"));
    };
    let value = match option_type(option.r#type, &format!("{place}.type"))? {
        nuc_option_type::NUC_OPTION_STRING => {
            // SAFETY: the caller guarantees the string. The field is read only if the type is a string.
            let text = unsafe { string(option.string_value, &format!("{place}.string_value"))? };
            let Some(text) = text else {
                return bad(format!(
                    "{place}.string_value is null; the type is NUC_OPTION_STRING, so set it"
                ));
            };
            OptionValue::Str(text.to_owned())
        }
        nuc_option_type::NUC_OPTION_INT64 => OptionValue::I64(option.int64_value),
        nuc_option_type::NUC_OPTION_FLOAT => OptionValue::F32(option.float_value),
        nuc_option_type::NUC_OPTION_BOOL => OptionValue::Bool(option.int64_value != 0),
    };
    let advice = "set the struct to zero before setting fields";
    check_reserved(&format!("{place}.reserved"), option.reserved, advice)?;
    Ok((name.to_owned(), value))
}
