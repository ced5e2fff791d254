#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "host/catalog.h"
#include "sdk/context.h"

namespace espalier::test {

/// What a component gave.
struct Outcome {
  std::map<std::string, Artifact> outputs;
  std::map<std::string, double> figures;
  std::map<std::string, Json> details;
  std::vector<std::string> log;
};

/// Runs the built plugins' components in this process, over blobs in a temporary folder. No store, no cache, no recipe.
class Workshop {
 public:
  Workshop();
  ~Workshop();
  Workshop(const Workshop&) = delete;

  using Inputs = std::map<std::string, Artifact>;
  /// Defaults from the component's manifest are filled in. Throws what the component throws.
  Outcome run(const std::string& component, const Inputs& inputs, const Json& params = Json::object());
  /// A context for calling the libraries directly (load_model, unpack, …).
  Context& context() { return *context_; }
  ComponentHandle component(const std::string& name);
  /// The blobs of a package as files in a new folder, as `export` writes them.
  std::filesystem::path lay_out(const Artifact& package);
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  Catalog catalog_;
  std::unique_ptr<Context> context_;
  int laid_out_ = 0;
};

}  // namespace espalier::test
