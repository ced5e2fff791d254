#pragma once
#include <filesystem>
#include <map>

#include "sdk/context.h"

namespace tests {

/// A stage's context over a plain folder: blobs by digest, nothing else.
class FolderContext final : public espalier::Context {
 public:
  explicit FolderContext(std::filesystem::path folder);
  std::size_t written = 0;  ///< blobs that were not there yet

  const espalier::Params& params() const override { return params_; }
  const espalier::Artifact& input(std::string_view) const override;
  bool has_input(std::string_view) const override { return false; }
  std::vector<espalier::Artifact> inputs(std::string_view) const override { return {}; }
  espalier::MappedFile map(const espalier::BlobRef& blob) const override;
  std::filesystem::path path(const espalier::BlobRef& blob) const override;
  std::uint64_t seed() const override { return 0; }
  int threads() const override { return 2; }
  const std::string& device() const override { return device_; }
  espalier::BlobRef put(std::span<const std::byte> bytes) override;
  espalier::BlobRef put(std::span<const std::byte> bytes, const espalier::Digest& known) override;
  espalier::BlobRef put_file(const std::filesystem::path& file) override;
  void output(std::string_view, espalier::Artifact) override {}
  void figure(std::string_view, double) override {}
  void detail(std::string_view, espalier::Json) override {}
  void log(espalier::LogLevel, std::string_view) override {}
  void progress(const espalier::Progress&) override {}
  void check_cancelled() const override {}
  std::filesystem::path scratch() override { return folder_ / "scratch"; }
  espalier::ComponentHandle component(std::string_view) override;
  espalier::ComponentHandle component_for(const espalier::Artifact&) override;

 private:
  espalier::Params params_;
  std::string device_ = "cpu";
  std::filesystem::path folder_;
};

}  // namespace tests
