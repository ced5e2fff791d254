#pragma once
/// Formats whose writers stand in a library that this one does not know: they enter themselves.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace espalier {

struct FileWriter {
  std::string format;  ///< "torchscript"
  std::string said;    ///< how people name it: "TorchScript"
  /// `progress` (may be empty) is called with the bytes so far and about how many there will be; what it throws ends the writing.
  void (*write)(const Graph& graph, const std::filesystem::path& file,
                const std::function<void(std::uint64_t done, std::uint64_t all)>& progress);
};

/// Used through a file-static object in the writer's file.
struct RegisterFileWriter {
  explicit RegisterFileWriter(FileWriter writer);
};

/// nullptr where no loaded library has one for the format.
const FileWriter* find_file_writer(std::string_view format);

}  // namespace espalier
