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
// device does not wait while the host reads tokens, looks for finished requests and fills free slots. Each request that
// ends with the stop token costs one unused row.
void Server::serve(std::vector<Request> &requests) {
    for (Request &request : requests) {
        const std::size_t space = context_ - std::min(context_, request.prompt->tokens.size());
        request.limit = std::min(request.limit, space);
        waiting_.push_back(&request);
    }
    pjrt::take_traffic();  // do not count the upload of the weights
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
    return std::any_of(slots_.begin(), slots_.end(), [](const Request *slot) { return slot != nullptr; });
}

// Gives free slots to waiting requests. A slot is also free if its request needs no further step.
void Server::refill() {
    bool freed = false;
    for (std::size_t slot = 0; slot < slots_.size(); slot++) {
        Request *&request = slots_[slot];
        if (request != nullptr && !request->done && request->started < request->limit) continue;
        if (waiting_.empty()) {
            if (request != nullptr) sampler_.set_slot(slot, SamplingParameters{});
            freed = freed || request != nullptr;
            request = nullptr;
            continue;
        }
        request = waiting_.front();
        waiting_.pop_front();
        // The offset plus the number of the step is 0 in the first step of every request.
        request->sampling.offset = 0 - std::uint64_t{steps_};
        sampler_.set_slot(slot, request->sampling);
        tokens_ = model_.prefill(slot, request->prompt->tokens, tokens_);
        if (steps_ > 0) refills_++;
    }
    if (freed) update_positions();
}

void Server::update_positions() {
    std::vector<std::int32_t> positions;
    for (const Request *request : slots_) {
        std::int32_t next = -1;
        if (request != nullptr) {
            next = static_cast<std::int32_t>(request->prompt->tokens.size() - 1 + request->started);
        }
        positions.push_back(next);
    }
    model_.set_positions(positions);
}

Server::Step Server::start_step() {
    for (Request *request : slots_) {
        if (request != nullptr) request->started++;
    }
    const pjrt::Buffer logits = model_.decode(tokens_);
    Step step{slots_, sampler_.sample_step(logits, steps_)};
    tokens_ = std::move(step.sampled.device_tokens);
    steps_++;
    return step;
}

void Server::finish_step(Step &step) const {
    const std::vector<std::int32_t> tokens = step.sampled.wait();
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
