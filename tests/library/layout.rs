//! Generates `include/nucleus.layout.json`: the layout of the C ABI as data, for bindings that mirror the structs in
//! other languages.
//!
//! Sizes and offsets come from the Rust types, and names and C types from the header. tests/c/layout.py compares the
//! file with what a C compiler computes from the header.

use std::mem::{align_of, offset_of, size_of};

use nucleus::abi::*;
use serde_json::{json, Map, Value};

use crate::header::{fields, has_fields, init_name, topics, Item, Kind};

/// The layout of a struct: its name, size and alignment, and the name, offset and size of each field.
type Layout = (&'static str, usize, usize, Vec<(&'static str, usize, usize)>);

/// The size of the value behind a pointer. Does not read the value.
fn size_behind<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layouts {
    ($($name:ident { $($field:ident $(as $c_name:literal)?),* $(,)? })*) => {
        vec![$({
            // Fails to compile if a field is missing.
            let _ = |value: $name| { let $name { $($field: _),* } = value; };
            let field_name = |rust: &'static str, c: Option<&'static str>| c.unwrap_or(rust);
            let fields = vec![$((
                field_name(stringify!($field), [$(Some($c_name),)? None][0]),
                offset_of!($name, $field),
                size_behind(|value: &$name| &value.$field),
            )),*];
            (stringify!($name), size_of::<$name>(), align_of::<$name>(), fields)
        }),*]
    };
}

fn layouts() -> Vec<Layout> {
    layouts! {
        nuc_error {
            struct_size, code, reserved, row, argument, full_message, full_message_size, message_length, message,
        }
        nuc_client_option { name, r#type as "type", float_value, int64_value, string_value, reserved }
        nuc_sampler_options {
            struct_size, backend, device_index, plugin_path, client_options, num_client_options, max_k, cache_capacity,
            num_threads, program_dir, write_programs, reserved, pjrt_api, pjrt_client,
            program_dir_capacity, row_buckets, num_row_buckets,
        }
        nuc_batch {
            struct_size, logits, dtype, reserved, num_rows, vocab, row_stride, top_k, top_p, min_p, temperature,
            random_words, seed, offset,
        }
        nuc_call_options { struct_size, keep_ties, use_replace_val, replace_val, reserved }
        nuc_debug_arrays {
            struct_size, greedy_sampled, topk_logits_unsorted, topk_topp_unnorm_probs_i32_unsorted,
            random_unnorm_cdf_sampled_high, random_unnorm_cdf_sampled_low, next_tokens, topk_indices_k, topk_logits_k,
            topk_topp_unnorm_probs_i32_k,
        }
        nuc_parameters_options {
            struct_size, num_rows, vocab, dtype, keep_ties, use_replace_val, replace_val,
        }
        nuc_row_parameters {
            struct_size, seed, offset, top_k, min_p, use_top_p, top_p, use_temperature, temperature,
        }
        nuc_start_options { struct_size, host_numbers, debug_arrays, donate_logits, reserved }
        nuc_emit_options {
            struct_size, num_rows, vocab, max_k, target, name, dtype, path, keep_ties, debug_arrays,
        }
        nuc_prewarm_spec {
            struct_size, path, dtype, num_rows, vocab, keep_ties, debug_arrays, logits, has_middle_dimension,
            host_numbers, reserved, num_threads,
        }
        nuc_prewarm_progress { struct_size, done, total, has_ended, reserved }
        nuc_compile_ahead_options {
            struct_size, plugin_path, topology, plugin_options, num_plugin_options, output_dir, row_counts,
            num_row_counts, vocab, max_k, dtype, path, keep_ties, debug_arrays, smaller_row_counts, reserved,
            output_dir_capacity, row_buckets, num_row_buckets, logits, has_middle_dimension,
        }
        nuc_sampler_stats {
            struct_size, compiles, hits, evictions, failures, compile_ns, programs, loaded, pinned, not_kept,
            program_files_evicted, program_dir_bytes, enqueue_count, enqueue_p50_ns, enqueue_p99_ns,
            execute_count, execute_p50_ns, execute_p99_ns, total_count, total_p50_ns, total_p99_ns,
        }
        nuc_sampler_info {
            struct_size, platform_name, platform_version, pjrt_api_major, pjrt_api_minor, num_devices, max_k,
            pjrt_api, pjrt_client,
        }
        nuc_device_info { struct_size, description, kind, id, reserved }
    }
}

/// Joins the layout of a struct with the C types of its fields.
fn struct_json(item: &Item, (name, size, alignment, layout): &Layout) -> Value {
    let c_fields = fields(item);
    assert_eq!((*name, layout.len()), (item.name.as_str(), c_fields.len()));
    let joined = layout.iter().zip(c_fields).map(|((field, offset, size), (c_name, c_type, _))| {
        assert_eq!(*field, c_name, "a field of {name}");
        json!({ "name": field, "type": c_type, "offset": offset, "size": size })
    });
    let fields: Vec<Value> = joined.collect();
    json!({ "name": name, "size": size, "alignment": alignment, "initializer": init_name(name), "fields": fields })
}

/// The value of a constant.
fn value(item: &Item) -> i64 {
    item.c.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{} is not a number", item.name))
}

fn members(items: &[&Item], constant_type: &str) -> Vec<Value> {
    let members = items.iter().filter(|item| item.constant_type == constant_type);
    members.map(|item| json!({ "name": item.name, "value": value(item) })).collect()
}

pub(crate) fn layout_json() -> String {
    let topics = topics();
    let items: Vec<&Item> = topics.iter().flat_map(|(_, items)| items).collect();
    let structs = items.iter().filter(|item| has_fields(item));
    let layouts = layouts();
    assert_eq!(structs.clone().count(), layouts.len(), "every struct needs a layout");
    let structs: Vec<Value> = structs.zip(&layouts).map(|(item, layout)| struct_json(item, layout)).collect();
    let types = items.iter().filter(|item| item.kind == Kind::Type && item.c.contains("int32_t nuc_"));
    let enums: Vec<Value> = types
        .map(|item| json!({ "name": item.name, "type": "int32_t", "values": members(&items, &item.name) }))
        .collect();
    let functions: Vec<&str> =
        items.iter().filter(|item| item.kind == Kind::Function).map(|item| item.name.as_str()).collect();
    let parts = [
        ("library_version", json!(env!("CARGO_PKG_VERSION"))),
        ("abi_version", json!(NUC_ABI_VERSION)),
        ("pointer_size", json!(size_of::<usize>())),
        ("structs", json!(structs)),
        ("enums", json!(enums)),
        ("constants", json!(members(&items, "u32"))),
        ("functions", json!(functions)),
    ];
    let whole: Map<String, Value> = parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
    serde_json::to_string_pretty(&whole).unwrap() + "\n"
}
