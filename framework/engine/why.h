#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/installation.h"
#include "recipe/plan.h"
#include "store/store.h"

namespace espalier {

/// Something that stands in a stage's key and is not what it was.
struct Cause {
  std::string stage, use;
  std::string what;         ///< "parameter sparsity", "file of parameter path", "library libespalier_run.so", "input model", "seed"
  std::string before, now;  ///< values as JSON, digests by their first digits; empty: it was, or is, not there
};

/// Why a stage would run, or that it would not.
struct Explanation {
  enum class State {
    hit,      ///< its result is cached
    miss,     ///< there is no result under its key
    waiting,  ///< its key is not known before a stage that it reads has run
  } state = State::miss;
  std::optional<Digest> key;
  std::optional<Store::RunRecord> compared;  ///< the run whose result is nearest; nothing when no run has one
  std::vector<Cause> causes;         ///< what differs from that run, in the order of the plan; what only follows is not here
  std::vector<std::string> through;  ///< stages that differ only in what they read, which comes from these causes; in that order
};

/// Compares a stage, and as far as they matter those that it reads, with the earlier run that has its nearest result: the one with
/// the fewest causes, the newest of several. What a stage read there is told from what its producers give now by digests, so that
/// a stage whose inputs came out the same is no cause.
Explanation explain(const Plan& plan, Store& store, const Catalog& catalog, const std::string& stage,
                    Installation installation = Installation::current());

}  // namespace espalier
