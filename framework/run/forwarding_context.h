#pragma once
/// Contexts that stand before a stage's own: a stage that runs other components gives them one, and changes what they see.
#include <filesystem>
#include <string>

#include "sdk/context.h"

namespace espalier {

/// Passes everything on.
class ForwardingContext : public Context {
 public:
  explicit ForwardingContext(Context& inner) : inner_(inner) {}

  const Params& params() const override { return inner_.params(); }
  const Artifact& input(std::string_view port) const override { return inner_.input(port); }
  bool has_input(std::string_view port) const override { return inner_.has_input(port); }
  std::vector<Artifact> inputs(std::string_view port) const override { return inner_.inputs(port); }
  MappedFile map(const BlobRef& blob) const override { return inner_.map(blob); }
  std::filesystem::path path(const BlobRef& blob) const override { return inner_.path(blob); }
  std::uint64_t seed() const override { return inner_.seed(); }
  int threads() const override { return inner_.threads(); }
  const std::string& device() const override { return inner_.device(); }
  BlobRef put(std::span<const std::byte> bytes) override { return inner_.put(bytes); }
  BlobRef put(std::span<const std::byte> bytes, const Digest& known) override { return inner_.put(bytes, known); }
  BlobRef put_file(const std::filesystem::path& file) override { return inner_.put_file(file); }
  void output(std::string_view port, Artifact artifact) override { inner_.output(port, std::move(artifact)); }
  void figure(std::string_view name, double value) override { inner_.figure(name, value); }
  void detail(std::string_view name, Json value) override { inner_.detail(name, std::move(value)); }
  void log(LogLevel level, std::string_view message) override { inner_.log(level, message); }
  void progress(const Progress& p) override { inner_.progress(p); }
  void check_cancelled() const override { inner_.check_cancelled(); }
  std::filesystem::path scratch() override { return inner_.scratch(); }
  ComponentHandle component(std::string_view name) override { return inner_.component(name); }
  ComponentHandle component_for(const Artifact& artifact) override { return inner_.component_for(artifact); }
  std::vector<ComponentHandle> components(const Params& params, std::string_view name) override {
    return inner_.components(params, name);
  }

 protected:
  Context& inner_;
};

/// One round of a stage that repeats itself: a seed and a scratch folder of its own, its number before every progress label.
/// Nothing of a round is a result of the stage: outputs, figures and details that a component writes itself are dropped.
class RoundContext final : public ForwardingContext {
 public:
  RoundContext(Context& inner, std::int64_t round, std::int64_t rounds);
  std::uint64_t seed() const override { return seed_; }
  std::filesystem::path scratch() override;
  void progress(const Progress& p) override;
  void output(std::string_view, Artifact) override {}
  void figure(std::string_view, double) override {}
  void detail(std::string_view, Json) override {}
  /// Removes the scratch folder.
  void clean();

 private:
  std::string label_;
  std::filesystem::path scratch_;
  std::uint64_t seed_;
};

/// Keeps new blobs as files of a folder instead of in the store, for states that are no result: save_model() and load_model() work
/// on it as on any context.
class FolderContext final : public ForwardingContext {
 public:
  FolderContext(Context& inner, std::filesystem::path folder) : ForwardingContext(inner), folder_(std::move(folder)) {}
  MappedFile map(const BlobRef& blob) const override;
  std::filesystem::path path(const BlobRef& blob) const override;
  /// Throws Error(resource) when the file cannot be written.
  BlobRef put(std::span<const std::byte> bytes) override { return put(bytes, sha256(bytes)); }
  BlobRef put(std::span<const std::byte> bytes, const Digest& known) override;
  /// Every blob of the artifact is there; those in the folder have the bytes that their digests say.
  bool whole(const Artifact& artifact) const;
  /// Removes the folder's blobs that the artifact does not name.
  void keep_only(const Artifact& artifact) const;

 private:
  std::filesystem::path file(const Digest& digest) const { return folder_ / digest.hex(); }
  bool in_store(const BlobRef& blob) const;
  std::filesystem::path folder_;
};

}  // namespace espalier
