#pragma once
/// Drafts of a config.json for a graph: what is written into one, family by family. Whether a draft is right is for
/// plan_huggingface() to find out.
#include <string>
#include <vector>

#include "formats/decoder_facts.h"
#include "graph/graph.h"
#include "sdk/artifact.h"

namespace espalier {

struct HuggingfaceDraft {
  std::string family;  ///< `model_type`
  Json config;         ///< all but "intermediate_size", which no node shows
};

/// The config.json that the model came with (metadata "source.config") with the graph's own lengths comes first, then what the
/// graph alone says, for the family that it came from or for each that may be it. Throws Error(unsupported) for a family that is
/// not written. All layers have the same heads.
std::vector<HuggingfaceDraft> huggingface_drafts(const Graph& graph, const DecoderFacts& facts);

/// Values of `model_type` that are written, "gemma, gemma2, …".
std::string written_families();

}  // namespace espalier
