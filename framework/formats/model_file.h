#pragma once
#include <filesystem>
#include <string>

#include "graph/graph.h"

namespace espalier {

/// A model from a file of any format that is read: .onnx, .gguf, or a folder with a model.onnx (an exported model, a package).
/// `format` gets "onnx" or "gguf". Throws Error(invalid_input) for what is none of them.
Graph read_model_file(const std::filesystem::path& path, std::string* format = nullptr);

}  // namespace espalier
