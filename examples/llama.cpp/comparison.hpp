// Compares the two samplers on the same logits.
#pragma once

#include "samplers.hpp"

// Compares the tokens that the filters of both samplers keep with those of the same filters in f64, and the greedy tokens
// of both samplers. Prints one line per setting. Throws an exception if a greedy token differs, or if kept tokens differ
// in too many rows.
void compare_choices(const Rows &rows);

// Checks that the adapter chooses the same tokens again after a reset, in a clone, and after a filter of llama.cpp that
// changes the order of the candidates. Throws an exception if a token differs.
void check_adapter(const Rows &rows);

// Measures the time of each sampler per token, for several settings. Prints one line per setting.
void compare_times(const Rows &rows);
