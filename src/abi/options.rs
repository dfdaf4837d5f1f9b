//! Options structs: their defaults, and the checked options that they ask for.

use std::mem::{size_of, MaybeUninit};

use super::enums::*;
use super::pointers::{bad, check_pointer, path, string, Result};
use super::structs::read_struct;
use super::types::*;
use crate::batch::{check_vocab, CallOptions};
use crate::compile_ahead::AheadOptions;
use crate::pjrt::OptionValue;
use crate::plan::{CallShape, DEFAULT_MAX_K};
use crate::sampler::{BackendChoice, SamplerOptions};

const BACKEND_AUTO: i32 = nuc_backend::NUC_BACKEND_AUTO as i32;
const BACKEND_BUILTIN: i32 = nuc_backend::NUC_BACKEND_BUILTIN as i32;
const BACKEND_PJRT: i32 = nuc_backend::NUC_BACKEND_PJRT as i32;
const OPTION_STRING: i32 = nuc_option_type::NUC_OPTION_STRING as i32;
const OPTION_INT64: i32 = nuc_option_type::NUC_OPTION_INT64 as i32;
const OPTION_FLOAT: i32 = nuc_option_type::NUC_OPTION_FLOAT as i32;
const OPTION_BOOL: i32 = nuc_option_type::NUC_OPTION_BOOL as i32;

/// Default sampler options as the C struct.
pub(super) fn default_sampler_options() -> nuc_sampler_options {
    let defaults = SamplerOptions::default();
    nuc_sampler_options {
        struct_size: size_of::<nuc_sampler_options>(),
        backend: BACKEND_AUTO,
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

/// Default options of compiling ahead as the C struct.
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
        dtype: DTYPE_F32,
        path: PATH_AUTO,
        stable: 1,
        wide_arrays: 0,
        smaller_batches: 0,
        reserved: 0,
        programs_written: std::ptr::null_mut(),
    }
}

/// Default call options as the C struct.
pub(super) fn default_call_options() -> nuc_call_options {
    let defaults = CallOptions::default();
    nuc_call_options {
        struct_size: size_of::<nuc_call_options>(),
        stable: i32::from(defaults.stable),
        replace_val: defaults.replace_val,
    }
}

/// Options for a plugin, of the field named `list`.
///
/// # Safety
/// `options` is null or points to `count` options with terminated strings.
unsafe fn named_options(
    options: *const nuc_client_option,
    count: usize,
    list: &str,
) -> Result<Vec<(String, OptionValue)>> {
    if count > 1024 {
        return bad(format!("num_{list} is {count}; at most 1024 are taken"));
    }
    let mut values = Vec::new();
    if count > 0 {
        check_pointer(options, list)?;
        // SAFETY: not null, aligned, and the caller vouches for `count` elements.
        let given = unsafe { std::slice::from_raw_parts(options, count) };
        for (i, option) in given.iter().enumerate() {
            // SAFETY: the caller vouches for a terminated string.
            let name = unsafe { string(option.name, &format!("{list}[{i}].name"))? };
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                return bad(format!("{list}[{i}].name is null or empty"));
            };
            let value = match option.r#type {
                OPTION_STRING => {
                    // SAFETY: as above; where the type is another, this field may hold anything.
                    let text = unsafe { string(option.string_value, &format!("{list}[{i}].string_value"))? };
                    let Some(text) = text else {
                        return bad(format!("{list}[{i}].string_value is null, and its type is a string"));
                    };
                    OptionValue::Str(text.to_owned())
                }
                OPTION_INT64 => OptionValue::I64(option.int64_value),
                OPTION_FLOAT => OptionValue::F32(option.float_value),
                OPTION_BOOL => OptionValue::Bool(option.int64_value != 0),
                other => return bad(format!("{list}[{i}].type is {other}; use a nuc_option_type, 0 to 3")),
            };
            if option.reserved != [0; 2] {
                return bad(format!(
                    "{list}[{i}].reserved is not zero; zero the struct before setting fields"
                ));
            }
            values.push((name.to_owned(), value));
        }
    }
    Ok(values)
}

/// # Safety
/// As the header says of `nuc_sampler_create`.
pub(super) unsafe fn sampler_options(options: *const nuc_sampler_options) -> Result<SamplerOptions> {
    if options.is_null() {
        return Ok(SamplerOptions::default());
    }
    let defaults = default_sampler_options();
    // SAFETY: not null; the caller vouches for struct_size.
    let options = unsafe { read_struct(options, defaults)? };
    let backend = match options.backend {
        BACKEND_AUTO => BackendChoice::Auto,
        BACKEND_BUILTIN => BackendChoice::Builtin,
        BACKEND_PJRT => BackendChoice::Pjrt,
        other => return bad(format!("backend is {other}; use a nuc_backend, 0 to 2")),
    };
    let device = usize::try_from(options.device_index)
        .or_else(|_| bad(format!("device_index is {}; it must be at least 0", options.device_index)))?;
    if options.num_threads > 4096 {
        return bad(format!("num_threads is {}; use 0 for one a core, or at most 4096", options.num_threads));
    }
    // SAFETY: the caller vouches for the options and their strings.
    let client_options =
        unsafe { named_options(options.client_options, options.num_client_options, "client_options")? };
    let write_programs = flag(options.write_programs, "write_programs")?;
    if options.reserved != 0 {
        return bad(format!(
            "nuc_sampler_options.reserved is {}; fill the struct with nuc_sampler_options_init",
            options.reserved
        ));
    }
    // SAFETY: the caller vouches for a terminated string.
    let (plugin, program_dir) =
        unsafe { (path(options.plugin_path, "plugin_path")?, path(options.program_dir, "program_dir")?) };
    Ok(SamplerOptions {
        backend,
        plugin,
        client_options,
        device,
        max_k: options.max_k,
        cache_capacity: options.cache_capacity,
        num_threads: options.num_threads,
        program_dir,
        write_programs,
    })
}

/// # Safety
/// As the header says of `nuc_prewarm`.
pub(super) unsafe fn prewarm_spec(spec: *const nuc_prewarm_spec) -> Result<CallShape> {
    // SAFETY: every field is an integer, for which zero is valid.
    let zero = unsafe { MaybeUninit::<nuc_prewarm_spec>::zeroed().assume_init() };
    // SAFETY: the caller vouches for struct_size.
    let spec = unsafe { read_struct(spec, zero)? };
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

/// The options, and where the number of programs goes: null, or aligned.
///
/// # Safety
/// As the header says of `nuc_compile_ahead`.
pub(super) unsafe fn ahead_options(
    options: *const nuc_compile_ahead_options,
) -> Result<(AheadOptions, *mut usize)> {
    // SAFETY: the caller vouches for struct_size.
    let options = unsafe { read_struct(options, default_compile_ahead_options())? };
    if options.reserved != 0 {
        return bad(format!(
            "nuc_compile_ahead_options.reserved is {}; fill the struct with nuc_compile_ahead_options_init",
            options.reserved
        ));
    }
    if options.num_batches == 0 || options.num_batches > 4096 {
        return bad(format!("num_batches is {}; it must be 1 to 4096", options.num_batches));
    }
    check_pointer(options.batches, "batches")?;
    if !options.programs_written.is_null() {
        check_pointer(options.programs_written, "programs_written")?;
    }
    // SAFETY: not null, aligned, and the caller vouches for the elements and for the strings.
    let (batches, plugin, topology, plugin_options, output_dir) = unsafe {
        (
            std::slice::from_raw_parts(options.batches, options.num_batches).to_vec(),
            path(options.plugin_path, "plugin_path")?,
            string(options.topology, "topology")?,
            named_options(options.plugin_options, options.num_plugin_options, "plugin_options")?,
            path(options.output_dir, "output_dir")?,
        )
    };
    let Some(output_dir) = output_dir else {
        return bad("output_dir is null or empty; it must name a folder for the programs");
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
        ..AheadOptions::new(output_dir, batches, calls)
    };
    Ok((ahead, options.programs_written))
}
