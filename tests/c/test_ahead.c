/*
 * Compiling ahead of time, and samplers that load the compiled programs.
 *
 *   test_ahead PLUGIN DIRECTORY            compiles for the devices of this host, and loads
 *   test_ahead PLUGIN DIRECTORY TOPOLOGY   compiles for devices that this host does not have; no sampler can be created
 *   test_ahead PLUGIN DIRECTORY unset      libtpu, without the environment variables that it needs
 *
 * The directory must not exist.
 */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "check.h"

enum { VOCAB = 300, ROWS = 3 };

static nuc_compile_ahead_options good_options(const char *plugin, const char *directory, const size_t *row_counts,
                                              size_t num_row_counts) {
    nuc_compile_ahead_options options = NUC_COMPILE_AHEAD_OPTIONS_INIT;
    options.plugin_path = plugin;
    options.output_dir = directory;
    options.row_counts = row_counts;
    options.num_row_counts = num_row_counts;
    options.vocab = VOCAB;
    options.dtype = NUC_DTYPE_BF16;
    return options;
}

/* Sets a wrong value in every field. The message must name the field, and no file may be written. */
static void wrong_arguments(const char *plugin, const char *directory, const char *topology) {
    nuc_error error = NUC_ERROR_INIT;
    const size_t row_counts[2] = {1, 2}, zero[2] = {4, 0};
    size_t count = 77;
    nuc_compile_ahead_options options;
#define WRONG(change, name)                                                                    \
    do {                                                                                       \
        options = good_options(plugin, directory, row_counts, 2);                              \
        options.topology = topology;                                                           \
        change;                                                                                \
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(&options, &count, &error)); \
        CHECK_NAMES(error, name);                                                              \
    } while (0)
    WRONG(options.output_dir = NULL, "output_dir");
    WRONG(options.output_dir = "", "output_dir");
    WRONG(options.output_dir = "\xff", "output_dir");
    WRONG(options.row_counts = NULL, "row_counts");
    WRONG(options.num_row_counts = 0, "num_row_counts");
    WRONG(options.num_row_counts = (size_t)-1, "num_row_counts");
    WRONG(options.row_counts = zero, "row_counts[1]");
    WRONG(options.row_counts = (const size_t *)(const void *)((const char *)row_counts + 1), "row_counts");
    WRONG(options.vocab = 0, "vocab");
    WRONG(options.vocab = (size_t)1 << 25, "vocab");
    WRONG(options.max_k = 1025, "max_k");
    WRONG(options.dtype = 3, "dtype");
    WRONG(options.path = -1, "path");
    WRONG(options.keep_ties = 2, "keep_ties");
    WRONG(options.smaller_row_counts = -1, "smaller_row_counts");
    WRONG(options.debug_arrays = 8, "debug_arrays");
    WRONG((options.path = NUC_PATH_ARBITRARY, options.debug_arrays = NUC_DEBUG_K_SLICES), "debug_arrays");
    WRONG(options.reserved = 1, "reserved");
    WRONG(options.struct_size = 16, "struct_size");
    WRONG(options.num_plugin_options = 1, "plugin_options");
    WRONG(options.num_plugin_options = 5000, "num_plugin_options");
    WRONG(options.plugin_path = "\xff", "plugin_path");
    WRONG(options.topology = "\xff", "topology");
    WRONG(options.topology = "v9z:2x2", "topology");
#undef WRONG
    options = good_options(plugin, directory, row_counts, 2);
    size_t *const misaligned = (size_t *)(void *)((char *)&count + 1);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(&options, misaligned, &error));
    CHECK_ARGUMENT(error, "programs_written");
    /* /proc cannot contain new directories, so the argument is wrong. A full disk would be NUC_IO_ERROR. */
    options = good_options(plugin, "/proc/none", row_counts, 2);
    options.topology = topology;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(&options, NULL, &error));
    CHECK_NAMES(error, "output_dir");
    CHECK_NAMES(error, "it must be a directory, or a path where a directory can be created");
    options = good_options("/nonexistent.so", directory, row_counts, 2);
    CHECK_STATUS(NUC_PLUGIN_NOT_FOUND, error, nuc_compile_ahead(&options, NULL, &error));
    options.plugin_path = NULL;
    CHECK_STATUS(NUC_PLUGIN_NOT_FOUND, error, nuc_compile_ahead(&options, NULL, &error));
    CHECK_NAMES(error, "NUCLEUS_PJRT_PLUGIN");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_compile_ahead(NULL, NULL, &error));
    CHECK(nuc_compile_ahead(NULL, NULL, NULL) == NUC_INVALID_ARGUMENT);
    CHECK(count == 77);
}

/* The last warning of the library. The test creates one sampler at a time. */
static int warnings;
static char warning[600];

static void warn(void *user, nuc_log_level level, const char *message) {
    CHECK(user == NULL);
    if (level != NUC_LOG_WARNING) return;
    warnings++;
    snprintf(warning, sizeof warning, "%s", message);
}

static nuc_status make(const char *plugin, const char *directory, int32_t write, nuc_sampler **sampler,
                       nuc_error *error) {
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = NUC_BACKEND_PJRT;
    options.plugin_path = plugin;
    options.program_dir = directory;
    options.write_programs = write;
    return nuc_sampler_create(&options, sampler, error);
}

/* Samples rows whose tokens are known, and checks how many programs were compiled and loaded. */
static void samples(const char *plugin, const char *directory, uint64_t compiles, uint64_t loaded) {
    static uint16_t logits[ROWS][VOCAB];
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = NULL;
    if (!CHECK_STATUS(NUC_OK, error, make(plugin, directory, 0, &sampler, &error))) return;
    const int32_t k[ROWS] = {1, 1, 1};
    int32_t tokens[ROWS];
    memset(logits, 0, sizeof logits);
    for (int row = 0; row < ROWS; row++) logits[row][7 + row] = 0x3f80; /* 1 in bf16 */
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits;
    batch.dtype = NUC_DTYPE_BF16;
    batch.num_rows = ROWS;
    batch.vocab = VOCAB;
    batch.top_k = k;
    CHECK_STATUS(NUC_OK, error, nuc_bounded_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    for (int row = 0; row < ROWS; row++) CHECK(tokens[row] == 7 + row);
    CHECK_STATUS(NUC_OK, error, nuc_arbitrary_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    for (int row = 0; row < ROWS; row++) CHECK(tokens[row] == 7 + row);
    nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK(stats.compiles == compiles && stats.loaded == loaded && stats.programs == compiles + loaded);
    CHECK((stats.compile_ns == 0) == (compiles == 0));
    nuc_sampler_destroy(sampler, NULL);
}

static void compiled_is_loaded(const char *plugin, const char *directory) {
    nuc_error error = NUC_ERROR_INIT;
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

    const size_t row_counts[2] = {ROWS, 1};
    size_t count = 77;
    nuc_compile_ahead_options options = good_options(plugin, directory, row_counts, 1);
    options.path = NUC_PATH_BOUNDED;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&options, NULL, &error));
    CHECK_STATUS(NUC_OK, error, nuc_set_log(warn, NULL, NUC_LOG_WARNING, &error));
    samples(plugin, directory, 1, 1);
    CHECK(warnings == 1 && strstr(warning, "compiling nucleus_arbitrary_4x300_bf16: it is not in program_dir") != NULL);
    options.path = NUC_PATH_AUTO;
    options.num_row_counts = 2;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&options, &count, &error));
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

/* Sets the time of last use of every program file to an hour ago. Returns the number of program files. */
static int make_old(const char *directory) {
    DIR *list = opendir(directory);
    CHECK(list != NULL);
    if (list == NULL) return 0;
    const time_t an_hour_ago = time(NULL) - 3600;
    const struct timespec times[2] = {{.tv_sec = an_hour_ago}, {.tv_sec = an_hour_ago}};
    int files = 0;
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        /* The file with the hashes of plugins is not a program file. */
        const char *suffix = strrchr(entry->d_name, '.');
        if (suffix == NULL || strcmp(suffix, ".nucprog") != 0) continue;
        CHECK(utimensat(dirfd(list), entry->d_name, times, 0) == 0);
        files++;
    }
    closedir(list);
    return files;
}

static void old_programs_are_removed(const char *plugin, const char *directory) {
    static const float logits[VOCAB + 1] = {1};
    nuc_error error = NUC_ERROR_INIT;
    CHECK(make_old(directory) == 4);
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = NUC_BACKEND_PJRT;
    options.plugin_path = plugin;
    options.program_dir = directory;
    options.write_programs = 1;
    options.program_dir_capacity = 1;
    nuc_sampler *sampler = NULL;
    if (!CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error))) return;
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits;
    batch.num_rows = 1;
    batch.vocab = VOCAB + 1;
    const int32_t k = 1;
    batch.top_k = &k;
    int32_t token = -1;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, &token, NULL, NULL, &error));
    CHECK(token == 0);
    nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK(stats.program_files_evicted == 4 && stats.program_dir_bytes > 1);
    CHECK(make_old(directory) == 1);
    nuc_sampler_destroy(sampler, NULL);

    const size_t row_count = ROWS;
    nuc_compile_ahead_options ahead = good_options(plugin, directory, &row_count, 1);
    ahead.path = NUC_PATH_BOUNDED;
    ahead.output_dir_capacity = 1;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&ahead, NULL, &error));
    CHECK(make_old(directory) == 1);
}

static void compiled_for_another_host(const char *plugin, const char *directory, const char *topology) {
    nuc_error error = NUC_ERROR_INIT;
    const size_t one_row = 1;
    size_t count = 77;
    nuc_compile_ahead_options options = good_options(plugin, directory, &one_row, 1);
    options.topology = topology;
    options.path = NUC_PATH_ARBITRARY;
    CHECK_STATUS(NUC_OK, error, nuc_compile_ahead(&options, &count, &error));
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
    CHECK_STATUS(NUC_DEVICE_ERROR, error, nuc_compile_ahead(&here, NULL, &error));
    CHECK_NAMES(error, "topology");
}

/* libtpu on a host without a TPU and without the required environment variables: both functions fail immediately. */
static void environment_is_missing(const char *plugin, const char *directory) {
    nuc_error error = NUC_ERROR_INIT;
    const size_t one_row = 1;
    nuc_compile_ahead_options options = good_options(plugin, directory, &one_row, 1);
    options.topology = "v5e:2x2";
    CHECK_STATUS(NUC_DEVICE_ERROR, error, nuc_compile_ahead(&options, NULL, &error));
    CHECK_NAMES(error, "TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost ALLOW_MULTIPLE_LIBTPU_LOAD=1");
    nuc_sampler *sampler = NULL;
    CHECK_STATUS(NUC_DEVICE_ERROR, error, make(plugin, NULL, 0, &sampler, &error));
    CHECK_NAMES(error, "TPU_SKIP_MDS_QUERY");
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: test_ahead PLUGIN DIRECTORY [TOPOLOGY|unset]\n"), 2;
    if (argc > 3 && strcmp(argv[3], "unset") == 0) {
        environment_is_missing(argv[1], argv[2]);
        return report();
    }
    wrong_arguments(argv[1], argv[2], argv[3]);
    if (argc > 3) {
        compiled_for_another_host(argv[1], argv[2], argv[3]);
    } else {
        compiled_is_loaded(argv[1], argv[2]);
        old_programs_are_removed(argv[1], argv[2]);
    }
    return report();
}
