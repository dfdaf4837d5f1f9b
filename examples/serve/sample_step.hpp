// Chooses the next token of every slot, with nucleus.
#pragma once

#include <nucleus.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pjrt.hpp"

// The sampling parameters of every slot. A free slot is greedy, which is the cheapest, and its token is ignored.
struct Parameters {
    explicit Parameters(std::size_t slots)
        : top_k(slots, 0), top_p(slots, 1), min_p(slots, 0), temperature(slots, 0), seed(slots, 0), offset(slots, 0) {}

    std::vector<std::int32_t> top_k;
    std::vector<float> top_p, min_p, temperature;
    std::vector<std::uint64_t> seed, offset;
};

// The tokens of one step.
class Sampled {
public:
    Sampled(pjrt::Buffer device_tokens, std::vector<std::int32_t> tokens)
        : device_tokens_(std::move(device_tokens)), tokens_(std::move(tokens)) {}

    // Returns the tokens on the device, [slots]: the input of the next decode step. The device may still compute them.
    // Call this once.
    pjrt::Buffer take_device_tokens() { return std::move(device_tokens_); }

    // Waits until the tokens are on the host, and returns them.
    const std::vector<std::int32_t> &wait() { return tokens_; }

private:
    pjrt::Buffer device_tokens_;
    std::vector<std::int32_t> tokens_;
};

enum class SamplerKind { builtin, plugin };

class Sampler {
public:
    // `client` must outlive the sampler. Compiled programs are kept in the directory `programs`, so that the next
    // process starts faster.
    Sampler(const pjrt::Client &client, SamplerKind kind, const std::string &plugin, const std::string &programs,
            std::size_t slots, std::size_t vocab);

    // Samples logits [slots, vocab] that are on the device.
    Sampled sample_step(const pjrt::Buffer &logits, const Parameters &parameters);

    // The time from the moment when logits are ready to the moment when their tokens are, summed over all steps.
    double seconds() const { return seconds_; }
    std::string description() const;

private:
    struct Destroy {
        void operator()(nuc_sampler *sampler) const { nuc_sampler_destroy(sampler, nullptr); }
    };

    const pjrt::Client &client_;
    std::size_t slots_, vocab_;
    std::unique_ptr<nuc_sampler, Destroy> sampler_;
    std::vector<float> logits_;
    double seconds_ = 0;
};
