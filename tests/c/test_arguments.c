/*
 * Sets a wrong value in every argument. Checks the status, that the message names the argument, and that the outputs
 * are unchanged.
 *
 * All arrays of a call are in one pool. A call that fails must not change a byte of the pool.
 */
#define _POSIX_C_SOURCE 200112L
#include "check.h"

#include <limits.h>
#include <stddef.h>

enum { ROWS = 3, VOCAB = 200, MAX_K = 16, SPACE = 8192, ARRAYS = 19 };

/* The arrays of a call. Each has SPACE bytes of the pool. */
enum {
    LOGITS, TOP_K, TOP_P, MIN_P, TEMPERATURE, RANDOM_WORDS, SEED, OFFSET, FIRST_OUTPUT,
    TOKENS = FIRST_OUTPUT, ROW_STATUS, GREEDY, TOPK_LOGITS, PROBS, HIGH, LOW, NEXT, INDICES_K, TOPK_LOGITS_K, PROBS_K
};
static const char *const names[ARRAYS] = {
    "logits", "top_k", "top_p", "min_p", "temperature", "random_words", "seed", "offset",
    "tokens", "row_status", "greedy_sampled", "topk_logits_unsorted", "topk_topp_unnorm_probs_i32_unsorted",
    "random_unnorm_cdf_sampled_high", "random_unnorm_cdf_sampled_low", "next_tokens", "topk_indices_k",
    "topk_logits_k", "topk_topp_unnorm_probs_i32_k",
};

static union {
    unsigned char bytes[ARRAYS][SPACE];
    uint64_t align;
} pool;
static unsigned char before[ARRAYS][SPACE];

typedef struct call {
    const nuc_sampler *sampler;
    nuc_batch batch;
    nuc_call_options options;
    nuc_debug_arrays debug;
    int32_t *tokens;
    uint32_t *row_status;
} call;

/* Sets the pointer of an array to `place`. */
static void point(call *c, int array, void *place) {
    switch (array) {
    case LOGITS: c->batch.logits = place; break;
    case TOP_K: c->batch.top_k = place; break;
    case TOP_P: c->batch.top_p = place; break;
    case MIN_P: c->batch.min_p = place; break;
    case TEMPERATURE: c->batch.temperature = place; break;
    case RANDOM_WORDS: c->batch.random_words = place; break;
    case SEED: c->batch.seed = place; break;
    case OFFSET: c->batch.offset = place; break;
    case TOKENS: c->tokens = place; break;
    case ROW_STATUS: c->row_status = place; break;
    case GREEDY: c->debug.greedy_sampled = place; break;
    case TOPK_LOGITS: c->debug.topk_logits_unsorted = place; break;
    case PROBS: c->debug.topk_topp_unnorm_probs_i32_unsorted = place; break;
    case HIGH: c->debug.random_unnorm_cdf_sampled_high = place; break;
    case LOW: c->debug.random_unnorm_cdf_sampled_low = place; break;
    case NEXT: c->debug.next_tokens = place; break;
    case INDICES_K: c->debug.topk_indices_k = place; break;
    case TOPK_LOGITS_K: c->debug.topk_logits_k = place; break;
    default: c->debug.topk_topp_unnorm_probs_i32_k = place; break;
    }
}

/* Returns a call that requests k-slices. Every entry point accepts it, except the arbitrary one. */
static call good_call(const nuc_sampler *sampler) {
    call c;
    memset(&c, 0, sizeof c);
    c.sampler = sampler;
    c.batch.struct_size = sizeof c.batch;
    c.options.struct_size = sizeof c.options;
    c.batch.dtype = NUC_DTYPE_F32;
    c.batch.num_rows = ROWS;
    c.batch.vocab = VOCAB;
    c.debug.struct_size = sizeof c.debug;
    memset(&pool, 0xa5, sizeof pool);
    for (int array = 0; array < ARRAYS; array++) {
        if (array != RANDOM_WORDS) point(&c, array, pool.bytes[array]);
    }
    float *logits = (float *)pool.bytes[LOGITS];
    for (int i = 0; i < ROWS * VOCAB; i++) logits[i] = (float)(i * 7 % 31) / 8.0f;
    for (int row = 0; row < ROWS; row++) {
        ((int32_t *)pool.bytes[TOP_K])[row] = 1 + row;
        ((float *)pool.bytes[TOP_P])[row] = 0.9f;
        ((float *)pool.bytes[MIN_P])[row] = 0.01f;
        ((float *)pool.bytes[TEMPERATURE])[row] = 0.8f;
        ((uint64_t *)pool.bytes[SEED])[row] = (uint64_t)row;
        ((uint64_t *)pool.bytes[OFFSET])[row] = 0;
    }
    return c;
}

static void without_slices(call *c) {
    for (int array = INDICES_K; array <= PROBS_K; array++) point(c, array, NULL);
}

static nuc_status run(const call *c, int entry, nuc_error *error) {
    nuc_status (*const entries[4])(const nuc_sampler *, const nuc_batch *, const nuc_call_options *, int32_t *,
                                   uint32_t *, const nuc_debug_arrays *, nuc_error *) = {
        nuc_topk_topp_and_sample, nuc_arbitrary_topk_topp_and_sample, nuc_bounded_topk_topp_and_sample,
        nuc_reference_topk_topp_and_sample};
    return entries[entry](c->sampler, &c->batch, &c->options, c->tokens, c->row_status, &c->debug, error);
}

/* Checks the error of a call that failed. The message contains `name`, and the error names an argument. If `name`
 * contains a row, for example "top_p[1]", the error names this row. */
static void check_refusal(const nuc_error *error, const char *name, int line) {
    const char *const bracket = strchr(name, '[');
    const int64_t row = bracket == NULL ? -1 : atoi(bracket + 1);
    check_names(error, name, __FILE__, line);
    check_that(error->argument != NULL && error->row == row, __FILE__, line, "the argument and the row");
    if (bracket != NULL) {
        char argument[32];
        snprintf(argument, sizeof argument, "%.*s", (int)(bracket - name), name);
        check_argument(error, argument, __FILE__, line);
    }
}

/* Checks that every entry point refuses the call, with `name` in the message, and writes nothing. */
#define REFUSED(c, name) refused(&(c), (name), __LINE__)
static void refused(const call *c, const char *name, int line) {
    memcpy(before, pool.bytes, sizeof before);
    for (int entry = 0; entry < 4; entry++) {
        nuc_error error = NUC_ERROR_INIT;
        check_status(NUC_INVALID_ARGUMENT, run(c, entry, &error), &error, __FILE__, line, name);
        check_refusal(&error, name, line);
        check_that(memcmp(before, pool.bytes, sizeof before) == 0, __FILE__, line, "nothing is written on an error");
        check_that(run(c, entry, NULL) == NUC_INVALID_ARGUMENT, __FILE__, line, "the same without a nuc_error");
    }
}

/* Like REFUSED, for one entry point. */
#define REFUSED_BY(c, entry, name) refused_by(&(c), (entry), (name), __LINE__)
static void refused_by(const call *c, int entry, const char *name, int line) {
    nuc_error error = NUC_ERROR_INIT;
    memcpy(before, pool.bytes, sizeof before);
    check_status(NUC_INVALID_ARGUMENT, run(c, entry, &error), &error, __FILE__, line, name);
    check_refusal(&error, name, line);
    check_that(memcmp(before, pool.bytes, sizeof before) == 0, __FILE__, line, "nothing is written on an error");
}

static void accepted_calls(const nuc_sampler *sampler) {
    nuc_error error = NUC_ERROR_INIT;
    call c = good_call(sampler);
    for (int entry = 0; entry < 4; entry++) {
        if (entry == 1) continue;
        CHECK_STATUS(NUC_OK, error, run(&c, entry, &error));
    }
    without_slices(&c);
    CHECK_STATUS(NUC_OK, error, run(&c, 1, &error));
}

static void null_and_misaligned(const nuc_sampler *sampler) {
    call c = good_call(sampler);
    without_slices(&c);
    point(&c, LOGITS, NULL);
    REFUSED(c, "logits");
    c = good_call(sampler);
    without_slices(&c);
    point(&c, TOKENS, NULL);
    REFUSED(c, "tokens");
    c = good_call(NULL);
    REFUSED(c, "sampler");
    c = good_call((const nuc_sampler *)(uintptr_t)3);
    REFUSED(c, "sampler");
    for (int array = 0; array < ARRAYS; array++) {
        for (size_t off = 1; off < 4; off++) {
            c = good_call(sampler);
            if (array == RANDOM_WORDS) {
                point(&c, SEED, NULL);
                point(&c, OFFSET, NULL);
            }
            point(&c, array, pool.bytes[array] + off);
            REFUSED(c, names[array]);
        }
    }
    for (int array = SEED; array <= OFFSET; array++) { /* elements of eight bytes */
        c = good_call(sampler);
        point(&c, array, pool.bytes[array] + 4);
        REFUSED(c, names[array]);
    }
    /* 16-bit logits */
    for (int dtype = NUC_DTYPE_BF16; dtype <= NUC_DTYPE_F16; dtype++) {
        const int typed[] = {LOGITS, TOPK_LOGITS, TOPK_LOGITS_K};
        for (int i = 0; i < 3; i++) {
            c = good_call(sampler);
            c.batch.dtype = dtype;
            point(&c, typed[i], pool.bytes[typed[i]] + 1);
            REFUSED(c, names[typed[i]]);
        }
    }

    nuc_error error = NUC_ERROR_INIT;
    c = good_call(sampler);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, NULL, NULL, c.tokens, NULL, NULL, &error));
    CHECK_NAMES(error, "nuc_batch");
    const nuc_batch *const odd = (const nuc_batch *)((uintptr_t)&pool + 1);
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, odd, NULL, c.tokens, NULL, NULL, &error));
    CHECK_NAMES(error, "nuc_batch");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, &c.batch, (const nuc_call_options *)(const void *)odd, c.tokens,
                                          NULL, NULL, &error));
    CHECK_NAMES(error, "nuc_call_options");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_topk_topp_and_sample(sampler, &c.batch, NULL, c.tokens, NULL,
                                          (const nuc_debug_arrays *)(const void *)odd, &error));
    CHECK_NAMES(error, "nuc_debug_arrays");
}

static void shapes(const nuc_sampler *sampler) {
    call c;
    const int32_t dtypes[] = {-1, 3, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        c = good_call(sampler);
        c.batch.dtype = dtypes[i];
        REFUSED(c, "dtype");
    }
    const size_t vocabs[] = {0, 16777217, SIZE_MAX};
    for (int i = 0; i < 3; i++) {
        c = good_call(sampler);
        c.batch.vocab = vocabs[i];
        REFUSED(c, "vocab");
    }
    const size_t strides[] = {1, VOCAB - 1};
    for (int i = 0; i < 2; i++) {
        c = good_call(sampler);
        c.batch.row_stride = strides[i];
        REFUSED(c, "row_stride");
    }
    /* Sizes that overflow. */
    const size_t huge[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / VOCAB, SIZE_MAX / VOCAB / 4};
    for (int i = 0; i < 4; i++) {
        c = good_call(sampler);
        c.batch.num_rows = huge[i];
        REFUSED(c, "num_rows");
        c = good_call(sampler);
        c.batch.row_stride = huge[i];
        REFUSED(c, i < 2 ? "row_stride" : "overlaps"); /* a call with a smaller stride would read all other memory */
    }
    c = good_call(sampler);
    without_slices(&c);
    point(&c, SEED, NULL);
    point(&c, OFFSET, NULL);
    point(&c, RANDOM_WORDS, pool.bytes[RANDOM_WORDS]);
    for (int array = TOP_K; array <= TEMPERATURE; array++) point(&c, array, NULL);
    c.batch.vocab = 1;
    c.batch.num_rows = (size_t)1 << 59;
    REFUSED(c, "random_words");
    /* A batch that would cover the other arrays. */
    c.batch.num_rows = (size_t)1 << 40;
    REFUSED(c, "overlaps");

    c = good_call(sampler);
    c.batch.reserved = 1;
    REFUSED(c, "reserved");
    c = good_call(sampler);
    c.batch.random_words = (const uint32_t *)pool.bytes[RANDOM_WORDS];
    REFUSED(c, "random_words");
    point(&c, SEED, NULL);
    REFUSED(c, "offset");
    c = good_call(sampler);
    c.batch.random_words = (const uint32_t *)pool.bytes[RANDOM_WORDS];
    point(&c, OFFSET, NULL);
    REFUSED(c, "seed");
}

/* With `row_status`, every entry point samples all rows except the one with the impossible parameter. */
static void only_bad_row(const call *c, int bad) {
    for (int entry = 0; entry < 4; entry++) {
        nuc_error error = NUC_ERROR_INIT;
        CHECK_STATUS(NUC_OK, error, run(c, entry, &error));
        for (int row = 0; row < ROWS; row++) {
            CHECK(c->row_status[row] == (row == bad ? NUC_ROW_BAD_PARAMETER : 0));
            CHECK((c->tokens[row] == -1) == (row == bad));
        }
    }
}

static void values(const nuc_sampler *sampler) {
    const float not_a_number = strtof("nan", NULL), infinity = strtof("inf", NULL);
    const struct {
        int array;
        float value;
        const char *name;
    } wrong[] = {
        {TOP_P, not_a_number, "top_p["},
        {TOP_P, -not_a_number, "top_p["},
        {MIN_P, not_a_number, "min_p["},
        {TEMPERATURE, -0.1f, "temperature["},
        {TEMPERATURE, -1e-30f, "temperature["},
        {TEMPERATURE, infinity, "temperature["},
        {TEMPERATURE, -infinity, "temperature["},
        {TEMPERATURE, not_a_number, "temperature["},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (int row = 0; row < ROWS; row++) { /* the message also names the row */
            char name[32];
            snprintf(name, sizeof name, "%s%d]", wrong[i].name, row);
            call c = good_call(sampler);
            without_slices(&c);
            ((float *)pool.bytes[wrong[i].array])[row] = wrong[i].value;
            only_bad_row(&c, row);
            point(&c, ROW_STATUS, NULL);
            REFUSED(c, name);
        }
    }
    const int32_t flags[] = {7, -1, 2, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        call c = good_call(sampler);
        c.options.keep_ties = flags[i];
        REFUSED(c, "keep_ties");
        c = good_call(sampler);
        c.options.use_replace_val = flags[i];
        REFUSED(c, "use_replace_val");
        c = good_call(sampler);
        c.options.reserved = flags[i];
        REFUSED(c, "nuc_call_options.reserved");
    }
    call c = good_call(sampler);
    c.options.use_replace_val = 1;
    c.options.replace_val = not_a_number;
    REFUSED(c, "replace_val");
    c.options.use_replace_val = 0;
    REFUSED(c, "replace_val");
    c.options.replace_val = 1.0f;
    REFUSED(c, "replace_val");

    /* Values of k that the bounded path and the k-slices reject, and that the other entry points accept. */
    const int32_t ks[] = {0, -1, MAX_K + 1, VOCAB, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        c = good_call(sampler);
        point(&c, ROW_STATUS, NULL);
        ((int32_t *)pool.bytes[TOP_K])[1] = ks[i];
        REFUSED_BY(c, 0, "top_k[1]");
        REFUSED_BY(c, 2, "top_k[1]");
        REFUSED_BY(c, 3, "top_k[1]");
        without_slices(&c);
        REFUSED_BY(c, 2, "top_k[1]");
        nuc_error error = NUC_ERROR_INIT;
        CHECK_STATUS(NUC_OK, error, run(&c, 0, &error));
        CHECK_STATUS(NUC_OK, error, run(&c, 1, &error));
        CHECK_STATUS(NUC_OK, error, run(&c, 3, &error));
    }
    c = good_call(sampler);
    without_slices(&c);
    point(&c, TOP_K, NULL);
    point(&c, ROW_STATUS, NULL);
    REFUSED_BY(c, 2, "top_k[0]");
    for (int array = INDICES_K; array <= PROBS_K; array++) { /* any one k-slice */
        c = good_call(sampler);
        without_slices(&c);
        point(&c, array, pool.bytes[array]);
        REFUSED_BY(c, 1, names[array]);
    }
}

/* Each output overlaps each other array: completely, and in only one element. */
static void overlaps(const nuc_sampler *sampler) {
    for (int output = FIRST_OUTPUT; output < ARRAYS; output++) {
        for (int other = 0; other < ARRAYS; other++) {
            if (other == output) continue;
            size_t bytes[ARRAYS]; /* the size of each array */
            for (int array = 0; array < ARRAYS; array++) {
                const int wide = array == LOGITS || array == TOPK_LOGITS || array == PROBS;
                const int width = wide ? VOCAB : array >= INDICES_K ? MAX_K : array == RANDOM_WORDS ? 4 : 1;
                bytes[array] = (size_t)(ROWS * width) * (array == SEED || array == OFFSET ? 8 : 4);
            }
            unsigned char *const places[] = {pool.bytes[other], pool.bytes[other] + bytes[other] - 4,
                                             pool.bytes[other] - bytes[output] + 4};
            for (int i = 0; i < 3; i++) {
                if (other == 0 && i == 2) continue; /* would be before the pool */
                call c = good_call(sampler);
                if (other == RANDOM_WORDS) {
                    point(&c, SEED, NULL);
                    point(&c, OFFSET, NULL);
                    point(&c, RANDOM_WORDS, pool.bytes[RANDOM_WORDS]);
                }
                point(&c, output, places[i]);
                nuc_error error = NUC_ERROR_INIT;
                memcpy(before, pool.bytes, sizeof before);
                CHECK_STATUS(NUC_INVALID_ARGUMENT, error, run(&c, 0, &error));
                CHECK_NAMES(error, names[output]);
                CHECK_NAMES(error, names[other]);
                CHECK_NAMES(error, "overlaps");
                CHECK(memcmp(before, pool.bytes, sizeof before) == 0);
            }
        }
    }
    /* Adjacent arrays do not overlap, and two inputs may be the same array. */
    call c = good_call(sampler);
    nuc_error error = NUC_ERROR_INIT;
    point(&c, ROW_STATUS, pool.bytes[TOKENS] + ROWS * 4);
    point(&c, GREEDY, pool.bytes[TOKENS] + ROWS * 8);
    point(&c, OFFSET, pool.bytes[SEED]);
    point(&c, MIN_P, pool.bytes[TOP_P]);
    CHECK_STATUS(NUC_OK, error, run(&c, 0, &error));
    /* The space between two rows of strided logits belongs to the array. */
    c = good_call(sampler);
    c.batch.row_stride = VOCAB + 8;
    point(&c, TOKENS, pool.bytes[LOGITS] + 4 * VOCAB);
    REFUSED(c, "tokens");

    /* The nuc_error and the structs are checked for overlap too. */
    const nuc_error fresh = NUC_ERROR_INIT;
    for (int array = 0; array < ARRAYS; array++) {
        if (array == RANDOM_WORDS) continue;
        c = good_call(sampler);
        nuc_error *const inside = (nuc_error *)(void *)pool.bytes[array];
        *inside = fresh;
        CHECK(run(&c, 0, inside) == NUC_INVALID_ARGUMENT);
        CHECK(inside->code == NUC_INVALID_ARGUMENT && strstr(inside->message, "nuc_error") != NULL);
        CHECK_ARGUMENT(*inside, names[array]);
        CHECK_NAMES(*inside, names[array]);
    }
    for (int output = FIRST_OUTPUT; output < ARRAYS; output++) {
        void *const places[] = {&c.batch, &c.options.keep_ties, &c.debug.topk_indices_k};
        const char *const structs[] = {"nuc_batch", "nuc_call_options", "nuc_debug_arrays"};
        for (int i = 0; i < 3; i++) {
            c = good_call(sampler);
            point(&c, output, places[i]);
            CHECK_STATUS(NUC_INVALID_ARGUMENT, error, run(&c, 0, &error));
            CHECK_NAMES(error, names[output]);
            CHECK_NAMES(error, structs[i]);
        }
    }
}

/* Tests struct_size of every struct: too small, too large, and larger than the library's struct. A larger struct is
 * accepted only if its unknown part is zero. */
static void struct_sizes(const nuc_sampler *sampler) {
    const size_t wrong[] = {0, 1, 8, 4097, SIZE_MAX};
    call c;
    for (int i = 0; i < 5; i++) {
        c = good_call(sampler);
        c.batch.struct_size = wrong[i];
        REFUSED(c, "nuc_batch.struct_size");
        c = good_call(sampler);
        c.options.struct_size = wrong[i];
        REFUSED(c, "nuc_call_options.struct_size");
        c = good_call(sampler);
        c.debug.struct_size = wrong[i];
        REFUSED(c, "nuc_debug_arrays.struct_size");
    }
    c = good_call(sampler);
    c.batch.struct_size--;
    REFUSED(c, "nuc_batch.struct_size");
    c = good_call(sampler);
    c.options.struct_size--;
    REFUSED(c, "nuc_call_options.struct_size");
    c = good_call(sampler);
    c.debug.struct_size--;
    REFUSED(c, "nuc_debug_arrays.struct_size");

    struct { nuc_batch known; unsigned char more[40]; } batch;
    struct { nuc_call_options known; unsigned char more[40]; } options;
    struct { nuc_debug_arrays known; unsigned char more[40]; } debug;
    nuc_error error = NUC_ERROR_INIT;
    c = good_call(sampler);
    for (int newer = 0; newer < 4; newer++) { /* 0: the unknown part of all structs is zero; otherwise not of one */
        memset(&batch, 0, sizeof batch);
        memset(&options, 0, sizeof options);
        memset(&debug, 0, sizeof debug);
        batch.known = c.batch;
        options.known = c.options;
        debug.known = c.debug;
        batch.known.struct_size = sizeof batch;
        options.known.struct_size = sizeof options;
        debug.known.struct_size = sizeof debug;
        if (newer == 1) batch.more[39] = 1;
        if (newer == 2) options.more[0] = 1;
        if (newer == 3) debug.more[20] = 1;
        memcpy(before, pool.bytes, sizeof before);
        const nuc_status status = nuc_topk_topp_and_sample(sampler, &batch.known, &options.known, c.tokens,
                                                           c.row_status, &debug.known, &error);
        if (newer == 0) {
            CHECK_STATUS(NUC_OK, error, status);
        } else {
            CHECK_STATUS(NUC_INVALID_ARGUMENT, error, status);
            CHECK_NAMES(error, newer == 1 ? "nuc_batch" : newer == 2 ? "nuc_call_options" : "nuc_debug_arrays");
            CHECK_NAMES(error, "struct_size");
            CHECK(memcmp(before, pool.bytes, sizeof before) == 0);
        }
    }
}

static void create_refused(const nuc_sampler_options *options, nuc_status wanted, const char *name, int line) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = (nuc_sampler *)(uintptr_t)0x5a5a5a58;
    check_status(wanted, nuc_sampler_create(options, &sampler, &error), &error, __FILE__, line, "nuc_sampler_create");
    check_names(&error, name, __FILE__, line);
    check_that(sampler == NULL, __FILE__, line, "the handle is null after an error");
    check_that(memchr(error.message, 0, sizeof error.message) != NULL, __FILE__, line, "the message is terminated");
    check_that(nuc_sampler_create(options, &sampler, NULL) == wanted, __FILE__, line, "the same without a nuc_error");
}
#define CREATE_REFUSED(wanted, name) create_refused(&options, (wanted), (name), __LINE__)

static nuc_sampler_options fresh_options(void) {
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = NUC_BACKEND_BUILTIN;
    return options;
}

static void creation(const char *program, const char *plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = fresh_options();
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_create(&options, NULL, &error));
    CHECK_NAMES(error, "sampler");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error,
                 nuc_sampler_create(&options, (nuc_sampler **)((uintptr_t)&pool + 1), &error));
    CHECK_NAMES(error, "sampler");
    CHECK_ARGUMENT(error, "sampler");
    /* Only the size of a version of the struct is valid. A size that ends inside a field is not. */
    const size_t cut = offsetof(nuc_sampler_options, program_dir);
    const size_t sizes[] = {0, 7, cut - 1, cut, cut + 4, 4097, SIZE_MAX};
    for (int i = 0; i < 7; i++) {
        options = fresh_options();
        options.struct_size = sizes[i];
        CREATE_REFUSED(NUC_INVALID_ARGUMENT, "nuc_sampler_options.struct_size");
    }
    const int32_t backends[] = {-1, 3, INT32_MAX};
    for (int i = 0; i < 3; i++) {
        options = fresh_options();
        options.backend = backends[i];
        CREATE_REFUSED(NUC_INVALID_ARGUMENT, "backend");
    }
    const size_t max_ks[] = {1025, SIZE_MAX};
    for (int i = 0; i < 2; i++) {
        options = fresh_options();
        options.max_k = max_ks[i];
        CREATE_REFUSED(NUC_INVALID_ARGUMENT, "max_k");
    }
    options = fresh_options();
    options.num_threads = 1000000;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "num_threads");
    options.num_threads = SIZE_MAX;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "num_threads");
    options = fresh_options();
    options.device_index = -1;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "device_index");
    options.device_index = 1; /* the built-in backend has one device */
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "device_index");

    /* Client options are checked on every backend. */
    nuc_client_option option = NUC_CLIENT_OPTION_INIT;
    option.name = "name";
    option.type = NUC_OPTION_STRING;
    option.string_value = "value";
    options = fresh_options();
    options.num_client_options = 1;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options");
    options.client_options = &option;
    option.name = NULL;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options[0].name");
    option.name = "";
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options[0].name");
    option.name = "\xff";
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options[0].name");
    option.name = "name";
    option.string_value = NULL;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options[0].string_value");
    option.string_value = "\xff";
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options[0].string_value");
    option.type = 4;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "client_options[0].type");
    options.num_client_options = SIZE_MAX;
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "num_client_options");
    /* string_value is read only if the type is a string. */
    option.type = NUC_OPTION_INT64;
    option.string_value = (const char *)(uintptr_t)1;
    options.num_client_options = 1;
    nuc_sampler *sampler = NULL;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error));
    nuc_sampler_destroy(sampler, NULL);

    /* Paths that are not plugins. */
    options = fresh_options();
    options.backend = NUC_BACKEND_PJRT;
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "plugin_path");
    options.plugin_path = "";
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "plugin_path");
    options.plugin_path = "/nowhere/plugin.so";
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "/nowhere/plugin.so");
    options.backend = NUC_BACKEND_AUTO; /* a named plugin that does not load is an error */
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "/nowhere/plugin.so");
    options.plugin_path = "\xff";
    CREATE_REFUSED(NUC_INVALID_ARGUMENT, "plugin_path");
    /* The environment variable names the plugin if the options do not. The built-in backend ignores it. */
    options.plugin_path = NULL;
    CHECK(setenv("NUCLEUS_PJRT_PLUGIN", "/nowhere/else.so", 1) == 0);
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "/nowhere/else.so");
    options.backend = NUC_BACKEND_PJRT;
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "/nowhere/else.so");
    options.backend = NUC_BACKEND_BUILTIN;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error));
    nuc_sampler_destroy(sampler, NULL);
    CHECK(unsetenv("NUCLEUS_PJRT_PLUGIN") == 0);
    options.backend = NUC_BACKEND_PJRT;
    options.plugin_path = "include/nucleus.h"; /* a text file; the tests run in the root of the repository */
    CREATE_REFUSED(NUC_PLUGIN_INVALID, "nucleus.h");
    options.plugin_path = program; /* an executable, not a library */
    CREATE_REFUSED(NUC_PLUGIN_INVALID, "test_arguments");
    options.plugin_path = "tests/c";
    CREATE_REFUSED(NUC_PLUGIN_NOT_FOUND, "tests/c");
    char *const longest = malloc(10000); /* the message must be truncated between two characters */
    for (int i = 0; i + 1 < 10000; i++) longest[i] = i % 2 ? '\xa4' : '\xc3';
    longest[9998] = '\0';
    options.plugin_path = longest;
    CHECK(nuc_sampler_create(&options, &sampler, &error) != NUC_OK);
    CHECK(memchr(error.message, 0, sizeof error.message) != NULL);
    const size_t length = strlen(error.message);
    CHECK(length > 0 && (error.message[length - 1] != '\xc3'));
    free(longest);

    if (plugin) {
        options = fresh_options();
        options.backend = NUC_BACKEND_PJRT;
        options.plugin_path = plugin;
        options.device_index = 1000;
        CREATE_REFUSED(NUC_INVALID_ARGUMENT, "device_index");
    }
}

static void prewarm(const nuc_sampler *sampler) {
    const struct {
        int32_t path, dtype;
        size_t num_rows, vocab;
        int32_t keep_ties;
        uint32_t debug_arrays;
        const char *name;
    } wrong[] = {
        {-1, 0, 1, 8, 0, 0, "path"},      {3, 0, 1, 8, 0, 0, "path"},     {0, 3, 1, 8, 0, 0, "dtype"},
        {0, -1, 1, 8, 0, 0, "dtype"},     {0, 0, 0, 8, 0, 0, "num_rows"},    {0, 0, 1, 0, 0, 0, "vocab"},
        {0, 0, 1, 1 << 25, 0, 0, "vocab"}, {0, 0, 1, 8, 2, 0, "keep_ties"}, {0, 0, 1, 8, -1, 0, "keep_ties"},
        {0, 0, 1, 8, 0, 8, "debug_arrays"},
        {NUC_PATH_ARBITRARY, 0, 1, 8, 0, NUC_DEBUG_K_SLICES, "debug_arrays"},
    };
    nuc_error error = NUC_ERROR_INIT;
    nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        spec.path = wrong[i].path;
        spec.dtype = wrong[i].dtype;
        spec.num_rows = wrong[i].num_rows;
        spec.vocab = wrong[i].vocab;
        spec.keep_ties = wrong[i].keep_ties;
        spec.debug_arrays = wrong[i].debug_arrays;
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(sampler, &spec, &error));
        CHECK_NAMES(error, wrong[i].name);
        CHECK_ARGUMENT(error, wrong[i].name);
    }
    spec.struct_size = sizeof spec - 1;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(sampler, &spec, &error));
    CHECK_NAMES(error, "nuc_prewarm_spec.struct_size");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(sampler, NULL, &error));
    CHECK_NAMES(error, "nuc_prewarm_spec");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_prewarm(NULL, &spec, &error));
    CHECK_NAMES(error, "sampler");
}

static void getters(const nuc_sampler *sampler) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
    nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
    nuc_device_info device = NUC_DEVICE_INFO_INIT;
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_info(NULL, &info, &error));
    CHECK_NAMES(error, "sampler");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_stats(NULL, &stats, &error));
    CHECK_NAMES(error, "sampler");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_device(NULL, 0, &device, &error));
    CHECK_NAMES(error, "sampler");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_info(sampler, NULL, &error));
    CHECK_NAMES(error, "nuc_sampler_info");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_stats(sampler, NULL, &error));
    CHECK_NAMES(error, "nuc_sampler_stats");
    CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_device(sampler, 0, NULL, &error));
    CHECK_NAMES(error, "nuc_device_info");
    const size_t wrong[] = {0, 8, 4097, SIZE_MAX};
    for (int i = 0; i < 4; i++) {
        memset(&info, 0xa5, sizeof info);
        memset(&stats, 0xa5, sizeof stats);
        memset(&device, 0xa5, sizeof device);
        info.struct_size = stats.struct_size = device.struct_size = wrong[i];
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_info(sampler, &info, &error));
        CHECK_NAMES(error, "nuc_sampler_info.struct_size");
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_stats(sampler, &stats, &error));
        CHECK_NAMES(error, "nuc_sampler_stats.struct_size");
        CHECK_STATUS(NUC_INVALID_ARGUMENT, error, nuc_sampler_get_device(sampler, 0, &device, &error));
        CHECK_NAMES(error, "nuc_device_info.struct_size");
        CHECK(info.max_k == (size_t)0xa5a5a5a5a5a5a5a5u && stats.hits == 0xa5a5a5a5a5a5a5a5u);
        CHECK(device.id == (int32_t)0xa5a5a5a5u);
    }
}

int main(int argc, char **argv) {
    const char *plugin = argc > 1 ? argv[1] : NULL;
    nuc_sampler *sampler = make_sampler(plugin, MAX_K);
    accepted_calls(sampler);
    null_and_misaligned(sampler);
    shapes(sampler);
    values(sampler);
    overlaps(sampler);
    struct_sizes(sampler);
    creation(argv[0], plugin);
    prewarm(sampler);
    getters(sampler);
    accepted_calls(sampler); /* the sampler still works */
    nuc_sampler_destroy(sampler, NULL);
    return report();
}
