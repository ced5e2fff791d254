#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

/// Reads safetensors (https://github.com/huggingface/safetensors): header bounds-checked, bytes shared with `owner`.
std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                                const std::string& where, std::map<std::string, std::string>* metadata = nullptr);
/// One tensor of a file that is written piece by piece.
struct SafetensorsEntry {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
};
/// What stands before the data: the header of tensors that follow one another in this order, without holes.
std::vector<std::byte> safetensors_header(const std::vector<SafetensorsEntry>& entries,
                                          const std::map<std::string, std::string>& metadata = {});
/// Byte-stable: tensors by name, data 8-byte aligned.
std::vector<std::byte> write_safetensors(const std::map<std::string, Tensor>& tensors,
                                         const std::map<std::string, std::string>& metadata = {});

}  // namespace espalier
