#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "sdk/context.h"

namespace espalier {

/// Writes what every package holds and makes the artifact: package.json (schema, backend, runtime version, files with digests,
/// inputs, outputs, tokenizer digest, provenance, licence), tokenizer.json if the model has one, and the given files.
/// meta: "backend", "tokenizer", "task", "size_bytes" (all files), "parameters".
struct PackageSpec {
  std::string backend;                                 ///< "backend/openvino"
  std::string runtime;                                 ///< "openvino 2026.4.1"
  std::map<std::string, std::filesystem::path> files;  ///< name in the package → file to take over
  Json options = Json::object();                       ///< what the backend needs to open it again (precision hint, …)
  Json provenance = Json::object();                    ///< recipe, stages, keys, as far as known; the model's digest is added
};
Artifact save_package(Context& context, const Graph& model, const Artifact& model_artifact, const PackageSpec& spec);

/// The package's files laid out in a folder of `context.scratch()` by symbolic-link-free means (the runtime reads real files
/// there).
std::filesystem::path unpack(Context& context, const Artifact& package);

/// package.json of a folder, its files' sizes and digests checked. Throws Error(invalid_input / corrupt).
Json read_package(const std::filesystem::path& folder, bool check_digests);

}  // namespace espalier
