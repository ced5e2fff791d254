#pragma once
/// What an iterative pruning has done so far, on disk, so that a killed run goes on at its round.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graph/surgery.h"
#include "sdk/artifact.h"

namespace espalier {

/// One round that was done.
struct RoundRecord {
  std::int64_t round = 0, parameters = 0;
  double sparsity = 0;                            ///< since the uncut model
  std::optional<double> before = {}, after = {};  ///< held-out loss around the recovery
  double seconds = 0;
  bool kept = true;  ///< false: the stop rule refused it
};

struct IterativeState {
  std::int64_t round = 0;  ///< rounds done
  Artifact model;          ///< after them
  Removal removal;         ///< from the uncut model
  std::optional<double> original_loss;
  std::vector<RoundRecord> rounds;
  std::vector<double> losses;  ///< of the recoveries, step after step
  Json compensation = Json::array();
};

/// Writes one file: a magic line, SHA-256 of what follows, JSON. Written aside and renamed. `key` says which run it belongs to.
/// Throws Error(resource) when it cannot be written.
void write_iterative_state(const std::filesystem::path& file, const std::string& key, const IterativeState& state);
/// Nothing, and `why` says it, for a file of another run or a damaged one. Nothing and an empty `why` where there is no file.
std::optional<IterativeState> read_iterative_state(const std::filesystem::path& file, const std::string& key, std::string& why);

}  // namespace espalier
