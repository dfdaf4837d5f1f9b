/* A program outside the tree of nucleus that uses the C header. */
#include <nucleus.h>

#include <stdio.h>

int main(void) {
    const float logits[2][4] = {{0, 1, 3, 2}, {9, 1, 3, 2}}, temperature[2] = {0, 0};
    int32_t tokens[2] = {-7, -7};
    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler *sampler = NULL;
    nuc_status status;
    options.backend = NUC_BACKEND_BUILTIN;
    batch.logits = logits;
    batch.num_rows = 2;
    batch.vocab = 4;
    batch.temperature = temperature;
    status = nuc_sampler_create(&options, &sampler, &error);
    if (status == NUC_OK) status = nuc_topk_topp_and_sample(sampler, &batch, NULL, tokens, NULL, NULL, &error);
    if (status != NUC_OK) fprintf(stderr, "%s\n", error.message);
    nuc_sampler_destroy(sampler, NULL);
    printf("C: version %s, tokens %d %d\n", nuc_version(), (int)tokens[0], (int)tokens[1]);
    return status == NUC_OK && nuc_version_number() == NUC_VERSION && tokens[0] == 2 && tokens[1] == 0 ? 0 : 1;
}
