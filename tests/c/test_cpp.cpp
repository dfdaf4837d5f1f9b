// The header in C++17: it compiles, its structs are plain data, and a unique_ptr can own a handle.
#include <nucleus.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <type_traits>
#include <vector>

static_assert(std::is_standard_layout_v<nuc_batch> && std::is_trivial_v<nuc_batch>);
static_assert(std::is_standard_layout_v<nuc_debug_arrays> && std::is_trivial_v<nuc_debug_arrays>);
static_assert(std::is_standard_layout_v<nuc_sampler_options> && std::is_trivial_v<nuc_sampler_options>);
static_assert(std::is_same_v<decltype(&nuc_version), const char *(*)()>);

int main(int argc, char **argv) {
    nuc_error error = NUC_ERROR_INIT;
    nuc_sampler_options options = NUC_SAMPLER_OPTIONS_INIT;
    nuc_sampler *made = nullptr;
    options.backend = argc > 1 ? NUC_BACKEND_PJRT : NUC_BACKEND_BUILTIN;
    options.plugin_path = argc > 1 ? argv[1] : nullptr;
    if (nuc_sampler_create(&options, &made, &error) != NUC_OK) {
        std::fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    const auto destroy = [](nuc_sampler *sampler) { nuc_sampler_destroy(sampler, nullptr); };
    const std::unique_ptr<nuc_sampler, decltype(destroy)> sampler(made, destroy);

    const std::vector<float> logits{0, 5, 1, 7, 2, 3};
    const std::vector<float> temperature{0, 0};
    std::vector<std::int32_t> tokens(2, 77);
    nuc_batch batch = NUC_BATCH_INIT;
    batch.logits = logits.data();
    batch.dtype = NUC_DTYPE_F32;
    batch.num_rows = 2;
    batch.vocab = 3;
    batch.temperature = temperature.data();
    const nuc_status status =
        nuc_topk_topp_and_sample(sampler.get(), &batch, nullptr, tokens.data(), nullptr, nullptr, &error);
    const bool right = status == NUC_OK && tokens == std::vector<std::int32_t>{1, 0};
    std::printf("1 checks, %d failed\n", right ? 0 : 1);
    return right ? 0 : 1;
}
