// A program outside the tree of nucleus that uses the C++ header.
#include <nucleus.hpp>

#include <cstdio>
#include <vector>

int main() {
    const std::vector<float> logits{0, 1, 3, 2, 9, 1, 3, 2}, temperature{0, 0};
    std::vector<std::int32_t> tokens(2, -7);
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(logits, 2, 4);
    batch.temperature = temperature;
    nucleus::sampler_options options;
    options.backend = nucleus::backend::builtin;
    try {
        nucleus::sampler::create(options).sample(batch, tokens);
    } catch (const nucleus::error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    std::printf("C++: version %s, tokens %d %d\n", nucleus::version(), tokens[0], tokens[1]);
    return nucleus::version_number() == NUC_VERSION && tokens == std::vector<std::int32_t>{2, 0} ? 0 : 1;
}
