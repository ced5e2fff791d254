#pragma once
/// Adapters: a few trainable numbers beside a frozen weight, as ordinary nodes of the graph, that can be merged into the weight
/// when they are trained, so that the model keeps its shape and its speed.
#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// A weight that an adapter may stand beside: a 32-bit matrix that one MatMul or Gemm reads as its second operand, directly or
/// through a Transpose, or through the pair that rounds it for training (graph/rounded_weights.h).
struct AdapterSite {
  std::string weight;
  std::size_t node;     ///< the product, index into graph.nodes
  bool turned = false;  ///< the weight is stored [outputs, inputs]
  std::int64_t inputs, outputs;
  std::ptrdiff_t quantize = -1;  ///< the QuantizeLinear that rounds it, index into graph.nodes; -1: none
};
/// All sites, in node order. What is tied (read twice), stored in 16 bits or as integers is none: it could not be merged exactly.
std::vector<AdapterSite> adapter_sites(const Graph& graph);

/// One adapter in an adapted graph. Names are initializers.
struct Adapter {
  AdapterSite site;
  std::string down, up;  ///< LoRA: A [inputs, rank] and B [rank, outputs]
  std::string change;    ///< (IA)³: δ [outputs]; outputs are scaled by 1 + δ
  double scale = 1;      ///< LoRA: alpha / rank
};
struct Adapted {
  Graph graph;
  std::vector<Adapter> adapters;
  /// The initializers that are to be trained.
  std::vector<std::string> trainable() const;
};

/// LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021): x·W becomes x·W + alpha/rank · (x·A)·B. A is
/// normal with variance 1/inputs, from `seed` and the weight's name; B is zero, so nothing changes at first. Throws
/// Error(invalid_input) for a rank below 1 or above what a matrix has. A weight that is rounded for training becomes
/// W + alpha/rank · A·B before it is rounded, so that what is merged is rounded as what was trained; (IA)³ likewise.
Adapted add_lora(const Graph& graph, const std::vector<AdapterSite>& sites, std::int64_t rank, double alpha, std::uint64_t seed);

/// (IA)³ (Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", 2022): x·W becomes
/// (x·W)·(1 + δ), a learned factor for each output channel, before a bias is added; δ is zero at first.
Adapted add_ia3(const Graph& graph, const std::vector<AdapterSite>& sites);

/// `base` with the adapters' weights merged: W + alpha/rank · A·B, or W·diag(1 + δ). `trained` is an adapted graph after training.
/// Other tensors are base's own. Computed in double precision and rounded once.
Graph merge_adapters(const Graph& base, const Graph& trained, const std::vector<Adapter>& adapters);

}  // namespace espalier
