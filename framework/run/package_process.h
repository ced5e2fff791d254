#pragma once
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "run/tensor.h"
#include "sdk/artifact.h"
#include "sdk/component.h"

namespace espalier {

/// One timed use of a package. A language model: milliseconds of the prompt and of each generated token. Any other model: one run.
struct TimedSample {
  double prompt_ms = 0;  ///< or the whole run
  std::vector<double> decode_ms;
  double decode_total() const;
  double total() const { return prompt_ms + decode_total(); }
};

/// Peaks of the process's resident memory, stage by stage, in bytes.
struct StagePeaks {
  double before = 0, opening = 0, prompt = 0, decode = 0;
  double whole = 0;  ///< as the kernel kept it last; more than the others where it cannot forget a peak
  double all() const;
};

/// A package opened in a process of its own, forked before any runtime has started a thread: its start-up and its peak memory are
/// its own, and two packages never share threads or allocators.
class PackageProcess {
 public:
  /// `inputs`: what a model that is no language model is fed, by name (values: fed_value()); empty for a language model.
  PackageProcess(ComponentHandle backend, const std::filesystem::path& folder, int threads, std::string name,
                 std::vector<Value> inputs);
  PackageProcess(const PackageProcess&) = delete;
  ~PackageProcess();

  /// Opens the package and uses it once; milliseconds of both.
  double open();
  /// A prompt of `prompt` fixed tokens and its greedy continuation by `decode` tokens; both are ignored for other models.
  TimedSample sample(std::int64_t prompt, std::int64_t decode);
  StagePeaks peaks();

 private:
  Json ask(const Json& request);
  std::string name_;
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
};

/// The graph's inputs with every free dimension given a size: by name from `dimensions`, else 1 on the first axis and `otherwise`
/// on others. Throws Error(invalid_input) naming a dimension that gets none (`otherwise` 0), or one whose size is no whole number.
std::vector<Value> sized_inputs(const Graph& graph, const std::map<std::string, double>& dimensions, std::int64_t otherwise);

/// The fixed contents of an input: floats even in [0, 1), masks all 1, positions counted along the last axis, types 0, other
/// integers below 32; the same for everyone. The value's shape must be known.
at::Tensor fed_value(const Value& input);

}  // namespace espalier
