/*
 * Runs the shared test vectors (tests/vectors/README.md) and compares every number of every output.
 *
 * usage: test_vectors builtin|PLUGIN FILE...
 *
 * With a plugin, only the cases in f32 run, and only the function that the case names. Every other type or set of debug
 * arrays would need more compiled programs.
 */
#include "check.h"

enum { MAX_LINES = 40, MAX_SAMPLERS = 4 };

/* The lines of a case: keys and the words after them. They point into the text of the file. */
typedef struct lines {
    const char *keys[MAX_LINES], *words[MAX_LINES];
    int count;
} lines;

typedef struct vector_case {
    const char *name, *path;
    nuc_dtype dtype;
    size_t rows, vocab, max_k, element; /* element: the size of a logit in bytes */
    int has_slices;
    nuc_batch batch;
    nuc_call_options options;
    int32_t *tokens;
    uint32_t *row_status;
    nuc_debug_arrays debug;
} vector_case;

static void fail(const char *message, const char *detail) {
    fprintf(stderr, "test_vectors: %s: %s\n", message, detail);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *const memory = malloc(count * size + 1);
    if (memory == NULL) fail("out of memory", "malloc");
    return memory;
}

/* Returns the words after a key, or null. */
static const char *find(const lines *lines, const char *key) {
    for (int i = 0; i < lines->count; i++) {
        if (strcmp(lines->keys[i], key) == 0) return lines->words[i];
    }
    return NULL;
}

static const char *need(const lines *lines, const char *key) {
    const char *const words = find(lines, key);
    if (words == NULL) fail("a case lacks the line", key);
    return words;
}

/* Reads `count` numbers of `size` bytes. Returns null if there is no such line. */
static void *numbers(const lines *lines, const char *key, size_t count, size_t size, int base) {
    const char *words = find(lines, key);
    if (words == NULL) return NULL;
    unsigned char *const memory = allocate(count, size);
    for (size_t i = 0; i < count; i++) {
        char *end;
        const uint64_t wide =
            base == 10 ? (uint64_t)strtoll(words, &end, base) : (uint64_t)strtoull(words, &end, base);
        if (end == words) fail("too few words in the line", key);
        const uint32_t narrow = (uint32_t)wide;
        const uint16_t half = (uint16_t)wide;
        memcpy(memory + i * size, size == 8 ? (const void *)&wide : size == 4 ? (const void *)&narrow : &half, size);
        words = end;
    }
    if (*words != '\0') fail("too many words in the line", key);
    return memory;
}

/* As `numbers`, but the line must exist. */
static void *array(const lines *lines, const char *key, size_t count, size_t size, int base) {
    need(lines, key);
    return numbers(lines, key, count, size, base);
}

static size_t count_of(const lines *lines, const char *key) {
    return (size_t)strtoull(need(lines, key), NULL, 10);
}

static vector_case read_case(const lines *lines) {
    const nuc_batch batch = NUC_BATCH_INIT;
    const nuc_call_options options = NUC_CALL_OPTIONS_INIT;
    const nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;
    vector_case c = {need(lines, "case"), need(lines, "path"), 0, count_of(lines, "num_rows"), count_of(lines, "vocab"),
                     count_of(lines, "max_k"), 4, 0, batch, options, NULL, NULL, debug};
    const char *const dtype = need(lines, "dtype");
    c.dtype = strcmp(dtype, "f32") == 0 ? NUC_DTYPE_F32 : strcmp(dtype, "bf16") == 0 ? NUC_DTYPE_BF16 : NUC_DTYPE_F16;
    c.element = c.dtype == NUC_DTYPE_F32 ? 4 : 2;
    c.has_slices = strcmp(c.path, "bounded") == 0;
    const size_t wide = c.rows * c.vocab, slots = c.rows * c.max_k;

    c.batch.logits = array(lines, "logits", wide, c.element, 16);
    c.batch.dtype = c.dtype;
    c.batch.num_rows = c.rows;
    c.batch.vocab = c.vocab;
    c.batch.top_k = numbers(lines, "top_k", c.rows, 4, 10);
    c.batch.top_p = numbers(lines, "top_p", c.rows, 4, 16);
    c.batch.min_p = numbers(lines, "min_p", c.rows, 4, 16);
    c.batch.temperature = numbers(lines, "temperature", c.rows, 4, 16);
    c.batch.random_words = numbers(lines, "random_words", 4 * c.rows, 4, 16);
    c.batch.seed = numbers(lines, "seed", c.rows, 8, 16);
    c.batch.offset = numbers(lines, "offset", c.rows, 8, 16);
    c.options.keep_ties = (int32_t)count_of(lines, "keep_ties");
    c.options.use_replace_val = 1;
    const uint32_t replace = (uint32_t)strtoul(need(lines, "replace_val"), NULL, 16);
    memcpy(&c.options.replace_val, &replace, sizeof replace);

    c.tokens = array(lines, "tokens", c.rows, 4, 10);
    c.row_status = array(lines, "row_status", c.rows, 4, 16);
    c.debug.greedy_sampled = array(lines, "greedy_sampled", c.rows, 4, 10);
    c.debug.topk_logits_unsorted = array(lines, "topk_logits_unsorted", wide, c.element, 16);
    c.debug.topk_topp_unnorm_probs_i32_unsorted =
        array(lines, "topk_topp_unnorm_probs_i32_unsorted", wide, 4, 10);
    c.debug.random_unnorm_cdf_sampled_high = array(lines, "random_unnorm_cdf_sampled_high", c.rows, 4, 16);
    c.debug.random_unnorm_cdf_sampled_low = array(lines, "random_unnorm_cdf_sampled_low", c.rows, 4, 16);
    c.debug.next_tokens = array(lines, "next_tokens", c.rows, 4, 10);
    if (c.has_slices) {
        c.debug.topk_indices_k = array(lines, "topk_indices_k", slots, 4, 10);
        c.debug.topk_logits_k = array(lines, "topk_logits_k", slots, c.element, 16);
        c.debug.topk_topp_unnorm_probs_i32_k = array(lines, "topk_topp_unnorm_probs_i32_k", slots, 4, 10);
    }
    return c;
}

/* One output of a case: its name, its memory, and its size. */
typedef struct output {
    const char *name;
    void *memory;
    size_t bytes;
} output;
enum { OUTPUTS = 11 };

/* Lists the outputs of a case. The memory is null if the case does not have the output. */
static void list_outputs(const vector_case *c, output outputs[OUTPUTS]) {
    const size_t row = 4 * c->rows, wide = c->rows * c->vocab, slots = c->rows * c->max_k;
    const nuc_debug_arrays *const d = &c->debug;
    const output list[OUTPUTS] = {
        {"tokens", c->tokens, row},
        {"row_status", c->row_status, row},
        {"greedy_sampled", d->greedy_sampled, row},
        {"topk_logits_unsorted", d->topk_logits_unsorted, wide * c->element},
        {"topk_topp_unnorm_probs_i32_unsorted", d->topk_topp_unnorm_probs_i32_unsorted, 4 * wide},
        {"random_unnorm_cdf_sampled_high", d->random_unnorm_cdf_sampled_high, row},
        {"random_unnorm_cdf_sampled_low", d->random_unnorm_cdf_sampled_low, row},
        {"next_tokens", d->next_tokens, row},
        {"topk_indices_k", d->topk_indices_k, 4 * slots},
        {"topk_logits_k", d->topk_logits_k, c->element * slots},
        {"topk_topp_unnorm_probs_i32_k", d->topk_topp_unnorm_probs_i32_k, 4 * slots},
    };
    memcpy(outputs, list, sizeof list);
}

/* Returns the name of the first output that differs, or null. */
static const char *difference(const vector_case *got, const vector_case *want) {
    output a[OUTPUTS], b[OUTPUTS];
    list_outputs(got, a);
    list_outputs(want, b);
    for (int i = 0; i < OUTPUTS; i++) {
        if (b[i].memory != NULL && memcmp(a[i].memory, b[i].memory, b[i].bytes) != 0) return b[i].name;
    }
    return NULL;
}

/* A copy of the case whose outputs are poisoned memory. */
static vector_case poisoned(const vector_case *c) {
    vector_case copy = *c;
    void **const fields[OUTPUTS] = {
        (void **)&copy.tokens,
        (void **)&copy.row_status,
        (void **)&copy.debug.greedy_sampled,
        &copy.debug.topk_logits_unsorted,
        (void **)&copy.debug.topk_topp_unnorm_probs_i32_unsorted,
        (void **)&copy.debug.random_unnorm_cdf_sampled_high,
        (void **)&copy.debug.random_unnorm_cdf_sampled_low,
        (void **)&copy.debug.next_tokens,
        (void **)&copy.debug.topk_indices_k,
        &copy.debug.topk_logits_k,
        (void **)&copy.debug.topk_topp_unnorm_probs_i32_k,
    };
    output outputs[OUTPUTS];
    list_outputs(c, outputs);
    for (int i = 0; i < OUTPUTS; i++) {
        if (outputs[i].memory == NULL) continue;
        *fields[i] = allocate(outputs[i].bytes, 1);
        memset(*fields[i], 0xa5, outputs[i].bytes);
    }
    return copy;
}

static void free_outputs(const vector_case *c) {
    output outputs[OUTPUTS];
    list_outputs(c, outputs);
    for (int i = 0; i < OUTPUTS; i++) free(outputs[i].memory);
}

static void free_case(const vector_case *c) {
    free_outputs(c);
    const void *const inputs[8] = {c->batch.logits,       c->batch.top_k,        c->batch.top_p, c->batch.min_p,
                                   c->batch.temperature,  c->batch.random_words, c->batch.seed,  c->batch.offset};
    for (int i = 0; i < 8; i++) free((void *)(uintptr_t)inputs[i]);
}

typedef nuc_status entry_point(const nuc_sampler *, const nuc_batch *, const nuc_call_options *, int32_t *, uint32_t *,
                               const nuc_debug_arrays *, nuc_error *);

/* Calls a function with every output and compares. */
static void check_outputs(entry_point *entry, const nuc_sampler *sampler, const vector_case *c) {
    nuc_error error = NUC_ERROR_INIT;
    const vector_case got = poisoned(c);
    CHECK_STATUS(NUC_OK, error,
                 entry(sampler, &c->batch, &c->options, got.tokens, got.row_status, &got.debug, &error));
    const char *const different = difference(&got, c);
    if (!CHECK(different == NULL)) fprintf(stderr, "    %s: %s\n", c->name, different);
    free_outputs(&got);
}

/* Without statuses, a case with an impossible parameter fails. Other cases have the same tokens. */
static void check_without_status(entry_point *entry, const nuc_sampler *sampler, const vector_case *c) {
    nuc_error error = NUC_ERROR_INIT;
    const vector_case got = poisoned(c);
    const nuc_status status = entry(sampler, &c->batch, &c->options, got.tokens, NULL, &got.debug, &error);
    int bad = 0;
    for (size_t row = 0; row < c->rows; row++) bad = bad || c->row_status[row] == NUC_ROW_BAD_PARAMETER;
    if (bad) {
        CHECK(status == NUC_INVALID_ARGUMENT && error.row >= 0 && (size_t)error.row < c->rows &&
              c->row_status[error.row] == NUC_ROW_BAD_PARAMETER);
    } else {
        CHECK(status == NUC_OK && memcmp(got.tokens, c->tokens, 4 * c->rows) == 0);
    }
    free_outputs(&got);
}

static void check_flat(nuc_path path, const nuc_sampler *sampler, const vector_case *c) {
    nuc_error error = NUC_ERROR_INIT;
    const vector_case got = poisoned(c);
    const nuc_batch *const b = &c->batch;
    CHECK_STATUS(NUC_OK, error,
                 nuc_sample_flat(sampler, path, b->logits, b->dtype, b->num_rows, b->vocab, b->row_stride, b->top_k,
                                 b->top_p, b->min_p, b->temperature, b->random_words, b->seed, b->offset,
                                 c->options.keep_ties, got.tokens, got.row_status, &error));
    CHECK(memcmp(got.tokens, c->tokens, 4 * c->rows) == 0 && memcmp(got.row_status, c->row_status, 4 * c->rows) == 0);
    free_outputs(&got);
}

/* The comparison finds one wrong bit in the last byte of any output. */
static void check_the_comparison(const vector_case *c) {
    output outputs[OUTPUTS];
    const vector_case copy = poisoned(c);
    list_outputs(&copy, outputs);
    for (int wrong = 0; wrong < OUTPUTS; wrong++) {
        output right[OUTPUTS];
        list_outputs(c, right);
        if (right[wrong].memory == NULL) continue;
        for (int i = 0; i < OUTPUTS; i++) {
            if (right[i].memory != NULL) memcpy(outputs[i].memory, right[i].memory, right[i].bytes);
        }
        CHECK(difference(&copy, c) == NULL);
        ((unsigned char *)outputs[wrong].memory)[outputs[wrong].bytes - 1] ^= 1;
        const char *const different = difference(&copy, c);
        CHECK(different != NULL && strcmp(different, right[wrong].name) == 0);
    }
    free_outputs(&copy);
}

static void run_case(const nuc_sampler *sampler, int is_plugin, const vector_case *c) {
    const int is_bounded = c->has_slices, is_auto = strcmp(c->path, "auto") == 0;
    entry_point *const own = is_bounded  ? nuc_bounded_topk_topp_and_sample
                             : is_auto   ? nuc_topk_topp_and_sample
                                         : nuc_arbitrary_topk_topp_and_sample;
    check_outputs(own, sampler, c);
    if (is_plugin) return;
    check_outputs(nuc_reference_topk_topp_and_sample, sampler, c);
    check_outputs(nuc_topk_topp_and_sample, sampler, c);
    if (!is_bounded) check_outputs(nuc_arbitrary_topk_topp_and_sample, sampler, c);
    check_without_status(own, sampler, c);
    check_flat(is_bounded ? NUC_PATH_BOUNDED : is_auto ? NUC_PATH_AUTO : NUC_PATH_ARBITRARY, sampler, c);
    check_the_comparison(c);
}

/* Samplers by max_k. */
static struct {
    size_t max_k;
    nuc_sampler *sampler;
} samplers[MAX_SAMPLERS];
static int num_samplers;

static const nuc_sampler *sampler_for(const char *plugin, size_t max_k) {
    /* One bucket for all batches, so that a plugin compiles fewer programs. */
    static const size_t row_buckets[1] = {8};
    for (int i = 0; i < num_samplers; i++) {
        if (samplers[i].max_k == max_k) return samplers[i].sampler;
    }
    if (num_samplers == MAX_SAMPLERS) fail("too many values of max_k", "MAX_SAMPLERS");
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler *sampler = NULL;
    options.backend = plugin == NULL ? NUC_BACKEND_BUILTIN : NUC_BACKEND_PJRT;
    options.plugin_path = plugin;
    options.max_k = max_k;
    options.row_buckets = row_buckets;
    options.num_row_buckets = 1;
    if (!CHECK_STATUS(NUC_OK, error, nuc_sampler_create(&options, &sampler, &error))) exit(report());
    samplers[num_samplers].max_k = max_k;
    samplers[num_samplers].sampler = sampler;
    num_samplers++;
    return sampler;
}

static char *read_text(const char *name) {
    FILE *const file = fopen(name, "rb");
    if (file == NULL) fail("cannot open", name);
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    if (size < 0) fail("cannot measure", name);
    rewind(file);
    char *const text = allocate((size_t)size, 1);
    if (fread(text, 1, (size_t)size, file) != (size_t)size) fail("cannot read", name);
    text[size] = '\0';
    fclose(file);
    return text;
}

/* Runs the cases of a file. Returns how many ran. */
static int run_file(const char *name, const char *plugin) {
    char *const text = read_text(name), *next = text;
    lines lines = {{0}, {0}, 0};
    int cases = 0, first = 1;
    while (*next != '\0') {
        char *const line = next, *const end = strchr(line, '\n');
        if (end == NULL) fail("the last line has no end", name);
        *end = '\0';
        next = end + 1;
        if (first) {
            first = 0;
            if (strcmp(line, "nucleus-vectors 1") != 0) fail("another version of the format", name);
        } else if (strcmp(line, "end") == 0) {
            const vector_case c = read_case(&lines);
            if (plugin == NULL || c.dtype == NUC_DTYPE_F32) {
                run_case(sampler_for(plugin, c.max_k), plugin != NULL, &c);
                cases++;
            }
            free_case(&c);
            lines.count = 0;
        } else if (*line != '\0' && *line != '#') {
            char *const space = strchr(line, ' ');
            if (space == NULL || lines.count == MAX_LINES) fail("a wrong line", line);
            *space = '\0';
            lines.keys[lines.count] = line;
            lines.words[lines.count++] = space + 1;
        }
    }
    if (lines.count != 0) fail("the last case has no end", name);
    free(text);
    return cases;
}

int main(int argc, char **argv) {
    if (argc < 3) fail("usage", "test_vectors builtin|PLUGIN FILE...");
    const char *const plugin = strcmp(argv[1], "builtin") == 0 ? NULL : argv[1];
    int cases = 0;
    for (int i = 2; i < argc; i++) {
        const int found = run_file(argv[i], plugin);
        CHECK(found > 0);
        cases += found;
    }
    for (int i = 0; i < num_samplers; i++) CHECK(nuc_sampler_destroy(samplers[i].sampler, NULL) == NUC_OK);
    printf("%d cases, ", cases);
    return report();
}
