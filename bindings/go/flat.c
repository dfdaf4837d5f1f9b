#include "flat.h"

nuc_status nucleus_go_sample(const nuc_sampler *sampler, nuc_path path, int32_t reference, const void *logits,
                             nuc_dtype dtype, size_t num_rows, size_t vocab, size_t row_stride, const int32_t *top_k,
                             const float *top_p, const float *min_p, const float *temperature,
                             const uint32_t *random_words, const uint64_t *seed, const uint64_t *offset,
                             int32_t keep_ties, int32_t use_replace_val, float replace_val, int32_t *tokens,
                             uint32_t *row_status, int32_t *greedy_sampled, void *topk_logits_unsorted,
                             int32_t *topk_topp_unnorm_probs_i32_unsorted, uint32_t *random_unnorm_cdf_sampled_high,
                             uint32_t *random_unnorm_cdf_sampled_low, int32_t *next_tokens, int32_t *topk_indices_k,
                             void *topk_logits_k, int32_t *topk_topp_unnorm_probs_i32_k, nuc_error *error) {
    nuc_batch batch = NUC_BATCH_INIT;
    nuc_call_options options = NUC_CALL_OPTIONS_INIT;
    nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;

    batch.logits = logits;
    batch.dtype = dtype;
    batch.num_rows = num_rows;
    batch.vocab = vocab;
    batch.row_stride = row_stride;
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.min_p = min_p;
    batch.temperature = temperature;
    batch.random_words = random_words;
    batch.seed = seed;
    batch.offset = offset;
    options.keep_ties = keep_ties;
    options.use_replace_val = use_replace_val;
    options.replace_val = replace_val;
    debug.greedy_sampled = greedy_sampled;
    debug.topk_logits_unsorted = topk_logits_unsorted;
    debug.topk_topp_unnorm_probs_i32_unsorted = topk_topp_unnorm_probs_i32_unsorted;
    debug.random_unnorm_cdf_sampled_high = random_unnorm_cdf_sampled_high;
    debug.random_unnorm_cdf_sampled_low = random_unnorm_cdf_sampled_low;
    debug.next_tokens = next_tokens;
    debug.topk_indices_k = topk_indices_k;
    debug.topk_logits_k = topk_logits_k;
    debug.topk_topp_unnorm_probs_i32_k = topk_topp_unnorm_probs_i32_k;
    if (reference) {
        return nuc_reference_topk_topp_and_sample(sampler, &batch, &options, tokens, row_status, &debug, error);
    }
    switch (path) {
    case NUC_PATH_ARBITRARY:
        return nuc_arbitrary_topk_topp_and_sample(sampler, &batch, &options, tokens, row_status, &debug, error);
    case NUC_PATH_BOUNDED:
        return nuc_bounded_topk_topp_and_sample(sampler, &batch, &options, tokens, row_status, &debug, error);
    default:
        return nuc_topk_topp_and_sample(sampler, &batch, &options, tokens, row_status, &debug, error);
    }
}

nuc_status nucleus_go_get_numbers(const nuc_call *call, int32_t *greedy_sampled,
                                  uint32_t *random_unnorm_cdf_sampled_high, uint32_t *random_unnorm_cdf_sampled_low,
                                  int32_t *next_tokens, nuc_error *error) {
    nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;

    debug.greedy_sampled = greedy_sampled;
    debug.random_unnorm_cdf_sampled_high = random_unnorm_cdf_sampled_high;
    debug.random_unnorm_cdf_sampled_low = random_unnorm_cdf_sampled_low;
    debug.next_tokens = next_tokens;
    return nuc_call_get_numbers(call, &debug, error);
}

nuc_status nucleus_go_pack_parameters(const nuc_emit_options *function, const int32_t *top_k, const float *top_p,
                                      const float *min_p, const float *temperature, const uint64_t *seed,
                                      const uint64_t *offset, int32_t *parameters, nuc_error *error) {
    nuc_batch batch = NUC_BATCH_INIT;
    nuc_call_options options = NUC_CALL_OPTIONS_INIT;

    batch.dtype = function->dtype;
    batch.num_rows = function->num_rows;
    batch.vocab = function->vocab;
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.min_p = min_p;
    batch.temperature = temperature;
    batch.seed = seed;
    batch.offset = offset;
    options.keep_ties = function->keep_ties;
    return nuc_pack_parameters(function, &batch, &options, parameters, error);
}
