// Turns statuses of nucleus into exceptions.
#pragma once

#include <nucleus.h>

#include <stdexcept>
#include <string>

inline void check(nuc_status status, const nuc_error &error) {
    if (status != NUC_OK) {
        throw std::runtime_error(std::string(nuc_status_string(status)) + ": " + error.message);
    }
}
