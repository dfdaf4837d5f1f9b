#include "server.hpp"

#include <algorithm>
#include <optional>
#include <utility>

Server::Server(const pjrt::Client &client, Model &model, Sampler &sampler, const ModelIndex &index)
    : client_(client),
      model_(model),
      sampler_(sampler),
      stop_(index.stop),
      context_(index.context),
      slots_(index.slots, nullptr) {}

// The device runs one step ahead of the host: the host starts step n + 1 before it reads the tokens of step n. So the
// device does not wait while the host reads tokens, looks for finished requests and fills free slots. The price is one
// unused row for each request that ends with the stop token.
void Server::serve(std::vector<Request> &requests) {
    for (Request &request : requests) {
        request.limit = std::min(request.limit, context_ - std::min(context_, request.prompt->tokens.size()));
        waiting_.push_back(&request);
    }
    pjrt::take_traffic();  // forget the weights
    tokens_ = client_.upload(std::vector<std::int32_t>(slots_.size(), 0));
    refill();
    prompt_traffic_ += pjrt::take_traffic();
    for (std::optional<Step> running; is_busy() || running;) {
        std::optional<Step> next;
        if (is_busy()) next.emplace(start_step());
        if (running) finish_step(*running);
        running = std::move(next);
        step_traffic_ += pjrt::take_traffic();
        refill();
        prompt_traffic_ += pjrt::take_traffic();
    }
}

bool Server::is_busy() const {
    return std::any_of(slots_.begin(), slots_.end(), [](const Request *request) { return request != nullptr; });
}

// Gives every slot whose request needs no further step to the next waiting request.
void Server::refill() {
    bool freed = false;
    for (std::size_t slot = 0; slot < slots_.size(); slot++) {
        Request *&request = slots_[slot];
        if (request != nullptr && !request->done && request->started < request->limit) continue;
        freed = freed || (request != nullptr && waiting_.empty());
        request = nullptr;
        if (waiting_.empty()) continue;
        request = waiting_.front();
        waiting_.pop_front();
        tokens_ = model_.prefill(slot, request->prompt->tokens, tokens_);
        if (steps_ > 0) refills_++;
    }
    if (freed) free_slots();
}

void Server::free_slots() {
    std::vector<std::int32_t> positions;
    for (const Request *request : slots_) {
        positions.push_back(request == nullptr
                                ? -1
                                : static_cast<std::int32_t>(request->prompt->tokens.size() - 1 + request->started));
    }
    model_.set_positions(positions);
}

Server::Step Server::start_step() {
    Parameters parameters(slots_.size());
    for (std::size_t slot = 0; slot < slots_.size(); slot++) {
        Request *const request = slots_[slot];
        if (request == nullptr) continue;
        parameters.top_k[slot] = request->top_k;
        parameters.top_p[slot] = request->top_p;
        parameters.min_p[slot] = request->min_p;
        parameters.temperature[slot] = request->temperature;
        parameters.seed[slot] = request->seed;
        parameters.offset[slot] = request->started++;
    }
    const pjrt::Buffer logits = model_.decode(tokens_);
    Step step{slots_, sampler_.sample_step(logits, parameters)};
    tokens_ = step.sampled.take_device_tokens();
    steps_++;
    return step;
}

void Server::finish_step(Step &step) const {
    const std::vector<std::int32_t> &tokens = step.sampled.wait();
    for (std::size_t slot = 0; slot < step.slots.size(); slot++) {
        Request *const request = step.slots[slot];
        if (request == nullptr || request->done) continue;
        if (tokens[slot] == stop_) {
            request->done = true;
        } else {
            request->tokens.push_back(tokens[slot]);
            request->done = request->tokens.size() == request->limit;
        }
    }
}
