#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>

#include "comparison.hpp"

namespace {

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// Returns the median time of `choose` in microseconds. It is called for each row several times.
template <class Choose>
double microseconds(const Rows &rows, const Choose &choose) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> times;
    for (int round = 0; round < 4; round++) {
        for (const std::vector<float> &logits : rows) {
            const Clock::time_point start = Clock::now();
            const llama_token token = choose(logits);
            const double time = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
            if (token < 0) throw std::runtime_error("a sampler has chosen no token");
            if (round > 0) times.push_back(time);
        }
    }
    return median(std::move(times));
}

}  // namespace

void compare_times(const Rows &rows) {
    std::printf("  %-50s %9s %9s %9s\n", "", "llama.cpp", "in chain", "alone");
    for (const Settings &settings : settings_of_table) {
        std::vector<llama_token_data> candidates;
        const llama_sampler_ptr theirs = make_chain(settings, true);
        const llama_sampler_ptr chain = make_adapter_chain(settings, vocab_of(rows), nullptr);
        const llama_sampler_ptr alone = make_adapter(settings, vocab_of(rows), nullptr);
        const auto with = [&](const llama_sampler_ptr &sampler) {
            return microseconds(
                rows, [&](const auto &row) { return choose_with_chain(sampler.get(), row, candidates); });
        };
        const auto without_chain = [&](const auto &row) {
            return llama_sampler_nucleus_sample_logits(alone.get(), row.data());
        };
        const double first = with(theirs), second = with(chain), third = microseconds(rows, without_chain);
        std::printf("  %-50s %9.1f %9.1f %9.1f\n", describe(settings).c_str(), first, second, third);
    }
}
