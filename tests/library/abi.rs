//! The C functions, called from Rust: errors for arguments with a wrong size, address or content.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::raw::c_char;
use std::ptr::{null, null_mut};

use nucleus::abi::*;

use crate::common;

/// A struct whose fields are all zero.
///
/// # Safety
/// All fields are integers, floats and pointers.
pub(crate) unsafe fn zeroed<T>() -> T {
    // SAFETY: the same contract.
    unsafe { std::mem::zeroed() }
}

/// A `nuc_error` whose outputs have values that a call must replace.
fn error_struct() -> nuc_error {
    // SAFETY: a struct of the ABI.
    let zeroed = unsafe { zeroed::<nuc_error>() };
    nuc_error { struct_size: size_of::<nuc_error>(), code: -1, row: 77, message: [0x5a; 968], ..zeroed }
}

/// What a call reported.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) status: nuc_status,
    pub(crate) message: String,
    pub(crate) argument: String,
    pub(crate) row: i64,
}

pub(crate) fn outcome(call: impl FnOnce(*mut nuc_error) -> nuc_status) -> Outcome {
    let mut error = error_struct();
    let status = call(&mut error);
    assert_eq!(error.code, status);
    Outcome { status, message: message(&error), argument: text(error.argument), row: error.row }
}

/// The text behind a pointer; null is empty.
fn text(pointer: *const c_char) -> String {
    // SAFETY: the library wrote a NUL-terminated string, or null.
    let text = (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) });
    text.map_or_else(String::new, |text| text.to_str().expect("UTF-8").to_owned())
}

fn message(error: &nuc_error) -> String {
    text(error.message.as_ptr())
}

/// Checks that a call is refused because of an argument, and returns its message.
pub(crate) fn refused(argument: &str, call: impl FnOnce(*mut nuc_error) -> nuc_status) -> String {
    let outcome = outcome(call);
    assert_eq!(outcome.status, NUC_INVALID_ARGUMENT, "{outcome:?}");
    assert_eq!((outcome.argument.as_str(), outcome.row), (argument, -1), "{outcome:?}");
    outcome.message
}

pub(crate) fn sampler_options() -> nuc_sampler_options {
    // SAFETY: a struct of the ABI.
    nuc_sampler_options { struct_size: size_of::<nuc_sampler_options>(), ..unsafe { zeroed() } }
}

/// Creates a sampler. After a failure the handle is null.
pub(crate) fn create(options: &nuc_sampler_options, error: *mut nuc_error) -> (nuc_status, *mut nuc_sampler) {
    let mut sampler = std::ptr::dangling_mut::<nuc_sampler>();
    // SAFETY: the options are initialized, and the strings in them are NUL-terminated.
    let status = unsafe { nuc_sampler_create(options, &mut sampler, error) };
    assert_eq!(status == NUC_OK, !sampler.is_null());
    (status, sampler)
}

/// A built-in sampler. Dropping this value destroys it.
pub(crate) struct Sampler(pub(crate) *mut nuc_sampler);

impl Sampler {
    pub(crate) fn new() -> Sampler {
        Sampler::on(None, 128)
    }

    /// A sampler on a plugin, or on the built-in backend with one thread.
    pub(crate) fn on(plugin: Option<&str>, max_k: usize) -> Sampler {
        Sampler::with_threads(plugin, max_k, 1)
    }

    pub(crate) fn with_threads(plugin: Option<&str>, max_k: usize, num_threads: usize) -> Sampler {
        let path = plugin.map(|name| CString::new(common::plugin(name).to_str().unwrap()).unwrap());
        let mut options = sampler_options();
        options.backend = if plugin.is_some() { NUC_BACKEND_PJRT } else { NUC_BACKEND_BUILTIN };
        options.plugin_path = path.as_ref().map_or(null(), |path| path.as_ptr());
        options.num_threads = num_threads;
        options.max_k = max_k;
        let (status, sampler) = create(&options, null_mut());
        assert_eq!(status, NUC_OK);
        Sampler(sampler)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: a live handle, which is not used after this.
        let status = unsafe { nuc_sampler_destroy(self.0, null_mut()) };
        assert_eq!(status, NUC_OK);
    }
}

const LOGITS: [f32; 3] = [0.0, 2.0, 1.0];

pub(crate) fn batch() -> nuc_batch {
    nuc_batch {
        struct_size: size_of::<nuc_batch>(),
        logits: LOGITS.as_ptr().cast(),
        num_rows: 1,
        vocab: 3,
        // SAFETY: a struct of the ABI.
        ..unsafe { zeroed() }
    }
}

pub(crate) fn no_debug_arrays() -> nuc_debug_arrays {
    // SAFETY: a struct of the ABI.
    nuc_debug_arrays { struct_size: size_of::<nuc_debug_arrays>(), ..unsafe { zeroed() } }
}

#[test]
fn a_wrong_struct_size_names_the_initializer() {
    for size in [0, 8, 68, 79, 88, 112] {
        let options = nuc_sampler_options { struct_size: size, ..sampler_options() };
        let text = refused("nuc_sampler_options", |error| create(&options, error).0);
        assert!(
            text.contains(&format!("nuc_sampler_options.struct_size is {size}; it must be sizeof")),
            "{text}"
        );
        assert!(
            text.contains("which is 80 or 96 or 104 or 120") && text.contains("NUC_SAMPLER_OPTIONS_INIT"),
            "{text}"
        );
    }
    let sampler = Sampler::new();
    let batch = nuc_batch { struct_size: 0, ..batch() };
    let mut token = 77;
    // SAFETY: a live handle and local variables.
    let text = refused("nuc_batch", |error| unsafe {
        nuc_topk_topp_and_sample(sampler.0, &batch, null(), &mut token, null_mut(), null(), error)
    });
    assert!(text.contains("NUC_BATCH_INIT") && token == 77, "{text}");
}

/// A struct in which only `struct_size` is set has the same effect as a null pointer.
#[test]
fn zeroed_structs_are_the_defaults() {
    // SAFETY: a struct of the ABI.
    let mut info = nuc_sampler_info { struct_size: size_of::<nuc_sampler_info>(), ..unsafe { zeroed() } };
    let (status, zeroed_options) = create(&sampler_options(), null_mut());
    assert_eq!(status, NUC_OK);
    let sampler = Sampler(zeroed_options);
    // SAFETY: a live handle and a local variable.
    assert_eq!(unsafe { nuc_sampler_get_info(sampler.0, &mut info, null_mut()) }, NUC_OK);
    assert_eq!((text(info.platform_name).as_str(), info.max_k), ("builtin", 128));

    // Three entries tie at the threshold of k = 2. The default keeps exactly two, and replaces the others by -1e12.
    let (logits, k) = ([1.0_f32, 1.0, 1.0, 0.0], 2);
    let batch = nuc_batch { logits: logits.as_ptr().cast(), vocab: 4, top_k: &k, ..batch() };
    let sample = |options: *const nuc_call_options| {
        let mut kept = [0.0_f32; 4];
        let debug = nuc_debug_arrays { topk_logits_unsorted: kept.as_mut_ptr().cast(), ..no_debug_arrays() };
        let mut token = 77;
        // SAFETY: a live handle and local variables.
        let status = unsafe {
            nuc_topk_topp_and_sample(sampler.0, &batch, options, &mut token, null_mut(), &debug, null_mut())
        };
        assert_eq!(status, NUC_OK);
        kept
    };
    let options = call_options();
    assert_eq!(sample(null()), [1.0, 1.0, -1e12, -1e12]);
    assert_eq!(sample(&options), sample(null()));
    assert_eq!(sample(&nuc_call_options { keep_ties: 1, ..options }), [1.0, 1.0, 1.0, -1e12]);
    assert_eq!(sample(&nuc_call_options { use_replace_val: 1, ..options }), [1.0, 1.0, 0.0, 0.0]);
}

pub(crate) fn call_options() -> nuc_call_options {
    // SAFETY: a struct of the ABI.
    nuc_call_options { struct_size: size_of::<nuc_call_options>(), ..unsafe { zeroed() } }
}

/// `replace_val` without `use_replace_val` is an error, because the library would ignore the value.
#[test]
fn a_replacement_value_needs_its_flag() {
    let sampler = Sampler::new();
    let options = nuc_call_options { replace_val: -5.0, ..call_options() };
    let mut token = 77;
    // SAFETY: a live handle and local variables.
    let text = refused("replace_val", |error| unsafe {
        nuc_topk_topp_and_sample(sampler.0, &batch(), &options, &mut token, null_mut(), null(), error)
    });
    assert!(
        text.contains("replace_val is -5") && text.contains("use_replace_val to 1") && token == 77,
        "{text}"
    );
}

/// The error and the structs are also checked for overlap.
#[test]
fn the_error_and_the_structs_overlap_nothing() {
    let sampler = Sampler::new();
    let batch = batch();
    // The error overlaps the token.
    let mut error = error_struct();
    let place = &raw mut error;
    // SAFETY: the handle is live. The test intentionally creates the overlap, and all memory belongs to `error`.
    let status = unsafe {
        let token = place.cast::<i32>().add(100);
        nuc_topk_topp_and_sample(sampler.0, &batch, null(), token, null_mut(), null(), place)
    };
    let text = message(&error);
    assert_eq!(status, NUC_INVALID_ARGUMENT);
    assert!(text.contains("tokens") && text.contains("overlaps nuc_error"), "{text}");

    // The token overlaps a struct that the call reads.
    let options = call_options();
    let debug = no_debug_arrays();
    let places: [(&str, *const i32); 3] = [
        ("nuc_batch", (&raw const batch.reserved)),
        ("nuc_call_options", (&raw const options.keep_ties)),
        ("nuc_debug_arrays", (&raw const debug.greedy_sampled).cast()),
    ];
    for (name, token) in places {
        // SAFETY: a live handle. The call is refused before it writes to the struct.
        let text = refused("tokens", |error| unsafe {
            nuc_topk_topp_and_sample(sampler.0, &batch, &options, token.cast_mut(), null_mut(), &debug, error)
        });
        assert!(text.contains(name) && text.contains("tokens"), "{text}");
    }

    // The struct of a getter overlaps the error.
    let mut space = [0u64; 160];
    space[0] = size_of::<nuc_sampler_info>() as u64;
    space[4] = size_of::<nuc_error>() as u64;
    let info = (&raw mut space).cast::<nuc_sampler_info>();
    // SAFETY: a live handle. Both are inside `space`.
    unsafe {
        let error = info.cast::<nuc_error>().byte_add(32);
        assert_eq!(nuc_sampler_get_info(sampler.0, info, error), NUC_INVALID_ARGUMENT);
        assert!(message(&*error).contains("nuc_sampler_info ("), "{}", message(&*error));
    }

    // The buffer of the error overlaps the token.
    let mut token = [77_i32; 4];
    let mut error = error_struct();
    error.full_message = token.as_mut_ptr().cast();
    error.full_message_size = 8;
    // SAFETY: a live handle and local variables.
    unsafe {
        let place = &raw mut token[1];
        let status =
            nuc_topk_topp_and_sample(sampler.0, &batch, null(), place, null_mut(), null(), &mut error);
        assert_eq!(status, NUC_INVALID_ARGUMENT);
    }
    assert!(message(&error).contains("overlaps full_message"), "{}", message(&error));
}

/// A call with an uninitialized `nuc_error` does nothing and does not write it.
#[test]
fn an_uninitialized_error_struct_stops_the_call() {
    let sampler = Sampler::new();
    for (struct_size, reserved) in [(0, 0), (512, 0), (usize::MAX, 0), (size_of::<nuc_error>(), 1)] {
        let mut error = nuc_error { struct_size, reserved, ..error_struct() };
        let mut token = 77;
        // SAFETY: a live handle and local variables.
        let status = unsafe {
            nuc_topk_topp_and_sample(sampler.0, &batch(), null(), &mut token, null_mut(), null(), &mut error)
        };
        assert_eq!((status, token), (NUC_INVALID_ARGUMENT, 77));
        assert_eq!((error.code, error.row, error.message), (-1, 77, [0x5a; 968]));
        let mut made = std::ptr::dangling_mut::<nuc_sampler>();
        // SAFETY: local variables.
        assert_eq!(unsafe { nuc_sampler_create(null(), &mut made, &mut error) }, NUC_INVALID_ARGUMENT);
        assert!(made.is_null());
    }
}

/// The message in the struct is shortened. The caller's buffer receives the whole message, or as much of its beginning
/// as fits.
#[test]
fn a_buffer_receives_the_whole_message() {
    let path = "/directory".repeat(150);
    let not_utf8 = CString::new([path.as_bytes(), b"\xff"].concat()).unwrap();
    let mut options = sampler_options();
    options.plugin_path = not_utf8.as_ptr();
    let mut error = error_struct();
    assert_ne!(create(&options, &mut error).0, NUC_OK);
    let length = error.message_length;
    assert!(length > 1500 && message(&error).len() < length, "{length}");
    for size in [1, 2, 100, length, length + 1, length + 100] {
        let mut buffer = vec![0x5a_u8; size + 1];
        let mut error = error_struct();
        error.full_message = buffer.as_mut_ptr().cast();
        error.full_message_size = size;
        assert_ne!(create(&options, &mut error).0, NUC_OK);
        let whole = text(error.full_message);
        assert_eq!((whole.len(), error.message_length), (length.min(size - 1), length));
        assert!(size < 100 || whole.starts_with("plugin_path is"), "{whole}");
        assert_eq!(whole.contains(&path), size >= length);
        assert_eq!(whole.ends_with("it must be valid UTF-8"), size > length);
        assert_eq!(buffer[size], 0x5a, "no byte after the buffer is written");
        // The next call, which succeeds, empties the buffer.
        // SAFETY: null is allowed.
        assert_eq!(unsafe { nuc_sampler_destroy(null_mut(), &mut error) }, NUC_OK);
        assert_eq!((error.message_length, text(error.full_message)), (0, String::new()));
    }
}

/// In a message the reason follows the path. A long path must not cut off the reason.
#[test]
fn a_long_path_leaves_room_for_the_reason() {
    for path in ["/directory".repeat(300), "/a directory with spaces".repeat(150), "/ä".repeat(1500)] {
        let path = CString::new(path).unwrap();
        let mut options = sampler_options();
        options.plugin_path = path.as_ptr();
        let Outcome { status, message: text, .. } = outcome(|error| create(&options, error).0);
        assert_ne!(status, NUC_OK);
        assert!(text.contains("No such file") || text.contains("too long"), "{text}");
        assert!(text.contains("plugin") && text.contains("[...]"), "{text}");
    }
}

#[test]
fn control_characters_do_not_reach_the_message() {
    let path = CString::new("/nonexistent/\u{1b}[31m\nNUC_OK\u{202e}").unwrap();
    let mut options = sampler_options();
    options.plugin_path = path.as_ptr();
    let text = outcome(|error| create(&options, error).0).message;
    assert!(text.contains(r"/nonexistent/\u{1b}[31m\nNUC_OK\u{202e}"), "{text}");
    assert!(!text.contains(char::is_control), "{text}");
}

const ROWS: usize = 5;
const VOCAB: usize = 40;
const MAX_K: usize = 8;

/// The parameters of the rows of a batch.
#[derive(Clone)]
struct Parameters {
    top_k: [i32; ROWS],
    top_p: [f32; ROWS],
    min_p: [f32; ROWS],
    temperature: [f32; ROWS],
}

const GOOD: Parameters = Parameters {
    top_k: [3, 8, 5, 1, 8],
    top_p: [0.9, 1.0, 0.5, 0.8, 0.99],
    min_p: [0.0, 0.01, 0.0, 0.2, 0.0],
    temperature: [1.0, 0.7, 0.0, 2.0, 1.0],
};

/// Every array that a call writes. The arrays initially contain a poison value, which shows whether the call wrote
/// them.
#[derive(Clone, Debug, PartialEq)]
struct Arrays {
    /// Tokens, status, greedy_sampled, the two halves of r, and next_tokens: one number per row.
    per_row: [[i32; ROWS]; 6],
    logits: [[f32; VOCAB]; ROWS],
    weights: [[i32; VOCAB]; ROWS],
    indices_k: [[i32; MAX_K]; ROWS],
    logits_k: [[f32; MAX_K]; ROWS],
    weights_k: [[i32; MAX_K]; ROWS],
}

const POISON: Arrays = Arrays {
    per_row: [[77; ROWS]; 6],
    logits: [[77.0; VOCAB]; ROWS],
    weights: [[77; VOCAB]; ROWS],
    indices_k: [[77; MAX_K]; ROWS],
    logits_k: [[77.0; MAX_K]; ROWS],
    weights_k: [[77; MAX_K]; ROWS],
};

const REPLACE_VAL: f32 = -5.0;

impl Arrays {
    /// Sets a row to the outputs of a row that was not sampled.
    fn set_bad(&mut self, row: usize, has_slices: bool) {
        let status = NUC_ROW_BAD_PARAMETER as i32;
        for (array, value) in self.per_row.iter_mut().zip([-1, status, -1, 0, 0, -1]) {
            array[row] = value;
        }
        self.logits[row] = [REPLACE_VAL; VOCAB];
        self.weights[row] = [0; VOCAB];
        if has_slices {
            self.indices_k[row] = [-1; MAX_K];
            self.logits_k[row] = [REPLACE_VAL; MAX_K];
            self.weights_k[row] = [0; MAX_K];
        }
    }
}

type EntryPoint = unsafe extern "C" fn(
    *const nuc_sampler,
    *const nuc_batch,
    *const nuc_call_options,
    *mut i32,
    *mut u32,
    *const nuc_debug_arrays,
    *mut nuc_error,
) -> nuc_status;

/// The entry points, each with the `nuc_path` that selects it in `nuc_sample_flat`.
const ENTRY_POINTS: [(&str, EntryPoint, Option<nuc_path>); 4] = [
    ("automatic", nuc_topk_topp_and_sample, Some(NUC_PATH_AUTO)),
    ("arbitrary", nuc_arbitrary_topk_topp_and_sample, Some(NUC_PATH_ARBITRARY)),
    ("bounded", nuc_bounded_topk_topp_and_sample, Some(NUC_PATH_BOUNDED)),
    ("reference", nuc_reference_topk_topp_and_sample, None),
];

/// Samples a batch with all debug arrays.
fn sample(
    sampler: &Sampler,
    entry: EntryPoint,
    parameters: &Parameters,
    has_status: bool,
    has_slices: bool,
) -> (Outcome, Arrays) {
    let logits: Vec<f32> = (0..ROWS * VOCAB).map(|i| (i * 37 % 101) as f32 / 16.0).collect();
    let seed: Vec<u64> = (0..ROWS as u64).collect();
    let batch = nuc_batch {
        logits: logits.as_ptr().cast(),
        num_rows: ROWS,
        vocab: VOCAB,
        top_k: parameters.top_k.as_ptr(),
        top_p: parameters.top_p.as_ptr(),
        min_p: parameters.min_p.as_ptr(),
        temperature: parameters.temperature.as_ptr(),
        seed: seed.as_ptr(),
        ..batch()
    };
    let options = nuc_call_options { use_replace_val: 1, replace_val: REPLACE_VAL, ..call_options() };
    let mut arrays = POISON;
    let [tokens, status, greedy, high, low, next] = arrays.per_row.each_mut().map(|array| array.as_mut_ptr());
    let mut debug = nuc_debug_arrays {
        greedy_sampled: greedy,
        topk_logits_unsorted: arrays.logits.as_mut_ptr().cast(),
        topk_topp_unnorm_probs_i32_unsorted: arrays.weights.as_mut_ptr().cast(),
        random_unnorm_cdf_sampled_high: high.cast(),
        random_unnorm_cdf_sampled_low: low.cast(),
        next_tokens: next,
        ..no_debug_arrays()
    };
    if has_slices {
        debug.topk_indices_k = arrays.indices_k.as_mut_ptr().cast();
        debug.topk_logits_k = arrays.logits_k.as_mut_ptr().cast();
        debug.topk_topp_unnorm_probs_i32_k = arrays.weights_k.as_mut_ptr().cast();
    }
    let row_status = if has_status { status.cast() } else { null_mut() };
    // SAFETY: a live handle, and arrays of the documented shapes.
    let outcome =
        outcome(|error| unsafe { entry(sampler.0, &batch, &options, tokens, row_status, &debug, error) });
    (outcome, arrays)
}

/// Sets of parameters that are impossible in one row. Each has the name of the argument at fault.
fn bad_parameters(row: usize) -> Vec<(&'static str, Parameters)> {
    let change = |change: &dyn Fn(&mut Parameters)| {
        let mut parameters = GOOD;
        change(&mut parameters);
        parameters
    };
    let mut list = Vec::new();
    for value in [f32::NAN, -1.0, -1e-30, f32::INFINITY, f32::NEG_INFINITY] {
        list.push(("temperature", change(&|p| p.temperature[row] = value)));
    }
    list.push(("top_p", change(&|p| p.top_p[row] = f32::NAN)));
    list.push(("min_p", change(&|p| p.min_p[row] = -f32::NAN)));
    list
}

/// Values of k that the bounded path and the k-slices do not accept.
fn unfit_k(row: usize) -> Vec<(&'static str, Parameters)> {
    let with = |k: i32| {
        let mut parameters = GOOD;
        parameters.top_k[row] = k;
        ("top_k", parameters)
    };
    [0, -1, MAX_K as i32 + 1, VOCAB as i32].map(with).into()
}

/// A row with an impossible parameter gets the outputs of a row that was not sampled. The outputs of the other rows do
/// not change. Without `row_status` the call fails, and the error names the row.
fn bad_rows_do_not_affect_others(plugin: Option<&str>) {
    let sampler = Sampler::on(plugin, MAX_K);
    for (name, entry, _) in ENTRY_POINTS {
        for has_slices in [false, true] {
            if has_slices && name == "arbitrary" {
                continue;
            }
            let (good, right) = sample(&sampler, entry, &GOOD, true, has_slices);
            assert_eq!(good.status, NUC_OK, "{good:?}");
            for row in 0..ROWS {
                let needs_small_k = has_slices || name == "bounded";
                let unfit = if needs_small_k { unfit_k(row) } else { Vec::new() };
                for (argument, parameters) in bad_parameters(row).into_iter().chain(unfit) {
                    let context = format!("{name}, slices {has_slices}, {argument}[{row}]");
                    let (outcome, arrays) = sample(&sampler, entry, &parameters, true, has_slices);
                    assert_eq!(outcome.status, NUC_OK, "{context}: {outcome:?}");
                    let mut wanted = right.clone();
                    wanted.set_bad(row, has_slices);
                    assert_eq!(arrays, wanted, "{context}");

                    let (outcome, arrays) = sample(&sampler, entry, &parameters, false, has_slices);
                    assert_eq!(
                        (outcome.status, outcome.row),
                        (NUC_INVALID_ARGUMENT, row as i64),
                        "{context}"
                    );
                    assert_eq!(outcome.argument, argument, "{context}");
                    assert!(outcome.message.contains(&format!("{argument}[{row}] is ")), "{outcome:?}");
                    assert_eq!(arrays, POISON, "{context}");
                }
            }
        }
    }
}

#[test]
fn bad_rows_do_not_affect_others_on_the_builtin_backend() {
    bad_rows_do_not_affect_others(None);
}

#[test]
fn bad_rows_do_not_affect_others_on_a_plugin() {
    bad_rows_do_not_affect_others(Some("lammps-jax-pjrt-cpu"));
}

/// Several bad rows of different kinds, and a batch in which every row is bad.
#[test]
fn any_number_of_rows_can_be_bad() {
    for plugin in [None, Some("lammps-jax-pjrt-cpu")] {
        let sampler = Sampler::on(plugin, MAX_K);
        let entry = nuc_bounded_topk_topp_and_sample;
        let (_, right) = sample(&sampler, entry, &GOOD, true, true);
        let mut parameters = GOOD;
        parameters.top_k[1] = 0;
        parameters.top_p[3] = f32::NAN;
        let (outcome, arrays) = sample(&sampler, entry, &parameters, true, true);
        assert_eq!(outcome.status, NUC_OK, "{outcome:?}");
        let mut wanted = right;
        wanted.set_bad(1, true);
        wanted.set_bad(3, true);
        assert_eq!(arrays, wanted);
        let (outcome, _) = sample(&sampler, entry, &parameters, false, true);
        assert_eq!((outcome.argument.as_str(), outcome.row), ("top_k", 1), "the first bad row: {outcome:?}");

        parameters.temperature = [f32::NAN; ROWS];
        let (outcome, arrays) = sample(&sampler, entry, &parameters, true, true);
        assert_eq!(outcome.status, NUC_OK, "{outcome:?}");
        (0..ROWS).for_each(|row| wanted.set_bad(row, true));
        assert_eq!(arrays, wanted);
    }
}

/// +inf counts as the largest finite f32 and sets a bit, on every path.
#[test]
fn a_row_with_inf_reports_it() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    // More columns than slots, so that the paths differ.
    let rows = [[0.0, inf, 1.0], [nan, 2.0, inf], [3.0, 2.0, 1.0], [-inf, nan, -inf]].map(|row| {
        let mut wide = [-inf; VOCAB];
        wide[7..10].copy_from_slice(&row);
        wide
    });
    let k = [2; 4];
    let wanted_tokens = [8, 9, 7, -1];
    let wanted_status =
        [NUC_ROW_HAD_INF, NUC_ROW_HAD_INF | NUC_ROW_HAD_NAN, 0, NUC_ROW_NO_CANDIDATE | NUC_ROW_HAD_NAN];
    for plugin in [None, Some("lammps-jax-pjrt-cpu")] {
        let sampler = Sampler::on(plugin, MAX_K);
        for (name, entry, _) in ENTRY_POINTS {
            let (temperature, mut tokens, mut status) = ([0.0_f32; 4], [77; 4], [77; 4]);
            let batch = nuc_batch {
                logits: rows.as_ptr().cast(),
                num_rows: 4,
                vocab: VOCAB,
                top_k: k.as_ptr(),
                temperature: temperature.as_ptr(),
                ..batch()
            };
            // SAFETY: a live handle, and arrays of one element per row.
            let outcome = outcome(|error| unsafe {
                let (tokens, status) = (tokens.as_mut_ptr(), status.as_mut_ptr());
                entry(sampler.0, &batch, null(), tokens, status, null(), error)
            });
            assert_eq!(outcome.status, NUC_OK, "{name}: {outcome:?}");
            assert_eq!((tokens, status), (wanted_tokens, wanted_status), "{name}, {plugin:?}");
        }
    }
}

/// The flat form returns the same tokens, statuses and errors as the struct form.
#[test]
fn the_flat_form_equals_the_struct_form() {
    let sampler = Sampler::on(None, MAX_K);
    for (name, entry, path) in ENTRY_POINTS {
        let Some(path) = path else { continue };
        let mut bad = GOOD;
        bad.temperature[2] = f32::NAN;
        for (parameters, has_status) in [(&GOOD, true), (&GOOD, false), (&bad, true), (&bad, false)] {
            let (wanted, arrays) = sample(&sampler, entry, parameters, has_status, false);
            let logits: Vec<f32> = (0..ROWS * VOCAB).map(|i| (i * 37 % 101) as f32 / 16.0).collect();
            let seed: Vec<u64> = (0..ROWS as u64).collect();
            let (mut tokens, mut status) = ([77; ROWS], [77_u32; ROWS]);
            let row_status = if has_status { status.as_mut_ptr() } else { null_mut() };
            // SAFETY: a live handle, and arrays of the documented shapes.
            let got = outcome(|error| unsafe {
                nuc_sample_flat(
                    sampler.0,
                    path,
                    logits.as_ptr().cast(),
                    NUC_DTYPE_F32,
                    ROWS,
                    VOCAB,
                    0,
                    parameters.top_k.as_ptr(),
                    parameters.top_p.as_ptr(),
                    parameters.min_p.as_ptr(),
                    parameters.temperature.as_ptr(),
                    null(),
                    seed.as_ptr(),
                    null(),
                    0,
                    tokens.as_mut_ptr(),
                    row_status,
                    error,
                )
            });
            assert_eq!(got, wanted, "{name}");
            assert_eq!(
                (tokens, status.map(|bits| bits as i32)),
                (arrays.per_row[0], arrays.per_row[1]),
                "{name}"
            );
        }
    }
    let mut token = 77;
    let sample = |path: nuc_path, keep_ties: i32, token: *mut i32, error: *mut nuc_error| {
        // SAFETY: a live handle and local variables.
        unsafe {
            nuc_sample_flat(
                sampler.0,
                path,
                LOGITS.as_ptr().cast(),
                NUC_DTYPE_F32,
                1,
                3,
                0,
                null(),
                null(),
                null(),
                null(),
                null(),
                null(),
                null(),
                keep_ties,
                token,
                null_mut(),
                error,
            )
        }
    };
    let text = refused("path", |error| sample(3, 0, &mut token, error));
    assert!(text.contains("path is 3"), "{text}");
    refused("keep_ties", |error| sample(0, 2, &mut token, error));
    refused("tokens", |error| sample(0, 0, null_mut(), error));
    assert_eq!(token, 77);
    assert_eq!(outcome(|error| sample(0, 1, &mut token, error)).status, NUC_OK);
    assert!((0..3).contains(&token));
}
