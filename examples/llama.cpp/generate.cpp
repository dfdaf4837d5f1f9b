#include "generate.hpp"

#include <chrono>
#include <cstdio>
#include <stdexcept>

namespace {

using Clock = std::chrono::steady_clock;

const std::size_t context_per_sequence = 256, batch_size = 512;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Returns the prompt in the chat format of the model.
std::string chat(llama_model *model, const std::string &prompt) {
    const llama_chat_message message = {"user", prompt.c_str()};
    const char *const format = llama_model_chat_template(model, nullptr);
    if (format == nullptr) throw std::runtime_error("the model has no chat template");
    std::string text(prompt.size() * 2 + 256, '\0');
    const int32_t length =
        llama_chat_apply_template(format, &message, 1, true, text.data(), static_cast<int32_t>(text.size()));
    if (length < 0 || static_cast<std::size_t>(length) > text.size()) {
        throw std::runtime_error("llama.cpp cannot apply the chat template of the model");
    }
    text.resize(static_cast<std::size_t>(length));
    return text;
}

std::vector<llama_token> tokenize(const llama_vocab *vocab, const std::string &text) {
    std::vector<llama_token> tokens(text.size() + 8);
    const int32_t count = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                         static_cast<int32_t>(tokens.size()), true, true);
    if (count < 0) throw std::runtime_error("llama.cpp cannot tokenize the prompt");
    tokens.resize(static_cast<std::size_t>(count));
    return tokens;
}

std::string text_of(const llama_vocab *vocab, llama_token token) {
    char text[256];
    const int32_t length = llama_token_to_piece(vocab, token, text, sizeof text, 0, false);
    if (length < 0) throw std::runtime_error("a token has more than 256 bytes");
    return {text, static_cast<std::size_t>(length)};
}

// A batch of tokens for llama_decode.
class Batch {
public:
    Batch() : batch_(llama_batch_init(batch_size, 0, 1)) {}
    ~Batch() { llama_batch_free(batch_); }
    Batch(const Batch &) = delete;
    Batch &operator=(const Batch &) = delete;

    void clear() { batch_.n_tokens = 0; }

    // Adds a token, and returns its index.
    int32_t add(llama_token token, std::size_t position, std::size_t sequence, bool output) {
        const int32_t at = batch_.n_tokens++;
        if (static_cast<std::size_t>(at) == batch_size) throw std::runtime_error("the prompts are too long");
        batch_.token[at] = token;
        batch_.pos[at] = static_cast<llama_pos>(position);
        batch_.n_seq_id[at] = 1;
        batch_.seq_id[at][0] = static_cast<llama_seq_id>(sequence);
        batch_.logits[at] = output;
        return at;
    }

    void decode(llama_context *context) const {
        if (llama_decode(context, batch_) != 0) throw std::runtime_error("llama_decode failed");
    }

private:
    llama_batch batch_;
};

}  // namespace

std::string describe(const Settings &settings) {
    if (settings.temp <= 0) return "greedy";
    std::string text;
    const auto add = [&](const char *format, auto value) {
        char buffer[64];
        std::snprintf(buffer, sizeof buffer, format, value);
        text += text.empty() ? "" : ", ";
        text += buffer;
    };
    if (settings.top_k > 0) add("top-k %d", settings.top_k);
    if (settings.top_p < 1) add("top-p %.2f", static_cast<double>(settings.top_p));
    if (settings.min_p > 0) add("min-p %.2f", static_cast<double>(settings.min_p));
    add("temperature %.1f", static_cast<double>(settings.temp));
    return text;
}

llama_model_ptr load_model(const std::string &path) {
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    llama_model_ptr model(llama_model_load_from_file(path.c_str(), params));
    if (!model) throw std::runtime_error("llama.cpp cannot load " + path + "; run make llama to download it");
    return model;
}

llama_context_ptr make_context(llama_model *model, std::size_t sequences) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(sequences * context_per_sequence);
    params.n_batch = params.n_ubatch = batch_size;
    params.n_seq_max = static_cast<uint32_t>(sequences);
    // The threads of llama.cpp spin while they wait for each other, which is very slow on a host with other work.
    params.n_threads = params.n_threads_batch = 1;
    llama_context_ptr context(llama_init_from_model(model, params));
    if (!context) throw std::runtime_error("llama.cpp cannot create a context");
    return context;
}

Texts generate(llama_model *model, const std::vector<Request> &requests, std::size_t limit,
               const Choose &choose) {
    const Clock::time_point start = Clock::now();
    const llama_vocab *vocab = llama_model_get_vocab(model);
    const llama_context_ptr context = make_context(model, requests.size());
    Texts texts;
    texts.answers.resize(requests.size());
    std::vector<std::size_t> positions(requests.size());
    Batch batch;
    Step step{context.get(), {}, {}};
    for (std::size_t i = 0; i < requests.size(); i++) {
        const std::vector<llama_token> tokens = tokenize(vocab, chat(model, requests[i].prompt));
        int32_t last = 0;
        for (const llama_token token : tokens) {
            last = batch.add(token, positions[i], i, positions[i] + 1 == tokens.size());
            positions[i]++;
        }
        step.requests.push_back(i);
        step.outputs.push_back(last);
    }
    for (std::size_t count = 0; count < limit && !step.requests.empty(); count++) {
        batch.decode(context.get());
        llama_synchronize(context.get());
        const Clock::time_point sampling = Clock::now();
        const std::vector<llama_token> tokens = choose(step);
        texts.sampling_seconds += seconds_since(sampling);
        texts.tokens += tokens.size();

        Step next{context.get(), {}, {}};
        batch.clear();
        for (std::size_t i = 0; i < tokens.size(); i++) {
            const std::size_t request = step.requests[i];
            if (llama_vocab_is_eog(vocab, tokens[i])) continue;
            texts.answers[request] += text_of(vocab, tokens[i]);
            next.requests.push_back(request);
            next.outputs.push_back(batch.add(tokens[i], positions[request]++, request, true));
        }
        step = next;
    }
    texts.seconds = seconds_since(start);
    return texts;
}
