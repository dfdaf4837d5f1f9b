#include "samplers.hpp"

#include <stdexcept>

void check(nuc_status status, const nuc_error &error) {
    if (status != NUC_OK) {
        throw std::runtime_error(std::string(nuc_status_string(status)) + ": " + error.message);
    }
}

Nucleus make_nucleus(const std::string &plugin) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = plugin.empty() ? NUC_BACKEND_BUILTIN : NUC_BACKEND_PJRT;
    options.plugin_path = plugin.c_str();
    nuc_sampler *sampler = nullptr;
    check(nuc_sampler_create(&options, &sampler, &error), error);
    return Nucleus(sampler);
}

llama_sampler_ptr make_chain(const Settings &settings, bool choose) {
    llama_sampler_ptr chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    const auto add = [&](llama_sampler *sampler) { llama_sampler_chain_add(chain.get(), sampler); };
    if (settings.temp <= 0) {
        if (choose) add(llama_sampler_init_greedy());
        return chain;
    }
    if (settings.top_k > 0) add(llama_sampler_init_top_k(settings.top_k));
    if (settings.temp != 1) add(llama_sampler_init_temp(settings.temp));
    if (settings.top_p < 1) add(llama_sampler_init_top_p(settings.top_p, 1));
    if (settings.min_p > 0) add(llama_sampler_init_min_p(settings.min_p, 1));
    if (choose) add(llama_sampler_init_dist(settings.seed));
    return chain;
}

llama_sampler_ptr make_adapter(const Settings &settings, int32_t n_vocab, const nuc_sampler *sampler) {
    llama_sampler_nucleus_params params;
    params.n_vocab = n_vocab;
    params.top_k = settings.top_k;
    params.top_p = settings.top_p;
    params.min_p = settings.min_p;
    params.temp = settings.temp;
    params.seed = settings.seed;
    params.sampler = sampler;
    nuc_error error = NUC_ERROR_INIT;
    llama_sampler_ptr adapter(llama_sampler_init_nucleus(params, &error));
    check(error.code, error);
    return adapter;
}

llama_sampler_ptr make_adapter_chain(const Settings &settings, int32_t n_vocab, const nuc_sampler *sampler) {
    llama_sampler_ptr chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    llama_sampler_chain_add(chain.get(), make_adapter(settings, n_vocab, sampler).release());
    return chain;
}

llama_token_data_array apply_chain(llama_sampler *chain, const std::vector<float> &logits,
                                   std::vector<llama_token_data> &candidates) {
    candidates.resize(logits.size());
    for (std::size_t i = 0; i < logits.size(); i++) {
        candidates[i] = {static_cast<llama_token>(i), logits[i], 0};
    }
    llama_token_data_array array = {candidates.data(), candidates.size(), -1, false};
    llama_sampler_apply(chain, &array);
    return array;
}

llama_token choose_with_chain(llama_sampler *chain, const std::vector<float> &logits,
                              std::vector<llama_token_data> &candidates) {
    const llama_token_data_array array = apply_chain(chain, logits, candidates);
    if (array.selected < 0) throw std::runtime_error("the chain has selected no token");
    return array.data[array.selected].id;
}
