// Samples logits where they are: on the device, through the PJRT client of the server.
#include <atomic>
#include <chrono>

#include "sampler.hpp"
#include "sampler_handle.hpp"

namespace {

struct DestroyParameters {
    void operator()(nuc_parameters *parameters) const { nuc_parameters_destroy(parameters, nullptr); }
};

struct DestroyCall {
    void operator()(nuc_call *call) const { nuc_call_destroy(call, nullptr); }
};

std::int64_t now() {
    using std::chrono::duration_cast;
    return duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class DeviceSampler : public Sampler {
public:
    DeviceSampler(const pjrt::Client &client, std::size_t slots, std::size_t vocab)
        : api_(client.api()), slots_(slots) {
        nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
        options.backend = NUC_BACKEND_PJRT;
        options.pjrt_api = client.api();
        options.pjrt_client = client.get();
        sampler_ = create_sampler(options);

        nuc_parameters_options shape = NUC_PARAMETERS_OPTIONS_INIT;
        shape.num_rows = slots;
        shape.vocab = vocab;
        nuc_error error = NUC_ERROR_INIT;
        nuc_parameters *parameters = nullptr;
        check(nuc_parameters_create(sampler_.get(), &shape, &parameters, &error), error);
        parameters_.reset(parameters);
        for (std::size_t slot = 0; slot < slots; slot++) DeviceSampler::set_slot(slot, SamplingParameters{});
        prewarm(vocab);
    }

    void set_slot(std::size_t slot, const SamplingParameters &parameters) override {
        nuc_error error = NUC_ERROR_INIT;
        nuc_row_parameters row = NUC_ROW_PARAMETERS_INIT;
        row.seed = parameters.seed;
        row.offset = parameters.offset;
        row.top_k = parameters.top_k;
        row.min_p = parameters.min_p;
        row.use_top_p = 1;
        row.top_p = parameters.top_p;
        row.use_temperature = 1;
        row.temperature = parameters.temperature;
        check(nuc_parameters_set(parameters_.get(), slot, &row, &error), error);
    }

    Sampled sample_step(const pjrt::Buffer &logits, std::uint64_t step) override {
        // One callback subtracts the time when the logits are ready. Another callback adds the time when the tokens are
        // on the host. The sum of both is the duration.
        const std::shared_ptr<std::atomic<std::int64_t>> nanoseconds = nanoseconds_;
        logits.ready().on_ready([nanoseconds] { *nanoseconds -= now(); });
        const std::shared_ptr<nuc_call> call = start(logits, step);
        nuc_error error = NUC_ERROR_INIT;
        const auto done = [](void *total) { *static_cast<std::atomic<std::int64_t> *>(total) += now(); };
        check(nuc_call_on_done(call.get(), done, nanoseconds_.get(), &error), error);
        void *tokens = nullptr;
        check(nuc_call_take_buffer(call.get(), NUC_BUFFER_TOKENS, &tokens, &error), error);
        return {pjrt::Buffer(api_, static_cast<PJRT_Buffer *>(tokens)),
                [call, slots = slots_] { return read(call.get(), slots); }};
    }

    double seconds() const override { return 1e-9 * static_cast<double>(nanoseconds_->load()); }

    std::string description() const override { return describe(sampler_, "device"); }

private:
    static std::vector<std::int32_t> read(nuc_call *call, std::size_t slots) {
        nuc_error error = NUC_ERROR_INIT;
        std::vector<std::int32_t> tokens(slots);
        check(nuc_call_get_tokens(call, tokens.data(), nullptr, &error), error);
        return tokens;
    }

    std::shared_ptr<nuc_call> start(const pjrt::Buffer &logits, std::uint64_t step) const {
        nuc_error error = NUC_ERROR_INIT;
        nuc_call *call = nullptr;
        check(nuc_sample_start(sampler_.get(), NUC_PATH_AUTO, logits.get(), parameters_.get(), step, nullptr, &call,
                               &error),
              error);
        return std::shared_ptr<nuc_call>(call, DestroyCall{});
    }

    // Compiles every program that the calls can need, before the first request.
    void prewarm(std::size_t vocab) {
        nuc_error error = NUC_ERROR_INIT;
        nuc_prewarm_spec spec = NUC_PREWARM_SPEC_INIT;
        spec.num_rows = slots_;
        spec.vocab = vocab;
        spec.logits = NUC_LOGITS_ON_DEVICE;
        check(nuc_prewarm(sampler_.get(), &spec, &error), error);
    }

    const PJRT_Api *api_;
    std::size_t slots_;
    SamplerHandle sampler_;
    std::unique_ptr<nuc_parameters, DestroyParameters> parameters_;
    // Shared with callbacks of the plugin, which can run late.
    std::shared_ptr<std::atomic<std::int64_t>> nanoseconds_ = std::make_shared<std::atomic<std::int64_t>>(0);
};

}  // namespace

std::unique_ptr<Sampler> make_device_sampler(const pjrt::Client &client, std::size_t slots, std::size_t vocab) {
    return std::make_unique<DeviceSampler>(client, slots, vocab);
}
