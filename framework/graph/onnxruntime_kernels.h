#pragma once
#include <cstdint>
#include <string>

#include "graph/graph.h"

namespace espalier {

/// What a rewrite for ONNX Runtime did, and what it left alone.
struct OnnxRuntimeRewrite {
  std::int64_t attention = 0;   ///< Attention with a past → GroupQueryAttention, whose cache may grow in place
  std::int64_t norms = 0;       ///< Add and RMSNormalization → SkipSimplifiedLayerNormalization
  std::int64_t silu = 0;        ///< x · Sigmoid(x) → QuickGelu with alpha 1
  std::int64_t products = 0;    ///< MatMul with an 8-bit weight → MatMulNBits
  std::int64_t embeddings = 0;  ///< Gather from an 8-bit table → GatherBlockQuantized
  bool shared_cache = false;    ///< every cached attention was rewritten: past and present may be one buffer
};

/// Writes a graph with the operators of domain com.microsoft that ONNX Runtime's CPU kernels are fast at; everything else stays.
/// GroupQueryAttention takes its lengths from attention_mask and knows no padding in front: batch 1, the mask all ones. An
/// attention whose mask is more than causal, or which has a softcap, stays as it is. `int8_activations`: the products with 8-bit
/// weights round their activations to 8 bits in blocks of 64 (faster, slightly inexact). Throws Error(unsupported) naming an
/// Attention whose query heads are no multiple of its KV heads, for which ONNX Runtime has no kernel.
OnnxRuntimeRewrite use_onnxruntime_kernels(Graph& graph, bool int8_activations);

}  // namespace espalier
