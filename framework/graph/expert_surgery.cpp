#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "graph/experts.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// The tensor's slices `kept` along one axis.
Tensor kept_along(const Tensor& tensor, std::size_t axis, const std::vector<std::size_t>& kept) {
  std::size_t outer = 1, inner = static_cast<std::size_t>(bits(tensor.dtype)) / 8;
  for (std::size_t a = 0; a < tensor.shape.size(); ++a) {
    if (a < axis) outer *= static_cast<std::size_t>(tensor.shape[a]);
    if (a > axis) inner *= static_cast<std::size_t>(tensor.shape[a]);
  }
  const auto length = static_cast<std::size_t>(tensor.shape[axis]);
  std::vector<std::byte> bytes(outer * kept.size() * inner);
  std::byte* to = bytes.data();
  for (std::size_t o = 0; o < outer; ++o)
    for (const std::size_t k : kept) {
      std::memcpy(to, tensor.bytes.data() + (o * length + k) * inner, inner);
      to += inner;
    }
  auto shape = tensor.shape;
  shape[axis] = static_cast<std::int64_t>(kept.size());
  return Tensor::own(tensor.dtype, std::move(shape), std::move(bytes));
}

/// Experts that stay; checks the numbers that leave.
std::vector<std::size_t> kept_experts(const Mixture& mixture, std::size_t number, const std::vector<std::size_t>& gone) {
  std::vector<std::size_t> kept;
  for (std::size_t e = 0; e < mixture.experts.size(); ++e)
    if (std::find(gone.begin(), gone.end(), e) == gone.end()) kept.push_back(e);
  for (const std::size_t e : gone)
    if (e >= mixture.experts.size())
      throw_invalid(fmt::format("mixture {} ({}) has no expert {}", number, mixture.scope, e), "experts",
                    fmt::format("it has {}, counted from 0", mixture.experts.size()));
  if (kept.empty())
    throw_invalid(fmt::format("mixture {} ({}) would lose all of its {} experts", number, mixture.scope, mixture.experts.size()),
                  "experts", "leave at least one");
  return kept;
}

/// Takes summands out of the sums that read them; what is left of a sum of one stands for it.
void drop_summands(Graph& graph, std::set<std::string> gone) {
  for (Node& node : graph.nodes) {
    const bool sum = node.domain.empty() && (node.op == "Add" || node.op == "Sum");
    if (!sum || std::none_of(node.inputs.begin(), node.inputs.end(), [&](const auto& input) { return gone.contains(input); }))
      continue;
    std::erase_if(node.inputs, [&](const auto& input) { return gone.contains(input); });
    if (node.inputs.empty()) gone.insert(node.output(0));
    if (node.inputs.size() == 1) node.op = "Identity", node.attributes.clear();
  }
}

/// Identities that drop_summands() made go, but for those that name an output.
void skip_identities(Graph& graph, const std::set<std::string>& sums) {
  std::set<std::string> outputs;
  for (const Value& output : graph.outputs) outputs.insert(output.name);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (node.op != "Identity" || !sums.contains(node.output(0)) || outputs.contains(node.output(0))) continue;
    const std::string from = node.output(0), to = node.input(0);
    replace_uses(graph, from, to);
  }
}

void cut_mixture(Graph& graph, const Mixture& mixture, const std::vector<std::size_t>& kept) {
  for (const auto& [tensor, axis] : mixture.router)
    graph.initializers[tensor] = kept_along(graph.initializers.at(tensor), axis, kept);
  const auto left = static_cast<std::int64_t>(kept.size());
  Node& split = graph.nodes[mixture.split];
  std::vector<std::string> gates;
  for (const std::size_t e : kept) gates.push_back(split.outputs[e]);
  split.outputs = std::move(gates);
  if (split.inputs.size() > 1 && !split.inputs[1].empty()) {
    const std::string sizes = graph.fresh(split.inputs[1] + ".kept");
    graph.initializers[sizes] = Tensor::of<std::int64_t>(DType::i64, {left}, std::vector<std::int64_t>(kept.size(), 1));
    split.inputs[1] = sizes;
  } else {
    split.attributes["num_outputs"] = left;
  }
  if (left >= mixture.used) return;
  Node& choice = graph.nodes[mixture.top_k];
  const std::string used = graph.fresh(choice.inputs[1] + ".kept");
  graph.initializers[used] = Tensor::of<std::int64_t>(DType::i64, {1}, {left});
  choice.inputs[1] = used;
}

}  // namespace

Graph without_experts(const Graph& graph, const std::vector<Mixture>& mixtures, const ExpertRemoval& removal) {
  Graph result = graph;
  std::set<std::string> gone, sums;
  for (const auto& [number, experts] : removal) {
    if (number >= mixtures.size())
      throw_invalid(fmt::format("there is no mixture {}", number), "experts", fmt::format("the model has {}", mixtures.size()));
    const Mixture& mixture = mixtures[number];
    const auto kept = kept_experts(mixture, number, experts);
    if (kept.size() == mixture.experts.size()) continue;
    cut_mixture(result, mixture, kept);
    for (const std::size_t e : experts) gone.insert(mixture.experts[e].share);
  }
  for (const Node& node : graph.nodes)
    if (node.op == "Add" || node.op == "Sum") sums.insert(node.output(0));
  drop_summands(result, gone);
  skip_identities(result, sums);
  remove_dead(result);
  result.validate();
  infer(result);
  return result;
}

}  // namespace espalier
