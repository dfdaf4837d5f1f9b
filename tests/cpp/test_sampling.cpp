// Everything that needs no buffer on a device: array sizes, errors, options, information, prewarming, the log, and the
// programs to embed. The argument is a PJRT plugin; without it, the built-in backend is tested.
#include "check.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace {

constexpr std::size_t rows = 3, vocab = 6;
const std::vector<float> logits{0, 5, 1, 7, 2, 3, 9, 8, 7, 6, 5, 4, 0, 0, 1, 1, 0, 0};
const std::vector<std::int32_t> top_k{2, 0, 3};
const std::vector<float> top_p{0.9f, 1.0f, 0.5f}, min_p{0, 0.1f, 0}, temperature{1, 0, 2};
const std::vector<std::uint64_t> seed{1, 2, 3}, offset{4, 5, 6};

nucleus::batch three_rows() {
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(logits, rows, vocab);
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.min_p = min_p;
    batch.temperature = temperature;
    batch.seed = seed;
    batch.offset = offset;
    return batch;
}

// The result of the C function for the same batch.
std::vector<std::int32_t> c_tokens(const nucleus::sampler &sampler) {
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits.data();
    batch.num_rows = rows;
    batch.vocab = vocab;
    batch.top_k = top_k.data();
    batch.top_p = top_p.data();
    batch.min_p = min_p.data();
    batch.temperature = temperature.data();
    batch.seed = seed.data();
    batch.offset = offset.data();
    std::vector<std::int32_t> tokens(rows);
    CHECK(nuc_topk_topp_and_sample(sampler.get(), &batch, nullptr, tokens.data(), nullptr, nullptr, nullptr) == NUC_OK);
    return tokens;
}

void samples(const nucleus::sampler &sampler) {
    const std::vector<std::int32_t> wanted = c_tokens(sampler);
    std::vector<std::int32_t> tokens(rows, 77);
    std::vector<std::uint32_t> status(rows, 77);
    sampler.sample(three_rows(), tokens, status);
    CHECK(tokens == wanted && status == std::vector<std::uint32_t>(rows, 0));
    std::fill(tokens.begin(), tokens.end(), 77);
    sampler.sample_arbitrary(three_rows(), tokens);
    CHECK(tokens == wanted);
    std::array<std::int32_t, rows> array{};
    sampler.sample_bounded(three_rows(), array);
    CHECK(std::equal(array.begin(), array.end(), wanted.begin()));
    std::int32_t plain[rows] = {};
    sampler.sample_reference(three_rows(), plain);
    CHECK(std::equal(wanted.begin(), wanted.end(), plain));
#if __cplusplus >= 202002L
    std::fill(tokens.begin(), tokens.end(), 77);
    sampler.sample(three_rows(), std::span<std::int32_t>(tokens));
    CHECK(tokens == wanted);
    // Designated initializers.
    sampler.sample({.logits = nucleus::logits_view::f32(logits, rows, vocab), .temperature = temperature}, tokens, {},
                   {.keep_ties = false});
#endif

    // Rows with a distance, and rows of type bf16.
    std::vector<float> wide(2 * 10 + vocab, 100);
    for (std::size_t row = 0; row < rows; row++) {
        std::copy_n(logits.begin() + static_cast<std::ptrdiff_t>(row * vocab), vocab,
                    wide.begin() + static_cast<std::ptrdiff_t>(row * 10));
    }
    nucleus::batch batch = three_rows();
    batch.logits = nucleus::logits_view::f32(wide, rows, vocab, 10);
    sampler.sample(batch, tokens);
    CHECK(tokens == wanted);
    std::vector<std::uint16_t> bits;
    for (const float logit : logits) {
        std::uint32_t word;
        std::memcpy(&word, &logit, sizeof word);
        bits.push_back(static_cast<std::uint16_t>(word >> 16));  // These logits are exact in bf16.
    }
    batch.logits = nucleus::logits_view::bf16(bits, rows, vocab);
    sampler.sample(batch, tokens);
    CHECK(tokens == wanted);
    batch.logits = nucleus::logits_view::raw(nucleus::dtype::bf16, bits.data(), bits.size(), rows, vocab);
    sampler.sample(batch, tokens);
    CHECK(tokens == wanted);

    batch = {};
    batch.logits = nucleus::logits_view::f32({}, 0, vocab);
    sampler.sample(batch, {});
}

// A wrong number of elements is an error that names the array, before any memory is touched.
void checks_sizes(const nucleus::sampler &sampler) {
    const std::vector<std::int32_t> ints(2);
    const std::vector<float> floats(4);
    const std::vector<std::uint64_t> longs(1);
    const std::vector<std::uint32_t> words(rows * 4 - 1);
    std::vector<std::int32_t> tokens(rows, 77), few(rows - 1);
    std::vector<std::uint32_t> status(rows + 1);
    const auto fails = [&](const char *name, auto change) {
        nucleus::batch batch = three_rows();
        change(batch);
        CHECK_FAILURE(invalid_argument, name, sampler.try_sample(batch, tokens));
        CHECK(tokens == std::vector<std::int32_t>(rows, 77));
    };
    fails("top_k", [&](nucleus::batch &batch) { batch.top_k = ints; });
    fails("top_p", [&](nucleus::batch &batch) { batch.top_p = floats; });
    fails("min_p", [&](nucleus::batch &batch) { batch.min_p = floats; });
    fails("temperature", [&](nucleus::batch &batch) { batch.temperature = floats; });
    fails("random_words", [&](nucleus::batch &batch) { batch.random_words = words; });
    fails("seed", [&](nucleus::batch &batch) { batch.seed = longs; });
    fails("offset", [&](nucleus::batch &batch) { batch.offset = longs; });
    fails("top_k", [&](nucleus::batch &batch) { batch.top_k = {nullptr, rows}; });
    const auto view = nucleus::logits_view::f32;
    const std::size_t huge = static_cast<std::size_t>(-1);
    fails("logits", [&](nucleus::batch &batch) { batch.logits = view(floats, rows, vocab, 0); });
    fails("logits", [&](nucleus::batch &batch) { batch.logits = view(logits, rows, vocab, vocab + 1); });
    fails("logits", [&](nucleus::batch &batch) { batch.logits = view(logits, rows, vocab, huge); });
    fails("row_stride", [&](nucleus::batch &batch) { batch.logits = view(logits, rows, vocab, vocab - 1); });
    fails("vocab", [&](nucleus::batch &batch) { batch.logits = view(logits, rows, 0, 0); });
    CHECK_FAILURE(invalid_argument, "tokens", sampler.try_sample(three_rows(), few));
    CHECK_FAILURE(invalid_argument, "tokens", sampler.try_sample(three_rows(), {}));
    CHECK_FAILURE(invalid_argument, "row_status", sampler.try_sample(three_rows(), tokens, status));

    const std::size_t max_k = sampler.max_k();
    std::vector<float> kept(rows * vocab), slots(rows * max_k);
    std::vector<std::uint16_t> halves(rows * vocab * 2);
    const auto fails_debug = [&](const char *name, auto change) {
        nucleus::debug_arrays debug;
        change(debug);
        CHECK_FAILURE(invalid_argument, name, sampler.try_sample(three_rows(), tokens, {}, {}, &debug));
    };
    fails_debug("greedy_sampled", [&](nucleus::debug_arrays &debug) { debug.greedy_sampled = few; });
    fails_debug("next_tokens", [&](nucleus::debug_arrays &debug) { debug.next_tokens = few; });
    fails_debug("topk_logits_unsorted", [&](nucleus::debug_arrays &debug) { debug.topk_logits_unsorted = slots; });
    fails_debug("topk_logits_unsorted", [&](nucleus::debug_arrays &debug) { debug.topk_logits_unsorted = halves; });
    fails_debug("topk_topp_unnorm_probs_i32_unsorted",
                [&](nucleus::debug_arrays &debug) { debug.topk_topp_unnorm_probs_i32_unsorted = few; });
    fails_debug("random_unnorm_cdf_sampled_high",
                [&](nucleus::debug_arrays &debug) { debug.random_unnorm_cdf_sampled_high = status; });
    fails_debug("random_unnorm_cdf_sampled_low",
                [&](nucleus::debug_arrays &debug) { debug.random_unnorm_cdf_sampled_low = status; });
    fails_debug("topk_indices_k", [&](nucleus::debug_arrays &debug) { debug.topk_indices_k = tokens; });
    fails_debug("topk_logits_k", [&](nucleus::debug_arrays &debug) { debug.topk_logits_k = kept; });
    fails_debug("topk_topp_unnorm_probs_i32_k",
                [&](nucleus::debug_arrays &debug) { debug.topk_topp_unnorm_probs_i32_k = few; });

    const nucleus::error error = sampler.try_sample(three_rows(), few).error();
    CHECK(std::strcmp(error.message(), "tokens has 2 elements; the shape of the call needs 3") == 0);
}

// The errors of the library arrive with all their fields, as exceptions and as results.
void reports_errors(const nucleus::sampler &sampler) {
    const std::vector<float> impossible{1, NAN, 1};
    nucleus::batch batch = three_rows();
    batch.temperature = impossible;
    std::vector<std::int32_t> tokens(rows, 77);
    std::vector<std::uint32_t> status(rows, 77);
    bool thrown = false;
    try {
        sampler.sample(batch, tokens);
    } catch (const nucleus::error &error) {
        thrown = true;
        CHECK(error.code() == nucleus::status::invalid_argument && error.row() == 1);
        CHECK(std::string(error.argument()) == "temperature");
        CHECK(std::string(error.what()).find("temperature") != std::string::npos);
        CHECK(std::string(error.full_message()).find("temperature") != std::string::npos);
    }
    CHECK(thrown && tokens == std::vector<std::int32_t>(rows, 77));
    CHECK(sampler.try_sample(batch, tokens, status));
    CHECK(tokens[1] == -1 && status[1] == nucleus::row_bad_parameter && status[0] == 0);

    nucleus::sampler_options options;
    options.backend = nucleus::backend::pjrt;
    options.plugin_path = "/nowhere/plugin.so";
    const auto missing = nucleus::sampler::try_create(options);
    CHECK_FAILURE(plugin_not_found, nullptr, missing);
    CHECK(std::strstr(missing.error().message(), "/nowhere/plugin.so") != nullptr);
    // A NUL character is an error, because the C function would use only the text before this character.
    const std::string cut("cut\0off", 7);
    options.plugin_path = cut;
    CHECK_FAILURE(invalid_argument, "plugin_path", nucleus::sampler::try_create(options));
    // If two strings are wrong, the error names the first.
    options.program_dir = cut;
    options.client_options = {nucleus::client_option::int64(cut, 1)};
    CHECK_FAILURE(invalid_argument, "plugin_path", nucleus::sampler::try_create(options));
    options.plugin_path.clear();
    CHECK_FAILURE(invalid_argument, "program_dir", nucleus::sampler::try_create(options));
    for (const auto &option : {nucleus::client_option::string("name", cut), nucleus::client_option::int64(cut, 1)}) {
        options = {};
        options.client_options = {option};
        CHECK_FAILURE(invalid_argument, "client_options", nucleus::sampler::try_create(options));
    }
    options = {};
    options.max_k = 5000;
    CHECK_FAILURE(invalid_argument, "max_k", nucleus::sampler::try_create(options));
    options = {};
    options.row_buckets = {4, 2};
    CHECK_FAILURE(invalid_argument, "row_buckets", nucleus::sampler::try_create(options));
}

void applies_options(const nucleus::sampler &sampler) {
    // Two ties at the threshold of top-k.
    const std::vector<float> ties{3, 1, 1, 0};
    const std::vector<std::int32_t> k{2};
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(ties, 1, 4);
    batch.top_k = k;
    std::vector<std::int32_t> token(1);
    std::vector<float> kept(4);
    nucleus::debug_arrays debug;
    debug.topk_logits_unsorted = kept;
    sampler.sample(batch, token, {}, {}, &debug);
    CHECK(kept == std::vector<float>{3, 1, -1e12f, -1e12f});
    nucleus::call_options options;
    options.replace_val = 0.0f;
    sampler.sample(batch, token, {}, options, &debug);
    CHECK(kept == std::vector<float>{3, 1, 0, 0});
    options.keep_ties = true;
    options.replace_val = -7.0f;
    sampler.sample(batch, token, {}, options, &debug);
    CHECK(kept == std::vector<float>{3, 1, 1, -7});
}

void informs(const nucleus::sampler &sampler, bool plugin) {
    const nucleus::sampler_info info = sampler.info();
    CHECK(std::strcmp(info.platform_name, plugin ? "cpu" : "builtin") == 0 && info.max_k == sampler.max_k());
    CHECK((info.pjrt_client != nullptr) == plugin && info.num_devices >= 1);
    CHECK(sampler.device(0).description[0] != '\0');
    CHECK_FAILURE(invalid_argument, "index", sampler.try_device(info.num_devices));
    const nucleus::sampler_stats before = sampler.stats();
    std::vector<std::int32_t> tokens(rows);
    sampler.sample(three_rows(), tokens);
    CHECK(sampler.stats().total_count == before.total_count + 1);

    CHECK(nucleus::version_number() == NUC_VERSION && nucleus::abi_version() == NUC_ABI_VERSION);
    CHECK(std::strcmp(nucleus::version(), nuc_version()) == 0);
    CHECK(std::strcmp(nucleus::to_string(nucleus::status::timeout), "NUC_TIMEOUT") == 0);
}

void prewarms(const nucleus::sampler &sampler, bool plugin) {
    nucleus::prewarm_spec spec;
    spec.num_rows = 1;
    spec.vocab = 11;
    sampler.prewarm(spec);
    spec.vocab = 13;
    nucleus::prewarming prewarming = sampler.start_prewarm(spec);
    CHECK(prewarming.wait_for(std::chrono::hours::max()));
    prewarming.wait();
    const nucleus::prewarm_progress progress = prewarming.progress();
    CHECK(progress.has_ended == 1 && progress.done == progress.total && (progress.total > 0) == plugin);
    prewarming.cancel();  // No effect.
    CHECK(prewarming.close() && !prewarming);

    if (plugin) {
        spec.vocab = 1000;
        prewarming = sampler.start_prewarm(spec);
        CHECK(!prewarming.wait_for(std::chrono::nanoseconds(0)) && !prewarming.wait_for(std::chrono::minutes(-1)));
        prewarming.cancel();
        const nucleus::result<void> ended = prewarming.try_wait();
        CHECK(ended || ended.code() == nucleus::status::cancelled);
    }
    spec.num_rows = 0;
    CHECK_FAILURE(invalid_argument, "num_rows", sampler.try_prewarm(spec));
    CHECK_FAILURE(invalid_argument, "num_rows", sampler.try_start_prewarm(spec));
    spec.num_rows = 1;
    spec.path = static_cast<nucleus::path>(9);
    CHECK_FAILURE(invalid_argument, "path", sampler.try_prewarm(spec));
}

void embeds() {
    nucleus::emit_options options;
    options.num_rows = rows;
    options.vocab = vocab;
    options.name = "choose";
    const std::string text = nucleus::emit(options);
    CHECK(text.find("func.func private @choose(") != std::string::npos && text.back() != '\0');
    nucleus::result<nucleus::text> again = nucleus::try_emit(options);
    CHECK(again && again->view() == text && again->size() == text.size() && again->c_str()[text.size()] == '\0');
    const nucleus::text moved = std::move(*again);
    CHECK(moved.view() == text && again->view().empty());
    options.target = "abacus";
    CHECK_FAILURE(invalid_argument, "target", nucleus::try_emit(options));
    options.target = std::string("v5e\0x", 5);
    CHECK_FAILURE(invalid_argument, "target", nucleus::try_emit(options));
    options.target.clear();
    nucleus::emit_options cut_name = options;
    cut_name.name = std::string("cut\0off", 7);
    CHECK_FAILURE(invalid_argument, "name", nucleus::try_emit(cut_name));

    nucleus::batch batch = three_rows();
    batch.logits = {};
    std::vector<std::int32_t> packed(rows * nucleus::parameter_columns, 77), few(5);
    CHECK_FAILURE(invalid_argument, "name", nucleus::try_pack_parameters(cut_name, batch, packed));
    nucleus::pack_parameters(options, batch, packed);
    nuc_emit_options c_options = NUC_EMIT_OPTIONS_INIT;
    c_options.num_rows = rows;
    c_options.vocab = vocab;
    nuc_batch c_batch = NUC_BATCH_INIT;
    c_batch.num_rows = rows;
    c_batch.vocab = vocab;
    c_batch.top_k = top_k.data();
    c_batch.top_p = top_p.data();
    c_batch.min_p = min_p.data();
    c_batch.temperature = temperature.data();
    c_batch.seed = seed.data();
    c_batch.offset = offset.data();
    std::vector<std::int32_t> wanted(packed.size());
    CHECK(nuc_pack_parameters(&c_options, &c_batch, nullptr, wanted.data(), nullptr) == NUC_OK && packed == wanted);
    CHECK_FAILURE(invalid_argument, "parameters", nucleus::try_pack_parameters(options, batch, few));

    // Default options do not contradict a function that keeps ties. Other options state keep_ties.
    options.keep_ties = true;
    c_options.keep_ties = 1;
    nucleus::call_options call;
    CHECK(nuc_pack_parameters(&c_options, &c_batch, nullptr, wanted.data(), nullptr) == NUC_OK);
    packed.assign(packed.size(), 77);
    CHECK(nucleus::try_pack_parameters(options, batch, packed) && packed == wanted);
    call.replace_val = 0.0f;
    CHECK_FAILURE(invalid_argument, "keep_ties", nucleus::try_pack_parameters(options, batch, packed, call));
    call.replace_val.reset();
    call.keep_ties = true;
    packed.assign(packed.size(), 77);
    CHECK(nucleus::try_pack_parameters(options, batch, packed, call) && packed == wanted);
    options.keep_ties = false;
    CHECK_FAILURE(invalid_argument, "keep_ties", nucleus::try_pack_parameters(options, batch, packed, call));

    CHECK_FAILURE(invalid_argument, "logits", nucleus::try_pack_parameters(options, three_rows(), packed));
    batch.seed = nucleus::span<const std::uint64_t>(seed).first(1);
    CHECK_FAILURE(invalid_argument, "seed", nucleus::try_pack_parameters(options, batch, packed));
}

void compiles_ahead(const char *plugin) {
    nucleus::compile_ahead_options options;
    options.output_dir = "programs";
    CHECK_FAILURE(invalid_argument, "num_row_counts", nucleus::try_compile_ahead(options));
    for (std::string nucleus::compile_ahead_options::*field :
         {&nucleus::compile_ahead_options::plugin_path, &nucleus::compile_ahead_options::topology,
          &nucleus::compile_ahead_options::output_dir}) {
        nucleus::compile_ahead_options wrong = options;
        wrong.*field = std::string("cut\0off", 7);
        const auto refused = nucleus::try_compile_ahead(wrong);
        CHECK(!refused && std::strstr(refused.error().message(), "contains a NUL character") != nullptr);
    }
    nucleus::compile_ahead_options wrong = options;
    wrong.plugin_options = {nucleus::client_option::string("name", std::string("cut\0off", 7))};
    CHECK_FAILURE(invalid_argument, "plugin_options", nucleus::try_compile_ahead(wrong));
    if (plugin == nullptr) return;
    const std::filesystem::path directory =
        std::filesystem::temp_directory_path() / ("nucleus-cpp-" + std::to_string(std::random_device()()));
    options.plugin_path = plugin;
    options.output_dir = directory.string();
    options.row_counts = {1};
    options.vocab = 21;
    options.path = nucleus::path::arbitrary;
    CHECK(nucleus::compile_ahead(options) == 1);
    nucleus::sampler_options with_programs;
    with_programs.plugin_path = plugin;
    with_programs.program_dir = directory.string();
    const nucleus::sampler sampler = nucleus::sampler::create(with_programs);
    const std::vector<float> row(21, 1.0f);
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(row, 1, 21);
    std::vector<std::int32_t> token(1);
    sampler.sample_arbitrary(batch, token);
    CHECK(sampler.stats().loaded == 1 && sampler.stats().compiles == 0);
    std::filesystem::remove_all(directory);
}

// Receives the log of the library.
struct Log {
    std::mutex mutex;
    std::vector<std::string> lines;
    void operator()(nucleus::log_level level, const char *message) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (level == nucleus::log_level::debug) lines.emplace_back(message);
    }
};

void logs(const nucleus::sampler &sampler) {
    static Log log;  // Lives until the process ends.
    nucleus::set_log(nucleus::log_level::debug, log);
    CHECK_FAILURE(invalid_argument, "index", sampler.try_device(12345));
    nucleus::set_log(nucleus::log_level::off);
    const std::lock_guard<std::mutex> lock(log.mutex);
    CHECK(!log.lines.empty() && log.lines.back().find("12345") != std::string::npos);
    CHECK_FAILURE(invalid_argument, "level", nucleus::try_set_log(static_cast<nucleus::log_level>(9)));
    CHECK_FAILURE(invalid_argument, "level", nucleus::try_set_log(static_cast<nucleus::log_level>(9), log));
}

void shares_a_sampler(const nucleus::sampler &sampler) {
    const std::vector<std::int32_t> wanted = c_tokens(sampler);
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([&] {
            std::vector<std::int32_t> tokens(rows);
            for (int call = 0; call < 20; call++) {
                if (sampler.try_sample(three_rows(), tokens) && tokens == wanted) right++;
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    CHECK(right == 80);
}

}  // namespace

int main(int argc, char **argv) {
    const char *const plugin = argc > 1 ? argv[1] : nullptr;
    nucleus::sampler_options options;
    options.backend = plugin != nullptr ? nucleus::backend::pjrt : nucleus::backend::builtin;
    if (plugin != nullptr) options.plugin_path = plugin;
    options.max_k = 8;
    try {
        const nucleus::sampler sampler = nucleus::sampler::create(options);
        samples(sampler);
        checks_sizes(sampler);
        reports_errors(sampler);
        applies_options(sampler);
        informs(sampler, plugin != nullptr);
        prewarms(sampler, plugin != nullptr);
        embeds();
        compiles_ahead(plugin);
        logs(sampler);
        shares_a_sampler(sampler);
    } catch (const std::exception &error) {
        const bool no_exception = false;
        CHECK(no_exception);
        std::fprintf(stderr, "    %s\n", error.what());
    }
    return report();
}
