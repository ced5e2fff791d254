#pragma once
#include <filesystem>

namespace espalier::test {

/// Writes into `folder`: model.onnx (a two-layer causal language model with grouped-query attention, random weights from a fixed
/// seed), tokenizer.json (one token per byte) and train.txt, test.txt (a small language with rules that such a model can learn).
void write_tiny_model(const std::filesystem::path& folder);

}  // namespace espalier::test
