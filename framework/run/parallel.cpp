#include "run/parallel.h"

#include <ATen/Parallel.h>

#ifndef INTRA_OP_PARALLEL
#error "this file must be compiled for OpenMP: without it at::parallel_for runs on one thread"
#endif

namespace espalier {

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  const std::function<void(std::int64_t from, std::int64_t to)>& body) {
  at::parallel_for(begin, end, grain, body);
}

}  // namespace espalier
