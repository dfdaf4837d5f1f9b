//! Converts options structs to checked options. A field that is zero has its default. Also converts timeouts.

use std::sync::Arc;
use std::time::Duration;

use libc::c_void;

use super::arrays::Array;
use super::enums::{
    backend, check_reserved, dtype, entry, flag, host_numbers, is_on_device, option_type, wanted, OptionType,
};
use super::memory::Memory;
use super::pointers::{bad, check_pointer, path, string, Result};
use super::structs::read_struct;
use super::types::*;
use crate::backend::pjrt::device_call::HostNumbers;
use crate::batch::{check_vocab, CallOptions};
use crate::compile_ahead::AheadOptions;
use crate::pjrt::{Client, OptionValue, Plugin};
use crate::plan::{check_rows, CallShape, LogitsPlace, DEFAULT_MAX_K, LARGEST_NUM_BUCKETS};
use crate::sampler::{SamplerOptions, DEFAULT_CACHE_CAPACITY};

/// The largest number of options for a plugin.
const LARGEST_NUM_OPTIONS: usize = 1024;
/// The largest number of row counts to compile for.
const LARGEST_NUM_ROW_COUNTS: usize = 4096;

/// A size from a field in which 0 means the default.
pub(super) fn or_default(value: usize, default: usize) -> usize {
    if value == 0 {
        default
    } else {
        value
    }
}

/// A timeout from an argument in nanoseconds. `None` means no limit, for which the argument is `u64::MAX`.
pub(super) fn timeout(timeout_ns: u64) -> Option<Duration> {
    (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns))
}

/// A client of the caller.
pub(super) struct CallersClient {
    api: *const c_void,
    client: *mut c_void,
}

impl CallersClient {
    /// Returns the client in the options. `None` if they contain no client.
    fn of(options: &nuc_sampler_options) -> Result<Option<CallersClient>> {
        let (api, client) = (options.pjrt_api, options.pjrt_client);
        let missing = |name: &'static str, other: &str| {
            bad(name, format!("{name} is null and {other} is not; set both, or neither"))
        };
        match (api.is_null(), client.is_null()) {
            (true, true) => return Ok(None),
            (true, false) => return missing("pjrt_api", "pjrt_client"),
            (false, true) => return missing("pjrt_client", "pjrt_api"),
            (false, false) => {}
        }
        check_pointer(api.cast::<usize>(), "pjrt_api")?;
        check_pointer(client.cast::<usize>(), "pjrt_client")?;
        if options.backend == NUC_BACKEND_BUILTIN {
            return bad(
                "backend",
                "backend is NUC_BACKEND_BUILTIN and pjrt_client is set; set pjrt_api and pjrt_client to null, or use \
                 another backend",
            );
        }
        if !options.plugin_path.is_null() {
            return bad(
                "plugin_path",
                "plugin_path and pjrt_client are both set; with a client, plugin_path must be null",
            );
        }
        if options.num_client_options != 0 {
            return bad(
                "num_client_options",
                format!(
                    "num_client_options is {} and pjrt_client is set; the client exists already, so it must be 0",
                    options.num_client_options
                ),
            );
        }
        Ok(Some(CallersClient { api, client }))
    }

    /// Wraps the client.
    ///
    /// # Safety
    /// The pointers meet the requirements in the comments of `nuc_sampler_options`.
    pub(super) unsafe fn borrow(&self) -> Result<Arc<Client>> {
        // SAFETY: the same contract.
        Ok(unsafe { Client::borrow(Plugin::borrow(self.api.cast())?, self.client.cast())? })
    }
}

/// # Safety
/// As for `nuc_sampler_create`.
pub(super) unsafe fn sampler_options(
    memory: &mut Memory,
    options: *const nuc_sampler_options,
) -> Result<(SamplerOptions, Option<CallersClient>)> {
    if options.is_null() {
        return Ok((SamplerOptions::default(), None));
    }
    // SAFETY: not null; the caller guarantees struct_size.
    let options = unsafe { read_struct(memory, options)? };
    let client = CallersClient::of(&options)?;
    check_reserved(options.reserved, "reserved", "nuc_sampler_options.reserved")?;
    let (device_index, num_threads) = (options.device_index, options.num_threads);
    let device = usize::try_from(device_index)
        .or_else(|_| bad("device_index", format!("device_index is {device_index}; it must be at least 0")))?;
    let (list, count) = (options.client_options, options.num_client_options);
    // SAFETY: the caller guarantees the arrays and the NUL-terminated strings.
    let (row_buckets, client_options, plugin, program_dir) = unsafe {
        (
            row_buckets(memory, options.row_buckets, options.num_row_buckets)?,
            plugin_options(memory, CLIENT_OPTIONS, list, count)?,
            path(options.plugin_path, "plugin_path")?,
            path(options.program_dir, "program_dir")?,
        )
    };
    let options = SamplerOptions {
        backend: backend(options.backend)?,
        plugin,
        client_options,
        device,
        max_k: or_default(options.max_k, DEFAULT_MAX_K),
        cache_capacity: or_default(options.cache_capacity, DEFAULT_CACHE_CAPACITY),
        num_threads,
        program_dir,
        write_programs: flag(options.write_programs, "write_programs")?,
        program_dir_capacity: options.program_dir_capacity,
        row_buckets,
    };
    Ok((options, client))
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
    let options = unsafe { read_struct(memory, options)? };
    check_reserved(options.reserved, "reserved", "nuc_call_options.reserved")?;
    call_options_of(options.keep_ties, options.use_replace_val, options.replace_val)
}

/// Returns the options of a call from the fields of a struct.
pub(super) fn call_options_of(keep_ties: i32, use_replace_val: i32, replace_val: f32) -> Result<CallOptions> {
    let replace_val = flagged(use_replace_val, "use_replace_val", replace_val, "replace_val")?;
    Ok(CallOptions {
        stable: !flag(keep_ties, "keep_ties")?,
        replace_val: replace_val.unwrap_or(CallOptions::default().replace_val),
    })
}

/// Returns the value of a field that is used only if its flag is 1. If the flag is 0, the field must be 0.
pub(super) fn flagged(
    is_used: i32,
    flag_name: &'static str,
    value: f32,
    name: &'static str,
) -> Result<Option<f32>> {
    match flag(is_used, flag_name)? {
        true => Ok(Some(value)),
        false if value == 0.0 => Ok(None),
        false => bad(
            name,
            format!("{name} is {value} and {flag_name} is 0; to use the value, set {flag_name} to 1"),
        ),
    }
}

/// Returns the calls to prewarm for, and the number of threads.
///
/// # Safety
/// As for `nuc_prewarm`.
pub(super) unsafe fn prewarm_spec(
    memory: &mut Memory,
    spec: *const nuc_prewarm_spec,
) -> Result<(CallShape, usize)> {
    // SAFETY: the caller guarantees struct_size.
    let spec = unsafe { read_struct(memory, spec)? };
    check_reserved(spec.reserved, "reserved", "nuc_prewarm_spec.reserved")?;
    check_vocab(spec.vocab)?;
    let logits = logits_place(spec.logits, spec.has_middle_dimension, spec.host_numbers)?;
    check_rows("num_rows", "num_rows", spec.num_rows, logits)?;
    let calls = CallShape {
        entry: entry(spec.path)?,
        batch: spec.num_rows,
        vocab: spec.vocab,
        dtype: dtype(spec.dtype)?,
        stable: !flag(spec.keep_ties, "keep_ties")?,
        wanted: wanted(spec.debug_arrays)?,
        logits,
    };
    Ok((calls, spec.num_threads))
}

/// Returns the place of the logits. Logits on the host have no middle dimension and no `host_numbers`.
fn logits_place(place: nuc_logits_place, middle: i32, numbers: nuc_host_numbers) -> Result<LogitsPlace> {
    let singleton = flag(middle, "has_middle_dimension")?;
    let bad_rows = host_numbers(numbers)? == HostNumbers::All;
    if is_on_device(place)? {
        return Ok(LogitsPlace::Device { singleton, bad_rows });
    }
    let only_for_device = |name: &'static str, value: i32| {
        bad(name, format!("{name} is {value}; it must be 0, because logits is NUC_LOGITS_ON_HOST"))
    };
    match (singleton, numbers) {
        (true, _) => only_for_device("has_middle_dimension", middle),
        (false, 0) => Ok(LogitsPlace::Host),
        (false, _) => only_for_device("host_numbers", numbers),
    }
}

/// # Safety
/// As for `nuc_compile_ahead`.
pub(super) unsafe fn compile_ahead_options(
    memory: &mut Memory,
    options: *const nuc_compile_ahead_options,
) -> Result<AheadOptions> {
    // SAFETY: the caller guarantees struct_size.
    let options = unsafe { read_struct(memory, options)? };
    check_reserved(options.reserved, "reserved", "nuc_compile_ahead_options.reserved")?;
    // SAFETY: the caller guarantees the array.
    let row_counts = unsafe { row_counts(memory, options.row_counts, options.num_row_counts)? };
    let logits = logits_place(options.logits, options.has_middle_dimension, NUC_HOST_TOKENS)?;
    // SAFETY: the caller guarantees the array.
    let row_buckets = unsafe { row_buckets(memory, options.row_buckets, options.num_row_buckets)? };
    let (list, count) = (options.plugin_options, options.num_plugin_options);
    // SAFETY: the caller guarantees the options and the NUL-terminated strings.
    let (plugin, topology, plugin_options, output_dir) = unsafe {
        (
            path(options.plugin_path, "plugin_path")?,
            string(options.topology, "topology", "topology")?,
            plugin_options(memory, PLUGIN_OPTIONS, list, count)?,
            path(options.output_dir, "output_dir")?,
        )
    };
    let Some(output_dir) = output_dir else {
        return bad("output_dir", "output_dir is null or empty; it must name a directory for the programs");
    };
    let calls = CallShape {
        entry: entry(options.path)?,
        batch: 1,
        vocab: options.vocab,
        dtype: dtype(options.dtype)?,
        stable: !flag(options.keep_ties, "keep_ties")?,
        wanted: wanted(options.debug_arrays)?,
        logits,
    };
    Ok(AheadOptions {
        plugin,
        topology: topology.filter(|name| !name.is_empty()).map(str::to_owned),
        plugin_options,
        smaller_batches: flag(options.smaller_row_counts, "smaller_row_counts")?,
        max_k: or_default(options.max_k, DEFAULT_MAX_K),
        output_dir_capacity: options.output_dir_capacity,
        row_buckets,
        ..AheadOptions::new(output_dir, row_counts, calls)
    })
}

/// Returns the numbers of rows to compile for.
///
/// # Safety
/// `pointer` is null or points to `count` numbers.
unsafe fn row_counts(memory: &mut Memory, pointer: *const usize, count: usize) -> Result<Vec<usize>> {
    if count == 0 || count > LARGEST_NUM_ROW_COUNTS {
        return bad(
            "num_row_counts",
            format!("num_row_counts is {count}; it must be 1 to {LARGEST_NUM_ROW_COUNTS}"),
        );
    }
    // SAFETY: the same contract.
    unsafe { numbers(memory, "row_counts", "num_row_counts", pointer, count) }
}

/// Returns the list of `row_buckets`. [`crate::plan::Buckets`] checks its numbers.
///
/// # Safety
/// `pointer` is null or points to `count` numbers.
unsafe fn row_buckets(memory: &mut Memory, pointer: *const usize, count: usize) -> Result<Vec<usize>> {
    if count > LARGEST_NUM_BUCKETS {
        return bad(
            "num_row_buckets",
            format!("num_row_buckets is {count}; it must be at most {LARGEST_NUM_BUCKETS}"),
        );
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the same contract.
    unsafe { numbers(memory, "row_buckets", "num_row_buckets", pointer, count) }
}

/// Copies an array of numbers. Runs the overlap check first, because every read of the array must come after it.
///
/// # Safety
/// `pointer` is null or points to `count` numbers.
unsafe fn numbers(
    memory: &mut Memory,
    name: &'static str,
    count_name: &str,
    pointer: *const usize,
    count: usize,
) -> Result<Vec<usize>> {
    let array = Array::read(memory, name, pointer, Some(count))?;
    memory.check_overlap()?;
    // SAFETY: nothing that the call writes overlaps it; the caller guarantees the memory.
    let Some(numbers) = (unsafe { array.get() }) else {
        return bad(name, format!("{name} is null; it must point to {count_name} = {count} numbers of rows"));
    };
    Ok(numbers.to_vec())
}

/// The names of the fields of a list of options for a plugin.
#[derive(Clone, Copy)]
struct ListNames {
    list: &'static str,
    count: &'static str,
}

const CLIENT_OPTIONS: ListNames = ListNames { list: "client_options", count: "num_client_options" };
const PLUGIN_OPTIONS: ListNames = ListNames { list: "plugin_options", count: "num_plugin_options" };

/// # Safety
/// `options` is null or points to `count` options with NUL-terminated strings.
unsafe fn plugin_options(
    memory: &mut Memory,
    names: ListNames,
    options: *const nuc_client_option,
    count: usize,
) -> Result<Vec<(String, OptionValue)>> {
    let ListNames { list, count: count_name } = names;
    if count > LARGEST_NUM_OPTIONS {
        return bad(count_name, format!("{count_name} is {count}; it must be at most {LARGEST_NUM_OPTIONS}"));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let options = Array::read(memory, list, options, Some(count))?;
    memory.check_overlap()?;
    // SAFETY: nothing that the call writes overlaps it; the caller guarantees the memory.
    let Some(options) = (unsafe { options.get() }) else {
        return bad(list, format!("{list} is null; it must point to {count_name} = {count} options"));
    };
    let named = options.iter().enumerate().map(|(i, option)| {
        // SAFETY: the caller guarantees the strings.
        unsafe { plugin_option(option, list, &format!("{list}[{i}]")) }
    });
    named.collect()
}

/// `place` is the path of the option inside the argument `list`.
///
/// # Safety
/// The name, and the string value if the type is a string, are null or NUL-terminated.
unsafe fn plugin_option(
    option: &nuc_client_option,
    list: &'static str,
    place: &str,
) -> Result<(String, OptionValue)> {
    // SAFETY: the caller guarantees the string.
    let name = unsafe { string(option.name, list, &format!("{place}.name"))? };
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return bad(list, format!("{place}.name is null or empty; it must be the name of an option"));
    };
    let value = match option_type(option.r#type, list, place)? {
        OptionType::String => {
            // SAFETY: the caller guarantees the string. The field is read only if the type is a string.
            let text = unsafe { string(option.string_value, list, &format!("{place}.string_value"))? };
            let Some(text) = text else {
                return bad(
                    list,
                    format!("{place}.string_value is null; the type is NUC_OPTION_STRING, so set it"),
                );
            };
            OptionValue::Str(text.to_owned())
        }
        OptionType::Int64 => OptionValue::I64(option.int64_value),
        OptionType::Float => OptionValue::F32(option.float_value),
        OptionType::Bool => OptionValue::Bool(option.int64_value != 0),
    };
    check_reserved(option.reserved, list, &format!("{place}.reserved"))?;
    Ok((name.to_owned(), value))
}
