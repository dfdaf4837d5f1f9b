#include <nucleus.hpp>

#include <cstdio>
#include <vector>

int main() {
    const std::vector<float> logits{0, 1, 3, 2}, temperature{0};
    std::vector<std::int32_t> token(1);
    nucleus::batch batch;
    batch.logits = nucleus::logits_view::f32(logits, 1, 4);
    batch.temperature = temperature;
    nucleus::sampler::create().sample(batch, token);
    std::printf("nucleus %s: token %d\n", nucleus::version(), token[0]);
    return token[0] == 2 ? 0 : 1;
}
