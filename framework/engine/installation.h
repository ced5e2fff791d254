#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// Where this program's parts lie: ROOT/bin/espalier-worker, ROOT/lib/libespalier_*.so, ROOT/plugins.
class Installation {
 public:
  /// Found from the running executable (ROOT/bin/espalier, ROOT/tests/…).
  static Installation current();
  explicit Installation(std::filesystem::path root) : root_(std::move(root)) {}

  std::filesystem::path worker() const { return root_ / "bin" / "espalier-worker"; }
  /// Does what needs a model's graph and weights, and no LibTorch.
  std::filesystem::path graph_program() const { return root_ / "bin" / "espalier-graph"; }
  /// The project's libraries that stages run on, the worker's among them: their bytes decide what a stage does.
  std::vector<std::filesystem::path> code() const;
  /// The version of a runtime ("torch", "openvino") that the worker's run path leads to, from version files or the library's name;
  /// "absent" when no folder of the run path has it.
  std::string runtime_version(const std::string& runtime) const;

 private:
  std::filesystem::path root_;
};

/// Processor vendor and instruction-set class: what decides how LibTorch and its kernels round.
Json numeric_profile();
/// What speed depends on: processor, count of usable processors, memory. No name of the host.
Json machine_fingerprint();

}  // namespace espalier
