#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "graph/graph.h"

namespace espalier {

/// Finds the bytes of one external tensor: (location, offset, length, tensor name) → bytes and owner. Must throw
/// Error(invalid_input) for a location that is absolute, leaves the folder, or a range outside the file.
struct ExternalBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};
using ExternalResolver = std::function<ExternalBytes(const std::string& location, std::uint64_t offset, std::uint64_t length,
                                                     const std::string& tensor)>;

/// Reads a .onnx file; tensor bytes are mapped, not copied (inline ones from the file itself, external ones from files in its
/// folder). Nothing is rewritten beyond: Constant nodes become initializers, nodes are sorted, absent names are given. Hostile
/// input: every length is checked against the file. Throws Error(invalid_input) with file and node or tensor; Error(unsupported) by
/// name.
Graph read_onnx(const std::filesystem::path& file);
Graph parse_onnx(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const ExternalResolver& external,
                 const std::string& where);

struct OnnxWriteOptions {
  std::uint64_t inline_below = 1024;     ///< initializers smaller than this stay inside the .onnx file
  std::string data_name = "model.data";  ///< page-aligned external data beside it
  /// Called while the external data is written, with its bytes so far and in all; what it throws ends the writing.
  std::function<void(std::uint64_t done, std::uint64_t all)> progress = {};
};
/// Writes FILE and, where needed, one page-aligned external data file beside it. Byte-stable: the same graph gives the same bytes.
/// Works past 2 GB. Written aside and renamed; nothing half-written stays.
void write_onnx(const Graph& graph, const std::filesystem::path& file, const OnnxWriteOptions& options = {});
/// The ModelProto with initializers of `inline_below` bytes and more left out to `location(name)` (external data, offset 0).
std::string serialize_onnx(const Graph& graph, std::uint64_t inline_below,
                           const std::function<std::string(const std::string&)>& location);

}  // namespace espalier
