/*
 * Compares every entry point with the reference, in every array, on rows of all kinds and types, with a row stride, and
 * with every combination of wanted arrays.
 */
#include "check.h"

#include <stddef.h>

enum { ROWS = 6, VOCAB = 150, MAX_K = 16, STRIDE = VOCAB + 10, FIELDS = 9 };

typedef struct answers {
    int32_t tokens[ROWS];
    uint32_t row_status[ROWS];
    int32_t greedy[ROWS];
    unsigned char topk_logits[ROWS * VOCAB * 4];
    int32_t probs[ROWS * VOCAB];
    uint32_t high[ROWS], low[ROWS];
    int32_t next[ROWS];
    int32_t indices_k[ROWS * MAX_K];
    unsigned char topk_logits_k[ROWS * MAX_K * 4];
    int32_t probs_k[ROWS * MAX_K];
    unsigned char guard[64]; /* must not be written */
} answers;

/* The debug fields in the order of the struct: the offset of each in `answers`, and its size with f32 logits. */
static const struct {
    size_t at, bytes;
    int typed;
} fields[FIELDS] = {
    {offsetof(answers, greedy), sizeof(int32_t) * ROWS, 0},
    {offsetof(answers, topk_logits), 4 * ROWS * VOCAB, 1},
    {offsetof(answers, probs), 4 * ROWS * VOCAB, 0},
    {offsetof(answers, high), 4 * ROWS, 0},
    {offsetof(answers, low), 4 * ROWS, 0},
    {offsetof(answers, next), 4 * ROWS, 0},
    {offsetof(answers, indices_k), 4 * ROWS * MAX_K, 0},
    {offsetof(answers, topk_logits_k), 4 * ROWS * MAX_K, 1},
    {offsetof(answers, probs_k), 4 * ROWS * MAX_K, 0},
};
enum { TOPK_LOGITS = 1 << 1, PROBS = 1 << 2, SLICES = 7 << 6, ALL = (1 << FIELDS) - 1 };

typedef nuc_status entry_point(const nuc_sampler *, const nuc_batch *, const nuc_call_options *, int32_t *, uint32_t *,
                               const nuc_debug_arrays *, nuc_error *);
static entry_point *const entries[4] = {nuc_topk_topp_and_sample, nuc_arbitrary_topk_topp_and_sample,
                                        nuc_bounded_topk_topp_and_sample, nuc_reference_topk_topp_and_sample};

/* Runs an entry point on poisoned memory. The bits of `wanted` select the requested fields. */
static void run(entry_point *entry, const nuc_sampler *sampler, const nuc_batch *batch, const nuc_call_options *options,
                int wanted, answers *out) {
    memset(out, 0xa5, sizeof *out);
    void *pointers[FIELDS];
    for (int i = 0; i < FIELDS; i++) pointers[i] = wanted >> i & 1 ? (unsigned char *)out + fields[i].at : NULL;
    nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;
    debug.greedy_sampled = pointers[0];
    debug.topk_logits_unsorted = pointers[1];
    debug.topk_topp_unnorm_probs_i32_unsorted = pointers[2];
    debug.random_unnorm_cdf_sampled_high = pointers[3];
    debug.random_unnorm_cdf_sampled_low = pointers[4];
    debug.next_tokens = pointers[5];
    debug.topk_indices_k = pointers[6];
    debug.topk_logits_k = pointers[7];
    debug.topk_topp_unnorm_probs_i32_k = pointers[8];
    nuc_error error = NUC_ERROR_INIT;
    CHECK_STATUS(NUC_OK, error,
                 entry(sampler, batch, options, out->tokens, out->row_status, wanted ? &debug : NULL, &error));
}

/* Compares every byte. The wanted fields must equal those of `want`; all other bytes must still be poisoned. */
static void compare(const answers *got, const answers *want, int wanted, const char *context) {
    answers expected;
    memset(&expected, 0xa5, sizeof expected);
    memcpy(expected.tokens, want->tokens, sizeof expected.tokens);
    memcpy(expected.row_status, want->row_status, sizeof expected.row_status);
    for (int i = 0; i < FIELDS; i++) {
        const size_t at = fields[i].at;
        if (wanted >> i & 1) memcpy((unsigned char *)&expected + at, (const unsigned char *)want + at, fields[i].bytes);
    }
    const unsigned char *const a = (const unsigned char *)got, *const b = (const unsigned char *)&expected;
    size_t at = 0;
    while (at < sizeof expected && a[at] == b[at]) at++;
    if (!CHECK(at == sizeof expected)) fprintf(stderr, "    %s: byte %d of the answers\n", context, (int)at);
}

static union {
    uint32_t words[ROWS * STRIDE];
    uint16_t halves[ROWS * STRIDE];
} logits;

static void put(int dtype, size_t at, uint32_t f32, uint16_t bf16, uint16_t f16) {
    if (dtype == NUC_DTYPE_F32) logits.words[at] = f32;
    else logits.halves[at] = dtype == NUC_DTYPE_BF16 ? bf16 : f16;
}

/* Fills the rows: 0 has values of both signs, 1 many ties, 2 NaNs, 3 infinities, 4 only -inf, 5 only NaN. The elements
 * between rows are NaN. */
static void fill(int dtype, uint64_t seed) {
    for (size_t i = 0; i < ROWS * STRIDE; i++) put(dtype, i, 0x7fc00001u, 0x7fc1, 0x7e01);
    for (int row = 0; row < ROWS; row++) {
        for (int i = 0; i < VOCAB; i++) {
            const size_t at = (size_t)(row * STRIDE + i);
            const uint32_t r = next_random(&seed);
            uint32_t mantissa = r & 0x7fffff;
            if (row == 1) mantissa &= 0x600000; /* few distinct values, so many ties */
            const uint32_t sign = r >> 31, exponent = r >> 24 & 3; /* 1 to 16 */
            put(dtype, at, sign << 31 | (127 + exponent) << 23 | mantissa,
                (uint16_t)(sign << 15 | (127 + exponent) << 7 | mantissa >> 16),
                (uint16_t)(sign << 15 | (15 + exponent) << 10 | mantissa >> 13));
            const int some = r % 7 == 0;
            if ((row == 2 && some) || row == 5) put(dtype, at, 0xffc12345u, 0x7fc5, 0xfe05);
            if (row == 3 && some) put(dtype, at, 0xff800000u, 0xff80, 0xfc00);
            if (row == 3 && r % 61 == 1) put(dtype, at, 0x7f800000u, 0x7f80, 0x7c00);
            if (row == 4) put(dtype, at, 0xff800000u, 0xff80, 0xfc00);
        }
    }
}

int main(int argc, char **argv) {
    const char *plugin = argc > 1 ? argv[1] : NULL;
    nuc_sampler *sampler = make_sampler(plugin, MAX_K);
    nuc_call_options options = NUC_CALL_OPTIONS_INIT;

    const int32_t small_k[ROWS] = {16, 3, 7, 12, 1, 5}, any_k[ROWS] = {0, 40, 16, VOCAB, 2, -1};
    const float p[ROWS] = {0.9f, 0.5f, 1.0f, 0.99f, 0.3f, 0.8f}, min_p[ROWS] = {0, 0.01f, 0.05f, 0, 0, 0};
    const float temperature[ROWS] = {1.0f, 0.7f, 3.0f, 100.0f, 1.0f, 0.5f};
    uint64_t seed[ROWS], offset[ROWS];
    answers got, want;
    char context[80];

    for (int dtype = NUC_DTYPE_F32; dtype <= NUC_DTYPE_F16; dtype++) {
        for (int round = 0; round < 8; round++) {
            fill(dtype, (uint64_t)(dtype * 100 + round));
            for (int row = 0; row < ROWS; row++) {
                seed[row] = (uint64_t)round << 40 | (uint64_t)row;
                offset[row] = (uint64_t)round * 1000003u;
            }
            nuc_batch batch = NUC_BATCH_INIT;
            batch.logits = &logits;
            batch.dtype = dtype;
            batch.num_rows = ROWS;
            batch.vocab = VOCAB;
            batch.row_stride = STRIDE;
            batch.top_p = p;
            batch.min_p = min_p;
            batch.temperature = temperature;
            batch.seed = seed;
            batch.offset = offset;

            for (int keep_ties = 0; keep_ties <= (plugin ? 0 : 1); keep_ties++) {
                options.keep_ties = keep_ties;
                options.use_replace_val = round % 2;
                options.replace_val = round % 2 ? 0.1f : 0.0f;
                for (int entry = 0; entry < 3; entry++) {
                    /* the bounded path and the k-slices need a small k; the arbitrary path has no k-slices */
                    for (int bounded = 0; bounded < 2; bounded++) {
                        if (entry == 2 && !bounded) continue;
                        const int wanted = bounded && entry != 1 ? ALL : ALL & ~SLICES;
                        batch.top_k = bounded ? small_k : any_k;
                        snprintf(context, sizeof context, "dtype %d, round %d, keep_ties %d, entry %d, bounded k %d",
                                 dtype, round, keep_ties, entry, bounded);
                        run(entries[3], sampler, &batch, &options, wanted, &want);
                        run(entries[entry], sampler, &batch, &options, wanted, &got);
                        if (dtype != NUC_DTYPE_F32) { /* half the size; the other half stays poisoned in both */
                            CHECK(got.topk_logits[ROWS * VOCAB * 2] == 0xa5);
                        }
                        compare(&got, &want, wanted, context);
                        CHECK(want.row_status[4] == NUC_ROW_NO_CANDIDATE && want.tokens[4] == -1);
                        CHECK(want.row_status[5] == (NUC_ROW_NO_CANDIDATE | NUC_ROW_HAD_NAN) && want.tokens[5] == -1);
                        CHECK(want.row_status[0] == 0 && want.row_status[2] == NUC_ROW_HAD_NAN);
                        CHECK(memcmp(want.tokens, want.next, sizeof want.tokens) == 0);
                        for (int row = 0; row < 4; row++) {
                            CHECK(want.probs[row * VOCAB + want.tokens[row]] > 0);
                            int kept = 0;
                            for (int i = 0; i < VOCAB; i++) kept += want.probs[row * VOCAB + i] > 0;
                            CHECK(kept > 0 && (keep_ties || batch.top_k[row] <= 0 || kept <= batch.top_k[row]));
                        }
                    }
                }
            }

            /* Every combination of wanted fields. A plugin compiles a program for each set of debug arrays, so it runs
             * fewer combinations. */
            if (round > 0 || (plugin && dtype != NUC_DTYPE_F32)) continue;
            options.keep_ties = 0;
            batch.top_k = small_k;
            run(entries[3], sampler, &batch, &options, ALL, &want);
            for (int wanted = 0; wanted <= ALL; wanted++) {
                if (plugin && ((wanted & TOPK_LOGITS) != 0) != ((wanted & PROBS) != 0)) continue;
                for (int entry = 0; entry < 4; entry++) {
                    if (entry == 1 && (wanted & SLICES)) continue;
                    snprintf(context, sizeof context, "dtype %d, fields %#x, entry %d", dtype, (unsigned)wanted, entry);
                    run(entries[entry], sampler, &batch, &options, wanted, &got);
                    compare(&got, &want, wanted, context);
                }
            }
        }
    }
    nuc_sampler_destroy(sampler, NULL);
    return report();
}
