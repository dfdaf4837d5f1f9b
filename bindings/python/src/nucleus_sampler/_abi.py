"""The structs and constants of include/nucleus.h.

Generated from include/nucleus.layout.json by generate.py. Do not edit. `make python-structs` rewrites this file.
"""

import ctypes
import enum

LIBRARY_VERSION = "0.1.0"
POINTER_SIZE = 8

NUC_ABI_VERSION = 1
NUC_ROW_NO_CANDIDATE = 1
NUC_ROW_HAD_NAN = 2
NUC_ROW_HAD_INF = 4
NUC_ROW_BAD_PARAMETER = 8
NUC_DEBUG_TOPK_LOGITS = 1
NUC_DEBUG_TOPK_TOPP_PROBS = 2
NUC_DEBUG_K_SLICES = 4
NUC_PARAMETER_COLUMNS = 13


class nuc_status(enum.IntEnum):
    NUC_OK = 0
    NUC_INVALID_ARGUMENT = 1
    NUC_PLUGIN_NOT_FOUND = 2
    NUC_PLUGIN_INVALID = 3
    NUC_PLUGIN_VERSION = 4
    NUC_DEVICE_ERROR = 5
    NUC_INTERNAL = 6
    NUC_OUT_OF_MEMORY = 7
    NUC_IO_ERROR = 8
    NUC_TIMEOUT = 9
    NUC_CANCELLED = 10


class nuc_backend(enum.IntEnum):
    NUC_BACKEND_AUTO = 0
    NUC_BACKEND_BUILTIN = 1
    NUC_BACKEND_PJRT = 2


class nuc_option_type(enum.IntEnum):
    NUC_OPTION_STRING = 0
    NUC_OPTION_INT64 = 1
    NUC_OPTION_FLOAT = 2
    NUC_OPTION_BOOL = 3


class nuc_dtype(enum.IntEnum):
    NUC_DTYPE_F32 = 0
    NUC_DTYPE_BF16 = 1
    NUC_DTYPE_F16 = 2


class nuc_path(enum.IntEnum):
    NUC_PATH_AUTO = 0
    NUC_PATH_ARBITRARY = 1
    NUC_PATH_BOUNDED = 2


class nuc_host_numbers(enum.IntEnum):
    NUC_HOST_TOKENS = 0
    NUC_HOST_ALL = 1
    NUC_HOST_NONE = 2


class nuc_buffer(enum.IntEnum):
    NUC_BUFFER_TOKENS = 0
    NUC_BUFFER_TOPK_LOGITS = 1
    NUC_BUFFER_TOPK_TOPP_PROBS = 2
    NUC_BUFFER_TOPK_INDICES_K = 3
    NUC_BUFFER_TOPK_LOGITS_K = 4
    NUC_BUFFER_TOPK_TOPP_PROBS_K = 5


class nuc_logits_place(enum.IntEnum):
    NUC_LOGITS_ON_HOST = 0
    NUC_LOGITS_ON_DEVICE = 1


class nuc_log_level(enum.IntEnum):
    NUC_LOG_OFF = 0
    NUC_LOG_ERROR = 1
    NUC_LOG_WARNING = 2
    NUC_LOG_INFO = 3
    NUC_LOG_DEBUG = 4


class nuc_error(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("code", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("row", ctypes.c_int64),
        ("argument", ctypes.c_char_p),
        ("full_message", ctypes.c_void_p),
        ("full_message_size", ctypes.c_size_t),
        ("message_length", ctypes.c_size_t),
        ("message", ctypes.c_char * 968),
    ]


class nuc_client_option(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("float_value", ctypes.c_float),
        ("int64_value", ctypes.c_int64),
        ("string_value", ctypes.c_char_p),
        ("reserved", ctypes.c_uint64 * 2),
    ]


class nuc_sampler_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("backend", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("plugin_path", ctypes.c_char_p),
        ("client_options", ctypes.c_void_p),
        ("num_client_options", ctypes.c_size_t),
        ("max_k", ctypes.c_size_t),
        ("cache_capacity", ctypes.c_size_t),
        ("num_threads", ctypes.c_size_t),
        ("program_dir", ctypes.c_char_p),
        ("write_programs", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("pjrt_api", ctypes.c_void_p),
        ("pjrt_client", ctypes.c_void_p),
        ("program_dir_capacity", ctypes.c_uint64),
        ("row_buckets", ctypes.c_void_p),
        ("num_row_buckets", ctypes.c_size_t),
    ]


class nuc_batch(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("logits", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("num_rows", ctypes.c_size_t),
        ("vocab", ctypes.c_size_t),
        ("row_stride", ctypes.c_size_t),
        ("top_k", ctypes.c_void_p),
        ("top_p", ctypes.c_void_p),
        ("min_p", ctypes.c_void_p),
        ("temperature", ctypes.c_void_p),
        ("random_words", ctypes.c_void_p),
        ("seed", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
    ]


class nuc_call_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("keep_ties", ctypes.c_int32),
        ("use_replace_val", ctypes.c_int32),
        ("replace_val", ctypes.c_float),
        ("reserved", ctypes.c_int32),
    ]


class nuc_debug_arrays(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("greedy_sampled", ctypes.c_void_p),
        ("topk_logits_unsorted", ctypes.c_void_p),
        ("topk_topp_unnorm_probs_i32_unsorted", ctypes.c_void_p),
        ("random_unnorm_cdf_sampled_high", ctypes.c_void_p),
        ("random_unnorm_cdf_sampled_low", ctypes.c_void_p),
        ("next_tokens", ctypes.c_void_p),
        ("topk_indices_k", ctypes.c_void_p),
        ("topk_logits_k", ctypes.c_void_p),
        ("topk_topp_unnorm_probs_i32_k", ctypes.c_void_p),
    ]


class nuc_parameters_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("num_rows", ctypes.c_size_t),
        ("vocab", ctypes.c_size_t),
        ("dtype", ctypes.c_int32),
        ("keep_ties", ctypes.c_int32),
        ("use_replace_val", ctypes.c_int32),
        ("replace_val", ctypes.c_float),
    ]


class nuc_row_parameters(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("seed", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("top_k", ctypes.c_int32),
        ("min_p", ctypes.c_float),
        ("use_top_p", ctypes.c_int32),
        ("top_p", ctypes.c_float),
        ("use_temperature", ctypes.c_int32),
        ("temperature", ctypes.c_float),
    ]


class nuc_start_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("host_numbers", ctypes.c_int32),
        ("debug_arrays", ctypes.c_uint32),
        ("donate_logits", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class nuc_emit_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("num_rows", ctypes.c_size_t),
        ("vocab", ctypes.c_size_t),
        ("max_k", ctypes.c_size_t),
        ("target", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int32),
        ("path", ctypes.c_int32),
        ("keep_ties", ctypes.c_int32),
        ("debug_arrays", ctypes.c_uint32),
    ]


class nuc_prewarm_spec(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("path", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("num_rows", ctypes.c_size_t),
        ("vocab", ctypes.c_size_t),
        ("keep_ties", ctypes.c_int32),
        ("debug_arrays", ctypes.c_uint32),
        ("logits", ctypes.c_int32),
        ("has_middle_dimension", ctypes.c_int32),
        ("host_numbers", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("num_threads", ctypes.c_size_t),
    ]


class nuc_prewarm_progress(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("done", ctypes.c_size_t),
        ("total", ctypes.c_size_t),
        ("has_ended", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class nuc_compile_ahead_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("plugin_path", ctypes.c_char_p),
        ("topology", ctypes.c_char_p),
        ("plugin_options", ctypes.c_void_p),
        ("num_plugin_options", ctypes.c_size_t),
        ("output_dir", ctypes.c_char_p),
        ("row_counts", ctypes.c_void_p),
        ("num_row_counts", ctypes.c_size_t),
        ("vocab", ctypes.c_size_t),
        ("max_k", ctypes.c_size_t),
        ("dtype", ctypes.c_int32),
        ("path", ctypes.c_int32),
        ("keep_ties", ctypes.c_int32),
        ("debug_arrays", ctypes.c_uint32),
        ("smaller_row_counts", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("output_dir_capacity", ctypes.c_uint64),
        ("row_buckets", ctypes.c_void_p),
        ("num_row_buckets", ctypes.c_size_t),
        ("logits", ctypes.c_int32),
        ("has_middle_dimension", ctypes.c_int32),
    ]


class nuc_sampler_stats(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("compiles", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("evictions", ctypes.c_uint64),
        ("failures", ctypes.c_uint64),
        ("compile_ns", ctypes.c_uint64),
        ("programs", ctypes.c_uint64),
        ("loaded", ctypes.c_uint64),
        ("pinned", ctypes.c_uint64),
        ("not_kept", ctypes.c_uint64),
        ("program_files_evicted", ctypes.c_uint64),
        ("program_dir_bytes", ctypes.c_uint64),
        ("enqueue_count", ctypes.c_uint64),
        ("enqueue_p50_ns", ctypes.c_uint64),
        ("enqueue_p99_ns", ctypes.c_uint64),
        ("execute_count", ctypes.c_uint64),
        ("execute_p50_ns", ctypes.c_uint64),
        ("execute_p99_ns", ctypes.c_uint64),
        ("total_count", ctypes.c_uint64),
        ("total_p50_ns", ctypes.c_uint64),
        ("total_p99_ns", ctypes.c_uint64),
    ]


class nuc_sampler_info(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("platform_name", ctypes.c_char_p),
        ("platform_version", ctypes.c_char_p),
        ("pjrt_api_major", ctypes.c_int32),
        ("pjrt_api_minor", ctypes.c_int32),
        ("num_devices", ctypes.c_size_t),
        ("max_k", ctypes.c_size_t),
        ("pjrt_api", ctypes.c_void_p),
        ("pjrt_client", ctypes.c_void_p),
    ]


class nuc_device_info(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("description", ctypes.c_char_p),
        ("kind", ctypes.c_char_p),
        ("id", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]
