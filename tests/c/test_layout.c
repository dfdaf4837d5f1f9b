/*
 * Callers of newer headers, whose structs are longer. tests/c/layout.py tests the layout of the structs.
 */
#include "check.h"

#include <stddef.h>

/* The struct of a caller with a newer header. */
typedef struct later_batch {
    nuc_batch known;
    const void *something_new;
    size_t more[3];
} later_batch;

static void other_versions(const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    /* Options of a newer header, whose unknown part is zero. */
    struct { nuc_sampler_options known; size_t more[2]; } options;
    memset(&options, 0, sizeof options);
    options.known.struct_size = sizeof options;
    options.known.backend = plugin ? NUC_BACKEND_PJRT : NUC_BACKEND_BUILTIN;
    options.known.plugin_path = plugin;
    nuc_sampler *sampler = NULL;
    options.more[1] = 1;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_create(&options.known, &sampler, &error));
    CHECK_NAMES(error, "newer version");
    options.more[1] = 0;
    if (!CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options.known, &sampler, &error))) return;

    /* A nuc_error of a newer header. The library writes only the fields that it knows. */
    struct { nuc_error known; size_t more; } newer;
    memset(&newer, 0, sizeof newer);
    newer.known.struct_size = sizeof newer;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, newer.known, nuc_prewarm(sampler, NULL, &newer.known));
    CHECK_NAMES(newer.known, "nuc_prewarm_spec");
    CHECK(newer.known.struct_size == sizeof newer && newer.more == 0);

    const float logits[3] = {0, 2, 1};
    int32_t token = 77;
    later_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.known.struct_size = sizeof batch;
    batch.known.logits = logits;
    batch.known.dtype = NUC_DTYPE_F32;
    batch.known.num_rows = 1;
    batch.known.vocab = 3;
    const int32_t k = 1;
    batch.known.top_k = &k;
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
    other_versions(argc > 1 ? argv[1] : NULL);
    return report();
}
