// Compares nucleus with the samplers of llama.cpp on the same logits.
#pragma once

#include "samplers.hpp"

inline const Settings greedy = {0, 1, 0, 0, 1};
inline const Settings settings_of_table[] = {
    {40, 1, 0, 1, 1},                  // top-k
    {40, 0.95f, 0.05f, 0.8f, 1},       // the defaults of llama.cpp's programs
    {0, 0.95f, 0, 1, 1},               // top-p
    {0, 1, 0.05f, 1, 1},               // min-p
    {0, 1, 0, 0.8f, 1},                // a plain draw
    greedy,
};

inline int32_t vocab_of(const Rows &rows) { return static_cast<int32_t>(rows[0].size()); }

// Compares the tokens that the filters of both samplers keep with those of the same filters in f64, and the greedy
// tokens of both samplers. Prints one line per setting. Throws an exception if a greedy token differs, or if kept
// tokens differ in too many rows.
void compare_choices(const Rows &rows);

// Checks that the adapter chooses the same tokens again after a reset, in a clone, and after a filter of llama.cpp
// that changes the order of the candidates. Throws an exception if a token differs.
void check_adapter(const Rows &rows);

// Measures the time of each sampler per token, for several settings. Prints one line per setting.
void compare_times(const Rows &rows);
