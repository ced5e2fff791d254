#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "formats/tokenizer.h"
#include "graph/graph.h"
#include "sdk/context.h"

namespace espalier {

/// What an importer of models of language gives.
struct ImportedModel {
  Graph graph;
  std::shared_ptr<Tokenizer> tokenizer;
  std::string no_tokenizer;        ///< why there is none
  std::vector<std::string> notes;  ///< for the log
};

/// The outputs "model" and "tokenizer" of a stage that read `path`, its figure and its log. Where there is no tokenizer and the
/// importer says why, that output is empty and says it, too (meta "absent"); without a reason Error(unsupported) with `hint`.
void put_out(Context& context, ImportedModel model, const std::filesystem::path& path, const std::string& hint);

}  // namespace espalier
