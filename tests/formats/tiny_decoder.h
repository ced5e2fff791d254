#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/decoder.h"

namespace tests {

/// Weights from a fixed sequence for whatever a decoder asks for.
class AnyWeights final : public espalier::DecoderWeights {
 public:
  void plain(const std::string& name, const std::vector<std::int64_t>& shape, double add) override { make(name, shape, add); }
  void linear(const std::string& name, const std::string&, std::int64_t in, std::int64_t out, std::int64_t, std::int64_t,
              std::int64_t) override {
    make(name, {in, out}, 0);
  }
  std::map<std::string, espalier::Tensor> made;

 private:
  void make(const std::string& name, const std::vector<std::int64_t>& shape, double add) {
    std::int64_t count = 1;
    for (const std::int64_t length : shape) count *= length;
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i)
      values.push_back(static_cast<float>(add + 0.3 * std::sin(1.7 * static_cast<double>(next_++))));
    made[name] = espalier::Tensor::of<float>(espalier::DType::f32, shape, values);
  }
  std::int64_t next_ = 1;
};

/// Two layers: hidden 16, 4 heads over 2 key and value heads of 8, feed-forward 24, 64 positions, 40 tokens.
inline espalier::DecoderShape tiny_shape() {
  espalier::DecoderShape shape;
  shape.layers = 2;
  shape.hidden = 16;
  shape.feed_forward = 24;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.head_size = shape.rotary_size = 8;
  shape.positions = 64;
  shape.vocabulary = 40;
  shape.epsilon = 1e-5;
  return shape;
}

inline espalier::Graph tiny_decoder(const espalier::DecoderShape& shape) {
  AnyWeights weights;
  espalier::Graph graph = espalier::build_decoder(shape, weights, "test");
  graph.initializers.merge(weights.made);
  graph.metadata["espalier.task"] = "causal-lm";
  graph.sort();
  graph.validate();
  return graph;
}

}  // namespace tests
