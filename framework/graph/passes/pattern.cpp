#include "graph/passes/pattern.h"

#include <algorithm>

namespace espalier {

Pattern::Pattern(const Graph& graph) : graph(graph), values(infer(graph)), uses(graph) {
  for (const auto& value : graph.outputs) exposed_.insert(value.name);
  for (const auto& node : graph.nodes)
    for (auto& name : captures(node)) exposed_.insert(std::move(name));
}

const Node* Pattern::made_by(const std::string& value, std::string_view op) const {
  const auto at = uses.producer_of(value);
  if (at < 0) return nullptr;
  const auto& node = graph.nodes[static_cast<std::size_t>(at)];
  return node.domain.empty() && (op.empty() || node.op == op) && node.output(0) == value ? &node : nullptr;
}

std::optional<double> Pattern::number(const std::string& value) const {
  const auto* tensor = graph.initializer(value);
  if (!tensor || !is_floating(tensor->dtype) || bits(tensor->dtype) < 16 || tensor->count() < 1 || tensor->count() > 1 << 16)
    return std::nullopt;
  const auto numbers = tensor->numbers();
  if (std::any_of(numbers.begin(), numbers.end(), [&](double x) { return x != numbers.front(); })) return std::nullopt;
  return numbers.front();
}

bool Pattern::read_once(const std::string& value) const { return uses.readers_of(value).size() == 1 && !exposed_.contains(value); }

const Shape* Pattern::shape(const std::string& value) const {
  const auto found = values.find(value);
  return found == values.end() || !found->second.rank_known ? nullptr : &found->second.shape;
}

DType Pattern::dtype(const std::string& value) const {
  const auto found = values.find(value);
  return found == values.end() ? DType::undefined : found->second.dtype;
}

const std::string* Pattern::other(const Node& node, const std::string& value) const {
  if (node.inputs.size() != 2) return nullptr;
  if (node.inputs[0] == value) return &node.inputs[1];
  return node.inputs[1] == value ? &node.inputs[0] : nullptr;
}

std::optional<std::pair<std::string, double>> Pattern::with_number(const Node& node) const {
  if (node.inputs.size() != 2) return std::nullopt;
  for (std::size_t i = 0; i < 2; ++i) {
    // A constant of higher rank than a scalar or a row would change the shape of what it is applied to.
    const auto* own = shape(node.inputs[i]);
    const auto* x = shape(node.inputs[1 - i]);
    const auto c = number(node.inputs[i]);
    if (c && own && x && own->size() <= x->size() && element_count(*own) == 1) return std::pair(node.inputs[1 - i], *c);
  }
  return std::nullopt;
}

const std::string& Pattern::past_casts(const std::string& value) const {
  const std::string* at = &value;
  while (const auto* cast = made_by(*at, "Cast")) at = &cast->inputs[0];
  return *at;
}

std::optional<std::vector<std::int64_t>> Pattern::axes(const Node& node) const {
  std::optional<std::vector<std::int64_t>> axes;
  if (node.has("axes"))
    axes = node.integers("axes", {});
  else if (!node.input(1).empty())
    axes = NodeView{graph, node, values}.integers(1);
  const auto* in = shape(node.input(0));
  if (!axes || !in) return std::nullopt;
  const auto rank = static_cast<std::int64_t>(node.op == "Unsqueeze" ? in->size() + axes->size() : in->size());
  for (auto& axis : *axes) {
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return std::nullopt;
  }
  return axes;
}

bool Pattern::is_last_axis(std::int64_t axis, const std::string& value) const {
  const auto* in = shape(value);
  return axis == -1 || (in && axis == static_cast<std::int64_t>(in->size()) - 1);
}

bool Pattern::is_last_mean(const Node& node) const {
  if (node.op != "ReduceMean" || node.integer("keepdims", 1) != 1) return false;
  const auto list = axes(node);
  return list && list->size() == 1 && is_last_axis(list->front(), node.inputs[0]);
}

std::vector<std::int64_t> Pattern::permutation(const Node& transpose) const {
  std::vector<std::int64_t> reversed;
  if (const auto* in = shape(transpose.input(0)))
    for (std::size_t i = in->size(); i-- > 0;) reversed.push_back(static_cast<std::int64_t>(i));
  return transpose.integers("perm", reversed);
}

void become(Node& node, std::string op, std::vector<std::string> inputs, std::map<std::string, Attribute> attributes) {
  node.op = std::move(op);
  node.domain.clear();
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
}

}  // namespace espalier
