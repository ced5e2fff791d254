#pragma once
#include <optional>
#include <string>

#include "run/op.h"

namespace espalier::ops {

/// The type that the graph declares for a value: floating values are all computed in one type, which does not tell. Nothing for
/// what a node makes.
inline std::optional<DType> declared_type(const RunView& v, const std::string& name) {
  if (const Tensor* tensor = v.graph.initializer(name)) return tensor->dtype;
  for (const Value& input : v.graph.inputs)
    if (input.name == name && input.dtype != DType::undefined) return input.dtype;
  return std::nullopt;
}

}  // namespace espalier::ops
