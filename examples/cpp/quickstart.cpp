// Samples two rows of four logits. The first row is sampled, the second is greedy.
#include <nucleus.hpp>

#include <cstdio>
#include <vector>

int main() {
    const std::vector<float> logits{0.1f, 2.0f, -1.0f, 1.9f, 5.0f, 0.0f, 4.0f, 0.0f};
    const std::vector<float> top_p{0.95f, 1.0f}, temperature{0.7f, 0.0f};
    const std::vector<std::int32_t> top_k{3, 0};
    const std::vector<std::uint64_t> seed{1, 2}, step{0, 0};
    std::vector<std::int32_t> tokens(2);

    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(logits, 2, 4);
    batch.top_k = top_k;
    batch.top_p = top_p;
    batch.temperature = temperature;
    batch.seed = seed;
    batch.offset = step;
    try {
        const nucleus::sampler sampler = nucleus::sampler::create();
        sampler.sample(batch, tokens);
    } catch (const nucleus::error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    std::printf("%d %d\n", tokens[0], tokens[1]);
    return 0;
}
