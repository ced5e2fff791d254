#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// A TorchScript archive (torch.jit.save) as a graph. `inputs` say types and shapes of the model's inputs, one line each ("x:
/// f32[batch,3,32,32]"), where the file does not or says other lengths. Throws Error(unsupported) naming the first operator that
/// is not read, Error(invalid_input) for what is no such archive.
Graph read_torchscript(const std::filesystem::path& file, const std::vector<std::string>& inputs = {});

}  // namespace espalier
