/*
 * The time of a call from C, for overhead.py: fills the structs, samples one row, and reads the status.
 *
 * usage: call VOCAB ROUNDS CALLS < LOGITS    prints the median over ROUNDS of the time of a call in nanoseconds
 */
#include <nucleus.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const size_t vocab = (size_t)strtoul(argv[1], NULL, 10);
    const int rounds = atoi(argv[2]), calls = atoi(argv[3]);
    float *const logits = malloc(vocab * sizeof *logits);
    double *const times = malloc((size_t)rounds * sizeof *times);
    if (logits == NULL || times == NULL || fread(logits, sizeof *logits, vocab, stdin) != vocab) return 2;

    nuc_sampler_options sampler_options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler *sampler;
    sampler_options.backend = NUC_BACKEND_BUILTIN;
    sampler_options.num_threads = 1;
    if (nuc_sampler_create(&sampler_options, &sampler, NULL) != NUC_OK) return 1;
    for (int round = 0; round < rounds; round++) {
        const double start = now();
        for (int i = 0; i < calls; i++) {
            const int32_t top_k = 50;
            const float top_p = 0.9f, temperature = 0.7f;
            const uint64_t seed = 1, offset = (uint64_t)i;
            int32_t token;
            uint32_t row_status;
            nuc_error error = NUC_ERROR_INIT;
            nuc_batch batch = NUC_BATCH_INIT;
            batch.logits = logits;
            batch.num_rows = 1;
            batch.vocab = vocab;
            batch.top_k = &top_k;
            batch.top_p = &top_p;
            batch.temperature = &temperature;
            batch.seed = &seed;
            batch.offset = &offset;
            if (nuc_topk_topp_and_sample(sampler, &batch, NULL, &token, &row_status, NULL, &error) != NUC_OK) return 1;
        }
        times[round] = (now() - start) / calls;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare);
    printf("%.0f\n", times[rounds / 2]);
    free(times);
    free(logits);
    return nuc_sampler_destroy(sampler, NULL) != NUC_OK;
}
