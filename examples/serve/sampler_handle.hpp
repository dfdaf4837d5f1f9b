// The code that both samplers share: exceptions for failed calls, and a handle that owns a sampler of nucleus.
#pragma once

#include <nucleus.h>

#include <memory>
#include <stdexcept>
#include <string>

inline void check(nuc_status status, const nuc_error &error) {
    if (status != NUC_OK) {
        throw std::runtime_error(std::string(nuc_status_string(status)) + ": " + error.message);
    }
}

struct DestroySampler {
    void operator()(nuc_sampler *sampler) const { nuc_sampler_destroy(sampler, nullptr); }
};

using SamplerHandle = std::unique_ptr<nuc_sampler, DestroySampler>;

inline SamplerHandle create_sampler(const nuc_sampler_options &options) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler *sampler = nullptr;
    check(nuc_sampler_create(&options, &sampler, &error), error);
    return SamplerHandle(sampler);
}

// Returns a text with the version and the platform of a sampler, and with the place of the logits.
inline std::string describe(const SamplerHandle &sampler, const std::string &place) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_info info = NUC_SAMPLER_INFO_INIT;
    check(nuc_sampler_get_info(sampler.get(), &info, &error), error);
    return std::string("nucleus ") + nuc_version() + " on " + info.platform_name + ", logits on the " + place;
}
