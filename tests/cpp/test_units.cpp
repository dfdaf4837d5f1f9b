// A program of two files. This file has exceptions and is compiled for C++17. unit_results.cpp has no exceptions and is
// compiled for C++20. Both instantiate the same functions of nucleus.hpp.
#include "check.hpp"
#include "unit.hpp"

#include <string>
#include <vector>

int main() {
    nucleus::sampler_options options;
    options.backend = nucleus::backend::builtin;
    const nucleus::sampler sampler = make_sampler(options).value();
    const std::vector<float> logits{0, 1, 5, 2};
    std::vector<std::int32_t> token(1, 77), two(2);
    sample_row(sampler, logits, token).value();
    CHECK(token[0] == 2);
    std::string message;
    try {
        sample_row(sampler, logits, two).value();
    } catch (const nucleus::error &error) {
        message = error.what();
    }
    CHECK(message == "tokens has 2 elements; the shape of the call needs 1");
    CHECK(check_results() == 0);
    CHECK(nucleus::sampler::try_create().has_value());
    return report();
}
