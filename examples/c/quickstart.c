/*
 * Samples one small batch and prints the tokens.
 *
 *     quickstart [PLUGIN]
 *
 * PLUGIN is the path of a PJRT plugin's shared library. Without PLUGIN, the program uses the built-in backend.
 */
#include <nucleus.h>
#include <stdio.h>

static int fail(const char *what, nuc_status status, const nuc_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, nuc_status_string(status), error->message);
    return 1;
}

int main(int argc, char **argv) {
    nuc_error error;
    nuc_status status;

    nuc_sampler_options options;
    nuc_sampler_options_init(&options, sizeof options, NULL);
    options.backend = argc > 1 ? NUC_BACKEND_PJRT : NUC_BACKEND_BUILTIN;
    options.plugin_path = argc > 1 ? argv[1] : NULL;
    nuc_sampler *sampler;
    status = nuc_sampler_create(&options, &sampler, &error);
    if (status != NUC_OK) return fail("nuc_sampler_create", status, &error);

    /* Three rows of five logits: the first is greedy, the second uses top-k and top-p, the third min-p. */
    const float logits[3][5] = {{0.1f, 2.0f, -1.0f, 1.9f, 0.0f}, {5.0f, 4.5f, 0.0f, 0.0f, 4.0f}, {1, 1, 1, 1, -30}};
    const float temperature[3] = {0.0f, 0.7f, 1.0f}, p[3] = {1.0f, 0.95f, 1.0f}, min_p[3] = {0.0f, 0.0f, 0.1f};
    const int32_t k[3] = {0, 3, 0};
    const uint64_t seed[3] = {1, 2, 3};
    int32_t tokens[3];

    nuc_batch batch = {0};
    batch.struct_size = sizeof batch;
    batch.logits = logits;
    batch.dtype = NUC_DTYPE_F32;
    batch.batch = 3;
    batch.vocab = 5;
    batch.k = k;
    batch.p = p;
    batch.min_p = min_p;
    batch.temperature = temperature;
    batch.seed = seed;
    for (uint64_t step = 0; step < 4; step++) {
        const uint64_t offset[3] = {step, step, step}; /* different random numbers in every step */
        batch.offset = offset;
        status = nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error);
        if (status != NUC_OK) return fail("nuc_topk_topp_and_sample", status, &error);
        printf("step %d: %d %d %d\n", (int)step, (int)tokens[0], (int)tokens[1], (int)tokens[2]);
    }
    nuc_sampler_destroy(sampler, NULL);
    return 0;
}
