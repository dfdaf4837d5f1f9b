#include "model.hpp"

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace {

std::vector<pjrt::Buffer> load_weights(const pjrt::Client &client, const std::string &path,
                                       const ModelIndex &index) {
    std::ifstream file(path, std::ios::binary);
    std::vector<pjrt::Buffer> weights;
    for (const Weight &weight : index.weights) {
        std::vector<char> data(weight.bytes());
        file.seekg(static_cast<std::streamoff>(weight.offset));
        if (!file.read(data.data(), static_cast<std::streamsize>(data.size()))) {
            throw std::runtime_error("cannot read the weight " + weight.name + " from " + path);
        }
        weights.push_back(client.upload(data.data(), PJRT_Buffer_Type_F32, weight.dimensions));
    }
    return weights;
}

}  // namespace

Model::Model(const pjrt::Client &client, const std::string &directory, const ModelIndex &index)
    : client_(client),
      longest_prompt_(index.prompt),
      context_(index.context),
      decode_(client.compile(read_file(directory + "/decode.mlir"))),
      prefill_(client.compile(read_file(directory + "/prefill.mlir"))),
      weights_(load_weights(client, directory + "/weights.bin", index)) {
    std::size_t elements = 1;
    for (const std::int64_t dimension : index.cache) elements *= static_cast<std::size_t>(dimension);
    const std::vector<float> zeroes(elements);
    key_cache_ = client.upload(zeroes.data(), PJRT_Buffer_Type_F32, index.cache);
    value_cache_ = client.upload(zeroes.data(), PJRT_Buffer_Type_F32, index.cache);
    set_positions(std::vector<std::int32_t>(index.slots, -1));
}

std::vector<PJRT_Buffer *> Model::arguments(const pjrt::Buffer &tokens) const {
    std::vector<PJRT_Buffer *> arguments;
    for (const pjrt::Buffer &weight : weights_) arguments.push_back(weight.get());
    for (const pjrt::Buffer *buffer : {&key_cache_, &value_cache_, &positions_, &tokens}) {
        arguments.push_back(buffer->get());
    }
    return arguments;
}

pjrt::Buffer Model::prefill(std::size_t slot, const std::vector<std::int32_t> &prompt,
                            const pjrt::Buffer &tokens) {
    if (prompt.empty() || prompt.size() > longest_prompt_ || prompt.size() >= context_) {
        throw std::runtime_error("a prompt has " + std::to_string(prompt.size()) + " tokens; right is 1 to " +
                                 std::to_string(std::min(longest_prompt_, context_ - 1)));
    }
    // The request is one small array, so it needs only one transfer.
    std::vector<std::int32_t> request(2 + longest_prompt_, 0);
    request[0] = static_cast<std::int32_t>(slot);
    request[1] = static_cast<std::int32_t>(prompt.size());
    std::copy(prompt.begin(), prompt.end(), request.begin() + 2);
    const pjrt::Buffer uploaded = client_.upload(request);

    std::vector<PJRT_Buffer *> inputs = arguments(tokens);
    inputs.push_back(uploaded.get());
    std::vector<pjrt::Buffer> outputs = prefill_.execute(inputs, 4);
    key_cache_ = std::move(outputs[0]);
    value_cache_ = std::move(outputs[1]);
    positions_ = std::move(outputs[2]);
    return std::move(outputs[3]);
}

void Model::set_positions(const std::vector<std::int32_t> &positions) {
    positions_ = client_.upload(positions);
}

pjrt::Buffer Model::decode(const pjrt::Buffer &tokens) {
    std::vector<pjrt::Buffer> outputs = decode_.execute(arguments(tokens), 4);
    key_cache_ = std::move(outputs[0]);
    value_cache_ = std::move(outputs[1]);
    positions_ = std::move(outputs[2]);
    return std::move(outputs[3]);
}
