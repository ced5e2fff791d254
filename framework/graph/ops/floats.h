#pragma once
#include "graph/graph.h"

namespace espalier::ops {

/// The elements times `factor`, computed in f64, in the same type (f32, f64, f16, bf16; rounded to nearest even).
Tensor scaled(const Tensor& tensor, double factor);

}  // namespace espalier::ops
