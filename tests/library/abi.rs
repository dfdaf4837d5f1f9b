//! The C functions, called from Rust: errors for arguments with a wrong size, address or content.

use std::ffi::{CStr, CString};
use std::mem::{offset_of, size_of};
use std::ptr::{null, null_mut};

use nucleus::abi::*;

/// Returns the status of a call and the message of its `nuc_error`.
fn outcome(call: impl FnOnce(*mut nuc_error) -> nuc_status) -> (nuc_status, String) {
    let mut error = nuc_error { code: -1, message: [0x5a; 508] };
    let status = call(&mut error);
    assert_eq!(error.code, status as i32);
    (status, message(&error))
}

fn message(error: &nuc_error) -> String {
    // SAFETY: the library wrote a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(error.message.as_ptr()) };
    text.to_str().expect("a message is UTF-8").to_owned()
}

/// Checks that a call is refused, and returns its message.
fn refused(call: impl FnOnce(*mut nuc_error) -> nuc_status) -> String {
    let (status, message) = outcome(call);
    assert_eq!(status, nuc_status::NUC_INVALID_ARGUMENT, "{message}");
    message
}

fn sampler_options() -> nuc_sampler_options {
    let mut options = std::mem::MaybeUninit::uninit();
    // SAFETY: the function fills the struct.
    unsafe {
        let size = size_of::<nuc_sampler_options>();
        assert_eq!(nuc_sampler_options_init(options.as_mut_ptr(), size, null_mut()), nuc_status::NUC_OK);
        options.assume_init()
    }
}

fn create(options: &nuc_sampler_options, error: *mut nuc_error) -> (nuc_status, *mut nuc_sampler) {
    let mut sampler = null_mut();
    // SAFETY: the options are initialized, and the strings in them are NUL-terminated.
    let status = unsafe { nuc_sampler_create(options, &mut sampler, error) };
    (status, sampler)
}

/// A built-in sampler. Dropping this value destroys it.
struct Sampler(*mut nuc_sampler);

impl Sampler {
    fn new() -> Sampler {
        let mut options = sampler_options();
        options.backend = nuc_backend::NUC_BACKEND_BUILTIN as i32;
        options.num_threads = 1;
        let (status, sampler) = create(&options, null_mut());
        assert_eq!(status, nuc_status::NUC_OK);
        Sampler(sampler)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: a live handle, which is not used after this.
        let status = unsafe { nuc_sampler_destroy(self.0, null_mut()) };
        assert_eq!(status, nuc_status::NUC_OK);
    }
}

const LOGITS: [f32; 3] = [0.0, 2.0, 1.0];

fn batch() -> nuc_batch {
    nuc_batch {
        struct_size: size_of::<nuc_batch>(),
        logits: LOGITS.as_ptr().cast(),
        dtype: nuc_dtype::NUC_DTYPE_F32 as i32,
        reserved: 0,
        batch: 1,
        vocab: 3,
        row_stride: 0,
        k: null(),
        p: null(),
        min_p: null(),
        temperature: null(),
        random_words: null(),
        seed: null(),
        offset: null(),
    }
}

fn no_debug_arrays() -> nuc_debug_arrays {
    nuc_debug_arrays {
        struct_size: size_of::<nuc_debug_arrays>(),
        greedy_sampled: null_mut(),
        topk_logits_unsorted: null_mut(),
        topk_topp_unnorm_probs_i32_unsorted: null_mut(),
        random_unnorm_cdf_sampled_high: null_mut(),
        random_unnorm_cdf_sampled_low: null_mut(),
        next_tokens: null_mut(),
        topk_indices_k: null_mut(),
        topk_logits_k: null_mut(),
        topk_topp_unnorm_probs_i32_k: null_mut(),
    }
}

/// For example, a struct of 68 bytes ends inside `program_dir`. The library must not read this incomplete pointer.
#[test]
fn a_struct_size_that_cuts_a_field_is_refused() {
    assert_eq!(offset_of!(nuc_sampler_options, program_dir), 64);
    for size in [65, 68, 71, 73, 79] {
        let mut options = sampler_options();
        options.struct_size = size;
        let text = refused(|error| create(&options, error).0);
        let wanted =
            format!("nuc_sampler_options.struct_size is {size}; set it to sizeof(nuc_sampler_options)");
        assert!(text.contains(&wanted) && text.contains("64 or 72 or 76 or 80"), "{text}");
        // SAFETY: the struct has more bytes than `size`.
        let text = refused(|error| unsafe { nuc_sampler_options_init(&mut options, size, error) });
        assert!(text.contains("struct_size"), "{text}");
    }
    for size in [64, 72, 76, 80] {
        let mut options = sampler_options();
        options.struct_size = size;
        options.backend = nuc_backend::NUC_BACKEND_BUILTIN as i32;
        let (status, sampler) = create(&options, null_mut());
        assert_eq!(status, nuc_status::NUC_OK, "{size}");
        drop(Sampler(sampler));
    }
}

#[test]
fn a_size_of_zero_names_the_way_out() {
    let mut options = sampler_options();
    options.struct_size = 0;
    let text = refused(|error| create(&options, error).0);
    assert!(text.contains("initialize the struct with nuc_sampler_options_init"), "{text}");
    let sampler = Sampler::new();
    let mut batch = batch();
    batch.struct_size = 0;
    let mut token = 77;
    // SAFETY: a live handle and local variables.
    let text = refused(|error| unsafe {
        nuc_topk_topp_and_sample(sampler.0, &batch, null(), &mut token, null_mut(), null(), error)
    });
    assert!(text.contains("set it to sizeof(nuc_batch)") && token == 77, "{text}");
    // SAFETY: a local struct.
    let text = refused(|error| unsafe { nuc_sampler_options_init(&mut options, 0, error) });
    assert!(text.contains("pass sizeof(nuc_sampler_options)"), "{text}");
}

/// A zeroed struct is refused, even if its size is set. To request a replacement value of zero, a caller can pass -0.0.
#[test]
fn zeroed_call_options_are_refused() {
    let sampler = Sampler::new();
    let sample = |options: &nuc_call_options, token: &mut i32, error: *mut nuc_error| {
        // SAFETY: a live handle and local variables.
        unsafe { nuc_topk_topp_and_sample(sampler.0, &batch(), options, token, null_mut(), null(), error) }
    };
    let mut token = 77;
    let mut options = nuc_call_options { struct_size: 0, stable: 0, replace_val: 0.0 };
    let text = refused(|error| sample(&options, &mut token, error));
    assert!(text.contains("nuc_call_options_init"), "{text}");
    options.struct_size = size_of::<nuc_call_options>();
    let text = refused(|error| sample(&options, &mut token, error));
    assert!(text.contains("nuc_call_options_init") && text.contains("-0.0"), "{text}");
    assert_eq!(token, 77);
    for (stable, replace_val) in [(0, -0.0), (0, -1e12), (1, 0.0)] {
        options = nuc_call_options { stable, replace_val, ..options };
        assert_eq!(outcome(|error| sample(&options, &mut token, error)), (nuc_status::NUC_OK, String::new()));
    }
}

/// The error and the structs are also checked for overlap.
#[test]
fn the_error_and_the_structs_overlap_nothing() {
    let sampler = Sampler::new();
    let batch = batch();
    // The error overlaps the token.
    let mut error = nuc_error { code: -1, message: [0; 508] };
    let place = &raw mut error;
    // SAFETY: the handle is live. The test intentionally creates the overlap, and all memory belongs to `error`.
    let status = unsafe {
        let token = place.cast::<i32>().add(100);
        nuc_topk_topp_and_sample(sampler.0, &batch, null(), token, null_mut(), null(), place)
    };
    let text = message(&error);
    assert_eq!(status, nuc_status::NUC_INVALID_ARGUMENT);
    assert!(text.contains("nuc_error") && text.contains("overlaps tokens"), "{text}");

    // The token overlaps a struct that the call reads.
    let options = nuc_call_options { struct_size: 16, stable: 1, replace_val: 1.0 };
    let debug = no_debug_arrays();
    let places: [(&str, *const i32); 3] = [
        ("nuc_batch", (&raw const batch.reserved)),
        ("nuc_call_options", (&raw const options.stable)),
        ("nuc_debug_arrays", (&raw const debug.greedy_sampled).cast()),
    ];
    for (name, token) in places {
        // SAFETY: a live handle. The call is refused before it writes to the struct.
        let text = refused(|error| unsafe {
            nuc_topk_topp_and_sample(sampler.0, &batch, &options, token.cast_mut(), null_mut(), &debug, error)
        });
        assert!(text.contains(name) && text.contains("tokens"), "{text}");
    }

    // The struct of a getter overlaps the error.
    let mut space = [0u64; 80];
    space[0] = size_of::<nuc_sampler_info>() as u64;
    let info = (&raw mut space).cast::<nuc_sampler_info>();
    // SAFETY: a live handle. Both are inside `space`.
    unsafe {
        let error = info.cast::<nuc_error>().byte_add(16);
        assert_eq!(nuc_sampler_get_info(sampler.0, info, error), nuc_status::NUC_INVALID_ARGUMENT);
        assert!(message(&*error).contains("overlaps nuc_sampler_info"), "{}", message(&*error));
    }
}

/// In a message the reason follows the path. A long path must not cut off the reason.
#[test]
fn a_long_path_leaves_room_for_the_reason() {
    for path in ["/directory".repeat(300), "/a directory with spaces".repeat(150), "/ä".repeat(1500)] {
        let path = CString::new(path).unwrap();
        let mut options = sampler_options();
        options.plugin_path = path.as_ptr();
        let (status, text) = outcome(|error| create(&options, error).0);
        assert_ne!(status, nuc_status::NUC_OK);
        assert!(text.contains("No such file") || text.contains("too long"), "{text}");
        assert!(text.contains("plugin") && text.contains("[...]"), "{text}");
    }
}

#[test]
fn control_characters_do_not_reach_the_message() {
    let path = CString::new("/nonexistent/\u{1b}[31m\nNUC_OK\u{202e}").unwrap();
    let mut options = sampler_options();
    options.plugin_path = path.as_ptr();
    let (_, text) = outcome(|error| create(&options, error).0);
    assert!(text.contains(r"/nonexistent/\u{1b}[31m\nNUC_OK\u{202e}"), "{text}");
    assert!(!text.contains(char::is_control), "{text}");
}
