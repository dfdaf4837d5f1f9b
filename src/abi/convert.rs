//! The one place where raw arguments become checked Rust values.
//!
//! Nothing is dereferenced before its null, alignment and size checks, and no reference is made to memory that
//! overlaps memory to be written. What no library can check (that a pointer is to as much memory as the shapes
//! say) is the caller's promise, stated in the header.

use libc::{c_char, c_void};
use std::ffi::CStr;
use std::mem::{align_of, size_of, MaybeUninit};
use std::path::PathBuf;

use super::structs::read_struct;
use super::types::*;
use crate::batch::{
    check_vocab, num_elements, resolve_row_stride, Batch, CallOptions, RandomSource, RowArguments,
};
use crate::compile_ahead::AheadOptions;
use crate::dtype::{Dtype, Logits, LogitsMut};
use crate::error::Error;
use crate::kernels::Wanted;
use crate::outputs::{Outputs, RowArrays};
use crate::pjrt::OptionValue;
use crate::plan::{CallShape, Entry, DEFAULT_MAX_K};
use crate::sampler::{BackendChoice, SamplerOptions};

type Result<T> = std::result::Result<T, Error>;

const BACKEND_AUTO: i32 = nuc_backend::NUC_BACKEND_AUTO as i32;
const BACKEND_BUILTIN: i32 = nuc_backend::NUC_BACKEND_BUILTIN as i32;
const BACKEND_PJRT: i32 = nuc_backend::NUC_BACKEND_PJRT as i32;
const OPTION_STRING: i32 = nuc_option_type::NUC_OPTION_STRING as i32;
const OPTION_INT64: i32 = nuc_option_type::NUC_OPTION_INT64 as i32;
const OPTION_FLOAT: i32 = nuc_option_type::NUC_OPTION_FLOAT as i32;
const OPTION_BOOL: i32 = nuc_option_type::NUC_OPTION_BOOL as i32;
const DTYPE_F32: i32 = nuc_dtype::NUC_DTYPE_F32 as i32;
const DTYPE_BF16: i32 = nuc_dtype::NUC_DTYPE_BF16 as i32;
const DTYPE_F16: i32 = nuc_dtype::NUC_DTYPE_F16 as i32;
const PATH_AUTO: i32 = nuc_path::NUC_PATH_AUTO as i32;
const PATH_ARBITRARY: i32 = nuc_path::NUC_PATH_ARBITRARY as i32;
const PATH_BOUNDED: i32 = nuc_path::NUC_PATH_BOUNDED as i32;

pub(super) fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::argument(message))
}

pub(super) fn check_pointer<T>(pointer: *const T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return bad(format!("{name} is null; it must point to the caller's memory"));
    }
    if !pointer.is_aligned() {
        return bad(format!("{name} is {pointer:p}; it must be aligned to {} bytes", align_of::<T>()));
    }
    Ok(())
}

/// A terminated string, or `None` where null.
///
/// # Safety
/// `pointer` is null or points to a terminated string that outlives `'a`.
unsafe fn string<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches for the terminator.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).or_else(|_| bad(format!("{name} is not UTF-8")))
}

/// A path; null and empty are `None`.
///
/// # Safety
/// As for [`string`].
unsafe fn path(pointer: *const c_char, name: &str) -> Result<Option<PathBuf>> {
    // SAFETY: passed on.
    let text = unsafe { string(pointer, name)? };
    Ok(text.filter(|path| !path.is_empty()).map(Into::into))
}

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

fn flag(value: i32, name: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => bad(format!("{name} is {other}; it must be 0 or 1")),
    }
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

fn dtype(value: i32) -> Result<Dtype> {
    match value {
        DTYPE_F32 => Ok(Dtype::F32),
        DTYPE_BF16 => Ok(Dtype::Bf16),
        DTYPE_F16 => Ok(Dtype::F16),
        other => bad(format!("dtype is {other}; use a nuc_dtype, 0 to 2")),
    }
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

fn entry(path: i32) -> Result<Entry> {
    match path {
        PATH_AUTO => Ok(Entry::Automatic),
        PATH_ARBITRARY => Ok(Entry::Arbitrary),
        PATH_BOUNDED => Ok(Entry::Bounded),
        other => bad(format!("path is {other}; use a nuc_path, 0 to 2")),
    }
}

fn wanted(wide_arrays: u32) -> Result<Wanted> {
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

/// Arrays of a call, so that each can be checked against every other.
#[derive(Default)]
struct Regions {
    list: Vec<(&'static str, usize, usize, bool)>,
}

impl Regions {
    /// Checks alignment and size of an array and notes where it lies. Null is `None`.
    fn note<T>(
        &mut self,
        pointer: *const T,
        len: Option<usize>,
        name: &'static str,
        written: bool,
    ) -> Result<Option<usize>> {
        if pointer.is_null() {
            return Ok(None);
        }
        check_pointer(pointer, name)?;
        let bytes = len.and_then(|len| len.checked_mul(size_of::<T>())).filter(|&b| b <= isize::MAX as usize);
        let start = pointer as usize;
        match (bytes, bytes.and_then(|bytes| start.checked_add(bytes))) {
            (Some(bytes), Some(end)) => {
                if bytes > 0 {
                    self.list.push((name, start, end, written));
                }
                Ok(Some(bytes / size_of::<T>()))
            }
            _ => bad(format!(
                "{name} would be larger than the address space: batch, vocab or row_stride is wrong"
            )),
        }
    }

    fn check_overlap(&self) -> Result<()> {
        for (i, a) in self.list.iter().enumerate() {
            for b in &self.list[..i] {
                if (a.3 || b.3) && a.1 < b.2 && b.1 < a.2 {
                    return bad(format!(
                        "{} ({:#x} to {:#x}) overlaps {} ({:#x} to {:#x}); what is written may overlap nothing else",
                        a.0, a.1, a.2, b.0, b.1, b.2
                    ));
                }
            }
        }
        Ok(())
    }
}

/// # Safety
/// `pointer` is null or points to `len` elements, readable and not written during `'a`; alignment was checked.
unsafe fn slice<'a, T>(pointer: *const T, len: Option<usize>) -> Option<&'a [T]> {
    // SAFETY: `len` is `Some` only where the pointer is not null and its size was checked.
    len.map(|len| unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// # Safety
/// `pointer` is null or points to `len` elements that nothing else touches during `'a`; alignment was checked.
unsafe fn slice_mut<'a, T>(pointer: *mut T, len: Option<usize>) -> Option<&'a mut [T]> {
    // SAFETY: `len` is `Some` only where the pointer is not null and its size was checked.
    len.map(|len| unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// # Safety
/// As for [`slice_mut`], with elements of `dtype`.
unsafe fn logits_mut<'a>(pointer: *mut c_void, len: Option<usize>, dtype: Dtype) -> Option<LogitsMut<'a>> {
    // SAFETY: passed on.
    unsafe {
        match dtype {
            Dtype::F32 => slice_mut(pointer.cast(), len).map(LogitsMut::F32),
            Dtype::Bf16 => slice_mut(pointer.cast(), len).map(LogitsMut::Bf16),
            Dtype::F16 => slice_mut(pointer.cast(), len).map(LogitsMut::F16),
        }
    }
}

/// Checks a whole call and makes a problem of it.
///
/// # Safety
/// As the header says of the sampling functions. The result must not outlive the call.
pub(super) unsafe fn call<'a>(
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    max_k: usize,
) -> Result<(Batch<'a>, Outputs<'a>)> {
    // SAFETY: integers and pointers, for which zero is valid.
    let (no_batch, no_debug) = unsafe {
        (
            MaybeUninit::<nuc_batch>::zeroed().assume_init(),
            MaybeUninit::<nuc_debug_arrays>::zeroed().assume_init(),
        )
    };
    // SAFETY: the caller vouches for struct_size, here and below.
    let b = unsafe { read_struct(batch, no_batch)? };
    let options = if options.is_null() {
        default_call_options()
    } else {
        // SAFETY: as above.
        unsafe { read_struct(options, default_call_options())? }
    };
    let d = if debug.is_null() {
        no_debug
    } else {
        // SAFETY: as above.
        unsafe { read_struct(debug, no_debug)? }
    };

    let stable = flag(options.stable, "stable")?;
    if b.reserved != 0 {
        return bad(format!("nuc_batch.reserved is {}; zero the struct before setting fields", b.reserved));
    }
    let dtype = dtype(b.dtype)?;
    check_vocab(b.vocab)?;
    let row_stride = resolve_row_stride(b.row_stride, b.vocab)?;
    let rows = b.batch;
    if rows > 0 {
        check_pointer(b.logits.cast::<u8>(), "logits")?;
        check_pointer(tokens, "tokens")?;
    }
    let has_seed_or_offset = !b.seed.is_null() || !b.offset.is_null();
    if !b.random_words.is_null() && has_seed_or_offset {
        return bad("random_words and seed or offset are both set; set random_words, or seed and offset");
    }

    let elements = num_elements(rows, b.vocab, row_stride);
    let (per_row, per_word) = (Some(rows), rows.checked_mul(4));
    let (wide, slots) = (rows.checked_mul(b.vocab), rows.checked_mul(max_k));

    let mut regions = Regions::default();
    let logits_len = match dtype {
        Dtype::F32 => regions.note(b.logits.cast::<f32>(), elements, "logits", false)?,
        Dtype::Bf16 | Dtype::F16 => regions.note(b.logits.cast::<u16>(), elements, "logits", false)?,
    };
    let k_len = regions.note(b.k, per_row, "k", false)?;
    let p_len = regions.note(b.p, per_row, "p", false)?;
    let min_p_len = regions.note(b.min_p, per_row, "min_p", false)?;
    let temperature_len = regions.note(b.temperature, per_row, "temperature", false)?;
    let words_len = regions.note(b.random_words, per_word, "random_words", false)?;
    let seed_len = regions.note(b.seed, per_row, "seed", false)?;
    let offset_len = regions.note(b.offset, per_row, "offset", false)?;
    let mut note_logits = |pointer: *mut c_void, len, name| match dtype {
        Dtype::F32 => regions.note(pointer.cast::<f32>(), len, name, true),
        Dtype::Bf16 | Dtype::F16 => regions.note(pointer.cast::<u16>(), len, name, true),
    };
    let topk_logits_len = note_logits(d.topk_logits_unsorted, wide, "topk_logits_unsorted")?;
    let topk_logits_k_len = note_logits(d.topk_logits_k, slots, "topk_logits_k")?;
    let tokens_len = regions.note(tokens, per_row, "tokens", true)?;
    let status_len = regions.note(row_status, per_row, "row_status", true)?;
    let greedy_len = regions.note(d.greedy_sampled, per_row, "greedy_sampled", true)?;
    let high_len =
        regions.note(d.random_unnorm_cdf_sampled_high, per_row, "random_unnorm_cdf_sampled_high", true)?;
    let low_len =
        regions.note(d.random_unnorm_cdf_sampled_low, per_row, "random_unnorm_cdf_sampled_low", true)?;
    let next_len = regions.note(d.next_tokens, per_row, "next_tokens", true)?;
    let probs = "topk_topp_unnorm_probs_i32_unsorted";
    let probs_len = regions.note(d.topk_topp_unnorm_probs_i32_unsorted, wide, probs, true)?;
    let indices_k_len = regions.note(d.topk_indices_k, slots, "topk_indices_k", true)?;
    let probs_k_len =
        regions.note(d.topk_topp_unnorm_probs_i32_k, slots, "topk_topp_unnorm_probs_i32_k", true)?;
    regions.check_overlap()?;

    // SAFETY: each pointer with a length is aligned, its size does not overflow, what is written overlaps nothing
    // else, and the caller vouches that the memory is there for the whole call, with no one else writing it.
    unsafe {
        let logits = match dtype {
            Dtype::F32 => Logits::F32(slice(b.logits.cast(), logits_len).unwrap_or(&[])),
            Dtype::Bf16 => Logits::Bf16(slice(b.logits.cast(), logits_len).unwrap_or(&[])),
            Dtype::F16 => Logits::F16(slice(b.logits.cast(), logits_len).unwrap_or(&[])),
        };
        let random = match slice(b.random_words, words_len) {
            Some(words) => RandomSource::Words(words),
            None => {
                RandomSource::Seeds { seed: slice(b.seed, seed_len), offset: slice(b.offset, offset_len) }
            }
        };
        let arguments = RowArguments {
            k: slice(b.k, k_len),
            p: slice(b.p, p_len),
            min_p: slice(b.min_p, min_p_len),
            temperature: slice(b.temperature, temperature_len),
            random,
        };
        let options = CallOptions { stable, replace_val: options.replace_val };
        let batch = Batch::new(logits, rows, b.vocab, row_stride, &arguments, options)?;
        let outputs = Outputs {
            tokens: slice_mut(tokens, tokens_len),
            row_status: slice_mut(row_status, status_len),
            greedy_sampled: slice_mut(d.greedy_sampled, greedy_len),
            random_high: slice_mut(d.random_unnorm_cdf_sampled_high, high_len),
            random_low: slice_mut(d.random_unnorm_cdf_sampled_low, low_len),
            next_tokens: slice_mut(d.next_tokens, next_len),
            wide: RowArrays {
                topk_logits: logits_mut(d.topk_logits_unsorted, topk_logits_len, dtype),
                weights: slice_mut(d.topk_topp_unnorm_probs_i32_unsorted, probs_len),
                indices_k: slice_mut(d.topk_indices_k, indices_k_len),
                topk_logits_k: logits_mut(d.topk_logits_k, topk_logits_k_len, dtype),
                weights_k: slice_mut(d.topk_topp_unnorm_probs_i32_k, probs_k_len),
            },
        };
        Ok((batch, outputs))
    }
}
