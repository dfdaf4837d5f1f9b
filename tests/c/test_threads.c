/* Eight threads use one sampler with different shapes at the same time. Each result equals that of a single thread. */
#define _POSIX_C_SOURCE 200112L
#include "check.h"

#include <pthread.h>

enum { THREADS = 8, SHAPES = 4, MOST_ROWS = 5, MOST_VOCAB = 700, LAPS = 6 };

static const struct {
    size_t rows, vocab;
    int32_t k;
} shapes[SHAPES] = {{1, 700, 0}, {3, 97, 5}, {5, 300, 20}, {2, 700, 40}};

typedef struct problem {
    nuc_batch batch;
    float logits[MOST_ROWS * MOST_VOCAB];
    int32_t k[MOST_ROWS];
    float p[MOST_ROWS], temperature[MOST_ROWS];
    uint64_t seed[MOST_ROWS];
    int32_t want[MOST_ROWS];
    uint32_t want_status[MOST_ROWS];
} problem;

static problem problems[SHAPES];
static nuc_sampler *sampler;
static pthread_barrier_t barrier;

static void make_problems(void) {
    uint64_t state = 7;
    for (int i = 0; i < SHAPES; i++) {
        problem *q = &problems[i];
        for (size_t j = 0; j < shapes[i].rows * shapes[i].vocab; j++) q->logits[j] = 4 * next_float(&state);
        for (size_t row = 0; row < shapes[i].rows; row++) {
            q->k[row] = shapes[i].k;
            q->p[row] = 0.95f;
            q->temperature[row] = 1.0f;
            q->seed[row] = next_random(&state);
        }
        q->batch.struct_size = sizeof q->batch;
        q->batch.logits = q->logits;
        q->batch.dtype = NUC_DTYPE_F32;
        q->batch.num_rows = shapes[i].rows;
        q->batch.vocab = shapes[i].vocab;
        q->batch.top_k = q->k;
        q->batch.top_p = q->p;
        q->batch.temperature = q->temperature;
        q->batch.seed = q->seed;
    }
}

/* Compares results in a loop. Returns null if all are correct. */
static void *hammer(void *argument) {
    const int first = *(const int *)argument;
    long wrong = 0;
    pthread_barrier_wait(&barrier);
    for (int lap = 0; lap < LAPS; lap++) {
        for (int i = 0; i < SHAPES; i++) {
            const problem *q = &problems[(first + i) % SHAPES];
            int32_t tokens[MOST_ROWS];
            uint32_t status[MOST_ROWS];
            nuc_error error = NUC_ERROR_INIT;
            if (nuc_topk_topp_and_sample(sampler, &q->batch, NULL, tokens, status, NULL, &error) != NUC_OK ||
                memcmp(tokens, q->want, q->batch.num_rows * sizeof *tokens) != 0 ||
                memcmp(status, q->want_status, q->batch.num_rows * sizeof *status) != 0) {
                wrong++;
            }
            /* Also calls other functions, and a call that fails. */
            nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
            nuc_batch bad = q->batch;
            bad.vocab = 0;
            wrong += nuc_sampler_get_stats(sampler, &stats, NULL) != NUC_OK;
            wrong += nuc_topk_topp_and_sample(sampler, &bad, NULL, tokens, NULL, NULL, &error) != NUC_INVALID_ARGUMENT;
            wrong += strstr(error.message, "vocab") == NULL;
        }
    }
    return wrong ? argument : NULL;
}

int main(int argc, char **argv) {
    const char *plugin = argc > 1 ? argv[1] : NULL;
    make_problems();
    nuc_sampler *const alone = make_sampler(NULL, 128);
    for (int i = 0; i < SHAPES; i++) {
        nuc_error error = NUC_ERROR_INIT;
        CHECK_STATUS(NUC_OK, error,
                     nuc_reference_topk_topp_and_sample(alone, &problems[i].batch, NULL, problems[i].want,
                                                        problems[i].want_status, NULL, &error));
    }
    nuc_sampler_destroy(alone, NULL);

    sampler = make_sampler(plugin, 128);
    pthread_t threads[THREADS];
    int numbers[THREADS];
    CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, hammer, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *wrong = &numbers[i];
        CHECK(pthread_join(threads[i], &wrong) == 0);
        CHECK(wrong == NULL);
    }
    pthread_barrier_destroy(&barrier);

    /* The first thread that needs a program compiles it; no thread compiles it again. */
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_stats stats = NUC_SAMPLER_STATS_INIT;
    CHECK_STATUS(NUC_OK, error, nuc_sampler_get_stats(sampler, &stats, &error));
    CHECK(stats.compiles == (plugin ? SHAPES : 0) && stats.failures == 0);
    CHECK(stats.compiles + stats.hits == (plugin ? THREADS * LAPS * SHAPES : 0));
    CHECK_STATUS(NUC_OK, error, nuc_sampler_destroy(sampler, &error));
    return report();
}
