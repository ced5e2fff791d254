#pragma once
/// Small random models, built node by node: a decoder-only language model with grouped queries and a residual CNN.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier::test {

/// Appends nodes and random weights to a graph.
class ModelBuilder {
 public:
  ModelBuilder(std::string name, std::uint64_t seed) : random_(seed) { graph.name = std::move(name); }

  /// Adds a node with one output, named after the node, and returns the output's name.
  std::string add(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                  std::map<std::string, Attribute> attributes = {});
  /// The same with several outputs.
  std::vector<std::string> add_many(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                                    std::size_t outputs, std::map<std::string, Attribute> attributes = {});
  /// A normal random initializer around `mean`.
  std::string weight(const std::string& name, std::vector<std::int64_t> shape, double deviation, double mean = 0);
  std::string integers(const std::string& name, std::vector<std::int64_t> values);
  std::string numbers(const std::string& name, std::vector<std::int64_t> shape, std::vector<float> values);

  Graph graph;
  std::mt19937_64& random() { return random_; }

 private:
  std::mt19937_64 random_;
};

struct LanguageModelShape {
  std::int64_t hidden = 48, heads = 6, head_size = 8, vocabulary = 50, positions = 64;
  std::vector<std::int64_t> kv_heads{3, 2, 3, 2};
  std::vector<std::int64_t> widths{40, 56, 72, 64};
};
/// input_ids, attention_mask, position_ids [batch, sequence] → logits; embedding and head are tied.
Graph language_model(std::uint64_t seed, const LanguageModelShape& shape = {});
/// image [batch, 3, 16, 16] → logits [batch, 10]: residual blocks, one with a depthwise convolution, one with groups; a Concat of
/// two branches, a Split with a gate, two linear layers.
Graph residual_cnn(std::uint64_t seed);

}  // namespace espalier::test
