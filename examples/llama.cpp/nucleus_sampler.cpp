#include "nucleus_sampler.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace {

using SharedSampler = std::shared_ptr<const nuc_sampler>;

// The state of one llama_sampler.
struct State {
    llama_sampler_nucleus_params params;
    SharedSampler sampler;
    uint64_t draws = 0;            // the offset of the next draw's random words
    std::vector<float> scratch{};  // rows of logits that are not contiguous in memory
};

State &state_of(const llama_sampler *smpl) { return *static_cast<State *>(smpl->ctx); }

// Writes a result of this file to `error`, in the form of the results of nucleus. Returns the status.
nuc_status report(nuc_error *error, nuc_status status, const char *message) {
    if (error != nullptr) {
        error->code = status;
        error->row = -1;
        error->argument = nullptr;
        error->message_length = std::strlen(message);
        std::snprintf(error->message, sizeof error->message, "%s", message);
        if (error->full_message_size != 0) {
            std::snprintf(error->full_message, error->full_message_size, "%s", message);
        }
    }
    return status;
}

nuc_status fail(nuc_error *error, const char *message) {
    return report(error, NUC_INVALID_ARGUMENT, message);
}

// Samples the rows of `batch`, which has everything except the vocabulary.
nuc_status draw(const State &state, nuc_batch &batch, llama_token *tokens, nuc_error *error) {
    batch.vocab = static_cast<size_t>(state.params.n_vocab);
    return nuc_topk_topp_and_sample(state.sampler.get(), &batch, nullptr, tokens, nullptr, nullptr, error);
}

llama_token draw_one(State &state, const float *logits, nuc_error *error) {
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits;
    batch.num_rows = 1;
    batch.top_k = &state.params.top_k;
    batch.top_p = &state.params.top_p;
    batch.min_p = &state.params.min_p;
    batch.temperature = &state.params.temp;
    batch.seed = &state.params.seed;
    batch.offset = &state.draws;
    llama_token token = LLAMA_TOKEN_NULL;
    if (draw(state, batch, &token, error) != NUC_OK) return LLAMA_TOKEN_NULL;
    state.draws++;
    if (token == LLAMA_TOKEN_NULL) fail(error, "every logit is -inf or NaN");
    return token;
}

// Returns the logits of the candidates as a row over the whole vocabulary. Candidates that an earlier sampler removed
// are -inf. The row does not depend on the order of the candidates, so the token does not either.
const float *row_of(State &state, const llama_token_data_array &candidates) {
    std::vector<float> &row = state.scratch;
    row.resize(static_cast<size_t>(state.params.n_vocab));
    bool complete = candidates.size == row.size();
    for (size_t i = 0; complete && i < row.size(); i++) {
        complete = candidates.data[i].id == static_cast<llama_token>(i);
        row[i] = candidates.data[i].logit;
    }
    if (complete) return row.data();
    std::fill(row.begin(), row.end(), -std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < candidates.size; i++) {
        const auto id = static_cast<size_t>(candidates.data[i].id);
        GGML_ASSERT(id < row.size() && "nucleus: the sampler was created for a smaller vocabulary");
        row[id] = candidates.data[i].logit;
    }
    return row.data();
}

int64_t position_of(const llama_token_data_array &candidates, llama_token token) {
    const auto is_at = [&](size_t i) { return i < candidates.size && candidates.data[i].id == token; };
    if (token == LLAMA_TOKEN_NULL) return -1;
    if (is_at(static_cast<size_t>(token))) return token;
    for (size_t i = 0; i < candidates.size; i++) {
        if (is_at(i)) return static_cast<int64_t>(i);
    }
    return -1;
}

void log_failure(const nuc_error &error) {
    ggml_log_callback log = nullptr;
    void *user = nullptr;
    llama_log_get(&log, &user);
    char line[sizeof error.message + 64];
    std::snprintf(line, sizeof line, "nucleus: %s: %s\n", nuc_status_string(error.code), error.message);
    if (log != nullptr) log(GGML_LOG_LEVEL_ERROR, line, user);
}

// The functions of the interface. `accept` is absent, because a draw depends on no earlier token.

const char *name(const llama_sampler *) { return "nucleus"; }

// The interface has no result for failures. After a failure no candidate is selected, and llama_sampler_sample aborts.
void apply(llama_sampler *smpl, llama_token_data_array *candidates) {
    State &state = state_of(smpl);
    nuc_error error = NUC_ERROR_INIT;
    const llama_token token = draw_one(state, row_of(state, *candidates), &error);
    if (token == LLAMA_TOKEN_NULL) log_failure(error);
    candidates->selected = position_of(*candidates, token);
}

void reset(llama_sampler *smpl) { state_of(smpl).draws = 0; }

llama_sampler *clone(const llama_sampler *smpl);

void release(llama_sampler *smpl) { delete &state_of(smpl); }

constexpr llama_sampler_i make_interface() {
    llama_sampler_i interface{};
    interface.name = name;
    interface.apply = apply;
    interface.reset = reset;
    interface.clone = clone;
    interface.free = release;
    return interface;
}

llama_sampler_i nucleus_interface = make_interface();

llama_sampler *clone(const llama_sampler *smpl) {
    return llama_sampler_init(&nucleus_interface, new State(state_of(smpl)));
}

bool is_nucleus(const llama_sampler *smpl) { return smpl != nullptr && smpl->iface == &nucleus_interface; }

const char *const not_nucleus = "the sampler was not created by llama_sampler_init_nucleus";

// Returns the logits of output `idx`. Returns null and writes `error` if `smpl` cannot sample them.
const float *logits_for(const llama_sampler *smpl, llama_context *ctx, int32_t idx, nuc_error *error) {
    const char *message = not_nucleus;
    if (is_nucleus(smpl)) {
        const llama_vocab *vocab = llama_model_get_vocab(llama_get_model(ctx));
        message = "the n_vocab of the sampler is not that of the model";
        if (llama_vocab_n_tokens(vocab) == state_of(smpl).params.n_vocab) {
            if (const float *logits = llama_get_logits_ith(ctx, idx)) return logits;
            message = "the context has no logits for this index";
        }
    }
    fail(error, message);
    return nullptr;
}

// Returns a sampler on the built-in backend. Rows of one call run on the calling thread.
SharedSampler make_sampler(nuc_error *error) {
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = NUC_BACKEND_BUILTIN;
    options.num_threads = 1;
    nuc_sampler *sampler = nullptr;
    if (nuc_sampler_create(&options, &sampler, error) != NUC_OK) return nullptr;
    const auto destroy = [](nuc_sampler *own) { nuc_sampler_destroy(own, nullptr); };
    return std::shared_ptr<nuc_sampler>(sampler, destroy);
}

uint64_t random_seed() {
    std::random_device device;
    return uint64_t{device()} << 32 | device();
}

// The parameters of a batch, one array per parameter.
struct Columns {
    std::vector<int32_t> top_k;
    std::vector<float> top_p, min_p, temp;
    std::vector<uint64_t> seed, offset;

    Columns(llama_sampler *const *smpl, size_t n) {
        for (size_t i = 0; i < n; i++) {
            const State &state = state_of(smpl[i]);
            top_k.push_back(state.params.top_k);
            top_p.push_back(state.params.top_p);
            min_p.push_back(state.params.min_p);
            temp.push_back(state.params.temp);
            seed.push_back(state.params.seed);
            offset.push_back(state.draws);
        }
    }

    void set(nuc_batch &batch) const {
        batch.top_k = top_k.data();
        batch.top_p = top_p.data();
        batch.min_p = min_p.data();
        batch.temperature = temp.data();
        batch.seed = seed.data();
        batch.offset = offset.data();
    }
};

// Returns the distance of the rows in elements, or 0 if the distances differ or are less than a row. The rows are in
// the same array, because they belong to the same context.
size_t stride_of(const std::vector<const float *> &rows, size_t n_vocab) {
    if (rows.size() == 1) return n_vocab;
    const std::ptrdiff_t distance = rows[1] - rows[0];
    for (size_t i = 1; i < rows.size(); i++) {
        if (rows[i] - rows[i - 1] != distance) return 0;
    }
    return distance < static_cast<std::ptrdiff_t>(n_vocab) ? 0 : static_cast<size_t>(distance);
}

// Points `batch` to the logits of the rows. Copies them into `scratch` if their distances differ.
void set_logits(nuc_batch &batch, const std::vector<const float *> &rows, size_t n_vocab,
                std::vector<float> &scratch) {
    batch.num_rows = rows.size();
    batch.logits = rows[0];
    batch.row_stride = stride_of(rows, n_vocab);
    if (batch.row_stride != 0) return;
    scratch.resize(std::max(scratch.size(), rows.size() * n_vocab));
    for (size_t i = 0; i < rows.size(); i++) std::copy_n(rows[i], n_vocab, &scratch[i * n_vocab]);
    batch.logits = scratch.data();
}

}  // namespace

llama_sampler *llama_sampler_init_nucleus(const llama_sampler_nucleus_params &params, nuc_error *error) {
    if (params.n_vocab <= 0) {
        fail(error, "n_vocab must be the number of tokens of the vocabulary");
        return nullptr;
    }
    if (!std::isfinite(params.temp) || std::isnan(params.top_p) || std::isnan(params.min_p)) {
        fail(error, "temp must be finite; top_p and min_p must not be NaN");
        return nullptr;
    }
    State state{params, {params.sampler, [](const nuc_sampler *) {}}};
    if (params.sampler == nullptr) state.sampler = make_sampler(error);
    if (state.sampler == nullptr) return nullptr;
    state.params.temp = std::max(params.temp, 0.0f);
    if (params.seed == LLAMA_DEFAULT_SEED) state.params.seed = random_seed();
    report(error, NUC_OK, "");
    return llama_sampler_init(&nucleus_interface, new State(std::move(state)));
}

uint64_t llama_sampler_nucleus_get_seed(const llama_sampler *smpl) {
    GGML_ASSERT(is_nucleus(smpl));
    return state_of(smpl).params.seed;
}

llama_token llama_sampler_nucleus_sample_logits(llama_sampler *smpl, const float *logits, nuc_error *error) {
    if (!is_nucleus(smpl)) {
        fail(error, not_nucleus);
        return LLAMA_TOKEN_NULL;
    }
    return draw_one(state_of(smpl), logits, error);
}

llama_token llama_sampler_nucleus_sample(llama_sampler *smpl, llama_context *ctx, int32_t idx,
                                         nuc_error *error) {
    const float *logits = logits_for(smpl, ctx, idx, error);
    return logits == nullptr ? LLAMA_TOKEN_NULL : draw_one(state_of(smpl), logits, error);
}

nuc_status llama_sampler_nucleus_sample_batch(llama_sampler *const *smpl, llama_context *ctx,
                                              const int32_t *idx, size_t n, llama_token *tokens,
                                              nuc_error *error) {
    if (n == 0) return report(error, NUC_OK, "");
    std::vector<const float *> rows(n);
    for (size_t i = 0; i < n; i++) {
        rows[i] = logits_for(smpl[i], ctx, idx[i], error);
        if (rows[i] == nullptr) return NUC_INVALID_ARGUMENT;
    }
    State &first = state_of(smpl[0]);
    nuc_batch batch = NUC_BATCH_INIT;
    set_logits(batch, rows, static_cast<size_t>(first.params.n_vocab), first.scratch);
    const Columns columns(smpl, n);
    columns.set(batch);
    const nuc_status status = draw(first, batch, tokens, error);
    if (status == NUC_OK) {
        for (size_t i = 0; i < n; i++) state_of(smpl[i]).draws++;
    }
    return status;
}
