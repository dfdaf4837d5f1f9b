// The files that export.py writes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct Weight {
    std::string name;
    std::uint64_t offset = 0;  // in weights.bin
    std::vector<std::int64_t> dimensions;

    std::size_t bytes() const;
};

struct Prompt {
    std::string text;
    std::vector<std::int32_t> tokens;
};

// model.txt: the shapes and the list of weights.
struct ModelIndex {
    std::size_t slots = 0, context = 0, prompt = 0, vocab = 0;
    std::int32_t stop = -1;           // the token that ends an answer
    std::vector<std::int64_t> cache;  // the dimensions of each cache
    std::vector<Weight> weights;      // in the order of the programs' arguments

    explicit ModelIndex(const std::string &directory);
};

// The bytes of every token.
class Vocabulary {
public:
    Vocabulary(const std::string &directory, std::size_t size);

    std::string_view bytes(std::int32_t token) const;

private:
    std::string file_;
    std::vector<std::uint32_t> offsets_;
};

std::string read_file(const std::string &path);
std::vector<Prompt> read_prompts(const std::string &directory);
