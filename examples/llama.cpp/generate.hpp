// Generates text for several requests at the same time with llama.cpp. The caller chooses the tokens.
#pragma once

#include <llama-cpp.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct Settings {
    int32_t top_k;
    float top_p, min_p, temp;
    uint32_t seed;
};

std::string describe(const Settings &settings);

struct Request {
    std::string prompt;
    Settings settings;
};

llama_model_ptr load_model(const std::string &path);

// Creates a context for `sequences` texts.
llama_context_ptr make_context(llama_model *model, std::size_t sequences);

// One step of the generation: outputs[i] is the index of the logits of request requests[i].
struct Step {
    llama_context *context;
    std::vector<std::size_t> requests;
    std::vector<int32_t> outputs;
};

// Returns the next token of each request of the step.
using Choose = std::function<std::vector<llama_token>(const Step &)>;

struct Texts {
    std::vector<std::string> answers;  // one per request
    std::size_t tokens = 0;
    double seconds = 0;           // the whole time
    double sampling_seconds = 0;  // the time in `choose`
};

// Answers all requests in one batch, with at most `limit` tokens each.
Texts generate(llama_model *model, const std::vector<Request> &requests, std::size_t limit,
               const Choose &choose);
