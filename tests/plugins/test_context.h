#pragma once
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sdk/context.h"
#include "sdk/error.h"

namespace espalier::test {

/// A folder of its own, removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  /// Writes a file and returns its path.
  std::filesystem::path write(const std::string& name, std::string_view text) const;

 private:
  std::filesystem::path path_;
};

/// Where the build puts the project's plugins.
std::filesystem::path plugin_folder();

/// A component created from its plugin's file, as the worker does it: through the C boundary.
ComponentHandle open_component(const std::string& name, const Json& given);

/// What a stage sees, without engine and store: blobs lie in a folder under their digests, the rest is kept for the test to look
/// at. Parameters get the defaults of the component's manifest.
class TestContext final : public Context {
 public:
  explicit TestContext(const TemporaryFolder& folder) : folder_(folder.path()) {}

  /// Runs a component as a stage; throws the Error that crossed the plugin's boundary. What an earlier run gave is forgotten.
  void run(const std::string& component, const Json& parameters, std::map<std::string, Artifact> inputs = {});

  const Params& params() const override { return params_; }
  const Artifact& input(std::string_view port) const override;
  bool has_input(std::string_view port) const override { return inputs_.contains(std::string(port)); }
  std::vector<Artifact> inputs(std::string_view port) const override { return {input(port)}; }
  MappedFile map(const BlobRef& blob) const override { return MappedFile(path(blob)); }
  std::filesystem::path path(const BlobRef& blob) const override { return folder_ / blob.digest.hex(); }
  std::uint64_t seed() const override { return seed_; }
  int threads() const override { return 2; }
  const std::string& device() const override { return device_; }

  BlobRef put(std::span<const std::byte> bytes) override { return put(bytes, sha256(bytes)); }
  BlobRef put(std::span<const std::byte> bytes, const Digest& known) override;
  BlobRef put_file(const std::filesystem::path& file) override;
  void output(std::string_view port, Artifact artifact) override { outputs[std::string(port)] = std::move(artifact); }
  void figure(std::string_view name, double value) override { figures[std::string(name)] = value; }
  void detail(std::string_view name, Json value) override { details[std::string(name)] = std::move(value); }

  void log(LogLevel level, std::string_view message) override {
    (level == LogLevel::warning ? warnings : messages).emplace_back(message);
  }
  void progress(const Progress&) override { ++reports; }
  void check_cancelled() const override;
  std::filesystem::path scratch() override;
  ComponentHandle component(std::string_view name) override;
  std::vector<ComponentHandle> components(const Params& params, std::string_view name) override;
  ComponentHandle component_for(const Artifact&) override { throw Error(ErrorCode::internal, "no packages here"); }

  std::map<std::string, Artifact> outputs;
  std::map<std::string, double> figures;
  std::map<std::string, Json> details;
  std::vector<std::string> warnings, messages;
  int reports = 0;
  std::uint64_t seed_ = 7;
  int cancel_after = -1;  ///< check_cancelled() throws after so many calls; -1: never

 private:
  std::filesystem::path folder_;
  Params params_;
  std::map<std::string, Artifact> inputs_;
  std::string device_ = "cpu";
  mutable int checks_ = 0;
};

}  // namespace espalier::test
