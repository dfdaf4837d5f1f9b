/*
 * Calls with too little memory, too few threads or a small stack, and calls with the largest index. Each runs in a
 * child process, because limits apply to a whole process. Does not run under valgrind, which needs address space for
 * itself.
 */
#define _DEFAULT_SOURCE
#include "check.h"
#include "child.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { LARGEST_VOCAB = 1 << 24, MIB = 1 << 20 };

typedef nuc_status entry_point(const nuc_sampler *, const nuc_batch *, const nuc_call_options *, int32_t *, uint32_t *,
                               const nuc_debug_arrays *, nuc_error *);
static entry_point *const entries[4] = {nuc_topk_topp_and_sample, nuc_arbitrary_topk_topp_and_sample,
                                        nuc_bounded_topk_topp_and_sample, nuc_reference_topk_topp_and_sample};
enum { AUTOMATIC, ARBITRARY, BOUNDED, REFERENCE };

static nuc_status create(const char *plugin, size_t cache_capacity, size_t num_threads, nuc_sampler **sampler,
                         nuc_error *error) {
    nuc_sampler_options options = options_for(plugin);
    options.cache_capacity = cache_capacity;
    options.num_threads = num_threads;
    return nuc_sampler_create(&options, sampler, error);
}

static nuc_batch f32_batch(const float *logits, size_t rows, size_t vocab) {
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits;
    batch.dtype = NUC_DTYPE_F32;
    batch.num_rows = rows;
    batch.vocab = vocab;
    return batch;
}

/* Returns zeroed pages. They use no memory until they are written. */
static void *pages(size_t bytes) {
    void *const memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static size_t address_space(void) {
    unsigned long total = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!CHECK(file != NULL) || !CHECK(fscanf(file, "%lu", &total) == 1)) exit(report());
    fclose(file);
    return total * (size_t)sysconf(_SC_PAGESIZE);
}

/* Limits the process to `bytes` of additional address space. 0 removes the limit. */
static void limit_address_space(size_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes ? address_space() + bytes : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

typedef struct memory_case {
    int entry;
    size_t left;
    int must_fail;
} memory_case;

/* Samples one row of the largest vocabulary with little free address space. A failed call must not change outputs. */
static void one_large_row(void *argument) {
    const memory_case *const c = argument;
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = NULL;
    CHECK_STATUS(NUC_OK, error, create(NULL, 1000000000, 2, &sampler, &error));
    float *const logits = pages((size_t)LARGEST_VOCAB * sizeof *logits);
    int32_t *const weights = pages((size_t)LARGEST_VOCAB * sizeof *weights);
    if (!CHECK(logits != NULL && weights != NULL)) return;
    uint64_t state = 3;
    for (size_t i = 0; i < LARGEST_VOCAB; i++) logits[i] = next_float(&state);
    memset(weights, 0x5a, (size_t)LARGEST_VOCAB * sizeof *weights);
    const int32_t k = c->entry == BOUNDED ? 100 : 1000000;
    const float p = 0.9f;
    int32_t token = 77;
    uint32_t status = 77;
    nuc_batch batch = f32_batch(logits, 1, LARGEST_VOCAB);
    batch.top_k = &k;
    batch.top_p = &p;
    nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;
    debug.topk_topp_unnorm_probs_i32_unsorted = weights;

    limit_address_space(c->left);
    const nuc_status got = entries[c->entry](sampler, &batch, NULL, &token, &status, &debug, &error);
    limit_address_space(0);
    CHECK(error.code == got);
    CHECK(got == NUC_OUT_OF_MEMORY || (got == NUC_OK && !c->must_fail));
    if (got == NUC_OUT_OF_MEMORY) {
        CHECK_NAMES(error, "out of memory");
        CHECK(token == 77 && status == 77);
        int untouched = 1;
        for (size_t i = 0; i < LARGEST_VOCAB; i++) untouched &= weights[i] == 0x5a5a5a5a;
        CHECK(untouched);
    } else {
        CHECK(token >= 0 && token < LARGEST_VOCAB && status == 0 && weights[token] > 0);
    }
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
}

static void out_of_memory(void) {
    const size_t left[] = {1 * (size_t)MIB, 8 * (size_t)MIB, 32 * (size_t)MIB, 100 * (size_t)MIB};
    for (int entry = 0; entry < 4; entry++) {
        for (int i = 0; i < 4; i++) {
            /* The reference needs 285 MB. The arbitrary path needs at least 1 MiB. */
            memory_case c = {entry, left[i], entry == REFERENCE};
            char name[80];
            snprintf(name, sizeof name, "entry %d with %d MiB left", entry, (int)(left[i] / MIB));
            const child_outcome outcome = run_child(one_large_row, &c);
            check_silent_child(&outcome, name);
        }
    }
}

/* A large cache_capacity is only a limit; it does not allocate memory. */
static void large_capacity(void *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *first = NULL, *second = NULL;
    CHECK_STATUS(NUC_OK, error, create(plugin, 64, 2, &first, &error));
    limit_address_space((size_t)1 << 30);
    CHECK_STATUS(NUC_OK, error, create(plugin, 1000000000, 2, &second, &error));
    limit_address_space(0);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(second, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(first, &error));
}

enum { FEW = 8, SHORT = 500 };
static float few_logits[FEW * SHORT];
static int32_t few_tokens[FEW];

static void *do_nothing(void *argument) {
    return argument;
}

/* The reference distributes rows over threads. If no thread can start, the calling thread does all the work. */
static void no_threads(void *sampled_before) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *alone = NULL, *pool = NULL;
    CHECK_STATUS(NUC_OK, error, create(NULL, 64, 1, &alone, &error));
    const struct rlimit none = {1, 1};
    if (getuid() == 0) CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
    pthread_t thread;
    if (pthread_create(&thread, NULL, do_nothing, NULL) != EAGAIN) {
        printf("skipped: no_threads, since RLIMIT_NPROC does not keep this process from starting threads\n");
        return;
    }
    nuc_batch batch = f32_batch(few_logits, FEW, SHORT);
    int32_t tokens[FEW];
    CHECK_STATUS(NUC_OK, error,
                 nuc_reference_topk_topp_and_sample(alone, &batch, NULL, tokens, NULL, NULL, &error));
    CHECK(memcmp(tokens, sampled_before, sizeof tokens) == 0);
    const nuc_status status = create(NULL, 64, 4, &pool, &error);
    CHECK(status == NUC_OK || status == NUC_OUT_OF_MEMORY);
    CHECK((pool != NULL) == (status == NUC_OK));
    nuc_sampler_destroy(pool, NULL);
    nuc_sampler_destroy(alone, NULL);
}

static void threads_run_out(void) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = NULL;
    uint64_t state = 11;
    for (size_t i = 0; i < FEW * SHORT; i++) few_logits[i] = 4 * next_float(&state);
    CHECK_STATUS(NUC_OK, error, create(NULL, 64, 1, &sampler, &error));
    nuc_batch batch = f32_batch(few_logits, FEW, SHORT);
    CHECK_STATUS(NUC_OK, error,
                 nuc_topk_topp_and_sample(sampler, &batch, NULL, few_tokens, NULL, NULL, &error));
    nuc_sampler_destroy(sampler, NULL);
    const child_outcome outcome = run_child(no_threads, few_tokens);
    check_silent_child(&outcome, "without threads");
}

/* Every function on the built-in backend works with the stack size that the header states. */
static void *all_calls(void *argument) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = NULL;
    const int32_t k[FEW] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float p[FEW] = {0.9f, 0.9f, 0.9f, 0.9f, 0.9f, 0.9f, 0.9f, 0.9f};
    int32_t tokens[FEW];
    (void)argument;
    CHECK_STATUS(NUC_OK, error, create(NULL, 64, 2, &sampler, &error));
    nuc_batch batch = f32_batch(few_logits, FEW, SHORT);
    batch.top_k = k;
    batch.top_p = p;
    for (int entry = 0; entry < 4; entry++) {
        CHECK_STATUS(NUC_OK, error, entries[entry](sampler, &batch, NULL, tokens, NULL, NULL, &error));
    }
    batch.vocab = 0;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    float *const large = malloc(FEW * 40000 * sizeof *large); /* large enough for the thread pool */
    if (CHECK(large != NULL)) {
        for (size_t i = 0; i < FEW * 40000; i++) large[i] = few_logits[i % (FEW * SHORT)];
        batch = f32_batch(large, FEW, 40000);
        batch.top_k = k;
        for (int entry = 0; entry < 4; entry++) {
            CHECK_STATUS(NUC_OK, error, entries[entry](sampler, &batch, NULL, tokens, NULL, NULL, &error));
        }
        batch.top_k = NULL;
        batch.top_p = p;
        CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    }
    free(large);
    nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    return NULL;
}

static void on_a_small_stack(void *kibibytes) {
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, (size_t)*(const int *)kibibytes * 1024) == 0);
    CHECK(pthread_create(&thread, &attributes, all_calls, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* 128 rows of the largest vocabulary: the last index is 2^31 - 1. Most pages are zero pages, which use no memory. */
static void largest_index(void *argument) {
    enum { ROWS = 128 };
    const size_t elements = (size_t)ROWS * LARGEST_VOCAB;
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = NULL;
    int32_t tokens[ROWS], k[ROWS];
    float temperature[ROWS];
    (void)argument;
    CHECK_STATUS(NUC_OK, error, create(NULL, 64, 0, &sampler, &error));
    float *const logits = pages(elements * sizeof *logits);
    if (logits == NULL) {
        printf("skipped: largest_index, since 8 GiB of address space cannot be had\n");
        return;
    }
    for (size_t row = 0; row < ROWS; row++) {
        logits[row * LARGEST_VOCAB + (LARGEST_VOCAB - 1 - row)] = 100.0f;
        temperature[row] = row % 2 ? 1.0f : 0.0f;
        k[row] = 3;
    }
    nuc_batch batch = f32_batch(logits, ROWS, LARGEST_VOCAB);
    batch.temperature = temperature;
    batch.top_k = k;
    CHECK_STATUS(NUC_OK, error, nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error));
    for (int row = 0; row < ROWS; row++) CHECK(tokens[row] == LARGEST_VOCAB - 1 - row);
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
}

int main(int argc, char **argv) {
    child_outcome outcome;
    if (argc > 2) { /* test_memory stack KIBIBYTES: for measurements */
        int kibibytes = atoi(argv[2]);
        on_a_small_stack(&kibibytes);
        return report();
    }
    if (argc > 1) {
        outcome = run_child(large_capacity, argv[1]);
        check_child(&outcome, "a large cache_capacity");
        return report();
    }
    out_of_memory();
    threads_run_out();
    int kibibytes = 64;
    outcome = run_child(on_a_small_stack, &kibibytes);
    check_silent_child(&outcome, "a stack of 64 KiB");
    outcome = run_child(largest_index, NULL);
    check_silent_child(&outcome, "the largest index");
    return report();
}
