#pragma once
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "store/store.h"

/// A folder that goes with the test.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "espalier-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    ::chmod(name.c_str(), 0755);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

inline std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span<const char>(text)); }

/// A data set artifact of one blob, and an entry that has it as its output "out".
inline espalier::ActionEntry entry_of(espalier::Store& store, const std::string& text) {
  espalier::Artifact artifact;
  artifact.type = espalier::ArtifactType::dataset;
  artifact.blobs["data"] = store.put(bytes_of(text));
  espalier::ActionEntry entry;
  entry.stage = "stage";
  entry.use = "test/work";
  entry.outputs["out"] = {espalier::ArtifactType::dataset, store.put_artifact(artifact)};
  entry.figures["size_bytes"] = static_cast<double>(text.size());
  return entry;
}
