// The language model on the device: its weights, its caches, and its two programs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "exported.hpp"
#include "pjrt.hpp"

class Model {
public:
    // Compiles the programs and copies the weights to the device. `client` must outlive the model.
    Model(const pjrt::Client &client, const std::string &directory, const ModelIndex &index);

    // Starts to fill a slot with a prompt. Returns the input tokens of all slots: `tokens`, but with the last token of
    // the prompt in this slot.
    pjrt::Buffer prefill(std::size_t slot, const std::vector<std::int32_t> &prompt,
                         const pjrt::Buffer &tokens);

    // Sets the position of every slot; -1 frees a slot.
    void set_positions(const std::vector<std::int32_t> &positions);

    // Starts one step of all slots, and returns their logits [slots, vocab]. They stay on the device.
    pjrt::Buffer decode(const pjrt::Buffer &tokens);

private:
    std::vector<PJRT_Buffer *> arguments(const pjrt::Buffer &tokens) const;

    const pjrt::Client &client_;
    std::size_t longest_prompt_, context_;
    pjrt::Executable decode_, prefill_;
    std::vector<pjrt::Buffer> weights_;
    pjrt::Buffer key_cache_, value_cache_;  // both programs donate them
    pjrt::Buffer positions_;
};
