#pragma once
#include <functional>
#include <string>

#include "formats/tokenizer.h"
#include "graph/graph.h"
#include "sdk/context.h"

namespace espalier {

/// A model artifact's graph; initializers are mapped from the store, each with its digest known. Blobs: "graph.onnx" (initializers
/// under 64 KiB inside) and "tensors/NAME" for the others.
Graph load_model(const Context& context, const Artifact& artifact);
/// Stores a graph: unchanged tensors (known digests) cost nothing. meta: "task", "tokenizer" from graph.metadata
/// ("espalier.task", "espalier.tokenizer"), "parameters", "weight_bytes", "inputs", "outputs". A tokenizer that
/// "espalier.tokenizer" names by digest, saved before by this process or held by the model that was loaded, goes along as blob
/// "tokenizer.json".
Artifact save_model(Context& context, const Graph& graph);

/// Puts tensors away in the store, mapped from there and with their digest known; small ones stay as they are. `context` must
/// outlive it.
std::function<Tensor(Tensor)> into_store(Context& context);

/// Tokenizer artifacts: one blob "tokenizer.json". Loading throws Error(invalid_input) where a stage had none to give.
std::shared_ptr<Tokenizer> load_tokenizer(const Context& context, const Artifact& artifact);
Artifact save_tokenizer(Context& context, const Tokenizer& tokenizer);

/// [{"name", "dtype", "shape": [4, "batch", …]}, …] of a graph's border.
Json describe_values(const std::vector<Value>& values);

}  // namespace espalier
