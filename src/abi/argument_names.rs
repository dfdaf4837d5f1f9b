//! The names of arguments as C strings, for `nuc_error.argument`.

use std::ffi::CStr;
use std::ptr::null;

use libc::c_char;

/// Every argument, field and struct that an error can name.
const NAMES: [&CStr; 84] = [
    // Arguments of functions.
    c"buffer",
    c"call",
    c"done",
    c"function",
    c"index",
    c"level",
    c"log",
    c"parameters",
    c"path",
    c"programs_written",
    c"row",
    c"row_status",
    c"sampler",
    c"text",
    c"text_length",
    c"text_size",
    c"tokens",
    c"which",
    // Structs, if the struct as a whole is wrong: its address, its size, or its overlap with other memory.
    c"nuc_batch",
    c"nuc_call_options",
    c"nuc_compile_ahead_options",
    c"nuc_debug_arrays",
    c"nuc_device_info",
    c"nuc_emit_options",
    c"nuc_error",
    c"nuc_parameters_options",
    c"nuc_prewarm_spec",
    c"nuc_row_parameters",
    c"nuc_sampler_info",
    c"nuc_sampler_options",
    c"nuc_sampler_stats",
    c"nuc_start_options",
    // Fields.
    c"backend",
    c"cache_capacity",
    c"client_options",
    c"debug_arrays",
    c"device_index",
    c"donate_logits",
    c"dtype",
    c"full_message",
    c"greedy_sampled",
    c"host_numbers",
    c"keep_ties",
    c"logits",
    c"max_k",
    c"min_p",
    c"name",
    c"next_tokens",
    c"num_client_options",
    c"num_plugin_options",
    c"num_row_counts",
    c"num_rows",
    c"num_threads",
    c"offset",
    c"output_dir",
    c"pjrt_api",
    c"pjrt_client",
    c"plugin_options",
    c"plugin_path",
    c"program_dir",
    c"random_unnorm_cdf_sampled_high",
    c"random_unnorm_cdf_sampled_low",
    c"random_words",
    c"replace_val",
    c"reserved",
    c"row_counts",
    c"row_stride",
    c"seed",
    c"smaller_row_counts",
    c"target",
    c"temperature",
    c"top_k",
    c"top_p",
    c"topk_indices_k",
    c"topk_logits_k",
    c"topk_logits_unsorted",
    c"topk_topp_unnorm_probs_i32_k",
    c"topk_topp_unnorm_probs_i32_unsorted",
    c"topology",
    c"use_replace_val",
    c"use_temperature",
    c"use_top_p",
    c"vocab",
    c"write_programs",
];

/// The name as a C string that is valid until the process ends. Null if the name is not in the list.
pub(super) fn c_name(name: &str) -> *const c_char {
    let known = NAMES.iter().find(|known| known.to_bytes() == name.as_bytes());
    debug_assert!(known.is_some(), "{name} is not in the list of arguments");
    known.map_or(null(), |known| known.as_ptr())
}
