#pragma once
#include <cstdint>
#include <filesystem>

#include "graph/tensor_store.h"

namespace espalier {

/// A store for tensors of models that may be larger than memory: the first `in_memory` bytes stay as they are, what comes after
/// goes into files of `folder` that have lost their names, and is mapped from there. Throws Error(resource) naming the folder where
/// that cannot be written.
TensorStore spill_into(const std::filesystem::path& folder, std::uint64_t in_memory = std::uint64_t{512} << 20);

}  // namespace espalier
