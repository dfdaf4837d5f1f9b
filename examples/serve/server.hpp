// Serves a queue of requests over the slots of a model, with continuous batching.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "model.hpp"
#include "sampler.hpp"

struct Request {
    const Prompt *prompt = nullptr;
    SamplingParameters sampling;  // the server sets the offset
    std::size_t limit = 0;        // the largest number of tokens

    std::vector<std::int32_t> tokens;  // the answer, without the stop token
    std::size_t started = 0;           // steps started for this request
    bool done = false;
};

class Server {
public:
    // `model` and `sampler` must outlive the server.
    Server(const pjrt::Client &client, Model &model, Sampler &sampler, const ModelIndex &index);

    // Serves all requests in order, and returns when all are done.
    void serve(std::vector<Request> &requests);

    std::size_t steps() const { return steps_; }
    std::size_t refills() const { return refills_; }  // requests that took over a slot while others ran
    const pjrt::Traffic &step_traffic() const { return step_traffic_; }
    // The traffic of prompts and of other changes of the slots.
    const pjrt::Traffic &prompt_traffic() const { return prompt_traffic_; }

private:
    // A step whose tokens the host has not read yet.
    struct Step {
        std::vector<Request *> slots;
        Sampled sampled;
    };

    void refill();
    void update_positions();
    bool is_busy() const;
    Step start_step();
    void finish_step(Step &step) const;

    const pjrt::Client &client_;
    Model &model_;
    Sampler &sampler_;
    std::int32_t stop_;
    std::size_t context_;
    std::deque<Request *> waiting_;
    std::vector<Request *> slots_;  // the request in each slot, or null
    pjrt::Buffer tokens_;           // the next input of each slot
    std::size_t steps_ = 0, refills_ = 0;
    pjrt::Traffic step_traffic_, prompt_traffic_;
};
