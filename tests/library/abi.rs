//! The C functions, called from Rust: errors for arguments with a wrong size, address or content.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::raw::c_char;
use std::ptr::{null, null_mut};

use nucleus::abi::*;

/// A struct whose fields are all zero.
///
/// # Safety
/// All fields are integers, floats and pointers.
unsafe fn zeroed<T>() -> T {
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
struct Outcome {
    status: nuc_status,
    message: String,
    argument: String,
    row: i64,
}

fn outcome(call: impl FnOnce(*mut nuc_error) -> nuc_status) -> Outcome {
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
fn refused(argument: &str, call: impl FnOnce(*mut nuc_error) -> nuc_status) -> String {
    let outcome = outcome(call);
    assert_eq!(outcome.status, NUC_INVALID_ARGUMENT, "{outcome:?}");
    assert_eq!((outcome.argument.as_str(), outcome.row), (argument, -1), "{outcome:?}");
    outcome.message
}

fn sampler_options() -> nuc_sampler_options {
    // SAFETY: a struct of the ABI.
    nuc_sampler_options { struct_size: size_of::<nuc_sampler_options>(), ..unsafe { zeroed() } }
}

/// Creates a sampler. After a failure the handle is null.
fn create(options: &nuc_sampler_options, error: *mut nuc_error) -> (nuc_status, *mut nuc_sampler) {
    let mut sampler = 8 as *mut nuc_sampler;
    // SAFETY: the options are initialized, and the strings in them are NUL-terminated.
    let status = unsafe { nuc_sampler_create(options, &mut sampler, error) };
    assert_eq!(status == NUC_OK, !sampler.is_null());
    (status, sampler)
}

/// A built-in sampler. Dropping this value destroys it.
struct Sampler(*mut nuc_sampler);

impl Sampler {
    fn new() -> Sampler {
        let mut options = sampler_options();
        options.backend = NUC_BACKEND_BUILTIN;
        options.num_threads = 1;
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

fn batch() -> nuc_batch {
    nuc_batch {
        struct_size: size_of::<nuc_batch>(),
        logits: LOGITS.as_ptr().cast(),
        num_rows: 1,
        vocab: 3,
        // SAFETY: a struct of the ABI.
        ..unsafe { zeroed() }
    }
}

fn no_debug_arrays() -> nuc_debug_arrays {
    // SAFETY: a struct of the ABI.
    nuc_debug_arrays { struct_size: size_of::<nuc_debug_arrays>(), ..unsafe { zeroed() } }
}

#[test]
fn a_wrong_struct_size_names_the_way_out() {
    for size in [0, 8, 68, 79] {
        let options = nuc_sampler_options { struct_size: size, ..sampler_options() };
        let text = refused("nuc_sampler_options", |error| create(&options, error).0);
        assert!(
            text.contains(&format!("nuc_sampler_options.struct_size is {size}; it must be sizeof")),
            "{text}"
        );
        assert!(text.contains("which is 80") && text.contains("NUC_SAMPLER_OPTIONS_INIT"), "{text}");
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

/// A struct of zeros and its size has the same effect as a null pointer.
#[test]
fn zeroed_structs_are_the_defaults() {
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

fn call_options() -> nuc_call_options {
    // SAFETY: a struct of the ABI.
    nuc_call_options { struct_size: size_of::<nuc_call_options>(), ..unsafe { zeroed() } }
}

/// A replacement value without its flag is an error, because the library would ignore the value.
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

/// A `nuc_error` that was not initialized is not written, and the call does nothing.
#[test]
fn an_error_that_is_not_initialized_stops_the_call() {
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
        let mut made = 8 as *mut nuc_sampler;
        // SAFETY: local variables.
        assert_eq!(unsafe { nuc_sampler_create(null(), &mut made, &mut error) }, NUC_INVALID_ARGUMENT);
        assert!(made.is_null());
    }
}

/// The message in the struct is shortened. The caller's buffer receives all of it, or its beginning.
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
        assert_eq!(whole.contains(&path), size > length);
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
