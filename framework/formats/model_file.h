#pragma once
#include <filesystem>
#include <string>

#include "formats/imported_model.h"
#include "graph/tensor_store.h"

namespace espalier {

/// A model from a file of any format that is read: .onnx, .gguf, a folder with a model.onnx (an exported model, a package), a
/// Hugging Face directory, or what a linked library reads (model_reader.h: TorchScript where LibTorch is). `format` gets "onnx",
/// "gguf", "huggingface" or the reader's name. Throws Error(invalid_input) for what is none of them.
/// `store`: see below.
Graph read_model_file(const std::filesystem::path& path, std::string* format = nullptr, const TensorStore& store = {});

/// The same with its tokenizer: from within the format, or for ONNX a tokenizer.json beside the file; none where there is none.
/// `store` gets the weights that a reader has to make anew, one after the other; with shapes_only() it makes none.
ImportedModel read_model_and_tokenizer(const std::filesystem::path& path, std::string* format = nullptr,
                                       const TensorStore& store = {});

}  // namespace espalier
