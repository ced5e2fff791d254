#include <fmt/format.h>

#include <cmath>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

/// Conv followed by BatchNormalization in its inference form: the norm is a scale and a shift a channel, which the kernel and the
/// bias can carry.
struct Folded {
  Tensor weight, bias;
};

std::optional<Folded> fold(const Graph& graph, const Node& conv, const Node& norm) {
  const auto* weight = graph.initializer(conv.input(1));
  if (!weight || weight->dtype != DType::f32 || weight->shape.empty() || weight->shape[0] <= 0) return std::nullopt;
  const auto channels = weight->shape[0];
  const auto row = [&](const std::string& name) -> std::optional<std::vector<double>> {
    const auto* tensor = graph.initializer(name);
    if (!tensor || tensor->dtype != DType::f32 || tensor->shape != std::vector<std::int64_t>{channels}) return std::nullopt;
    return tensor->numbers();
  };
  const auto scale = row(norm.input(1)), shift = row(norm.input(2)), mean = row(norm.input(3)), variance = row(norm.input(4));
  const auto bias = conv.input(2).empty() ? std::vector<double>(static_cast<std::size_t>(channels), 0.0) : row(conv.input(2));
  if (!scale || !shift || !mean || !variance || !bias) return std::nullopt;
  const double epsilon = norm.number("epsilon", 1e-5);
  auto kernel = weight->numbers();
  std::vector<float> new_weight, new_bias;
  new_weight.reserve(kernel.size());
  const auto inner = kernel.size() / static_cast<std::size_t>(channels);
  for (std::size_t c = 0; c < static_cast<std::size_t>(channels); ++c) {
    const double factor = (*scale)[c] / std::sqrt((*variance)[c] + epsilon);
    for (std::size_t i = 0; i < inner; ++i) new_weight.push_back(static_cast<float>(kernel[c * inner + i] * factor));
    new_bias.push_back(static_cast<float>(((*bias)[c] - (*mean)[c]) * factor + (*shift)[c]));
  }
  return Folded{Tensor::of<float>(DType::f32, weight->shape, new_weight), Tensor::of<float>(DType::f32, {channels}, new_bias)};
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  struct Change {
    std::size_t conv, norm;
    Folded folded;
  };
  std::vector<Change> changes;
  {
    const Pattern p(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      const auto& norm = graph.nodes[i];
      if (norm.op != "BatchNormalization" || !norm.domain.empty() || norm.integer("training_mode", 0) != 0 ||
          norm.outputs.size() != 1)
        continue;
      const auto* conv = p.made_by(norm.input(0), "Conv");
      if (!conv || !p.read_once(norm.inputs[0])) continue;
      if (auto folded = fold(graph, *conv, norm))
        changes.push_back({static_cast<std::size_t>(conv - graph.nodes.data()), i, std::move(*folded)});
    }
  }
  for (auto& change : changes) {
    auto& conv = graph.nodes[change.conv];
    auto& norm = graph.nodes[change.norm];
    // New tensors under names of their own: another layer may share the old ones.
    const auto weight = graph.fresh(conv.inputs[1] + ".folded");
    graph.initializers[weight] = std::move(change.folded.weight);
    const auto bias = graph.fresh(conv.inputs[1] + ".folded_bias");
    graph.initializers[bias] = std::move(change.folded.bias);
    const auto attributes = conv.attributes;
    become(norm, "Conv", {conv.inputs[0], weight, bias}, attributes);
  }
  if (changes.empty()) return 0;
  remove_dead(graph);
  notes.push_back(fmt::format("folded {} × BatchNormalization into the Conv before it", changes.size()));
  return static_cast<std::int64_t>(changes.size());
}

const RegisterPass registered(60, {"batch-norm", "folds BatchNormalization into the Conv before it", run});

}  // namespace
}  // namespace espalier
