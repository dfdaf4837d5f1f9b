#include "traffic.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>

namespace pjrt {
namespace {

const PJRT_Api *counted_plugin = nullptr;
PJRT_Api table;
std::mutex lock;
Traffic traffic;

void count(std::uint64_t Traffic::*direction, std::uint64_t bytes) {
    const std::lock_guard<std::mutex> guard(lock);
    traffic.*direction += bytes;
    traffic.largest = std::max(traffic.largest, bytes);
}

std::uint64_t bytes_per_element(PJRT_Buffer_Type type) {
    switch (type) {
        case PJRT_Buffer_Type_S16:
        case PJRT_Buffer_Type_U16:
        case PJRT_Buffer_Type_F16:
        case PJRT_Buffer_Type_BF16: return 2;
        case PJRT_Buffer_Type_S32:
        case PJRT_Buffer_Type_U32:
        case PJRT_Buffer_Type_F32: return 4;
        case PJRT_Buffer_Type_S64:
        case PJRT_Buffer_Type_U64:
        case PJRT_Buffer_Type_F64:
        case PJRT_Buffer_Type_C64: return 8;
        case PJRT_Buffer_Type_C128: return 16;
        default: return 1;
    }
}

PJRT_Error *buffer_from_host(PJRT_Client_BufferFromHostBuffer_Args *args) {
    std::uint64_t bytes = bytes_per_element(args->type);
    for (std::size_t i = 0; i < args->num_dims; i++) bytes *= static_cast<std::uint64_t>(args->dims[i]);
    count(&Traffic::to_device, bytes);
    return counted_plugin->PJRT_Client_BufferFromHostBuffer(args);
}

PJRT_Error *buffer_to_host(PJRT_Buffer_ToHostBuffer_Args *args) {
    // Without a destination the function only returns the size.
    if (args->dst != nullptr) count(&Traffic::to_host, args->dst_size);
    return counted_plugin->PJRT_Buffer_ToHostBuffer(args);
}

}  // namespace

Traffic &Traffic::operator+=(const Traffic &other) {
    to_device += other.to_device;
    to_host += other.to_host;
    largest = std::max(largest, other.largest);
    return *this;
}

const PJRT_Api *counting_table(const PJRT_Api *plugin) {
    if (counted_plugin != nullptr) {
        throw std::runtime_error("a process can count the transfers of one plugin only");
    }
    if (plugin->struct_size < sizeof table) {
        throw std::runtime_error("the plugin is older than version 0.54 of the PJRT C API");
    }
    std::memcpy(&table, plugin, sizeof table);
    table.struct_size = sizeof table;
    table.PJRT_Client_BufferFromHostBuffer = buffer_from_host;
    table.PJRT_Buffer_ToHostBuffer = buffer_to_host;
    counted_plugin = plugin;
    return &table;
}

Traffic take_traffic() {
    const std::lock_guard<std::mutex> guard(lock);
    const Traffic taken = traffic;
    traffic = Traffic{};
    return taken;
}

}  // namespace pjrt
