#pragma once
/// Loops over LibTorch's threads.
#include <cstdint>
#include <functional>

namespace espalier {

/// Calls `body(from, to)` for pieces that make up [begin, end), one for each of LibTorch's threads (at::set_num_threads) but of
/// `grain` or more; all of it at once, by the caller, where there is only one piece or the caller is such a thread itself. Returns
/// when all are done; an exception of one is thrown then. ATen's own at::parallel_for is a template that silently does without
/// threads in files which are not compiled for OpenMP; this one is compiled once, and is.
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  const std::function<void(std::int64_t from, std::int64_t to)>& body);

}  // namespace espalier
