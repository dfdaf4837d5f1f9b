// Counts the bytes that cross between the host and the device.
#pragma once

#include <xla/pjrt/c/pjrt_c_api.h>

#include <cstdint>

namespace pjrt {

struct Traffic {
    std::uint64_t to_device = 0, to_host = 0;  // bytes
    std::uint64_t largest = 0;                 // the largest single transfer, bytes

    Traffic &operator+=(const Traffic &other);
};

// Returns a copy of the plugin's function table. In this copy, the functions that copy between host and device count
// their bytes. The copy ends with the last function of our header. So its users cannot call newer functions, whose
// bytes would not be counted. A process can count the bytes of one plugin. The table is valid until the process ends.
const PJRT_Api *counting_table(const PJRT_Api *plugin);

// Returns the counts since the last call of this function.
Traffic take_traffic();

}  // namespace pjrt
