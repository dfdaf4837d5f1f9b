// Every case of tests/vectors through nucleus.hpp, with every result. tests/vectors/README.md describes the files.
//
//     test_vectors DIRECTORY [PLUGIN]
#include "check.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Words = std::vector<std::string>;

// The lines of one case, by key.
class Case {
public:
    std::map<std::string, Words> lines;

    bool has(const std::string &key) const { return lines.count(key) != 0; }
    const std::string &word(const std::string &key) const { return lines.at(key).at(0); }

    // The words of a line as numbers. A line that is not there has no numbers.
    template <class Number>
    std::vector<Number> numbers(const std::string &key, int base) const {
        std::vector<Number> all;
        if (!has(key)) return all;
        for (const std::string &word : lines.at(key)) {
            Number number{};
            const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), number, base);
            if (failure != std::errc() || end != word.data() + word.size()) {
                std::fprintf(stderr, "%s: '%s' is not a number\n", key.c_str(), word.c_str());
                std::exit(1);
            }
            all.push_back(number);
        }
        return all;
    }
    std::vector<std::int32_t> decimals(const std::string &key) const { return numbers<std::int32_t>(key, 10); }
    template <class Number>
    std::vector<Number> bits(const std::string &key) const {
        return numbers<Number>(key, 16);
    }
    std::vector<float> floats(const std::string &key) const {
        const std::vector<std::uint32_t> words = bits<std::uint32_t>(key);
        std::vector<float> values(words.size());
        if (!words.empty()) std::memcpy(values.data(), words.data(), words.size() * sizeof(float));
        return values;
    }
    std::size_t size(const std::string &key) const { return numbers<std::size_t>(key, 10).at(0); }
};

std::vector<Case> read_cases(const std::filesystem::path &file) {
    std::ifstream input(file);
    std::string line;
    if (!std::getline(input, line) || line != "nucleus-vectors 1") {
        std::fprintf(stderr, "%s: the first line is not 'nucleus-vectors 1'\n", file.c_str());
        std::exit(1);
    }
    std::vector<Case> cases;
    Case current;
    while (std::getline(input, line)) {
        if (line.empty() || line[0] == '#') continue;
        std::istringstream stream(line);
        std::string key, word;
        stream >> key;
        if (key == "end") {
            cases.push_back(std::move(current));
            current = Case();
            continue;
        }
        Words &words = current.lines[key];
        while (stream >> word) words.push_back(word);
    }
    return cases;
}

// The logits of a type: the elements that the header takes, and their bits.
struct F32 {
    using Element = float;
    static constexpr auto view = nucleus::logits_view::f32;
    static std::vector<float> read(const Case &one, const char *key) { return one.floats(key); }
};
template <auto View>
struct Half {
    using Element = std::uint16_t;
    static constexpr auto view = View;
    static std::vector<std::uint16_t> read(const Case &one, const char *key) { return one.bits<std::uint16_t>(key); }
};
using Bf16 = Half<nucleus::logits_view::bf16>;
using F16 = Half<nucleus::logits_view::f16>;

template <class Element>
bool same_bits(const std::vector<Element> &a, const std::vector<Element> &b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Element)) == 0);
}

// Counts one check for a result array of a case.
template <class Element>
void expect(const Case &one, const char *key, const char *function, const std::vector<Element> &got,
            const std::vector<Element> &wanted) {
    if (!CHECK(same_bits(got, wanted))) {
        std::fprintf(stderr, "    case %s, %s, function %s\n", one.word("case").c_str(), key, function);
    }
}

using Sample = nucleus::result<void> (nucleus::sampler::*)(const nucleus::batch &, nucleus::span<std::int32_t>,
                                                           nucleus::span<std::uint32_t>, const nucleus::call_options &,
                                                           const nucleus::debug_arrays *) const noexcept;

template <class Type>
void run_function(const Case &one, const nucleus::sampler &sampler, const char *function, Sample sample) {
    const std::size_t rows = one.size("num_rows"), vocab = one.size("vocab"), max_k = one.size("max_k");
    const bool slices = one.word("path") == "bounded";
    const auto logits = Type::read(one, "logits");
    const auto top_k = one.decimals("top_k");
    const auto top_p = one.floats("top_p"), min_p = one.floats("min_p"), temperature = one.floats("temperature");
    const auto random_words = one.bits<std::uint32_t>("random_words");
    const auto seed = one.bits<std::uint64_t>("seed"), offset = one.bits<std::uint64_t>("offset");
    nucleus::batch batch;
    batch.logits = Type::view(logits, rows, vocab, 0);
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.min_p = min_p;
    batch.temperature = temperature;
    batch.random_words = random_words;
    batch.seed = seed;
    batch.offset = offset;
    nucleus::call_options options;
    options.keep_ties = one.word("keep_ties") == "1";
    options.replace_val = one.floats("replace_val").at(0);

    // The initial values are wrong, so an array that is not written does not pass.
    using Element = typename Type::Element;
    std::vector<std::int32_t> tokens(rows, 77), greedy(rows, 77), next(rows, 77), weights(rows * vocab, 77);
    std::vector<std::uint32_t> status(rows, 77), high(rows, 77), low(rows, 77);
    std::vector<Element> kept(rows * vocab, Element(77)), slot_logits(slices ? rows * max_k : 0, Element(77));
    std::vector<std::int32_t> slot_indices(slot_logits.size(), 77), slot_weights(slot_logits.size(), 77);
    nucleus::debug_arrays debug;
    debug.greedy_sampled = greedy;
    debug.topk_logits_unsorted = kept;
    debug.topk_topp_unnorm_probs_i32_unsorted = weights;
    debug.random_unnorm_cdf_sampled_high = high;
    debug.random_unnorm_cdf_sampled_low = low;
    debug.next_tokens = next;
    debug.topk_indices_k = slot_indices;
    debug.topk_logits_k = slot_logits;
    debug.topk_topp_unnorm_probs_i32_k = slot_weights;

    const nucleus::result<void> done = (sampler.*sample)(batch, tokens, status, options, &debug);
    if (!CHECK(done)) {
        std::fprintf(stderr, "    case %s, %s: %s\n", one.word("case").c_str(), function, done.error().message());
        return;
    }
    expect(one, "tokens", function, tokens, one.decimals("tokens"));
    expect(one, "row_status", function, status, one.bits<std::uint32_t>("row_status"));
    expect(one, "greedy_sampled", function, greedy, one.decimals("greedy_sampled"));
    expect(one, "topk_logits_unsorted", function, kept, Type::read(one, "topk_logits_unsorted"));
    expect(one, "topk_topp_unnorm_probs_i32_unsorted", function, weights,
           one.decimals("topk_topp_unnorm_probs_i32_unsorted"));
    expect(one, "random_unnorm_cdf_sampled_high", function, high,
           one.bits<std::uint32_t>("random_unnorm_cdf_sampled_high"));
    expect(one, "random_unnorm_cdf_sampled_low", function, low,
           one.bits<std::uint32_t>("random_unnorm_cdf_sampled_low"));
    expect(one, "next_tokens", function, next, one.decimals("next_tokens"));
    if (!slices) return;
    expect(one, "topk_indices_k", function, slot_indices, one.decimals("topk_indices_k"));
    expect(one, "topk_logits_k", function, slot_logits, Type::read(one, "topk_logits_k"));
    expect(one, "topk_topp_unnorm_probs_i32_k", function, slot_weights, one.decimals("topk_topp_unnorm_probs_i32_k"));
}

// Calls the function of the case, and the other functions that must give the same results.
template <class Type>
void run_case(const Case &one, const nucleus::sampler &sampler, bool all) {
    const std::string &path = one.word("path");
    if (path == "bounded") return run_function<Type>(one, sampler, "bounded", &nucleus::sampler::try_sample_bounded);
    if (path == "auto") run_function<Type>(one, sampler, "auto", &nucleus::sampler::try_sample);
    if (path == "arbitrary" || all) {
        run_function<Type>(one, sampler, "arbitrary", &nucleus::sampler::try_sample_arbitrary);
        run_function<Type>(one, sampler, "reference", &nucleus::sampler::try_sample_reference);
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: test_vectors DIRECTORY [PLUGIN]\n");
        return 2;
    }
    std::vector<std::filesystem::path> files;
    for (const auto &entry : std::filesystem::directory_iterator(argv[1])) {
        if (entry.path().extension() == ".txt") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());

    std::map<std::size_t, nucleus::sampler> samplers;  // by max_k
    long cases = 0;
    for (const auto &file : files) {
        for (const Case &one : read_cases(file)) {
            nucleus::sampler &sampler = samplers[one.size("max_k")];
            if (!sampler) {
                nucleus::sampler_options options;
                options.backend = argc > 2 ? nucleus::backend::pjrt : nucleus::backend::builtin;
                if (argc > 2) options.plugin_path = argv[2];
                options.max_k = one.size("max_k");
                options.num_threads = 1;
                auto made = nucleus::sampler::try_create(options);
                if (!CHECK(made)) {
                    std::fprintf(stderr, "    %s\n", made.error().message());
                    return report();
                }
                sampler = *std::move(made);
                CHECK(sampler.max_k() == one.size("max_k"));
            }
            // A plugin compiles a program per shape, so it runs only the function of the case.
            const bool all = argc == 2;
            const std::string &type = one.word("dtype");
            if (type == "f32") run_case<F32>(one, sampler, all);
            if (type == "bf16") run_case<Bf16>(one, sampler, all);
            if (type == "f16") run_case<F16>(one, sampler, all);
            CHECK(type == "f32" || type == "bf16" || type == "f16");
            cases++;
        }
    }
    CHECK(cases > 0);
    std::printf("%ld cases\n", cases);
    return report();
}
