// Answers prompts with llama.cpp, once with nucleus and once with llama.cpp's own samplers. README.md explains the
// program. It fails if the ways to use nucleus do not choose the same tokens.
#include <cmath>
#include <cstdio>
#include <random>
#include <stdexcept>

#include "comparison.hpp"
#include "generate.hpp"
#include "samplers.hpp"

namespace {

const std::size_t tokens_per_answer = 48, rows_to_compare = 64;

const std::vector<Request> requests = {
    {"What is the capital of France?", {0, 1, 0, 0, 1}},
    {"Write a short poem about the sea.", {40, 0.95f, 0.05f, 0.8f, 2}},
    {"Give me three tips for learning a language.", {0, 0.9f, 0, 0.7f, 3}},
    {"Tell me a story about a robot that likes tea.", {0, 1, 0.1f, 1, 4}},
    {"Explain in one sentence why the sky is blue.", {50, 1, 0, 0.9f, 5}},
    {"How do I boil an egg?", {0, 1, 0, 0, 6}},
};

bool is_greedy(const Request &request) { return request.settings.temp <= 0; }

// Samples each step with nucleus, all requests in one call.
class BatchOfNucleus {
public:
    BatchOfNucleus(int32_t n_vocab, const std::string &plugin) : sampler_(make_nucleus(plugin)) {
        for (const Request &request : requests) {
            adapters_.push_back(make_adapter(request.settings, n_vocab, sampler_.get()));
        }
        nuc_error error = NUC_ERROR_INIT;
        nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
        spec.num_rows = requests.size();
        spec.vocab = static_cast<std::size_t>(n_vocab);
        check(nuc_prewarm(sampler_.get(), &spec, &error), error);
    }

    std::vector<llama_token> operator()(const Step &step) const {
        std::vector<llama_sampler *> samplers;
        for (const std::size_t request : step.requests) samplers.push_back(adapters_[request].get());
        std::vector<llama_token> tokens(samplers.size());
        nuc_error error = NUC_ERROR_INIT;
        const nuc_status status = llama_sampler_nucleus_sample_batch(
            samplers.data(), step.context, step.outputs.data(), tokens.size(), tokens.data(), &error);
        check(status, error);
        return tokens;
    }

private:
    Nucleus sampler_;  // the adapters use it, so it is destroyed last
    std::vector<llama_sampler_ptr> adapters_;
};

// Samples each request with its own sampler, with llama.cpp's function or with that of the adapter.
class OneByOne {
public:
    using Make = llama_sampler_ptr (*)(const Settings &, int32_t);
    using Sample = llama_token (*)(llama_sampler *, llama_context *, int32_t);

    OneByOne(int32_t n_vocab, Make make, Sample sample) : sample_(sample) {
        for (const Request &request : requests) samplers_.push_back(make(request.settings, n_vocab));
    }

    std::vector<llama_token> operator()(const Step &step) const {
        std::vector<llama_token> tokens;
        for (std::size_t i = 0; i < step.requests.size(); i++) {
            tokens.push_back(sample_(samplers_[step.requests[i]].get(), step.context, step.outputs[i]));
        }
        return tokens;
    }

private:
    Sample sample_;
    std::vector<llama_sampler_ptr> samplers_;
};

llama_token sample_adapter(llama_sampler *sampler, llama_context *context, int32_t output) {
    nuc_error error = NUC_ERROR_INIT;
    const llama_token token = llama_sampler_nucleus_sample(sampler, context, output, &error);
    check(error.code, error);
    return token;
}

OneByOne make_llama(int32_t n_vocab) {
    const auto make = [](const Settings &settings, int32_t) { return make_chain(settings, true); };
    return {n_vocab, make, llama_sampler_sample};
}

OneByOne make_adapter_chains(int32_t n_vocab) {
    const auto make = [](const Settings &settings, int32_t vocab) {
        return make_adapter_chain(settings, vocab, nullptr);
    };
    return {n_vocab, make, llama_sampler_sample};
}

OneByOne make_adapters(int32_t n_vocab) {
    const auto make = [](const Settings &settings, int32_t vocab) {
        return make_adapter(settings, vocab, nullptr);
    };
    return {n_vocab, make, sample_adapter};
}

// Returns some of the rows of logits of a generation that nucleus samples.
Rows collect_rows(llama_model *model, int32_t n_vocab) {
    Rows rows;
    const BatchOfNucleus batch(n_vocab, "");
    generate(model, requests, tokens_per_answer, [&](const Step &step) {
        for (std::size_t i = 0; i < step.outputs.size() && rows.size() < rows_to_compare; i++) {
            const float *logits = llama_get_logits_ith(step.context, step.outputs[i]);
            rows.emplace_back(logits, logits + n_vocab);
        }
        return batch(step);
    });
    return rows;
}

Rows make_synthetic_rows(std::size_t n_vocab) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 3);
    Rows rows(16, std::vector<float>(n_vocab));
    for (std::vector<float> &row : rows) {
        for (float &logit : row) logit = normal(random);
    }
    return rows;
}

void print_speed(const char *name, const Texts &texts) {
    std::printf("  %-34s %6.1f tokens/s, %7.1f us per token in the sampler\n", name,
                static_cast<double>(texts.tokens) / texts.seconds,
                1e6 * texts.sampling_seconds / static_cast<double>(texts.tokens));
}

void expect_same(const char *name, const Texts &texts, const Texts &expected) {
    if (texts.answers != expected.answers) {
        throw std::runtime_error(std::string("the answers differ: ") + name);
    }
    print_speed(name, texts);
}

void print_answers(const Texts &nucleus, const Texts &llama) {
    for (std::size_t i = 0; i < requests.size(); i++) {
        std::printf("\n--- %s [%s]\n", requests[i].prompt.c_str(), describe(requests[i].settings).c_str());
        std::printf("nucleus:   %s\n", nucleus.answers[i].c_str());
        std::printf("llama.cpp: %s\n", llama.answers[i].c_str());
        if (is_greedy(requests[i]) && nucleus.answers[i] != llama.answers[i]) {
            throw std::runtime_error("the greedy answers of nucleus and llama.cpp differ");
        }
    }
}

void demonstrate(const std::string &path, const std::string &plugin) {
    const llama_model_ptr model = load_model(path);
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
    const auto run = [&](const auto &choose) {
        return generate(model.get(), requests, tokens_per_answer,
                        [&](const Step &step) { return choose(step); });
    };

    const Texts expected = run(BatchOfNucleus(n_vocab, ""));
    const Texts llama = run(make_llama(n_vocab));
    print_answers(expected, llama);

    std::printf("\nTexts of nucleus, all the same:\n");
    print_speed("built-in backend, batch", expected);
    expect_same("built-in backend, one by one", run(make_adapters(n_vocab)), expected);
    expect_same("built-in backend, in a chain", run(make_adapter_chains(n_vocab)), expected);
    expect_same("plugin, batch", run(BatchOfNucleus(n_vocab, plugin)), expected);
    std::printf("Texts of llama.cpp:\n");
    print_speed("chain of samplers", llama);

    const Rows rows = collect_rows(model.get(), n_vocab);
    std::printf("\nRows of logits in which the filters keep the same tokens as the same filters in f64:\n");
    compare_choices(rows);
    check_adapter(rows);
    std::printf("\nMicroseconds per token, vocab %d, logits of the model:\n", n_vocab);
    compare_times(rows);
    std::printf("\nMicroseconds per token, vocab 128256, random logits:\n");
    compare_times(make_synthetic_rows(128256));
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fputs("usage: demo MODEL.gguf PLUGIN.so\n", stderr);
        return 2;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // show each line at once, also in a pipe
    llama_log_set([](ggml_log_level level, const char *text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
    }, nullptr);
    try {
        demonstrate(argv[1], argv[2]);
    } catch (const std::exception &failure) {
        std::fprintf(stderr, "demo: %s\n", failure.what());
        return 1;
    }
    return 0;
}
