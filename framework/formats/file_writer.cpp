#include "formats/file_writer.h"

#include <algorithm>
#include <vector>

namespace espalier {
namespace {

std::vector<FileWriter>& registry() {
  static std::vector<FileWriter> writers;
  return writers;
}

}  // namespace

RegisterFileWriter::RegisterFileWriter(FileWriter writer) { registry().push_back(std::move(writer)); }

const FileWriter* find_file_writer(std::string_view format) {
  const auto& all = registry();
  const auto found = std::find_if(all.begin(), all.end(), [format](const FileWriter& one) { return one.format == format; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace espalier
