#pragma once
/// A training run's state on disk, so that a killed run goes on where it was.
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "run/tensor.h"

namespace espalier {

/// All that decides how a run goes on, besides its settings and its data.
struct TrainingState {
  std::int64_t step = 0;            ///< steps taken
  std::vector<double> losses = {};  ///< of each
  std::int64_t tokens = 0;
  double seconds = 0;
  std::vector<std::pair<std::int64_t, double>> heldout = {};  ///< (steps taken, mean loss)
  std::int64_t best_step = -1;                                ///< -1: no evaluation yet
  double best_loss = std::numeric_limits<double>::infinity();
};

/// One file with the state and its tensors: a magic line, a JSON header, the tensors' bytes, SHA-256 over all before. Written aside
/// and renamed, so that a kill at any instant leaves the old file or the new one. `key` says which run it belongs to.
/// Throws Error(resource) when it cannot be written.
void write_state(const std::filesystem::path& file, const std::string& key, const TrainingState& state,
                 const std::vector<at::Tensor>& tensors);

/// Reads a file back into `tensors` (of the shapes and types they have). Nothing, and `why` says it, for a file of another run, a
/// damaged or a hostile one; `tensors` then keep their values. Nothing and an empty `why` where there is no file.
std::optional<TrainingState> read_state(const std::filesystem::path& file, const std::string& key,
                                        const std::vector<at::Tensor>& tensors, std::string& why);

}  // namespace espalier
