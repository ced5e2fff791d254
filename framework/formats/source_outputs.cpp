#include "formats/source_outputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/model_artifact.h"
#include "formats/tokenizer.h"
#include "graph/passes.h"
#include "sdk/artifact.h"

namespace espalier {
namespace {

std::string read_text(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

void bring_to_normal_form(Context& context, Graph& graph) {
  const std::size_t nodes = graph.nodes.size();
  Json rows = Json::array();
  for (const PassReport& report : normal_form(graph))
    if (report.changes > 0) rows.push_back({report.pass, report.changes, fmt::format("{}", fmt::join(report.notes, "; "))});
  context.detail("normal_form", {{"columns", {"pass", "changes", "what it did"}}, {"rows", std::move(rows)}});
  context.log(LogLevel::info, fmt::format("{} nodes, {} in normal form", nodes, graph.nodes.size()));
}

void put_named_tokenizer(Context& context, Graph& graph) {
  graph.metadata.erase("espalier.tokenizer");
  if (!context.params().has("tokenizer_file")) {
    // Every declared output must be there; this one says why it is empty.
    Artifact absent;
    absent.type = ArtifactType::tokenizer;
    absent.meta["absent"] = "the stage names no tokenizer_file";
    context.output("tokenizer", std::move(absent));
    return;
  }
  const auto where = context.params().path("tokenizer_file");
  auto tokenizer = save_tokenizer(context, *Tokenizer::from_json(read_text(where), where.string()));
  graph.metadata["espalier.tokenizer"] = tokenizer.digest().hex();
  context.output("tokenizer", std::move(tokenizer));
}

}  // namespace espalier
