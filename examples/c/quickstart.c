/*
 * Samples one small batch and prints the tokens.
 *
 *     quickstart [PLUGIN]
 *
 * PLUGIN is the path of a PJRT plugin's shared library. Without PLUGIN, the program uses the built-in backend.
 *
 * This file is valid C and C++, from C89 on.
 */
#include <nucleus.h>
#include <stdio.h>

enum { ROWS = 3, VOCAB = 5, STEPS = 4 };

static int fail(const char *what, nuc_status status, const nuc_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, nuc_status_string(status), error->message);
    return 1;
}

int main(int argc, char **argv) {
    /* The first row is greedy, the second uses top-k and top-p, the third min-p. */
    const float logits[ROWS][VOCAB] = {
        {0.1f, 2.0f, -1.0f, 1.9f, 0.0f}, {5.0f, 4.5f, 0.0f, 0.0f, 4.0f}, {1.0f, 1.0f, 1.0f, 1.0f, -30.0f}};
    const float temperature[ROWS] = {0.0f, 0.7f, 1.0f};
    const float top_p[ROWS] = {1.0f, 0.95f, 1.0f}, min_p[ROWS] = {0.0f, 0.0f, 0.1f};
    const int32_t top_k[ROWS] = {0, 3, 0};
    const uint64_t seed[ROWS] = {1, 2, 3};
    uint64_t offset[ROWS] = {0, 0, 0};
    int32_t tokens[ROWS];
    int step, row;
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    nuc_sampler *sampler;
    nuc_status status;

    options.backend = argc > 1 ? NUC_BACKEND_PJRT : NUC_BACKEND_BUILTIN;
    options.plugin_path = argc > 1 ? argv[1] : NULL;
    status = nuc_sampler_create(&options, &sampler, &error);
    if (status != NUC_OK) return fail("nuc_sampler_create", status, &error);

    batch.logits = logits;
    batch.num_rows = ROWS;
    batch.vocab = VOCAB;
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.min_p = min_p;
    batch.temperature = temperature;
    batch.seed = seed;
    batch.offset = offset;
    for (step = 0; step < STEPS; step++) {
        /* Another offset in every step gives other random numbers. */
        for (row = 0; row < ROWS; row++) offset[row] = (uint64_t)step;
        status = nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error);
        if (status != NUC_OK) {
            nuc_sampler_destroy(sampler, NULL);
            return fail("nuc_topk_topp_and_sample", status, &error);
        }
        printf("step %d: %d %d %d\n", step, (int)tokens[0], (int)tokens[1], (int)tokens[2]);
    }
    nuc_sampler_destroy(sampler, NULL);
    return 0;
}
