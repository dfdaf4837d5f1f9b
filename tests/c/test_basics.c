/* Versions, status strings, creation and destruction, the getters, and batches whose results are known. */
#include <fenv.h>
#include "check.h"

static void versions(void) {
    CHECK(nuc_abi_version() == NUC_ABI_VERSION);
    CHECK(nuc_version_number() == NUC_VERSION);
    int major = -1, minor = -1, patch = -1;
    CHECK(sscanf(nuc_version(), "%d.%d.%d", &major, &minor, &patch) == 3);
    CHECK(major == NUC_VERSION_MAJOR && minor == NUC_VERSION_MINOR && patch == NUC_VERSION_PATCH);
    CHECK(NUC_VERSION == NUC_MAKE_VERSION(NUC_VERSION_MAJOR, NUC_VERSION_MINOR, NUC_VERSION_PATCH));
    CHECK(NUC_MAKE_VERSION(1, 2, 3) == 1002003u);
    CHECK(strcmp(nuc_status_string(NUC_OK), "NUC_OK") == 0);
    CHECK(strcmp(nuc_status_string(NUC_INVALID_ARGUMENT), "NUC_INVALID_ARGUMENT") == 0);
    CHECK(strcmp(nuc_status_string(NUC_PLUGIN_NOT_FOUND), "NUC_PLUGIN_NOT_FOUND") == 0);
    CHECK(strcmp(nuc_status_string(NUC_PLUGIN_INVALID), "NUC_PLUGIN_INVALID") == 0);
    CHECK(strcmp(nuc_status_string(NUC_PLUGIN_VERSION), "NUC_PLUGIN_VERSION") == 0);
    CHECK(strcmp(nuc_status_string(NUC_DEVICE_ERROR), "NUC_DEVICE_ERROR") == 0);
    CHECK(strcmp(nuc_status_string(NUC_INTERNAL), "NUC_INTERNAL") == 0);
    CHECK(strcmp(nuc_status_string(NUC_OUT_OF_MEMORY), "NUC_OUT_OF_MEMORY") == 0);
    CHECK(strcmp(nuc_status_string(NUC_IO_ERROR), "NUC_IO_ERROR") == 0);
    CHECK(strcmp(nuc_status_string(NUC_TIMEOUT), "NUC_TIMEOUT") == 0);
    CHECK(strcmp(nuc_status_string(NUC_CANCELLED), "NUC_CANCELLED") == 0);
    CHECK(strcmp(nuc_status_string(11), "unknown status") == 0);
    CHECK(strcmp(nuc_status_string(-1), "unknown status") == 0);
    CHECK(strcmp(nuc_status_string(INT32_MIN), "unknown status") == 0);
}

/* Whether every byte of a struct after struct_size is zero. */
static int is_zero_after_size(const void *value, size_t size) {
    const unsigned char *const bytes = value;
    for (size_t i = sizeof(size_t); i < size; i++) {
        if (bytes[i] != 0) return 0;
    }
    return 1;
}

/* An initializer sets struct_size, and sets all other fields to zero. */
static void initializers(void) {
#define INITIALIZES(type, initializer)                                                                 \
    do {                                                                                               \
        static const type value = initializer;                                                         \
        CHECK(value.struct_size == sizeof value && is_zero_after_size(&value, sizeof value));          \
    } while (0)
    INITIALIZES(nuc_error, NUC_ERROR_INIT);
    INITIALIZES(nuc_sampler_options, NUC_SAMPLER_OPTIONS_INIT);
    INITIALIZES(nuc_call_options, NUC_CALL_OPTIONS_INIT);
    INITIALIZES(nuc_batch, NUC_BATCH_INIT);
    INITIALIZES(nuc_debug_arrays, NUC_DEBUG_ARRAYS_INIT);
    INITIALIZES(nuc_prewarm_spec, NUC_PREWARM_SPEC_INIT);
    INITIALIZES(nuc_prewarm_progress, NUC_PREWARM_PROGRESS_INIT);
    INITIALIZES(nuc_compile_ahead_options, NUC_COMPILE_AHEAD_OPTIONS_INIT);
    INITIALIZES(nuc_sampler_stats, NUC_SAMPLER_STATS_INIT);
    INITIALIZES(nuc_sampler_info, NUC_SAMPLER_INFO_INIT);
    INITIALIZES(nuc_device_info, NUC_DEVICE_INFO_INIT);
#undef INITIALIZES
    static const nuc_client_option option = NUC_CLIENT_OPTION_INIT;
    CHECK(option.name == NULL && is_zero_after_size(&option, sizeof option));
}

/* Several samplers at the same time, with all defaults. NUCLEUS_PJRT_PLUGIN is not set, so they are built-in. */
static void create_and_destroy(void) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *samplers[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(NUC_OK, error, nuc_sampler_create(NULL, &samplers[i], &error));
        CHECK(samplers[i] != NULL);
    }
    CHECK(samplers[0] != samplers[1] && samplers[1] != samplers[2]);
    for (int i = 0; i < 3; i++) CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(samplers[i], &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(NULL, &error));
    CHECK(nuc_sampler_destroy(NULL, NULL) == NUC_OK);
}

static void getters(const nuc_sampler *sampler, int has_plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_info info;
    memset(&info, 0xa5, sizeof info);
    info.struct_size = sizeof info;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_info(sampler, &info, &error));
    CHECK(info.struct_size == sizeof info);
    CHECK(strcmp(info.platform_name, has_plugin ? "cpu" : "builtin") == 0);
    CHECK(info.platform_version[0] != '\0');
    CHECK(has_plugin ? info.pjrt_api_minor > 0 : info.pjrt_api_major == 0 && info.pjrt_api_minor == 0);
    CHECK(info.num_devices >= 1);
    CHECK(info.max_k == 128);

    nuc_device_info device;
    for (size_t i = 0; i < info.num_devices; i++) {
        memset(&device, 0xa5, sizeof device);
        device.struct_size = sizeof device;
        CHECK_STATUS(NUC_OK, error, nuc_sampler_get_device(sampler, i, &device, &error));
        CHECK(device.description[0] != '\0' && device.kind[0] != '\0');
        CHECK(device.id >= 0 && device.reserved == 0);
    }
    device.id = 77;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_device(sampler, info.num_devices, &device, &error));
    CHECK_NAMES(error, "index");
    CHECK(device.id == 77);

    nuc_sampler_stats stats;
    memset(&stats, 0xa5, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK(stats.compiles == 0 && stats.hits == 0 && stats.evictions == 0 && stats.failures == 0);
    CHECK(stats.compile_ns == 0 && stats.programs == 0);
}

enum { ROWS = 4, VOCAB = 6 };
static const float logits[ROWS][VOCAB] = {
    {0.5f, 3.0f, -2.0f, 2.5f, 3.0f, 0.0f}, /* two equal maxima: the lower index wins */
    {-1.0f, -2.0f, -3.0f, -4.0f, -5.0f, -0.5f},
    {9.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
    {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
};
static const int32_t greedy[ROWS] = {1, 5, 0, 0};

static nuc_batch whole_batch(void) {
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits;
    batch.dtype = NUC_DTYPE_F32;
    batch.num_rows = ROWS;
    batch.vocab = VOCAB;
    return batch;
}

static void known_results(const nuc_sampler *sampler, int has_plugin) {
    nuc_error error = NUC_ERROR_INIT;
    int32_t tokens[ROWS];
    uint32_t status[ROWS];
    nuc_batch batch = whole_batch();

    /* Temperature 0, k = 1, and p = 0 select the maximum in rows without a tie. */
    const float zero[ROWS] = {0, 0, 0, 0};
    const int32_t one[ROWS] = {1, 1, 1, 1};
    for (int way = 0; way < 3; way++) {
        batch = whole_batch();
        if (way == 0) batch.temperature = zero;
        if (way == 1) batch.top_k = one;
        if (way == 2) batch.top_p = zero;
        for (uint64_t seed = 0; seed < 8; seed++) {
            const uint64_t seeds[ROWS] = {seed, seed, seed, seed};
            batch.seed = seeds;
            memset(status, 0xa5, sizeof status);
            CHECK_STATUS(NUC_OK, error,
                         nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, status, NULL, &error));
            for (int row = 0; row < ROWS; row++) {
                const int tied = way == 2 && (row == 0 || row == 3);
                CHECK(tied ? logits[row][tokens[row]] == logits[row][greedy[row]] : tokens[row] == greedy[row]);
                CHECK(status[row] == 0);
            }
        }
    }

    /* Random words of zero draw the first entry that was kept. */
    const uint32_t words[ROWS][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
    const int32_t two[ROWS] = {2, 2, 2, 2};
    batch = whole_batch();
    batch.random_words = &words[0][0];
    batch.top_k = two;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    CHECK(tokens[0] == 1 && tokens[1] == 0 && tokens[2] == 0 && tokens[3] == 0);

    /* All six weights are 2^28, so r = U mod total draws entry r / 2^28. */
    for (uint32_t entry = 0; entry < VOCAB; entry++) {
        for (int last = 0; last < 2; last++) {
            const uint32_t r = entry * 268435456u + (last ? 268435455u : 0u);
            const uint32_t low[4] = {0, 0, 0, r};
            batch = whole_batch();
            batch.logits = logits[3];
            batch.num_rows = 1;
            batch.random_words = low;
            CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
            CHECK(tokens[0] == (int32_t)entry);
        }
    }

    /* The same seed and offset draw the same token. Over 64 offsets a row of equal logits draws every entry. */
    int seen[VOCAB] = {0};
    for (uint64_t step = 0; step < 64; step++) {
        int32_t again[ROWS];
        const uint64_t seeds[ROWS] = {42, 42, 42, 42}, offsets[ROWS] = {step, step, step, step};
        batch = whole_batch();
        batch.seed = seeds;
        batch.offset = offsets;
        CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
        CHECK(nuc_topk_topp_and_sample(sampler, &batch, NULL, again, NULL, NULL, NULL) == NUC_OK);
        CHECK(memcmp(tokens, again, sizeof tokens) == 0);
        seen[tokens[3]]++;
    }
    for (int i = 0; i < VOCAB; i++) CHECK(seen[i] > 0);

    /* Rows without a candidate, and rows with a NaN. */
    const float not_a_number = strtof("nan", NULL), infinity = strtof("inf", NULL);
    const float odd[3][2] = {{-infinity, -infinity}, {not_a_number, 1.0f}, {not_a_number, -infinity}};
    batch = whole_batch();
    batch.logits = odd;
    batch.num_rows = 3;
    batch.vocab = 2;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, status, NULL, &error));
    CHECK(tokens[0] == -1 && tokens[1] == 1 && tokens[2] == -1);
    CHECK(status[0] == NUC_ROW_NO_CANDIDATE && status[1] == NUC_ROW_HAD_NAN);
    CHECK(status[2] == (NUC_ROW_NO_CANDIDATE | NUC_ROW_HAD_NAN));

    /* A call with no rows succeeds and writes nothing. */
    batch = whole_batch();
    batch.num_rows = 0;
    batch.logits = NULL;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, NULL, NULL, NULL, &error));
    tokens[0] = 77;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    CHECK(tokens[0] == 77);

    nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
    spec.path = NUC_PATH_BOUNDED;
    spec.dtype = NUC_DTYPE_F32;
    spec.num_rows = 4;
    spec.vocab = VOCAB;
    nuc_sampler_stats before = NUC_SAMPLER_STATS_INIT, after = NUC_SAMPLER_STATS_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_prewarm(sampler, &spec, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &before, &error));
    CHECK(has_plugin ? before.compiles > 0 && before.compile_ns > 0 : before.compiles == 0);
    CHECK(before.programs == before.compiles && before.failures == 0 && before.evictions == 0);
    batch = whole_batch();
    batch.top_k = two;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &after, &error));
    CHECK(after.compiles == before.compiles && after.hits == before.hits + (has_plugin ? 1 : 0));
    CHECK(after.total_count == before.total_count + 1 && after.total_p99_ns >= after.total_p50_ns);
    CHECK(after.enqueue_count == before.enqueue_count + (has_plugin ? 1 : 0));
    CHECK(after.execute_count == after.enqueue_count);

    /* The programs are in memory, so a prewarm in the background compiles nothing. */
    nuc_prewarming *prewarming = NULL;
    nuc_prewarm_progress progress = NUC_PREWARM_PROGRESS_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_prewarm_start(sampler, &spec, &prewarming, &error));
    CHECK_STATUS(NUC_OK, error, nuc_prewarming_wait(prewarming, UINT64_MAX, &error));
    CHECK_STATUS(NUC_OK, error, nuc_prewarming_get_progress(prewarming, &progress, &error));
    CHECK(progress.has_ended == 1 && progress.done == progress.total && progress.total == before.pinned);
    CHECK_STATUS(NUC_OK, error, nuc_prewarming_cancel(prewarming, &error));
    CHECK_STATUS(NUC_OK, error, nuc_prewarming_destroy(prewarming, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &after, &error));
    CHECK(after.compiles == before.compiles);
}

/* The caller's rounding mode changes no bit of the results, and the call restores it. One row runs on the calling
 * thread, and a batch is large enough for other threads. */
static void rounding_modes(nuc_sampler *sampler) {
    enum { ROWS = 64, WIDE = 3000 };
    const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    nuc_error error = NUC_ERROR_INIT;
    uint64_t state = 5, *seed = malloc(ROWS * sizeof *seed);
    float *logits = malloc(ROWS * WIDE * sizeof *logits), *p = malloc(ROWS * sizeof *p);
    float *temperature = malloc(ROWS * sizeof *temperature);
    int32_t *weights[2], tokens[2][ROWS];
    for (int i = 0; i < 2; i++) weights[i] = malloc(ROWS * WIDE * sizeof *weights[i]);
    for (size_t i = 0; i < ROWS * WIDE; i++) logits[i] = 9.0f * next_float(&state);
    for (size_t i = 0; i < ROWS; i++) {
        seed[i] = i;
        p[i] = 0.9f;
        temperature[i] = 0.1f + 0.03f * (float)i;
    }
    for (size_t rows = 1; rows <= ROWS; rows += ROWS - 1) {
        for (size_t mode = 0; mode < sizeof modes / sizeof *modes; mode++) {
            nuc_batch batch = whole_batch();
            nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;
            batch.logits = logits;
            batch.num_rows = rows;
            batch.vocab = WIDE;
            batch.top_p = p;
            batch.temperature = temperature;
            batch.seed = seed;
            debug.topk_topp_unnorm_probs_i32_unsorted = weights[mode != 0];
            fesetround(modes[mode]);
            const nuc_status status =
                nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens[mode != 0], NULL, &debug, &error);
            const int kept = fegetround() == modes[mode];
            fesetround(FE_TONEAREST);
            CHECK_STATUS(NUC_OK, error, status);
            CHECK(kept);
            CHECK(memcmp(tokens[0], tokens[mode != 0], rows * sizeof **tokens) == 0);
            CHECK(memcmp(weights[0], weights[mode != 0], rows * WIDE * sizeof **weights) == 0);
        }
    }
    for (int i = 0; i < 2; i++) free(weights[i]);
    free(seed);
    free(logits);
    free(p);
    free(temperature);
}

/* A call does not change the caller's exception flags: it neither sets nor clears a flag. */
static void exception_flags(const nuc_sampler *sampler) {
    nuc_status (*const entries[2])(const nuc_sampler *, const nuc_batch *, const nuc_call_options *, int32_t *,
                                   uint32_t *, const nuc_debug_arrays *, nuc_error *) = {
        nuc_topk_topp_and_sample, nuc_reference_topk_topp_and_sample};
    const float temperature[ROWS] = {0.7f, 0.3f, 1.1f, 1e-4f}, p[ROWS] = {0.9f, 0.8f, 0.7f, 0.6f};
    nuc_error error = NUC_ERROR_INIT;
    int32_t tokens[ROWS];
    nuc_batch batch = whole_batch();
    batch.temperature = temperature;
    batch.top_p = p;
    for (int entry = 0; entry < 2; entry++) {
        fesetenv(FE_DFL_ENV); /* clears all flags, also those that FE_ALL_EXCEPT does not include */
        nuc_status status = entries[entry](sampler, &batch, NULL, tokens, NULL, NULL, &error);
        const int added = fetestexcept(FE_ALL_EXCEPT);
        CHECK_STATUS(NUC_OK, error, status);
        CHECK(added == 0);
        feraiseexcept(FE_DIVBYZERO | FE_INVALID);
        const int raised = fetestexcept(FE_ALL_EXCEPT); /* 0 under valgrind, which has no exception flags */
        status = entries[entry](sampler, &batch, NULL, tokens, NULL, NULL, &error);
        const int kept = fetestexcept(FE_ALL_EXCEPT);
        feclearexcept(FE_ALL_EXCEPT);
        CHECK_STATUS(NUC_OK, error, status);
        CHECK(kept == raised);
        feraiseexcept(FE_DIVBYZERO);
        const int before = fetestexcept(FE_ALL_EXCEPT);
        status = nuc_prewarm(NULL, NULL, &error);
        CHECK(fetestexcept(FE_ALL_EXCEPT) == before);
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, status);
        feclearexcept(FE_ALL_EXCEPT);
    }
}

int main(int argc, char **argv) {
    const char *plugin = argc > 1 ? argv[1] : NULL;
    versions();
    initializers();
    create_and_destroy();
    nuc_sampler *sampler = make_sampler(plugin, 128);
    getters(sampler, plugin != NULL);
    known_results(sampler, plugin != NULL);
    rounding_modes(sampler);
    exception_flags(sampler);
    nuc_error error = NUC_ERROR_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    return report();
}
