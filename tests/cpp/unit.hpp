// Two files of one program that include nucleus.hpp with different options; see tests/cpp/run.sh. Objects pass between
// them.
#ifndef UNIT_HPP
#define UNIT_HPP

#include <nucleus.hpp>

// unit_results.cpp is compiled for C++20 without exceptions.
nucleus::result<nucleus::sampler> make_sampler(const nucleus::sampler_options &options);
nucleus::result<void> sample_row(const nucleus::sampler &sampler, nucleus::span<const float> logits,
                                 nucleus::span<std::int32_t> token);
// Checks results and empty handles. Returns the number of failures.
int check_results();

#endif
