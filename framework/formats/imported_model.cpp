#include "formats/imported_model.h"

#include <fmt/format.h>

#include "formats/model_artifact.h"
#include "sdk/error.h"

namespace espalier {

void put_out(Context& context, ImportedModel model, const std::filesystem::path& path, const std::string& hint) {
  context.check_cancelled();
  if (!model.tokenizer && model.no_tokenizer.empty())
    throw_unsupported("there is no tokenizer beside the model", path.string(), hint);
  for (const std::string& note : model.notes) context.log(LogLevel::info, note);
  if (model.tokenizer) {
    auto tokenizer = save_tokenizer(context, *model.tokenizer);
    model.graph.metadata["espalier.tokenizer"] = tokenizer.digest().hex();
    context.output("tokenizer", std::move(tokenizer));
  } else {
    // Every declared output must be there; this one says why it is empty.
    Artifact absent;
    absent.type = ArtifactType::tokenizer;
    absent.meta["absent"] = model.no_tokenizer;
    context.output("tokenizer", std::move(absent));
    context.log(LogLevel::warning, "no tokenizer: " + model.no_tokenizer);
  }
  context.output("model", save_model(context, model.graph));
  const std::int64_t parameters = model.graph.parameter_count();
  context.figure("parameters", static_cast<double>(parameters));
  context.log(LogLevel::info, fmt::format("{} nodes, {} parameters", model.graph.nodes.size(), parameters));
}

}  // namespace espalier
