#include "sample_step.hpp"

#include <chrono>
#include <stdexcept>

namespace {

void check(nuc_status status, const nuc_error &error) {
    if (status != NUC_OK) throw std::runtime_error(std::string(nuc_status_string(status)) + ": " + error.message);
}

nuc_sampler *create(SamplerKind kind, const std::string &plugin, const std::string &programs) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    options.backend = kind == SamplerKind::builtin ? NUC_BACKEND_BUILTIN : NUC_BACKEND_PJRT;
    options.plugin_path = plugin.c_str();
    options.program_dir = programs.c_str();
    options.write_programs = 1;
    nuc_sampler *sampler = nullptr;
    check(nuc_sampler_create(&options, &sampler, &error), error);
    return sampler;
}

}  // namespace

Sampler::Sampler(const pjrt::Client &client, SamplerKind kind, const std::string &plugin, const std::string &programs,
                 std::size_t slots, std::size_t vocab)
    : client_(client),
      slots_(slots),
      vocab_(vocab),
      sampler_(create(kind, plugin, programs)),
      logits_(slots * vocab) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
    spec.num_rows = slots;
    spec.vocab = vocab;
    check(nuc_prewarm(sampler_.get(), &spec, &error), error);
}

// Copies the logits to the host and the tokens back to the device, and waits for both.
Sampled Sampler::sample_step(const pjrt::Buffer &logits, const Parameters &parameters) {
    using Clock = std::chrono::steady_clock;
    logits.ready().wait();
    const Clock::time_point start = Clock::now();
    logits.copy_to_host(logits_.data(), logits_.size() * sizeof logits_[0]).wait();

    nuc_error error = NUC_ERROR_INIT;
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits_.data();
    batch.num_rows = slots_;
    batch.vocab = vocab_;
    batch.top_k = parameters.top_k.data();
    batch.top_p = parameters.top_p.data();
    batch.min_p = parameters.min_p.data();
    batch.temperature = parameters.temperature.data();
    batch.seed = parameters.seed.data();
    batch.offset = parameters.offset.data();
    std::vector<std::int32_t> tokens(slots_);
    check(nuc_topk_topp_and_sample(sampler_.get(), &batch, nullptr, tokens.data(), nullptr, nullptr, &error), error);
    pjrt::Buffer device_tokens = client_.upload(tokens);
    seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
    return Sampled(std::move(device_tokens), std::move(tokens));
}

std::string Sampler::description() const {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
    check(nuc_sampler_get_info(sampler_.get(), &info, &error), error);
    return std::string("nucleus ") + nuc_version() + " on " + info.platform_name;
}
