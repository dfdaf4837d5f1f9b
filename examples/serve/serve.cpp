// Serves SmolLM2-135M on a PJRT plugin. The model, its caches and its weights stay on the device. nucleus chooses the
// tokens. README.md explains the program.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "exported.hpp"
#include "model.hpp"
#include "pjrt.hpp"
#include "sampler.hpp"
#include "server.hpp"

namespace {

using Clock = std::chrono::steady_clock;

const char *const usage =
    "usage: serve --plugin PATH [OPTION]...\n"
    "Answers prompts with a language model on a PJRT plugin.\n"
    "\n"
    "  --plugin PATH      the PJRT plugin that runs the model\n"
    "  --sampler NAME     device: sample on the device, where the logits are (default)\n"
    "                     plugin: copy the logits to the host, and sample on the plugin\n"
    "                     builtin: copy the logits to the host, and sample on the built-in backend\n"
    "  --model DIRECTORY  the exported model (.cache/model/smollm2)\n"
    "  --requests N       number of requests (16)\n"
    "  --tokens N         largest number of tokens per request (48)\n"
    "  --seed N           seed of the first request; each next one adds 1 (1)\n"
    "  --out FILE         also write the answers to FILE\n"
    "  --quiet            do not print the answers\n"
    "  --help             print this help\n";

enum class SamplerKind { device, plugin, builtin };

struct Options {
    std::string plugin, model = ".cache/model/smollm2", out;
    SamplerKind sampler = SamplerKind::device;
    std::size_t requests = 16, tokens = 48;
    std::uint64_t seed = 1;
    bool quiet = false;
};

std::size_t number(const std::string &name, const std::string &text) {
    if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos) {
        throw std::runtime_error(name + " must be a number below a billion, not '" + text + "'");
    }
    return static_cast<std::size_t>(std::stoull(text));
}

std::size_t positive(const std::string &name, const std::string &text) {
    const std::size_t value = number(name, text);
    if (value == 0) throw std::runtime_error(name + " must be at least 1");
    return value;
}

SamplerKind sampler_kind(const std::string &text) {
    if (text == "device") return SamplerKind::device;
    if (text == "plugin") return SamplerKind::plugin;
    if (text == "builtin") return SamplerKind::builtin;
    throw std::runtime_error("--sampler must be device, plugin or builtin, not '" + text + "'");
}

Options parse(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        const std::string name = argv[i];
        if (name == "--help") {
            std::fputs(usage, stdout);
            std::exit(0);
        }
        if (name == "--quiet") {
            options.quiet = true;
            continue;
        }
        if (i + 1 == argc) throw std::runtime_error(name + " has no value, or is not an option; see --help");
        const std::string value = argv[++i];
        if (name == "--plugin") options.plugin = value;
        else if (name == "--sampler") options.sampler = sampler_kind(value);
        else if (name == "--model") options.model = value;
        else if (name == "--requests") options.requests = positive(name, value);
        else if (name == "--tokens") options.tokens = positive(name, value);
        else if (name == "--seed") options.seed = number(name, value);
        else if (name == "--out") options.out = value;
        else throw std::runtime_error(name + " is not an option; see --help");
    }
    if (options.plugin.empty()) throw std::runtime_error("--plugin is missing; see --help");
    return options;
}

// Gives the requests different sampling parameters and different seeds.
std::vector<Request> make_requests(const Options &options, const std::vector<Prompt> &prompts) {
    struct Style {
        float temperature;
        std::int32_t top_k;
        float top_p, min_p;
    };
    static const Style styles[] = {
        {0.0f, 0, 1.0f, 0.0f},     // greedy
        {0.8f, 40, 0.95f, 0.0f},   // top-k and top-p
        {0.7f, 0, 0.9f, 0.0f},     // top-p
        {1.0f, 0, 1.0f, 0.1f},     // min-p
        {0.9f, 50, 1.0f, 0.0f},    // top-k
        {0.5f, 1000, 0.98f, 0.0f}, // a large k
        {0.6f, 20, 0.9f, 0.02f},   // everything
        {1.0f, 5, 1.0f, 0.0f},     // a small k
    };
    std::vector<Request> requests(options.requests);
    for (std::size_t i = 0; i < requests.size(); i++) {
        const Style &style = styles[i % std::size(styles)];
        requests[i].prompt = &prompts[i % prompts.size()];
        requests[i].sampling.temperature = style.temperature;
        requests[i].sampling.top_k = style.top_k;
        requests[i].sampling.top_p = style.top_p;
        requests[i].sampling.min_p = style.min_p;
        requests[i].sampling.seed = options.seed + i;
        // Different limits, so that requests leave the batch at different steps.
        requests[i].limit = options.tokens - options.tokens * (i % 4) / 8;
    }
    return requests;
}

std::string describe(const Request &request) {
    const SamplingParameters &sampling = request.sampling;
    if (sampling.temperature < 1e-5f) return "greedy";
    std::string text;
    const auto add = [&](const char *format, auto value) {
        char buffer[64];
        std::snprintf(buffer, sizeof buffer, format, value);
        text += buffer;
    };
    add("temperature %.1f", static_cast<double>(sampling.temperature));
    if (sampling.top_k > 0) add(", top-k %d", sampling.top_k);
    if (sampling.top_p < 1) add(", top-p %.2f", static_cast<double>(sampling.top_p));
    if (sampling.min_p > 0) add(", min-p %.2f", static_cast<double>(sampling.min_p));
    add(", seed %llu", static_cast<unsigned long long>(sampling.seed));
    return text;
}

std::string answer_of(const Vocabulary &vocabulary, const Request &request) {
    std::string text;
    for (const std::int32_t token : request.tokens) text += vocabulary.bytes(token);
    return text;
}

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string report(const Vocabulary &vocabulary, const std::vector<Request> &requests) {
    std::string text;
    for (const Request &request : requests) {
        text += "--- " + request.prompt->text + " [" + describe(request) + "]\n";
        text += answer_of(vocabulary, request);
        text += request.tokens.size() == request.limit ? " ...\n\n" : "\n\n";
    }
    return text;
}

void print_figures(const Server &server, const Sampler &sampler, const std::vector<Request> &requests,
                   double seconds) {
    std::size_t tokens = 0;
    for (const Request &request : requests) tokens += request.tokens.size();
    const auto per_step = [&](double total) { return 1e3 * total / static_cast<double>(server.steps()); };
    const auto per_token = [&](std::uint64_t bytes) {
        return static_cast<double>(bytes) / static_cast<double>(tokens);
    };
    const pjrt::Traffic &traffic = server.step_traffic();
    std::printf("served    %zu requests, %zu tokens, %zu steps, %zu slots refilled, %.1f s\n",
                requests.size(), tokens, server.steps(), server.refills(), seconds);
    std::printf("speed     %.1f tokens/s, %.2f ms per step\n", static_cast<double>(tokens) / seconds,
                per_step(seconds));
    std::printf("sampling  %.2f ms per step, %.1f%% of the time\n", per_step(sampler.seconds()),
                100 * sampler.seconds() / seconds);
    std::printf("steps     %.0f bytes per token to the device, %.0f to the host, at most %llu at a time\n",
                per_token(traffic.to_device), per_token(traffic.to_host),
                static_cast<unsigned long long>(traffic.largest));
    const double prompts = static_cast<double>(server.prompt_traffic().to_device);
    std::printf("prompts   %.0f bytes per request to the device\n",
                prompts / static_cast<double>(requests.size()));
}

std::unique_ptr<Sampler> make_sampler(const Options &options, const pjrt::Client &client,
                                      const ModelIndex &index) {
    if (options.sampler == SamplerKind::device) return make_device_sampler(client, index.slots, index.vocab);
    const std::string plugin = options.sampler == SamplerKind::plugin ? options.plugin : "";
    return make_host_sampler(client, plugin, options.model + "/programs", index.slots, index.vocab);
}

int run(const Options &options) {
    const Clock::time_point start = Clock::now();
    const ModelIndex index(options.model);
    const Vocabulary vocabulary(options.model, index.vocab);
    const std::vector<Prompt> prompts = read_prompts(options.model);
    std::vector<Request> requests = make_requests(options, prompts);

    const pjrt::Client client(pjrt::load_plugin(options.plugin));
    Model model(client, options.model, index);
    const std::unique_ptr<Sampler> sampler = make_sampler(options, client, index);
    std::printf("model     SmolLM2-135M on %s (%s), %zu slots\n", client.platform().c_str(),
                client.device_kind().c_str(), index.slots);
    std::printf("sampler   %s\n", sampler->description().c_str());
    std::printf("start     %.1f s: programs compiled, weights on the device\n\n", seconds_since(start));
    std::fflush(stdout);

    Server server(client, model, *sampler, index);
    const Clock::time_point serving = Clock::now();
    server.serve(requests);
    const double seconds = seconds_since(serving);
    const std::string answers = report(vocabulary, requests);
    if (!options.quiet) std::fputs(answers.c_str(), stdout);
    print_figures(server, *sampler, requests, seconds);
    if (!options.out.empty()) {
        std::ofstream file(options.out, std::ios::binary);
        if (!(file << answers).flush()) throw std::runtime_error("cannot write " + options.out);
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        return run(parse(argc, argv));
    } catch (const std::exception &failure) {
        std::fprintf(stderr, "serve: %s\n", failure.what());
        return 1;
    }
}
