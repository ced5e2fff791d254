#pragma once
#include <cstdio>
#include <filesystem>
#include <string>

#include "sdk/context.h"
#include "sdk/error.h"

namespace espalier::test {

/// Blobs in memory; nothing else of a stage.
class MemoryContext final : public Context {
 public:
  const Params& params() const override { return params_; }
  const Artifact& input(std::string_view) const override { throw Error(ErrorCode::internal, "no inputs"); }
  bool has_input(std::string_view) const override { return false; }
  std::vector<Artifact> inputs(std::string_view) const override { return {}; }
  MappedFile map(const BlobRef& blob) const override { return MappedFile(path(blob)); }
  std::filesystem::path path(const BlobRef& blob) const override { return folder_ / blob.digest.hex(); }
  std::uint64_t seed() const override { return 0; }
  int threads() const override { return 1; }
  const std::string& device() const override { return device_; }
  BlobRef put(std::span<const std::byte> bytes) override {
    const BlobRef blob{sha256(bytes), bytes.size()};
    std::FILE* file = std::fopen(path(blob).c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    return blob;
  }
  BlobRef put(std::span<const std::byte> bytes, const Digest&) override { return put(bytes); }
  BlobRef put_file(const std::filesystem::path&) override { return {}; }
  void output(std::string_view, Artifact) override {}
  void figure(std::string_view, double) override {}
  void detail(std::string_view, Json) override {}
  void log(LogLevel, std::string_view) override {}
  void progress(const Progress&) override {}
  void check_cancelled() const override {}
  std::filesystem::path scratch() override { return folder_; }
  ComponentHandle component(std::string_view) override { return {}; }
  ComponentHandle component_for(const Artifact&) override { return {}; }

  MemoryContext()
      : folder_(std::filesystem::temp_directory_path() /
                ("espalier-run-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)))) {
    std::filesystem::create_directories(folder_);
  }
  ~MemoryContext() override { std::filesystem::remove_all(folder_); }

 private:
  std::filesystem::path folder_;
  Params params_;
  std::string device_ = "cpu";
};

}  // namespace espalier::test
