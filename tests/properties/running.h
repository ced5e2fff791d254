#pragma once
/// Running small models and comparing what they give.
#include <filesystem>
#include <string>

#include "run/session.h"

namespace espalier::test {

/// Token ids below `vocabulary`, all attended, positions in order.
TensorMap language_inputs(std::int64_t batch, std::int64_t sequence, std::int64_t vocabulary, std::uint64_t seed);
TensorMap image_inputs(std::int64_t batch, std::uint64_t seed);

/// max |a - b| / max |a|; infinite where shapes differ or something is not finite.
double difference(const at::Tensor& a, const at::Tensor& b);
/// The largest difference among the outputs of two graphs on the same inputs.
double difference(const Graph& a, const Graph& b, const TensorMap& inputs);

/// NumPy's .npy, version 1.0; float32, int64 and boolean.
void write_npy(const std::filesystem::path& file, const at::Tensor& tensor);

/// A folder under the system's temporary folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Runs tests/properties/check_cut.py over a folder of cases with the oracle Python. Returns its exit status and prints what it
/// says; throws when ESPALIER_TEST_PYTHON is not set.
int check_with_runtimes(const std::filesystem::path& folder);
/// Writes one case: NAME/model.onnx, NAME/inputs/*.npy, NAME/expected/*.npy (what our own runner gives).
void write_case(const std::filesystem::path& folder, const Graph& graph, const TensorMap& inputs);

}  // namespace espalier::test
