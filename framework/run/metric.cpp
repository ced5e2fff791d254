#include "run/metric.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "sdk/error.h"

namespace espalier {
namespace {

Json table(const std::vector<CoupledGroup>& groups, const Scores& scores) {
  Json rows = Json::array();
  for (const auto& group : groups) {
    const auto found = scores.find(group.id);
    if (found == scores.end() || found->second.empty()) continue;
    auto sorted = found->second;
    std::sort(sorted.begin(), sorted.end());
    rows.push_back({group.id, sorted.size(), sorted.front(), sorted[sorted.size() / 2], sorted.back()});
  }
  return {{"columns", {"group", "units", "lowest", "median", "highest"}}, {"rows", std::move(rows)}};
}

}  // namespace

Metric::~Metric() = default;

void MetricComponent::run(Context& context) {
  const Graph graph = load_model(context, context.input("model"));
  const std::vector<CoupledGroup> groups = coupled_groups(graph, infer(graph));
  const Artifact* data = context.has_input("data") ? &context.input("data") : nullptr;
  const Scores scores = score(context, context.params(), graph, groups, data);
  context.output("scores", save_scores(context, scores));
  context.figure("groups", static_cast<double>(scores.size()));
  context.detail("scores", table(groups, scores));
}

void* MetricComponent::interface(std::string_view id) { return id == Metric::interface_id ? static_cast<Metric*>(this) : nullptr; }

Scores load_scores(const Context& context, const Artifact& artifact) {
  const auto blob = artifact.blobs.find("scores.safetensors");
  if (artifact.type != ArtifactType::scores || blob == artifact.blobs.end())
    throw_invalid(fmt::format("expected scores, this is a {} without scores.safetensors", to_string(artifact.type)),
                  "artifact " + artifact.digest().hex());
  const MappedFile file = context.map(blob->second);
  Scores scores;
  for (const auto& [group, tensor] : parse_safetensors(file.bytes(), file.owner(), "scores.safetensors")) {
    if (tensor.shape.size() != 1 || !is_floating(tensor.dtype))
      throw_invalid(fmt::format("the scores of group {} are no list of floating numbers", group),
                    "artifact " + artifact.digest().hex());
    scores[group] = tensor.numbers();
  }
  return scores;
}

Artifact save_scores(Context& context, const Scores& scores) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [group, values] : scores)
    tensors[group] = Tensor::of(DType::f64, {static_cast<std::int64_t>(values.size())}, values);
  Artifact artifact;
  artifact.type = ArtifactType::scores;
  artifact.meta["groups"] = scores.size();
  artifact.blobs["scores.safetensors"] = context.put(write_safetensors(tensors));
  return artifact;
}

}  // namespace espalier
