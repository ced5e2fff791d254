#pragma once
#include <map>
#include <optional>
#include <string>

#include "graph/graph.h"

namespace espalier {

/// Rewrites a graph for inference in our own runner: products with constant matrices, and look-ups in tables that are not plain
/// f32, become `espalier::PackedMatMul` and `espalier::PackedGather` (run/ops/packed.cpp). Their weights keep the form in which
/// they are stored: f16 and bf16 behind a Cast, INT8 and INT4 behind a DequantizeLinear by channel, by block or by tensor. What
/// does not fit (other axes, other types) stays as it is. Rounded weights (graph/rounded_weights.h) are frozen first. The result
/// computes the same up to the order of f32 sums; it has no gradients and is no ONNX file.
class Prepack {
 public:
  Graph apply(const Graph& graph);

 private:
  struct Form {
    std::map<std::string, Attribute> attributes;
    std::map<std::size_t, std::pair<std::string, Tensor>> inputs;  ///< by slot: rows, scale, zero
  };
  struct Source;
  const Form* form(const Source& source);
  static Form make(const Source& source);
  static std::optional<Source> source(const Graph& graph, const Uses& uses, std::string value, bool rows_stored);

  std::map<std::string, std::optional<Form>> forms_;  ///< two graphs of one model share their weights
};

}  // namespace espalier
