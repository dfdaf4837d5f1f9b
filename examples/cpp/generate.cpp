// A language model and a server in one small program, as an example of sampling in a continuous batch.
//
// The program learns a trigram model from text files. Then it serves requests that have different sampling
// parameters. Requests arrive and finish at different steps, so the batch changes from step to step. In every step
// the model computes one row of logits over the whole vocabulary for each running request, and nucleus chooses the
// tokens.
//
// The text of a request depends only on its parameters and its seed, not on the backend or on the other requests.
#include <nucleus.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fs = std::filesystem;

namespace {

const char *const usage =
    "usage: generate [OPTION]... [FILE]...\n"
    "Learns a trigram model from the files and generates text with it.\n"
    "\n"
    "  --plugin PATH    sample on this PJRT plugin (default: the built-in backend)\n"
    "  --requests N     number of requests (8)\n"
    "  --tokens N       largest number of tokens per request (96)\n"
    "  --slots N        largest number of requests in a batch (4); does not change the text\n"
    "  --seed N         seed of the first request; each next one adds 1 (1)\n"
    "  --root DIR       if no file is named: learn from the Markdown and Rust files under DIR (.)\n"
    "  --output FILE    also write only the text to FILE\n"
    "  --help           print this help\n";

struct Options {
    std::string plugin;
    std::size_t requests = 8;
    std::size_t tokens = 96;
    std::size_t slots = 4;
    std::uint64_t seed = 1;
    fs::path root = ".";
    std::string output;
    std::vector<fs::path> files;
};

std::uint64_t number(const std::string &name, const std::string &text) {
    if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos) {
        throw std::runtime_error(name + " must be a number below a billion, not '" + text + "'");
    }
    return std::stoull(text);
}

std::size_t positive(const std::string &name, const std::string &text) {
    const std::uint64_t value = number(name, text);
    if (value == 0) throw std::runtime_error(name + " must be at least 1");
    return static_cast<std::size_t>(value);
}

Options parse(int argc, char **argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        const std::string name = argv[i];
        if (name == "--help") {
            std::fputs(usage, stdout);
            std::exit(0);
        }
        if (name.rfind("--", 0) != 0) {
            options.files.emplace_back(name);
            continue;
        }
        if (i + 1 == argc) throw std::runtime_error(name + " has no value, or is not an option; see --help");
        const std::string value = argv[++i];
        if (name == "--plugin") options.plugin = value;
        else if (name == "--requests") options.requests = positive(name, value);
        else if (name == "--tokens") options.tokens = positive(name, value);
        else if (name == "--slots") options.slots = positive(name, value);
        else if (name == "--seed") options.seed = number(name, value);
        else if (name == "--root") options.root = value;
        else if (name == "--output") options.output = value;
        else throw std::runtime_error(name + " is not an option; see --help");
    }
    return options;
}

// Returns the Markdown and Rust files of the repository, in a fixed order, without build output and downloads.
std::vector<fs::path> find_sources(const fs::path &root) {
    std::vector<fs::path> files;
    for (fs::recursive_directory_iterator it(root), end; it != end; ++it) {
        const std::string name = it->path().filename().string();
        if (it->is_directory() && (name == "target" || (name.size() > 1 && name[0] == '.'))) {
            it.disable_recursion_pending();
        } else if (it->is_regular_file() && (it->path().extension() == ".md" || it->path().extension() == ".rs")) {
            files.push_back(it->path());
        }
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::string read(const fs::path &path) {
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return text;
}

// Splits a text into pieces. A piece is a word, a repeated punctuation mark, or whitespace. A word or a punctuation
// mark includes the space before it.
std::vector<std::string_view> pieces_of(std::string_view text) {
    const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
    const auto is_word = [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || byte >= 0x80;
    };
    std::vector<std::string_view> pieces;
    for (std::size_t start = 0, at = 0; at < text.size(); start = at) {
        if (text[at] == ' ' && at + 1 < text.size() && !is_space(text[at + 1])) at++;
        if (is_word(text[at])) {
            while (at < text.size() && is_word(text[at])) at++;
        } else if (is_space(text[at])) {
            while (at < text.size() && is_space(text[at])) at++;
        } else {
            const char mark = text[at];
            while (at < text.size() && text[at] == mark) at++;
        }
        pieces.push_back(text.substr(start, at - start));
    }
    return pieces;
}

// A trigram model with Witten-Bell smoothing: trigrams are interpolated with bigrams, and bigrams with single pieces.
// Every piece has a probability above zero in every context, so a row of logits is dense.
class Model {
public:
    using Id = std::int32_t;
    static constexpr Id end = 0;  // before the first and after the last piece of a paragraph

    Model() { id_of(""); }

    void learn(std::string_view text) {
        for (std::size_t start = 0; start < text.size();) {
            const std::size_t stop = std::min(text.find("\n\n", start), text.size());
            learn_paragraph(text.substr(start, stop - start));
            start = text.find_first_not_of('\n', stop);
            if (start == std::string_view::npos) break;
        }
    }

    // Call this after the last `learn`.
    void finish() {
        single_logits_.resize(words_.size());
        for (std::size_t id = 0; id < words_.size(); id++) {
            single_logits_[id] = static_cast<float>(std::log(single(static_cast<Id>(id))));
        }
    }

    std::size_t vocab() const { return words_.size(); }
    std::size_t learned() const { return total_; }
    const std::string &text(Id id) const { return words_[static_cast<std::size_t>(id)]; }

    // Returns the pieces of a text, or an empty list if a piece is unknown.
    std::vector<Id> encode(std::string_view text) const {
        std::vector<Id> ids;
        for (std::string_view piece : pieces_of(text)) {
            const auto found = ids_.find(std::string(piece));
            if (found == ids_.end()) return {};
            ids.push_back(found->second);
        }
        return ids;
    }

    // Writes the log-probability of every piece after `first` and `second` to `row`.
    void logits(Id first, Id second, float *row) const {
        const Followers &two = find(bigrams_, key(end, second));
        const Followers &three = find(trigrams_, key(first, second));
        const auto after_two = [&](Id id, double count) { return count / two.scale() + two.rest() * single(id); };
        const double rest = std::log(two.rest() * three.rest());
        for (std::size_t id = 0; id < vocab(); id++) row[id] = static_cast<float>(single_logits_[id] + rest);
        for (const auto &[id, count] : two.counts) {
            row[id] = static_cast<float>(std::log(three.rest() * after_two(id, count)));
        }
        for (const auto &[id, count] : three.counts) {
            const auto seen = two.counts.find(id);
            const double lower = after_two(id, seen == two.counts.end() ? 0 : seen->second);
            row[id] = static_cast<float>(std::log(count / three.scale() + three.rest() * lower));
        }
    }

private:
    // The pieces that followed a context, with their counts.
    struct Followers {
        std::map<Id, double> counts;
        double total = 0;

        double scale() const { return total + static_cast<double>(counts.size()); }
        // The weight of the shorter context.
        double rest() const { return counts.empty() ? 1 : static_cast<double>(counts.size()) / scale(); }
    };
    using Table = std::unordered_map<std::uint64_t, Followers>;

    static std::uint64_t key(Id first, Id second) {
        return static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint64_t>(second);
    }

    static const Followers &find(const Table &table, std::uint64_t context) {
        static const Followers nothing;
        const auto found = table.find(context);
        return found == table.end() ? nothing : found->second;
    }

    Id id_of(std::string_view word) {
        const auto [place, is_new] = ids_.try_emplace(std::string(word), static_cast<Id>(words_.size()));
        if (is_new) {
            words_.emplace_back(word);
            counts_.push_back(0);
        }
        return place->second;
    }

    void learn_paragraph(std::string_view text) {
        Id first = end, second = end;
        const auto learn_one = [&](Id id) {
            for (Followers *followers : {&bigrams_[key(end, second)], &trigrams_[key(first, second)]}) {
                followers->counts[id] += 1;
                followers->total += 1;
            }
            counts_[static_cast<std::size_t>(id)] += 1;
            total_ += 1;
            first = std::exchange(second, id);
        };
        for (std::string_view piece : pieces_of(text)) learn_one(id_of(piece));
        learn_one(end);
    }

    double single(Id id) const { return counts_[static_cast<std::size_t>(id)] / static_cast<double>(total_); }

    std::unordered_map<std::string, Id> ids_;
    std::vector<std::string> words_;
    std::vector<double> counts_;
    std::size_t total_ = 0;
    std::vector<float> single_logits_;
    Table bigrams_, trigrams_;
};

nucleus::sampler make_sampler(const std::string &plugin) {
    nucleus::sampler_options options;
    options.backend = plugin.empty() ? nucleus::backend::builtin : nucleus::backend::pjrt;
    options.plugin_path = plugin;
    return nucleus::sampler::create(options);
}

// The request of a client, and its text so far.
struct Request {
    float temperature = 1, p = 1, min_p = 0;
    std::int32_t k = 0;
    std::uint64_t seed = 0;
    std::size_t arrival = 0;  // the step at which it arrives
    std::size_t limit = 0;    // the largest number of tokens
    std::vector<Model::Id> prompt, tokens;
    bool done = false;

    // Returns the piece `back` places before the next one.
    Model::Id last(std::size_t back) const {
        if (back <= tokens.size()) return tokens[tokens.size() - back];
        back -= tokens.size();
        return back <= prompt.size() ? prompt[prompt.size() - back] : Model::end;
    }
};

std::vector<Request> make_requests(const Options &options, const Model &model) {
    struct Style {
        const char *prompt;
        float temperature;
        std::int32_t k;
        float p, min_p;
    };
    static const Style styles[] = {
        {"/// The", 0.0f, 0, 1.0f, 0.0f},    {"A row", 0.8f, 40, 0.95f, 0.0f},   {"/// A", 1.0f, 0, 0.9f, 0.0f},
        {"    let", 0.7f, 0, 1.0f, 0.05f},   {"The", 1.0f, 50, 1.0f, 0.0f},      {"", 0.9f, 1000, 0.98f, 0.01f},
        {"//! What", 0.6f, 20, 0.9f, 0.02f}, {"pub fn", 1.1f, 128, 0.92f, 0.0f},
    };
    std::vector<Request> requests(options.requests);
    for (std::size_t i = 0; i < requests.size(); i++) {
        const Style &style = styles[i % std::size(styles)];
        Request &request = requests[i];
        request.prompt = model.encode(style.prompt);
        request.temperature = style.temperature;
        request.k = style.k;
        request.p = style.p;
        request.min_p = style.min_p;
        request.seed = options.seed + i;
        request.arrival = i * 5;
        request.limit = std::max<std::size_t>(1, options.tokens - options.tokens * (i % 4) / 8);
    }
    return requests;
}

struct Run {
    std::size_t steps = 0, tokens = 0, least = SIZE_MAX, most = 0;
    double seconds = 0, sampling = 0;
};

// The serving loop. Each step admits requests that have arrived, computes logits, samples, appends the tokens, and
// removes finished requests.
Run serve(const nucleus::sampler &sampler, const Model &model, std::vector<Request> &requests, std::size_t slots) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point start) {
        return std::chrono::duration<double>(Clock::now() - start).count();
    };

    Run run;
    std::deque<Request *> waiting;
    for (Request &request : requests) waiting.push_back(&request);
    std::vector<Request *> running;
    std::vector<float> logits, temperature, p, min_p;
    std::vector<std::int32_t> k, tokens;
    std::vector<std::uint64_t> seed, offset;

    const auto start = Clock::now();
    for (std::size_t step = 0; !waiting.empty() || !running.empty(); step++) {
        while (!waiting.empty() && waiting.front()->arrival <= step && running.size() < slots) {
            running.push_back(waiting.front());
            waiting.pop_front();
        }
        if (running.empty()) continue;

        const std::size_t rows = running.size();
        logits.resize(rows * model.vocab());
        for (auto *floats : {&temperature, &p, &min_p}) floats->resize(rows);
        for (auto *ints : {&k, &tokens}) ints->resize(rows);
        for (auto *longs : {&seed, &offset}) longs->resize(rows);
        for (std::size_t row = 0; row < rows; row++) {
            const Request &request = *running[row];
            model.logits(request.last(2), request.last(1), &logits[row * model.vocab()]);
            temperature[row] = request.temperature;
            p[row] = request.p;
            min_p[row] = request.min_p;
            k[row] = request.k;
            seed[row] = request.seed;
            offset[row] = request.tokens.size();
        }

        nucleus::batch batch;
        batch.logits = nucleus::logits_view::f32(logits, rows, model.vocab());
        batch.temperature = temperature;
        batch.top_p = p;
        batch.min_p = min_p;
        batch.top_k = k;
        batch.seed = seed;
        batch.offset = offset;
        const auto before = Clock::now();
        sampler.sample(batch, tokens);
        run.sampling += since(before);

        for (std::size_t row = 0; row < rows; row++) {
            Request &request = *running[row];
            request.tokens.push_back(tokens[row]);
            request.done = tokens[row] == Model::end || request.tokens.size() == request.limit;
        }
        running.erase(std::remove_if(running.begin(), running.end(), [](const Request *r) { return r->done; }),
                      running.end());
        run.steps++;
        run.tokens += rows;
        run.least = std::min(run.least, rows);
        run.most = std::max(run.most, rows);
    }
    run.seconds = since(start);
    return run;
}

std::string text_of(const Model &model, const Request &request) {
    std::string text;
    for (const auto *ids : {&request.prompt, &request.tokens}) {
        for (Model::Id id : *ids) text += model.text(id);
    }
    return text;
}

std::string describe(const Request &request) {
    char buffer[160];
    if (request.temperature < 1e-5f) {
        std::snprintf(buffer, sizeof buffer, "greedy");
    } else {
        int used = std::snprintf(buffer, sizeof buffer, "temperature %.1f", static_cast<double>(request.temperature));
        const auto add = [&](const char *format, double value) {
            used += std::snprintf(buffer + used, sizeof buffer - static_cast<std::size_t>(used), format, value);
        };
        if (request.k > 0) add(", k %.0f", request.k);
        if (request.p < 1) add(", p %.2f", static_cast<double>(request.p));
        if (request.min_p > 0) add(", min-p %.2f", static_cast<double>(request.min_p));
        add(", seed %.0f", static_cast<double>(request.seed));
    }
    return buffer;
}

void print_header(const nucleus::sampler &sampler) {
    const nucleus::sampler_info info = sampler.info();
    const nucleus::device_info device = sampler.device(0);
    const std::string version = info.platform_version;
    std::printf("nucleus %s on %s", nucleus::version(), info.platform_name);
    if (info.pjrt_api_minor != 0) {
        std::printf(" (PJRT %d.%d, %zu devices)", info.pjrt_api_major, info.pjrt_api_minor, info.num_devices);
    } else {
        std::printf(" (%s)", version.substr(0, version.find('\n')).c_str());
    }
    std::printf(", device: %s\n", device.description);
}

int demonstrate(const Options &options) {
    const std::vector<fs::path> files = options.files.empty() ? find_sources(options.root) : options.files;
    Model model;
    for (const fs::path &file : files) model.learn(read(file));
    if (model.learned() == 0) {
        throw std::runtime_error("there is no text to learn from; name files, or a directory with --root");
    }
    model.finish();

    const nucleus::sampler sampler = make_sampler(options.plugin);
    print_header(sampler);
    std::printf("learned  %zu files, %zu pieces, a vocabulary of %zu\n", files.size(), model.learned(),
                model.vocab());
    std::printf("serves   %zu requests, up to %zu at a time, up to %zu tokens each\n", options.requests, options.slots,
                options.tokens);

    nucleus::prewarm_spec spec;
    spec.num_rows = std::min(options.slots, options.requests);
    spec.vocab = model.vocab();
    sampler.prewarm(spec);
    const nucleus::sampler_stats before = sampler.stats();

    std::vector<Request> requests = make_requests(options, model);
    const Run run = serve(sampler, model, requests, options.slots);

    std::string bare;
    for (std::size_t i = 0; i < requests.size(); i++) {
        const std::string text = text_of(model, requests[i]);
        const bool ended = requests[i].tokens.back() == Model::end;
        std::printf("\n--- request %zu: %s; %zu tokens%s\n%s\n", i + 1, describe(requests[i]).c_str(),
                    requests[i].tokens.size(), ended ? "" : ", stopped at its limit", text.c_str());
        bare += text + "\n\n";
    }

    const nucleus::sampler_stats after = sampler.stats();
    std::printf("\n%zu tokens in %.3f s: %.0f tokens/s, %.0f%% of the time in the sampler; ", run.tokens, run.seconds,
                static_cast<double>(run.tokens) / run.seconds, 100 * run.sampling / run.seconds);
    std::printf("%zu steps, batch of %zu to %zu", run.steps, run.least, run.most);
    std::printf("; compiled %llu programs ahead in %.1f s, %llu while serving, %llu hits\n",
                static_cast<unsigned long long>(before.compiles), static_cast<double>(before.compile_ns) * 1e-9,
                static_cast<unsigned long long>(after.compiles - before.compiles),
                static_cast<unsigned long long>(after.hits - before.hits));

    if (!options.output.empty()) {
        std::ofstream file(options.output, std::ios::binary);
        if (!(file << bare).flush()) throw std::runtime_error("cannot write " + options.output);
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        return demonstrate(parse(argc, argv));
    } catch (const std::exception &failure) {
        std::fprintf(stderr, "generate: %s\n", failure.what());
        return 1;
    }
}
