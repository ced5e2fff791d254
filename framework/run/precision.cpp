#include "run/precision.h"

#include <set>
#include <string>

namespace espalier {

Operands operands_of(const Node& node) {
  static const std::set<std::string, std::less<>> products = {"MatMul", "Gemm", "Conv", "Attention"};
  // Rounding once more costs these nothing that matters; whatever is not listed is computed wide.
  static const std::set<std::string, std::less<>> any = {
      "Add",    "Sub",      "Mul",       "Neg",     "Relu",    "LeakyRelu", "Sigmoid",   "Swish",          "Tanh",
      "Gelu",   "Identity", "Reshape",   "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice",          "Split",
      "Concat", "Expand",   "HardSwish", "MaxPool", "Clip",    "Pad",       "Shape",     "RotaryEmbedding"};
  if (!node.domain.empty()) return Operands::wide;
  if (products.contains(node.op)) return Operands::narrow;
  return any.contains(node.op) ? Operands::any : Operands::wide;
}

bool has_bf16_kernels() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return true;
#endif
}

}  // namespace espalier
