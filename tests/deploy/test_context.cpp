#include "deploy/test_context.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "engine/worker/loader.h"
#include "sdk/error.h"

namespace fs = std::filesystem;

namespace espalier::test {
namespace {

/// A context over a folder of blobs named by their digests.
class FolderContext final : public Context {
 public:
  FolderContext(fs::path folder, const Catalog& catalog, Workshop::Inputs inputs, Json params, int number)
      : folder_(std::move(folder)), catalog_(catalog), inputs_(std::move(inputs)), params_(std::move(params)) {
    scratch_ = folder_ / ("scratch-" + std::to_string(number));
    fs::create_directories(scratch_);
  }

  const Params& params() const override { return params_; }
  const Artifact& input(std::string_view port) const override {
    const auto found = inputs_.find(std::string(port));
    if (found == inputs_.end()) throw Error(ErrorCode::internal, "no input on port " + std::string(port));
    return found->second;
  }
  bool has_input(std::string_view port) const override { return inputs_.contains(std::string(port)); }
  std::vector<Artifact> inputs(std::string_view port) const override { return {input(port)}; }
  MappedFile map(const BlobRef& blob) const override {
    MappedFile file(path(blob));
    if (file.bytes().size() != blob.size) throw Error(ErrorCode::corrupt, "the blob has another size", path(blob).string());
    return file;
  }
  fs::path path(const BlobRef& blob) const override { return folder_ / blob.digest.hex(); }
  std::uint64_t seed() const override { return 1; }
  int threads() const override { return 2; }
  const std::string& device() const override { return device_; }

  BlobRef put(std::span<const std::byte> bytes) override { return put(bytes, sha256(bytes)); }
  BlobRef put(std::span<const std::byte> bytes, const Digest& known) override {
    const BlobRef blob{known, bytes.size()};
    if (!fs::exists(path(blob)))
      std::ofstream(path(blob), std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return blob;
  }
  BlobRef put_file(const fs::path& file) override {
    const BlobRef blob{sha256_file(file), fs::file_size(file)};
    fs::rename(file, path(blob));
    return blob;
  }
  void output(std::string_view port, Artifact artifact) override {
    const std::string manifest = artifact.manifest();
    put(std::as_bytes(std::span(manifest.data(), manifest.size())));
    outcome.outputs[std::string(port)] = std::move(artifact);
  }
  void figure(std::string_view name, double value) override { outcome.figures[std::string(name)] = value; }
  void detail(std::string_view name, Json value) override { outcome.details[std::string(name)] = std::move(value); }
  void log(LogLevel, std::string_view message) override { outcome.log.emplace_back(message); }
  void progress(const Progress&) override {}
  void check_cancelled() const override {}
  fs::path scratch() override { return scratch_; }
  ComponentHandle component(std::string_view) override { throw Error(ErrorCode::internal, "no component parameters here"); }
  ComponentHandle component_for(const Artifact& artifact) override {
    const auto name = artifact.meta.at("backend").get<std::string>();
    const ComponentInfo* info = catalog_.find(name);
    if (!info) throw Error(ErrorCode::invalid_input, "no plugin offers " + name);
    return {name, load_component(info->file, name), {}};
  }

  Outcome outcome;

 private:
  fs::path folder_, scratch_;
  const Catalog& catalog_;
  Workshop::Inputs inputs_;
  Params params_;
  std::string device_ = "cpu";
};

fs::path environment(const char* name) {
  const char* value = std::getenv(name);
  if (!value) throw std::runtime_error(std::string(name) + " is not set: run the tests through ctest");
  return value;
}

}  // namespace

Workshop::Workshop() {
  std::string pattern = (fs::temp_directory_path() / "espalier-deploy-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
  folder_ = pattern;
  fs::create_directories(folder_ / "blobs");
  catalog_ = Catalog::scan({environment("ESPALIER_BUILD") / "plugins"});
  context_ = std::make_unique<FolderContext>(folder_ / "blobs", catalog_, Inputs{}, Json::object(), 0);
}

Workshop::~Workshop() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

Outcome Workshop::run(const std::string& component, const Inputs& inputs, const Json& params) {
  const ComponentInfo* info = catalog_.find(component);
  if (!info) throw Error(ErrorCode::invalid_input, "no plugin offers " + component);
  Json filled = Json::object();
  for (const ParameterInfo& parameter : info->parameters) filled[parameter.name] = parameter.default_value;
  for (const auto& [name, value] : params.items()) {
    if (!filled.contains(name)) throw Error(ErrorCode::invalid_input, component + " has no parameter " + name);
    filled[name] = value;
  }
  static int number = 0;
  FolderContext context(folder_ / "blobs", catalog_, inputs, filled, ++number);
  run_component(info->file, component, context);
  return std::move(context.outcome);
}

ComponentHandle Workshop::component(const std::string& name) {
  Artifact artifact;
  artifact.meta["backend"] = name;
  return context_->component_for(artifact);
}

fs::path Workshop::lay_out(const Artifact& package) {
  const fs::path target = folder_ / ("package-" + std::to_string(++laid_out_));
  fs::create_directories(target);
  for (const auto& [name, blob] : package.blobs) fs::copy_file(context_->path(blob), target / name);
  return target;
}

}  // namespace espalier::test
