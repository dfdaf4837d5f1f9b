// Measures the cost of a call through nucleus.hpp, and of the same call through nucleus.h. Prints one JSON object per
// line.
//
// The rows are small, so the cost of the call itself is a large part of the time. `cpp/c` is the median time of
// nuc_topk_topp_and_sample, including the time to fill the struct. `cpp/try_sample` is the median time of the C++
// function that returns a result. `cpp/sample` is the median time of the C++ function that throws exceptions.
// `overhead_ns` is the time of the C++ call minus the time of the C call. The benchmark measures the calls in turn, so
// the load of the machine has little effect on the difference.
#include <nucleus.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr int calls = 200, rounds = 1000;

struct Row {
    std::vector<float> logits;
    std::vector<std::int32_t> top_k;
    std::vector<float> top_p, temperature;
    std::vector<std::uint64_t> seed{7}, offset{1};
    std::vector<std::int32_t> token{-1};
};

// Ends the program if a call fails, so that no failure is measured.
void must(bool holds) {
    if (!holds) std::abort();
}

nucleus::batch make_batch(const Row &row) {
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(row.logits, 1, row.logits.size());
    batch.top_k = row.top_k;
    batch.top_p = row.top_p;
    batch.temperature = row.temperature;
    batch.seed = row.seed;
    batch.offset = row.offset;
    return batch;
}

template <class Call>
double microseconds(const Call &call) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; i++) call();
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
    return time.count() / calls;
}

double median(std::vector<double> times) {
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

void measure(const nucleus::sampler &sampler, const char *kind, Row row) {
    nuc_error error = NUC_ERROR_INIT;
    const auto c = [&] {
        nuc_batch batch = NUC_BATCH_INIT;
        batch.logits = row.logits.data();
        batch.num_rows = 1;
        batch.vocab = row.logits.size();
        batch.top_k = row.top_k.data();
        batch.top_p = row.top_p.data();
        batch.temperature = row.temperature.data();
        batch.seed = row.seed.data();
        batch.offset = row.offset.data();
        must(nuc_topk_topp_and_sample(sampler.get(), &batch, nullptr, row.token.data(), nullptr, nullptr, &error) ==
             NUC_OK);
    };
    const auto with_result = [&] { must(sampler.try_sample(make_batch(row), row.token).has_value()); };
    const auto throwing = [&] { sampler.sample(make_batch(row), row.token); };

    std::vector<double> times[3];
    for (int round = 0; round < rounds; round++) {
        times[0].push_back(microseconds(c));
        times[1].push_back(microseconds(with_result));
        times[2].push_back(microseconds(throwing));
    }
    const char *const names[3] = {"cpp/c", "cpp/try_sample", "cpp/sample"};
    const double base = median(times[0]);
    for (int i = 0; i < 3; i++) {
        const double time = median(times[i]);
        std::printf("{\"name\":\"%s\",\"row\":\"%s\",\"vocab\":%zu,\"rows\":1,\"median_us\":%.3f,\"overhead_ns\":%.1f,"
                    "\"baseline\":\"C call\"}\n",
                    names[i], kind, row.logits.size(), time, (time - base) * 1000);
    }
}

}  // namespace

int main() {
    nucleus::sampler_options options;
    options.backend = nucleus::backend::builtin;
    options.num_threads = 1;
    const nucleus::sampler sampler = nucleus::sampler::create(options);
    Row greedy;
    greedy.logits = {0, 3, 1, 2};
    greedy.top_k = {0};
    greedy.top_p = {1};
    greedy.temperature = {0};
    measure(sampler, "greedy", greedy);
    Row sampled;
    for (int i = 0; i < 1000; i++) sampled.logits.push_back(static_cast<float>(i * 7919 % 1000) / 100);
    sampled.top_k = {64};
    sampled.top_p = {0.95f};
    sampled.temperature = {0.8f};
    measure(sampler, "top_k 64, top_p 0.95", sampled);
}
