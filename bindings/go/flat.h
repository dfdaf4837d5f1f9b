/* Functions of nucleus with plain arguments instead of structs of pointers. cgo allows Go memory as an argument of C,
 * but not Go memory that contains pointers to other Go memory. So the structs are built in C. */
#ifndef NUCLEUS_GO_FLAT_H
#define NUCLEUS_GO_FLAT_H

#include <nucleus.h>

/* Any sampling function: `reference` selects nuc_reference_topk_topp_and_sample, otherwise `path` selects one. */
nuc_status nucleus_go_sample(const nuc_sampler *sampler, nuc_path path, int32_t reference, const void *logits,
                             nuc_dtype dtype, size_t num_rows, size_t vocab, size_t row_stride, const int32_t *top_k,
                             const float *top_p, const float *min_p, const float *temperature,
                             const uint32_t *random_words, const uint64_t *seed, const uint64_t *offset,
                             int32_t keep_ties, int32_t use_replace_val, float replace_val, int32_t *tokens,
                             uint32_t *row_status, int32_t *greedy_sampled, void *topk_logits_unsorted,
                             int32_t *topk_topp_unnorm_probs_i32_unsorted, uint32_t *random_unnorm_cdf_sampled_high,
                             uint32_t *random_unnorm_cdf_sampled_low, int32_t *next_tokens, int32_t *topk_indices_k,
                             void *topk_logits_k, int32_t *topk_topp_unnorm_probs_i32_k, nuc_error *error);

/* nuc_call_get_numbers. */
nuc_status nucleus_go_get_numbers(const nuc_call *call, int32_t *greedy_sampled,
                                  uint32_t *random_unnorm_cdf_sampled_high, uint32_t *random_unnorm_cdf_sampled_low,
                                  int32_t *next_tokens, nuc_error *error);

/* nuc_pack_parameters. */
nuc_status nucleus_go_pack_parameters(const nuc_emit_options *function, const int32_t *top_k, const float *top_p,
                                      const float *min_p, const float *temperature, const uint64_t *seed,
                                      const uint64_t *offset, int32_t *parameters, nuc_error *error);

#endif
