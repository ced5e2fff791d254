#pragma once
#include <vector>

namespace espalier {

/// What the programs that handle tensors get of this one's environment, ending in nullptr. It is no input to a stage: what would
/// change kernels or thread counts behind the key's back is left out. Their malloc keeps freed memory, in large pages, unless the
/// user told it something else.
std::vector<char*> worker_environment();

}  // namespace espalier
