// Samples logits that were copied to the host.
#include <chrono>
#include <utility>

#include "sampler.hpp"
#include "sampler_handle.hpp"

namespace {

SamplerHandle create(const std::string &plugin, const std::string &programs) {
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = plugin.empty() ? NUC_BACKEND_BUILTIN : NUC_BACKEND_PJRT;
    options.plugin_path = plugin.c_str();
    options.program_dir = programs.c_str();
    options.write_programs = 1;
    return create_sampler(options);
}

class HostSampler : public Sampler {
public:
    HostSampler(const pjrt::Client &client, SamplerHandle sampler, std::size_t slots, std::size_t vocab)
        : client_(client),
          sampler_(std::move(sampler)),
          vocab_(vocab),
          slots_(slots),
          top_k_(slots),
          top_p_(slots, 1),
          min_p_(slots),
          temperature_(slots),
          seed_(slots),
          offset_(slots),
          logits_(slots * vocab) {
        nuc_error error = NUC_ERROR_INIT;
        nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
        spec.num_rows = slots;
        spec.vocab = vocab;
        check(nuc_prewarm(sampler_.get(), &spec, &error), error);
    }

    void set_slot(std::size_t slot, const SamplingParameters &parameters) override {
        top_k_[slot] = parameters.top_k;
        top_p_[slot] = parameters.top_p;
        min_p_[slot] = parameters.min_p;
        temperature_[slot] = parameters.temperature;
        seed_[slot] = parameters.seed;
        offset_[slot] = parameters.offset;
    }

    Sampled sample_step(const pjrt::Buffer &logits, std::uint64_t step) override;
    double seconds() const override { return seconds_; }

    std::string description() const override { return describe(sampler_, "host"); }

private:
    const pjrt::Client &client_;
    SamplerHandle sampler_;
    std::size_t vocab_, slots_;
    std::vector<std::int32_t> top_k_;
    std::vector<float> top_p_, min_p_, temperature_;
    std::vector<std::uint64_t> seed_, offset_;
    std::vector<float> logits_;
    double seconds_ = 0;
};

// Copies the logits to the host and the tokens to the device, and waits for both.
Sampled HostSampler::sample_step(const pjrt::Buffer &logits, std::uint64_t step) {
    using Clock = std::chrono::steady_clock;
    logits.ready().wait();
    const Clock::time_point start = Clock::now();
    logits.copy_to_host(logits_.data(), logits_.size() * sizeof logits_[0]).wait();

    std::vector<std::uint64_t> offset = offset_;
    for (std::uint64_t &value : offset) value += step;
    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits_.data();
    batch.num_rows = slots_;
    batch.vocab = vocab_;
    batch.top_k = top_k_.data();
    batch.top_p = top_p_.data();
    batch.min_p = min_p_.data();
    batch.temperature = temperature_.data();
    batch.seed = seed_.data();
    batch.offset = offset.data();
    std::vector<std::int32_t> tokens(slots_);
    const nuc_status status =
        nuc_topk_topp_and_sample(sampler_.get(), &batch, nullptr, tokens.data(), nullptr, nullptr, &error);
    check(status, error);
    pjrt::Buffer device_tokens = client_.upload(tokens);
    seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
    return {std::move(device_tokens), [tokens = std::move(tokens)] { return tokens; }};
}

}  // namespace

std::unique_ptr<Sampler> make_host_sampler(const pjrt::Client &client, const std::string &plugin,
                                           const std::string &programs, std::size_t slots, std::size_t vocab) {
    return std::make_unique<HostSampler>(client, create(plugin, programs), slots, vocab);
}
