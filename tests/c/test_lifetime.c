/*
 * Handles that must not be used: in a child process after fork, after nuc_sampler_destroy, and memory that was never a
 * handle. Does not run under valgrind, because this program intentionally reads a destroyed handle.
 */
#define _POSIX_C_SOURCE 200112L
#include "check.h"
#include "child.h"

static const float logits[3] = {0, 2, 1};

static nuc_batch small_batch(void) {
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits;
    batch.dtype = NUC_DTYPE_F32;
    batch.num_rows = 1;
    batch.vocab = 3;
    return batch;
}

static const int32_t one = 1;

/* Every function refuses the handle with a message that contains `reason`, and writes no output. */
static void every_call_refuses(const nuc_sampler *sampler, const char *reason) {
    nuc_status (*const entries[4])(const nuc_sampler *, const nuc_batch *, const nuc_call_options *, int32_t *,
                                   uint32_t *, const nuc_debug_arrays *, nuc_error *) = {
        nuc_topk_topp_and_sample, nuc_arbitrary_topk_topp_and_sample, nuc_bounded_topk_topp_and_sample,
        nuc_reference_topk_topp_and_sample};
    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = small_batch();
    batch.top_k = &one;
    for (int entry = 0; entry < 4; entry++) {
        int32_t token = 77;
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, entries[entry](sampler, &batch, NULL, &token, NULL, NULL, &error));
        CHECK_NAMES(error, reason);
        CHECK(token == 77);
    }
    nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
    spec.num_rows = 1;
    spec.vocab = 3;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(sampler, &spec, &error));
    CHECK_NAMES(error, reason);
    nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK_NAMES(error, reason);
    nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_info(sampler, &info, &error));
    CHECK_NAMES(error, reason);
    nuc_device_info device = NUC_DEVICE_INFO_INIT;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_device(sampler, 0, &device, &error));
    CHECK_NAMES(error, reason);
}

static void works(const nuc_sampler *sampler) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = small_batch();
    int32_t token = 77;
    batch.top_k = &one;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, &token, NULL, NULL, &error));
    CHECK(token == 1);
}

static const char *plugin_of_parent;

/* The child cannot use the parent's sampler or plugin. Destroying that sampler does nothing. A new sampler on the
 * built-in backend works. */
static void use_after_fork(void *sampler) {
    nuc_error error = NUC_ERROR_INIT;
    if (plugin_of_parent != NULL) {
        nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
        nuc_sampler *refused = NULL;
        options.plugin_path = plugin_of_parent;
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_create(&options, &refused, &error));
        CHECK_NAMES(error, "fork");
        CHECK(refused == NULL);
    }
    every_call_refuses(sampler, "fork");
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    every_call_refuses(sampler, "fork");
    nuc_sampler *own = make_sampler(NULL, 16);
    works(own);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(own, &error));
}

static void forks(const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = make_sampler(plugin, 16);
    plugin_of_parent = plugin;
    works(sampler);
    const child_outcome outcome = run_child(use_after_fork, sampler);
    check_silent_child(&outcome, "the child after fork");
    works(sampler);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
}

static void use_after_destroy(const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = make_sampler(plugin, 16);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    every_call_refuses(sampler, "destroyed");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_destroy(sampler, &error));
    CHECK_NAMES(error, "destroyed");
}

static void not_a_handle(void) {
    static uint64_t memory[1024];
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *const wrong = (nuc_sampler *)(void *)memory;
    for (int byte = 0; byte < 256; byte += 51) {
        memset(memory, byte, sizeof memory);
        every_call_refuses(wrong, "not a sampler");
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_destroy(wrong, &error));
        CHECK_NAMES(error, "not a sampler");
    }
}

int main(int argc, char **argv) {
    const char *plugin = argc > 1 ? argv[1] : NULL;
    forks(plugin);
    use_after_destroy(plugin);
    not_a_handle();
    return report();
}
