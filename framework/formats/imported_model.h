#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "formats/tokenizer.h"
#include "graph/graph.h"
#include "sdk/context.h"

namespace espalier {

/// What an importer of language models gives.
struct ImportedModel {
  Graph graph;
  std::shared_ptr<Tokenizer> tokenizer;
};

/// The outputs "model" and "tokenizer" of a stage that read `path`, its figure and its log. Throws Error(unsupported) with `hint`
/// where there is no tokenizer.
void put_out(Context& context, ImportedModel model, const std::filesystem::path& path, const std::string& hint);

}  // namespace espalier
