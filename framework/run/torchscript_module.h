#pragma once
/// TorchScript modules: made of a graph's source, written, and opened to be run. LibTorch's header of modules stays in the .cpp.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace espalier {

struct TorchScriptOptions {
  /// Called while the archive is written, with its bytes so far and about how many there will be; what it throws ends the writing.
  std::function<void(std::uint64_t done, std::uint64_t all)> progress = {};
};

/// Writes `graph` as an archive that torch.jit.load reads: its tensors under their own names, linear weights as [out, in], one
/// method `forward` that takes the inputs in order and returns the output or a tuple of them. Lengths that are free stay free.
/// Written aside and renamed. Throws Error(unsupported) naming the first node that TorchScript's source has no phrase for.
void write_torchscript(const Graph& graph, const std::filesystem::path& file, const TorchScriptOptions& options = {});

/// An archive, opened by LibTorch itself.
class TorchScriptModel {
 public:
  explicit TorchScriptModel(const std::filesystem::path& file);
  ~TorchScriptModel();
  /// Tensors in the order of `forward`'s arguments; the output, or those of the tuple.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);
  const std::vector<std::string>& inputs() const;   ///< names of the arguments
  const std::vector<std::string>& outputs() const;  ///< as the writer said; empty for archives of other writers

 private:
  struct Opened;
  std::unique_ptr<Opened> opened_;
};

}  // namespace espalier
