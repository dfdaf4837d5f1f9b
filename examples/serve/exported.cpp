#include "exported.hpp"

#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

std::size_t Weight::bytes() const {
    std::size_t bytes = sizeof(float);
    for (const std::int64_t dimension : dimensions) bytes *= static_cast<std::size_t>(dimension);
    return bytes;
}

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot open " + path + "; run make demo-llm to export the model");
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) throw std::runtime_error("cannot read " + path);
    return text;
}

ModelIndex::ModelIndex(const std::string &directory) {
    const std::string path = directory + "/model.txt";
    std::istringstream file(read_file(path));
    const auto wrong = [&](const std::string &line) {
        throw std::runtime_error(path + ": wrong line: " + line);
    };
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string key;
        words >> key;
        if (key == "slots") words >> slots;
        else if (key == "context") words >> context;
        else if (key == "prompt") words >> prompt;
        else if (key == "vocab") words >> vocab;
        else if (key == "stop") words >> stop;
        else if (key == "cache") {
            for (std::int64_t dimension; words >> dimension;) cache.push_back(dimension);
        } else if (key == "weight") {
            Weight weight;
            std::string type;
            if (!(words >> weight.name >> type >> weight.offset) || type != "f32") wrong(line);
            for (std::int64_t dimension; words >> dimension;) weight.dimensions.push_back(dimension);
            weights.push_back(weight);
        } else {
            wrong(line);
        }
        if (words.fail() && !words.eof()) wrong(line);
    }
    const bool has_sizes = slots != 0 && context != 0 && prompt != 0 && vocab != 0 && stop >= 0;
    if (!has_sizes || cache.empty() || weights.empty()) {
        throw std::runtime_error(path + " is incomplete");
    }
}

Vocabulary::Vocabulary(const std::string &directory, std::size_t size)
    : file_(read_file(directory + "/vocabulary.bin")), offsets_(size + 1) {
    const std::size_t start = offsets_.size() * sizeof offsets_[0];
    if (file_.size() < start) throw std::runtime_error(directory + "/vocabulary.bin is too short");
    std::memcpy(offsets_.data(), file_.data(), start);
    file_.erase(0, start);
    for (std::size_t i = 0; i < size; i++) {
        if (offsets_[i] > offsets_[i + 1] || offsets_[i + 1] > file_.size()) {
            throw std::runtime_error(directory + "/vocabulary.bin has a wrong offset");
        }
    }
}

std::string_view Vocabulary::bytes(std::int32_t token) const {
    const auto index = static_cast<std::size_t>(token);
    if (token < 0 || index + 1 >= offsets_.size()) {
        throw std::runtime_error("token " + std::to_string(token) + " is not in the vocabulary");
    }
    return std::string_view(file_).substr(offsets_[index], offsets_[index + 1] - offsets_[index]);
}

std::vector<Prompt> read_prompts(const std::string &directory) {
    std::istringstream file(read_file(directory + "/prompts.txt"));
    std::vector<Prompt> prompts;
    for (std::string line; std::getline(file, line);) {
        Prompt prompt;
        const std::size_t tab = line.find('\t');
        prompt.text = line.substr(0, tab);
        std::istringstream words(tab == std::string::npos ? "" : line.substr(tab));
        for (std::int32_t token; words >> token;) prompt.tokens.push_back(token);
        if (prompt.tokens.empty()) throw std::runtime_error(directory + "/prompts.txt: wrong line: " + line);
        prompts.push_back(prompt);
    }
    if (prompts.empty()) throw std::runtime_error(directory + "/prompts.txt has no prompt");
    return prompts;
}
