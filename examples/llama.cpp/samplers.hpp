// The two samplers that the demo compares, and what they choose from the same logits.
#pragma once

#include <vector>

#include "generate.hpp"
#include "nucleus_sampler.hpp"

struct DestroyNucleus {
    void operator()(nuc_sampler *sampler) const { nuc_sampler_destroy(sampler, nullptr); }
};
using Nucleus = std::unique_ptr<nuc_sampler, DestroyNucleus>;

// Throws an exception with the message of nucleus if a call failed.
void check(nuc_status status, const nuc_error &error);

// Creates a sampler of nucleus on a PJRT plugin, or on the built-in backend if `plugin` is empty.
Nucleus make_nucleus(const std::string &plugin);

// Creates the filters of llama.cpp in the order in which nucleus applies its own: top-k, temperature, top-p, min-p.
// With `choose`, the chain also ends with the sampler that chooses a token.
llama_sampler_ptr make_chain(const Settings &settings, bool choose);

// Creates the adapter. `sampler` may be null: see llama_sampler_nucleus_params.
llama_sampler_ptr make_adapter(const Settings &settings, int32_t n_vocab, const nuc_sampler *sampler);

// Creates a chain of llama.cpp that contains only the adapter.
llama_sampler_ptr make_adapter_chain(const Settings &settings, int32_t n_vocab, const nuc_sampler *sampler);

// Rows of logits, f32 [n_vocab] each.
using Rows = std::vector<std::vector<float>>;

// Applies a chain to logits in host memory, as llama_sampler_sample does for the logits of a context. `candidates` is a
// buffer that the calls share.
llama_token_data_array apply_chain(llama_sampler *chain, const std::vector<float> &logits,
                                   std::vector<llama_token_data> &candidates);
llama_token choose_with_chain(llama_sampler *chain, const std::vector<float> &logits,
                              std::vector<llama_token_data> &candidates);
