#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <stdexcept>

#include "comparison.hpp"

namespace {

// Returns for each token whether nucleus keeps it.
std::vector<bool> kept_by_nucleus(const nuc_sampler *sampler, const Settings &settings,
                                  const std::vector<float> &logits) {
    std::vector<int32_t> weights(logits.size());
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits.data();
    batch.num_rows = 1;
    batch.vocab = logits.size();
    batch.top_k = &settings.top_k;
    batch.top_p = &settings.top_p;
    batch.min_p = &settings.min_p;
    batch.temperature = &settings.temp;
    nuc_debug_arrays debug = NUC_DEBUG_ARRAYS_INIT;
    debug.topk_topp_unnorm_probs_i32_unsorted = weights.data();
    nuc_error error = NUC_ERROR_INIT;
    int32_t token = -1;
    check(nuc_topk_topp_and_sample(sampler, &batch, nullptr, &token, nullptr, &debug, &error), error);
    std::vector<bool> kept(logits.size());
    for (std::size_t i = 0; i < kept.size(); i++) kept[i] = weights[i] != 0;
    return kept;
}

std::vector<bool> kept_by_llama(const Settings &settings, const std::vector<float> &logits) {
    std::vector<llama_token_data> candidates;
    const llama_sampler_ptr chain = make_chain(settings, false);
    const llama_token_data_array array = apply_chain(chain.get(), logits, candidates);
    std::vector<bool> kept(logits.size());
    for (std::size_t i = 0; i < array.size; i++) kept[static_cast<std::size_t>(array.data[i].id)] = true;
    return kept;
}

// The same filters in f64.
std::vector<bool> kept_exactly(const Settings &settings, const std::vector<float> &logits) {
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
    if (settings.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(settings.top_k)));
    const double top = logits[order[0]];
    std::vector<double> weights;
    for (const std::size_t token : order) weights.push_back(std::exp((logits[token] - top) / settings.temp));
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);

    std::vector<bool> kept(logits.size());
    double sum = 0;
    for (std::size_t i = 0; i < order.size(); i++) {
        if (sum >= settings.top_p * total || weights[i] < settings.min_p) break;
        kept[order[i]] = true;
        sum += weights[i];
    }
    return kept;
}

void expect(bool same, const char *place) {
    if (!same) throw std::runtime_error(std::string("the tokens differ: ") + place);
}

void compare_greedy(const Rows &rows) {
    const llama_sampler_ptr theirs = make_chain(greedy, true);
    const llama_sampler_ptr ours = make_adapter(greedy, vocab_of(rows), nullptr);
    std::vector<llama_token_data> candidates;
    for (const std::vector<float> &logits : rows) {
        const llama_token token = choose_with_chain(theirs.get(), logits, candidates);
        expect(llama_sampler_nucleus_sample_logits(ours.get(), logits.data()) == token, "greedy");
    }
    std::printf("  greedy: nucleus and llama.cpp choose the same token in all %zu rows\n", rows.size());
}

}  // namespace

void compare_choices(const Rows &rows) {
    std::printf("  %-50s %12s %12s\n", "", "nucleus", "llama.cpp");
    const Nucleus sampler = make_nucleus("");
    for (const Settings &settings : settings_of_table) {
        if (settings.top_k == 0 && settings.top_p == 1 && settings.min_p == 0) continue;
        std::size_t ours = 0, theirs = 0;
        for (const std::vector<float> &logits : rows) {
            const std::vector<bool> exact = kept_exactly(settings, logits);
            ours += kept_by_nucleus(sampler.get(), settings, logits) == exact;
            theirs += kept_by_llama(settings, logits) == exact;
        }
        std::printf("  %-50s %5zu of %zu %6zu of %zu\n", describe(settings).c_str(), ours, rows.size(),
                    theirs, rows.size());
        // Sums of rounded probabilities can stop one token earlier or later. nucleus sums integers.
        if (ours * 16 < rows.size() * 15 || theirs * 2 < rows.size()) {
            throw std::runtime_error("the kept tokens differ in too many rows");
        }
    }
    compare_greedy(rows);
}

void check_adapter(const Rows &rows) {
    const Settings settings = settings_of_table[1];
    Settings without_top_k = settings;
    without_top_k.top_k = 0;
    const llama_sampler_ptr adapter = make_adapter(settings, vocab_of(rows), nullptr);
    const llama_sampler_ptr mixed(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    llama_sampler_chain_add(mixed.get(), llama_sampler_init_top_k(settings.top_k));
    llama_sampler_chain_add(mixed.get(), make_adapter(without_top_k, vocab_of(rows), nullptr).release());

    std::vector<llama_token> tokens;
    std::vector<llama_token_data> candidates;
    for (const std::vector<float> &logits : rows) {
        tokens.push_back(llama_sampler_nucleus_sample_logits(adapter.get(), logits.data()));
        const llama_token token = choose_with_chain(mixed.get(), logits, candidates);
        expect(token == tokens.back(), "after top-k of llama.cpp");
    }
    llama_sampler_reset(adapter.get());
    llama_sampler_ptr clone;
    for (std::size_t i = 0; i < rows.size(); i++) {
        if (i == rows.size() / 2) clone.reset(llama_sampler_clone(adapter.get()));
        llama_sampler *sampler = clone ? clone.get() : adapter.get();
        const llama_token token = llama_sampler_nucleus_sample_logits(sampler, rows[i].data());
        expect(token == tokens[i], "after a reset or in a clone");
    }
    std::printf("  after top-k of llama.cpp, after a reset, in a clone: the same tokens\n");
}
