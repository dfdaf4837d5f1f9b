// Chooses the next token of every slot, with nucleus.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pjrt.hpp"

// The sampling parameters of a slot. The default is greedy sampling, which takes the least time. Free slots use the
// default. The server ignores their tokens.
struct SamplingParameters {
    std::int32_t top_k = 0;
    float top_p = 1, min_p = 0, temperature = 0;
    std::uint64_t seed = 0;
    std::uint64_t offset = 0;  // of the random words in step 0; step n uses offset + n, modulo 2^64
};

// The tokens of one step.
struct Sampled {
    // The tokens on the device, i32 [slots]: the input of the next decode step. The device may still be computing them.
    pjrt::Buffer device_tokens;
    // Waits until the tokens are on the host, and returns them. Call it once.
    std::function<std::vector<std::int32_t>()> wait;
};

class Sampler {
public:
    virtual ~Sampler() = default;

    // Sets the parameters of a slot from the next step on.
    virtual void set_slot(std::size_t slot, const SamplingParameters &parameters) = 0;

    // Starts to sample logits [slots, vocab] that are on the device. `logits` may be freed when the function returns.
    virtual Sampled sample_step(const pjrt::Buffer &logits, std::uint64_t step) = 0;

    // The time from ready logits to ready tokens, summed over all steps.
    virtual double seconds() const = 0;

    virtual std::string description() const = 0;
};

// Creates a sampler that works on the device, and compiles its programs. `client` must outlive the sampler.
std::unique_ptr<Sampler> make_device_sampler(const pjrt::Client &client, std::size_t slots, std::size_t vocab);

// Creates a sampler that copies the logits to the host. It runs on the plugin with this path, or on the built-in
// backend if the path is empty. `client` must outlive it. Compiled programs are kept in the directory `programs`, so
// that the next process starts faster.
std::unique_ptr<Sampler> make_host_sampler(const pjrt::Client &client, const std::string &plugin,
                                           const std::string &programs, std::size_t slots, std::size_t vocab);
