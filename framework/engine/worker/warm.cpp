#include "engine/worker/warm.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

namespace espalier {

void warm_up() {
  at::set_num_threads(1);
  const at::Tensor a = at::ones({8, 8});
  at::matmul(a, a);
}

void set_threads(int count) { at::set_num_threads(count); }

}  // namespace espalier
