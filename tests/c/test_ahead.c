/*
 * Compiling ahead of time, and samplers that load the compiled programs.
 *
 *   test_ahead PLUGIN DIRECTORY            compiles for the devices of this host, and loads
 *   test_ahead PLUGIN DIRECTORY TOPOLOGY   compiles for devices that this host does not have; no sampler can be created
 *   test_ahead PLUGIN DIRECTORY unset      libtpu, without the environment variables that it needs
 *
 * The directory must not exist.
 */
#define _POSIX_C_SOURCE 200112L
#include "check.h"

enum { VOCAB = 300, ROWS = 3 };

static nuc_compile_ahead_options good_options(const char *plugin, const char *directory, const size_t *batches,
                                              size_t num_batches) {
    nuc_error error;
    nuc_compile_ahead_options options;
    memset(&options, 0xa5, sizeof options);
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead_options_init(&options, sizeof options, &error));
    options.plugin_path = plugin;
    options.output_dir = directory;
    options.batches = batches;
    options.num_batches = num_batches;
    options.vocab = VOCAB;
    options.dtype = NUC_DTYPE_BF16;
    return options;
}

static void defaults(void) {
    nuc_error error;
    nuc_compile_ahead_options options;
    memset(&options, 0xa5, sizeof options);
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead_options_init(&options, sizeof options, &error));
    CHECK(options.struct_size == sizeof options && options.plugin_path == NULL && options.topology == NULL);
    CHECK(options.plugin_options == NULL && options.num_plugin_options == 0 && options.output_dir == NULL);
    CHECK(options.batches == NULL && options.num_batches == 0 && options.vocab == 0 && options.max_k == 128);
    CHECK(options.dtype == NUC_DTYPE_F32 && options.path == NUC_PATH_AUTO && options.stable == 1);
    CHECK(options.wide_arrays == 0 && options.smaller_batches == 0 && options.reserved == 0);
    CHECK(options.programs_written == NULL);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead_options_init(NULL, sizeof options, &error));
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead_options_init(&options, 8, &error));
}

/* Sets a wrong value in every field. The message must name the field, and no file may be written. */
static void wrong_arguments(const char *plugin, const char *directory, const char *topology) {
    nuc_error error;
    const size_t batches[2] = {1, 2}, zero[2] = {4, 0};
    size_t count = 77;
    nuc_compile_ahead_options options;
#define WRONG(change, name)                                                                \
    do {                                                                                   \
        options = good_options(plugin, directory, batches, 2);                                \
        options.topology = topology;                                                       \
        options.programs_written = &count;                                                 \
        change;                                                                            \
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(&options, &error));    \
        CHECK_NAMES(error, name);                                                          \
    } while (0)
    WRONG(options.output_dir = NULL, "output_dir");
    WRONG(options.output_dir = "", "output_dir");
    WRONG(options.output_dir = "\xff", "output_dir");
    WRONG(options.batches = NULL, "batches");
    WRONG(options.num_batches = 0, "num_batches");
    WRONG(options.num_batches = (size_t)-1, "num_batches");
    WRONG(options.batches = zero, "batches[1]");
    WRONG(options.batches = (const size_t *)((const char *)batches + 1), "batches");
    WRONG(options.vocab = 0, "vocab");
    WRONG(options.vocab = (size_t)1 << 25, "vocab");
    WRONG(options.max_k = 0, "max_k");
    WRONG(options.max_k = 1025, "max_k");
    WRONG(options.dtype = 3, "dtype");
    WRONG(options.path = -1, "path");
    WRONG(options.stable = 2, "stable");
    WRONG(options.smaller_batches = -1, "smaller_batches");
    WRONG(options.wide_arrays = 8, "wide_arrays");
    WRONG(options.reserved = 1, "reserved");
    WRONG(options.struct_size = 16, "struct_size");
    WRONG(options.num_plugin_options = 1, "plugin_options");
    WRONG(options.num_plugin_options = 5000, "num_plugin_options");
    WRONG(options.programs_written = (size_t *)((char *)&count + 1), "programs_written");
    WRONG(options.plugin_path = "\xff", "plugin_path");
    WRONG(options.topology = "\xff", "topology");
    WRONG(options.topology = "v9z:2x2", "topology");
#undef WRONG
    /* /proc cannot contain new directories, so the argument is wrong. A full disk would be NUC_IO_ERROR. */
    options = good_options(plugin, "/proc/none", batches, 2);
    options.topology = topology;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(&options, &error));
    CHECK_NAMES(error, "output_dir");
    options = good_options("/nonexistent.so", directory, batches, 2);
    CHECK_STATUS(NUC_PLUGIN_NOT_FOUND, error, nuc_compile_ahead(&options, &error));
    options.plugin_path = NULL;
    CHECK_STATUS(NUC_PLUGIN_NOT_FOUND, error, nuc_compile_ahead(&options, &error));
    CHECK_NAMES(error, "NUCLEUS_PJRT_PLUGIN");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(NULL, &error));
    CHECK(nuc_compile_ahead(NULL, NULL) == NUC_INVALID_ARGUMENT);
    CHECK(count == 77);
}

/* The last warning of the library. The test creates one sampler at a time. */
static int warnings;
static char warning[600];

static void warn(void *user, int32_t level, const char *message) {
    CHECK(user == NULL);
    if (level != NUC_LOG_WARNING) return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

static nuc_status make(const char *plugin, const char *directory, int32_t write, nuc_sampler **sampler,
                       nuc_error *error) {
    nuc_sampler_options options;
    CHECK(nuc_sampler_options_init(&options, sizeof options, NULL) == NUC_OK);
    CHECK(options.program_dir == NULL && options.write_programs == 0 && options.reserved == 0);
    options.backend = NUC_BACKEND_PJRT;
    options.plugin_path = plugin;
    options.program_dir = directory;
    options.write_programs = write;
    return nuc_sampler_create(&options, sampler, error);
}

/* Samples rows whose tokens are known, and checks how many programs were compiled and loaded. */
static void samples(const char *plugin, const char *directory, uint64_t compiles, uint64_t loaded) {
    static uint16_t logits[ROWS][VOCAB];
    nuc_error error;
    nuc_sampler *sampler = NULL;
    if (!CHECK_STATUS(NUC_OK, error, make(plugin, directory, 0, &sampler, &error))) return;
    const int32_t k[ROWS] = {1, 1, 1};
    int32_t tokens[ROWS];
    memset(logits, 0, sizeof logits);
    for (int row = 0; row < ROWS; row++) logits[row][7 + row] = 0x3f80; /* 1 in bf16 */
    nuc_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = sizeof batch;
    batch.logits = logits;
    batch.dtype = NUC_DTYPE_BF16;
    batch.batch = ROWS;
    batch.vocab = VOCAB;
    batch.k = k;
    CHECK_STATUS(NUC_OK, error, nuc_bounded_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    for (int row = 0; row < ROWS; row++) CHECK(tokens[row] == 7 + row);
    CHECK_STATUS(NUC_OK, error, nuc_arbitrary_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    for (int row = 0; row < ROWS; row++) CHECK(tokens[row] == 7 + row);
    nuc_sampler_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK(stats.compiles == compiles && stats.loaded == loaded && stats.programs == compiles + loaded);
    CHECK((stats.compile_ns == 0) == (compiles == 0));
    nuc_sampler_destroy(sampler, NULL);
}

static void compiled_is_loaded(const char *plugin, const char *directory) {
    nuc_error error;
    nuc_sampler *sampler = NULL;
    /* Without write_programs, the directory must exist. */
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, make(plugin, directory, 0, &sampler, &error));
    CHECK_NAMES(error, "program_dir");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, make(plugin, directory, 2, &sampler, &error));
    CHECK_NAMES(error, "write_programs");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, make(plugin, NULL, 1, &sampler, &error));
    CHECK_NAMES(error, "program_dir");
    CHECK(sampler == NULL);
    samples(plugin, NULL, 2, 0);

    const size_t batches[2] = {ROWS, 1};
    size_t count = 77;
    nuc_compile_ahead_options options = good_options(plugin, directory, batches, 1);
    options.path = NUC_PATH_BOUNDED;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&options, &error));
    CHECK_STATUS(NUC_OK, error, nuc_set_log(warn, NULL, NUC_LOG_WARNING, &error));
    samples(plugin, directory, 1, 1);
    CHECK(warnings == 1 && strstr(warning, "compiling nucleus_arbitrary_4x300_bf16: it is not in program_dir") != NULL);
    options.path = NUC_PATH_AUTO;
    options.num_batches = 2;
    options.programs_written = &count;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&options, &error));
    CHECK(count == 4);
    samples(plugin, directory, 0, 2);
    CHECK(warnings == 1);

    CHECK(setenv("NUCLEUS_PROGRAM_DIR", directory, 1) == 0);
    samples(plugin, NULL, 0, 2);
    CHECK(setenv("NUCLEUS_PROGRAM_DIR", "/nonexistent", 1) == 0);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, make(plugin, NULL, 0, &sampler, &error));
    CHECK_NAMES(error, "/nonexistent");
    samples(plugin, directory, 0, 2); /* the options have priority over the environment */
    CHECK(unsetenv("NUCLEUS_PROGRAM_DIR") == 0);
}

static void compiled_for_another_host(const char *plugin, const char *directory, const char *topology) {
    nuc_error error;
    const size_t batch = 1;
    size_t count = 77;
    nuc_compile_ahead_options options = good_options(plugin, directory, &batch, 1);
    options.topology = topology;
    options.path = NUC_PATH_ARBITRARY;
    options.programs_written = &count;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&options, &error));
    CHECK(count == 1);

    /* Without the device no sampler can be created. The message says what works without the device. */
    nuc_sampler *sampler = NULL;
    CHECK_STATUS(NUC_DEVICE_ERROR, error, make(plugin, NULL, 0, &sampler, &error));
    CHECK_NAMES(error, "started no TPU");
    CHECK_NAMES(error, "nuc_compile_ahead");
    CHECK_NAMES(error, "built-in backend");
    CHECK(sampler == NULL);
    nuc_compile_ahead_options here = options;
    here.topology = NULL;
    CHECK_STATUS(NUC_DEVICE_ERROR, error, nuc_compile_ahead(&here, &error));
    CHECK_NAMES(error, "topology");
}

/* libtpu on a host without a TPU and without the required environment variables: both functions fail immediately. */
static void environment_is_missing(const char *plugin, const char *directory) {
    nuc_error error;
    const size_t batch = 1;
    nuc_compile_ahead_options options = good_options(plugin, directory, &batch, 1);
    options.topology = "v5e:2x2";
    CHECK_STATUS(NUC_DEVICE_ERROR, error, nuc_compile_ahead(&options, &error));
    CHECK_NAMES(error, "TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost ALLOW_MULTIPLE_LIBTPU_LOAD=1");
    nuc_sampler *sampler = NULL;
    CHECK_STATUS(NUC_DEVICE_ERROR, error, make(plugin, NULL, 0, &sampler, &error));
    CHECK_NAMES(error, "TPU_SKIP_MDS_QUERY");
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: test_ahead PLUGIN DIRECTORY [TOPOLOGY|unset]\n"), 2;
    defaults();
    if (argc > 3 && strcmp(argv[3], "unset") == 0) {
        environment_is_missing(argv[1], argv[2]);
        return report();
    }
    wrong_arguments(argv[1], argv[2], argv[3]);
    if (argc > 3) {
        compiled_for_another_host(argv[1], argv[2], argv[3]);
    } else {
        compiled_is_loaded(argv[1], argv[2]);
    }
    return report();
}
