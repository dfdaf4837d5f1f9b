/*
 * The layout of version 1 of the ABI, stated a second time: programs that were compiled with it must continue to work.
 * Also tests callers of older and newer headers, whose structs are shorter or longer.
 */
#include "check.h"

#include <stddef.h>

#define FIELD(type, field, offset) CHECK(offsetof(type, field) == (offset))

/* The struct of a caller with a newer header. */
typedef struct later_batch {
    nuc_batch known;
    const void *something_new;
    size_t more[3];
} later_batch;

static void layout(void) {
    CHECK(sizeof(nuc_error) == 512);
    FIELD(nuc_error, message, 4);
    CHECK(sizeof(nuc_client_option) == 48);
    FIELD(nuc_client_option, type, 8);
    FIELD(nuc_client_option, string_value, 24);
    FIELD(nuc_client_option, int64_value, 16);
    FIELD(nuc_client_option, float_value, 12);
    CHECK(sizeof(nuc_sampler_options) == 80);
    FIELD(nuc_sampler_options, backend, 8);
    FIELD(nuc_sampler_options, device_index, 12);
    FIELD(nuc_sampler_options, plugin_path, 16);
    FIELD(nuc_sampler_options, client_options, 24);
    FIELD(nuc_sampler_options, num_client_options, 32);
    FIELD(nuc_sampler_options, max_k, 40);
    FIELD(nuc_sampler_options, cache_capacity, 48);
    FIELD(nuc_sampler_options, num_threads, 56);
    FIELD(nuc_sampler_options, program_dir, 64);
    FIELD(nuc_sampler_options, write_programs, 72);
    FIELD(nuc_sampler_options, reserved, 76);
    CHECK(sizeof(nuc_call_options) == 16);
    FIELD(nuc_call_options, stable, 8);
    FIELD(nuc_call_options, replace_val, 12);
    CHECK(sizeof(nuc_batch) == 104);
    FIELD(nuc_batch, logits, 8);
    FIELD(nuc_batch, dtype, 16);
    FIELD(nuc_batch, reserved, 20);
    FIELD(nuc_batch, batch, 24);
    FIELD(nuc_batch, vocab, 32);
    FIELD(nuc_batch, row_stride, 40);
    FIELD(nuc_batch, k, 48);
    FIELD(nuc_batch, p, 56);
    FIELD(nuc_batch, min_p, 64);
    FIELD(nuc_batch, temperature, 72);
    FIELD(nuc_batch, random_words, 80);
    FIELD(nuc_batch, seed, 88);
    FIELD(nuc_batch, offset, 96);
    CHECK(sizeof(nuc_debug_arrays) == 80);
    FIELD(nuc_debug_arrays, greedy_sampled, 8);
    FIELD(nuc_debug_arrays, topk_logits_unsorted, 16);
    FIELD(nuc_debug_arrays, topk_topp_unnorm_probs_i32_unsorted, 24);
    FIELD(nuc_debug_arrays, random_unnorm_cdf_sampled_high, 32);
    FIELD(nuc_debug_arrays, random_unnorm_cdf_sampled_low, 40);
    FIELD(nuc_debug_arrays, next_tokens, 48);
    FIELD(nuc_debug_arrays, topk_indices_k, 56);
    FIELD(nuc_debug_arrays, topk_logits_k, 64);
    FIELD(nuc_debug_arrays, topk_topp_unnorm_probs_i32_k, 72);
    CHECK(sizeof(nuc_prewarm_spec) == 40);
    FIELD(nuc_prewarm_spec, path, 8);
    FIELD(nuc_prewarm_spec, dtype, 12);
    FIELD(nuc_prewarm_spec, batch, 16);
    FIELD(nuc_prewarm_spec, vocab, 24);
    FIELD(nuc_prewarm_spec, unstable, 32);
    FIELD(nuc_prewarm_spec, wide_arrays, 36);
    CHECK(sizeof(nuc_sampler_stats) == 80);
    FIELD(nuc_sampler_stats, compiles, 8);
    FIELD(nuc_sampler_stats, hits, 16);
    FIELD(nuc_sampler_stats, evictions, 24);
    FIELD(nuc_sampler_stats, failures, 32);
    FIELD(nuc_sampler_stats, compile_ns, 40);
    FIELD(nuc_sampler_stats, programs, 48);
    FIELD(nuc_sampler_stats, loaded, 56);
    FIELD(nuc_sampler_stats, pinned, 64);
    FIELD(nuc_sampler_stats, not_kept, 72);
    CHECK(sizeof(nuc_compile_ahead_options) == 112);
    FIELD(nuc_compile_ahead_options, plugin_path, 8);
    FIELD(nuc_compile_ahead_options, topology, 16);
    FIELD(nuc_compile_ahead_options, plugin_options, 24);
    FIELD(nuc_compile_ahead_options, num_plugin_options, 32);
    FIELD(nuc_compile_ahead_options, output_dir, 40);
    FIELD(nuc_compile_ahead_options, batches, 48);
    FIELD(nuc_compile_ahead_options, num_batches, 56);
    FIELD(nuc_compile_ahead_options, vocab, 64);
    FIELD(nuc_compile_ahead_options, max_k, 72);
    FIELD(nuc_compile_ahead_options, dtype, 80);
    FIELD(nuc_compile_ahead_options, path, 84);
    FIELD(nuc_compile_ahead_options, stable, 88);
    FIELD(nuc_compile_ahead_options, wide_arrays, 92);
    FIELD(nuc_compile_ahead_options, smaller_batches, 96);
    FIELD(nuc_compile_ahead_options, reserved, 100);
    FIELD(nuc_compile_ahead_options, programs_written, 104);
    CHECK(sizeof(nuc_sampler_info) == 48);
    FIELD(nuc_sampler_info, platform_version, 16);
    FIELD(nuc_sampler_info, pjrt_api_major, 24);
    FIELD(nuc_sampler_info, pjrt_api_minor, 28);
    FIELD(nuc_sampler_info, num_devices, 32);
    FIELD(nuc_sampler_info, max_k, 40);
    CHECK(sizeof(nuc_device_info) == 32);
    FIELD(nuc_device_info, description, 8);
    FIELD(nuc_device_info, kind, 16);
    FIELD(nuc_device_info, id, 24);
}

static void numbers(void) {
    CHECK(NUC_OK == 0 && NUC_INVALID_ARGUMENT == 1 && NUC_PLUGIN_NOT_FOUND == 2 && NUC_PLUGIN_INVALID == 3);
    CHECK(NUC_PLUGIN_VERSION == 4 && NUC_DEVICE_ERROR == 5 && NUC_INTERNAL == 6);
    CHECK(NUC_OUT_OF_MEMORY == 7 && NUC_IO_ERROR == 8);
    CHECK(NUC_DTYPE_F32 == 0 && NUC_DTYPE_BF16 == 1 && NUC_DTYPE_F16 == 2);
    CHECK(NUC_BACKEND_AUTO == 0 && NUC_BACKEND_BUILTIN == 1 && NUC_BACKEND_PJRT == 2);
    CHECK(NUC_OPTION_STRING == 0 && NUC_OPTION_INT64 == 1 && NUC_OPTION_FLOAT == 2 && NUC_OPTION_BOOL == 3);
    CHECK(NUC_PATH_AUTO == 0 && NUC_PATH_ARBITRARY == 1 && NUC_PATH_BOUNDED == 2);
    CHECK(NUC_ROW_NO_CANDIDATE == 1 && NUC_ROW_HAD_NAN == 2);
    CHECK(NUC_WIDE_TOPK_LOGITS == 1 && NUC_WIDE_PROBS == 2 && NUC_WIDE_K_SLICES == 4);
}

static void other_versions(const char *plugin) {
    nuc_error error;
    /* Options of a newer header. The init function sets the unknown part to zero. */
    struct { nuc_sampler_options known; size_t more[2]; } options;
    memset(&options, 0xa5, sizeof options);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_options_init(&options.known, sizeof options, &error));
    CHECK(options.known.struct_size == sizeof options && options.more[0] == 0 && options.more[1] == 0);
    options.known.backend = plugin ? NUC_BACKEND_PJRT : NUC_BACKEND_BUILTIN;
    options.known.plugin_path = plugin;
    nuc_sampler *sampler = NULL;
    if (!CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options.known, &sampler, &error))) return;

    /* Options of the first header, which ended before program_dir. */
    nuc_sampler *older = NULL;
    memset(&options, 0xa5, sizeof options);
    CHECK_STATUS(NUC_OK, error,
                 nuc_sampler_options_init(&options.known, offsetof(nuc_sampler_options, program_dir), &error));
    CHECK(options.known.struct_size == 64 && options.known.program_dir != NULL);
    options.known.backend = NUC_BACKEND_BUILTIN;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options.known, &older, &error));
    nuc_sampler_destroy(older, NULL);

    const float logits[3] = {0, 2, 1};
    int32_t token = 77;
    later_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.known.struct_size = sizeof batch;
    batch.known.logits = logits;
    batch.known.dtype = NUC_DTYPE_F32;
    batch.known.batch = 1;
    batch.known.vocab = 3;
    const int32_t k = 1;
    batch.known.k = &k;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch.known, NULL, &token, NULL, NULL, &error));
    CHECK(token == 1);
    token = 77;
    batch.something_new = &batch;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, &batch.known, NULL, &token, NULL, NULL, &error));
    CHECK_NAMES(error, "newer version");
    CHECK(token == 77);
    batch.something_new = NULL;
    batch.known.struct_size = offsetof(nuc_batch, offset); /* shorter than in the first version */
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, &batch.known, NULL, &token, NULL, NULL, &error));
    CHECK_NAMES(error, "struct_size");
    CHECK(token == 77);

    /* A getter does not change the unknown part of a newer struct. */
    struct { nuc_sampler_info known; size_t more; } info;
    memset(&info, 0, sizeof info);
    info.known.struct_size = sizeof info;
    info.more = 77;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_info(sampler, &info.known, &error));
    CHECK(info.known.struct_size == sizeof info && info.more == 77 && info.known.max_k == 128);
    struct { nuc_sampler_stats known; size_t more; } stats;
    memset(&stats, 0, sizeof stats);
    stats.known.struct_size = sizeof stats;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats.known, &error));
    CHECK(stats.known.compiles == (plugin ? 1 : 0) && stats.more == 0);
    nuc_sampler_destroy(sampler, NULL);
}

int main(int argc, char **argv) {
    layout();
    numbers();
    other_versions(argc > 1 ? argv[1] : NULL);
    return report();
}
