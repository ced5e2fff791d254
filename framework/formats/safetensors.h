#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "graph/graph.h"

namespace espalier {

/// Reads safetensors (https://github.com/huggingface/safetensors): header bounds-checked, bytes shared with `owner`.
std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                                const std::string& where, std::map<std::string, std::string>* metadata = nullptr);
/// Byte-stable: tensors by name, data 8-byte aligned.
std::vector<std::byte> write_safetensors(const std::map<std::string, Tensor>& tensors,
                                         const std::map<std::string, std::string>& metadata = {});

}  // namespace espalier
