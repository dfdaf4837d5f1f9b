// A sampler for llama.cpp that chooses tokens with nucleus. Copy this file and nucleus_sampler.cpp into your program.
// README.md describes how to use them.
//
// A sampler of llama_sampler_init_nucleus is an ordinary llama_sampler. It works in three ways:
//
//   - As the last sampler of a llama_sampler_chain. It replaces top-k, temperature, top-p, min-p and dist.
//   - Alone, with llama_sampler_nucleus_sample in place of llama_sampler_sample. This is faster, because it reads the
//     logits of the context and builds no array of candidates.
//   - For several sequences in one call, with llama_sampler_nucleus_sample_batch.
//
// All three choose the same tokens.
//
// Threads: one sampler must not be used by two threads at the same time, as in llama.cpp. Different samplers may be
// used at the same time, also if they share a nuc_sampler.
#pragma once

#include <llama.h>
#include <nucleus.h>

#include <cstddef>
#include <cstdint>

// The sampling parameters of one sequence. The defaults turn every filter off.
struct llama_sampler_nucleus_params {
    int32_t n_vocab = 0;   // the number of tokens: llama_vocab_n_tokens(vocab)
    int32_t top_k = 0;     // 0 or less: off
    float top_p = 1.0f;    // 1 or more: off
    float min_p = 0.0f;    // 0 or less: off
    float temp = 1.0f;     // 0 or less: greedy, as in llama.cpp
    uint64_t seed = LLAMA_DEFAULT_SEED;  // LLAMA_DEFAULT_SEED: a random seed

    // The sampler of nucleus that computes the tokens, for example on a PJRT plugin. Several llama_samplers can share
    // it. The caller owns it, and must destroy it after the last llama_sampler that uses it. Null: the llama_sampler
    // and its clones use their own, with the built-in backend on the calling thread.
    const nuc_sampler *sampler = nullptr;
};

// Creates a sampler. The caller frees it with llama_sampler_free, or gives it to a chain with llama_sampler_chain_add.
//
// Returns null after a failure. `error` then describes the failure; it may be null. The errors are
// NUC_INVALID_ARGUMENT if `n_vocab` is not positive, `temp` is not finite, or `top_p` or `min_p` is NaN, and those of
// nuc_sampler_create.
//
// Each draw of the sampler uses new random words. llama_sampler_reset starts the sequence of random words again.
// llama_sampler_clone copies the position in the sequence.
llama_sampler *llama_sampler_init_nucleus(const llama_sampler_nucleus_params &params,
                                          nuc_error *error = nullptr);

// Returns the seed of the sampler. It is the random seed if the sampler was created with LLAMA_DEFAULT_SEED. The
// sampler must be one of llama_sampler_init_nucleus.
uint64_t llama_sampler_nucleus_get_seed(const llama_sampler *smpl);

// Samples the logits of output `idx` of the last llama_decode, like llama_sampler_sample. Returns the token.
//
// Returns LLAMA_TOKEN_NULL after a failure. `error` then describes the failure; it may be null. The errors are
// NUC_INVALID_ARGUMENT if `smpl` is not a sampler of llama_sampler_init_nucleus, if its n_vocab is not that of the
// model, if the context has no logits for `idx`, or if every logit is -inf or NaN, and those of
// nuc_topk_topp_and_sample.
llama_token llama_sampler_nucleus_sample(llama_sampler *smpl, llama_context *ctx, int32_t idx,
                                         nuc_error *error = nullptr);

// Like llama_sampler_nucleus_sample, for logits in host memory, f32 [n_vocab].
llama_token llama_sampler_nucleus_sample_logits(llama_sampler *smpl, const float *logits,
                                                nuc_error *error = nullptr);

// Samples `n` outputs of the last llama_decode in one call: output idx[i] with smpl[i]. Writes the tokens to `tokens`
// [n]. A token is LLAMA_TOKEN_NULL if every logit of its row is -inf or NaN. The samplers must be different. The call
// runs on the nuc_sampler of smpl[0].
//
// The function does not copy the logits if the outputs are at equal distances in ascending order, for example
// 0, 1, 2, ... Otherwise it copies them into one array.
//
// The errors are those of llama_sampler_nucleus_sample. After an error, `tokens` and the samplers are unchanged.
nuc_status llama_sampler_nucleus_sample_batch(llama_sampler *const *smpl, llama_context *ctx,
                                              const int32_t *idx, size_t n, llama_token *tokens,
                                              nuc_error *error = nullptr);
