// nucleus.hpp without exceptions: only the functions that return results.
#include "unit.hpp"

#include <cstdio>
#include <cstring>

#ifdef __cpp_exceptions
#error "this file must be compiled with -fno-exceptions"
#endif

nucleus::result<nucleus::sampler> make_sampler(const nucleus::sampler_options &options) {
    return nucleus::sampler::try_create(options);
}

nucleus::result<void> sample_row(const nucleus::sampler &sampler, nucleus::span<const float> logits,
                                 nucleus::span<std::int32_t> token) {
    static const float greedy[1] = {0};
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(logits, 1, logits.size());
    batch.temperature = greedy;
    return sampler.try_sample(batch, token);
}

int check_results() {
    int failed = 0;
    const auto check = [&failed](bool holds, const char *what) {
        if (!holds) std::fprintf(stderr, "failed: %s\n", what);
        failed += !holds;
    };
    nucleus::sampler_options options;
    options.max_k = 5000;
    const auto refused = make_sampler(options);
    check(!refused && refused.code() == nucleus::status::invalid_argument, "a wrong option is an error");
    check(refused.error().argument() != nullptr && std::strcmp(refused.error().argument(), "max_k") == 0, "its name");

    options = {};
    options.backend = nucleus::backend::builtin;
    auto made = make_sampler(options);
    check(made.has_value(), "a sampler");
    if (!made) return failed;
    const nucleus::sampler sampler = *std::move(made);
    check(!made->close().error().argument() && !*made, "the value was moved from");
    check(sampler && sampler.max_k() == 128, "the sampler was moved");
    const float logits[3] = {1, 3, 2};
    std::int32_t token[1] = {77}, two[2] = {77, 77};
    check(sample_row(sampler, logits, token).has_value() && token[0] == 1, "the token");
    const auto wrong = sample_row(sampler, logits, two);
    check(!wrong && std::strcmp(wrong.error().argument(), "tokens") == 0 && two[0] == 77, "a wrong size");
    check(sampler.try_stats()->total_count == 1, "the counters");
    check(sampler.try_info().has_value() && sampler.try_device(0).has_value(), "the information");
    check(sampler.try_prewarm({}).code() == nucleus::status::invalid_argument, "an impossible prewarm");
    check(nucleus::try_set_log(nucleus::log_level::off).has_value(), "the log");
    nucleus::emit_options emit;
    emit.num_rows = 1;
    emit.vocab = 3;
    check(nucleus::try_emit(emit)->view().find("func.func") != std::string_view::npos, "a function to embed");
    return failed;
}
