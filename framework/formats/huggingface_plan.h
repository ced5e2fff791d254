#pragma once
/// A graph seen as a model of a Hugging Face family: its config.json, and where each of the family's tensors lies in it. Found by
/// reading the importer backwards: a config.json is written from what the graph shows, the importer's own builder makes a graph of
/// it, and that graph must match.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "sdk/artifact.h"

namespace espalier {

/// One tensor of a model.safetensors, made of initializers of the graph that lie one after another along its rows.
struct SourceTensor {
  struct Piece {
    std::string initializer;
    std::int64_t rows = 0;
    bool turned = false;  ///< the initializer is [in, rows]
    double factor = 1;    ///< what is written is so many times what the graph has
  };
  std::vector<std::int64_t> shape;
  double added = 0;  ///< what the importer adds to each element
  std::vector<Piece> pieces;
};

struct HuggingfacePlan {
  Json config;
  std::map<std::string, SourceTensor> tensors;
};

/// A config.json that the model came with (metadata "source.config") is kept but for what has changed; without one, all of it is
/// found. Throws Error(unsupported) naming the node or tensor that no family has, the layers whose widths or heads differ from the
/// others', or the frequencies that follow no rule.
HuggingfacePlan plan_huggingface(const Graph& graph);

}  // namespace espalier
