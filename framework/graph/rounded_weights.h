#pragma once
/// Weights that are trained as numbers and computed with as codes (quantization-aware training: Jacob et al., "Quantization and
/// Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018): a float32 initializer behind a
/// QuantizeLinear and a DequantizeLinear that share a constant scale. Freezing one stores the codes in its place.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

struct RoundedWeight {
  std::string weight;                ///< the initializer
  std::string value;                 ///< what readers meet: the DequantizeLinear's output
  std::size_t quantize, dequantize;  ///< nodes, indices into graph.nodes
};

/// The pair that makes `value` from an initializer: constant scale and zero point of equal bytes on both nodes, equal axis and
/// block, i8, u8, i4 or u4 codes, which nothing else reads.
std::optional<RoundedWeight> rounded_weight(const Graph& graph, const Uses& uses, const std::string& value);
/// All of them, in the order of their DequantizeLinear.
std::vector<RoundedWeight> rounded_weights(const Graph& graph);

/// What freezing did to one weight.
struct FrozenWeight {
  std::string weight;
  int bits = 0;
  std::int64_t block = 0;   ///< weights that share a scale along one axis; 0: no blocks
  std::int64_t count = 0;   ///< elements
  std::uint64_t bytes = 0;  ///< codes, scales and zero points
  double squared_error = 0, squared = 0;
};
/// Stores every rounded weight as the codes that QuantizeLinear gives (in f32, half to even, saturated) under NAME.q, with the
/// scales it has; the DequantizeLinear makes NAME from then on. The graph computes what it did. A weight that something reads
/// beside the pair stays, too. Throws Error(invalid_input) naming a weight or scale that is not finite.
std::vector<FrozenWeight> freeze_rounded_weights(Graph& graph);

}  // namespace espalier
