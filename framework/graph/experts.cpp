#include "graph/experts.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "graph/op.h"

namespace espalier {
namespace {

/// What may stand between a router's product and its gates: it works along the experts, or element by element.
bool routes(std::string_view op) {
  static const std::set<std::string_view> known{"TopK",           "Softmax",   "Sigmoid", "ScatterElements",
                                                "GatherElements", "ReduceSum", "Div",     "Mul",
                                                "Cast",           "Identity",  "Add",     "Clip"};
  return known.contains(op);
}

std::string dotted(const std::string& name) {
  std::string out = name.starts_with('/') ? name.substr(1) : name;
  std::replace(out.begin(), out.end(), '/', '.');
  return out;
}

/// What the dotted names have in common, in whole parts.
std::string common_scope(const std::vector<std::string>& names) {
  std::string common = names.empty() ? "" : dotted(names.front());
  for (const std::string& name : names) {
    const std::string other = dotted(name);
    const auto [a, b] = std::mismatch(common.begin(), common.end(), other.begin(), other.end());
    const bool whole = (a == common.end() && (b == other.end() || *b == '.')) || (b == other.end() && *a == '.');
    common.erase(a, common.end());
    if (!whole) common.erase(common.find_last_of('.') == std::string::npos ? 0 : common.find_last_of('.'));
  }
  return common;
}

class Finder {
 public:
  explicit Finder(const Graph& graph) : graph_(graph), uses_(graph), values_(infer(graph)) {
    for (const Value& output : graph.outputs) outputs_.insert(output.name);
  }

  /// Reads the mixture whose gates the node hands out; false where it is none.
  bool read(std::size_t split, Mixture& mixture) const {
    const Node& node = graph_.nodes[split];
    if (node.op != "Split" || !node.domain.empty() || node.outputs.size() < 2 || !last_axis(node, 0)) return false;
    mixture.split = split;
    mixture.gates = node.input(0);
    const bool whole = width(mixture.gates) == static_cast<std::int64_t>(node.outputs.size());
    if (!whole || !read_router(mixture) || !read_experts(mixture)) return false;
    mixture.output = sum_of(mixture.experts);
    return !mixture.output.empty();
  }

 private:
  std::int64_t width(const std::string& value) const {
    const auto found = values_.find(value);
    if (found == values_.end() || !found->second.rank_known || found->second.shape.empty()) return 0;
    return found->second.shape.back().value_or(0);
  }

  /// Whether the operator works along the last axis of input 0.
  bool last_axis(const Node& node, std::int64_t fallback) const {
    const auto found = values_.find(node.input(0));
    if (found == values_.end() || !found->second.rank_known) return false;
    const auto rank = static_cast<std::int64_t>(found->second.shape.size());
    const std::int64_t axis = node.integer("axis", fallback);
    return rank > 0 && (axis == -1 || axis == rank - 1);
  }

  bool only_read_by(const std::string& value, const std::set<std::size_t>& nodes) const {
    const auto& readers = uses_.readers_of(value);
    return !outputs_.contains(value) &&
           std::all_of(readers.begin(), readers.end(), [&](const Uses::Reader& reader) { return nodes.contains(reader.node); });
  }

  /// From the gates back to the product.
  bool read_router(Mixture& mixture) const {
    std::set<std::size_t> inside;
    std::vector<std::string> open{mixture.gates};
    std::optional<std::size_t> product;
    std::vector<std::size_t> choices;
    while (!open.empty()) {
      const std::string value = open.back();
      open.pop_back();
      if (value.empty() || graph_.initializer(value)) continue;
      const auto maker = uses_.producer_of(value);
      if (maker < 0) return false;
      const auto at = static_cast<std::size_t>(maker);
      const Node& node = graph_.nodes[at];
      if (!inside.insert(at).second) continue;
      if (!node.domain.empty()) return false;
      if (node.op == "MatMul" || node.op == "Gemm") {
        if (product) return false;
        product = at;
        continue;
      }
      if (!routes(node.op)) return false;
      if (node.op == "TopK") choices.push_back(at);
      open.insert(open.end(), node.inputs.begin(), node.inputs.end());
    }
    if (!product || choices.size() != 1) return false;
    mixture.top_k = choices.front();
    if (!read_product(mixture, graph_.nodes[*product])) return false;
    inside.erase(*product);
    for (const std::size_t at : inside)
      if (!routing_node(mixture, graph_.nodes[at])) return false;
    inside.insert(mixture.split);
    std::vector<std::string> names;
    for (const std::size_t at : inside) {
      names.push_back(graph_.nodes[at].name);
      if (at == mixture.split) continue;
      for (const std::string& value : graph_.nodes[at].outputs)
        if (!value.empty() && !only_read_by(value, inside)) return false;
    }
    if (!only_read_by(graph_.nodes[*product].output(0), inside)) return false;
    mixture.scope = common_scope(names);
    if (mixture.scope.empty()) mixture.scope = dotted(graph_.nodes[mixture.split].name);
    return read_choice(mixture);
  }

  /// The weight, and where experts lie in it.
  bool read_product(Mixture& mixture, const Node& node) const {
    const Tensor* weight = graph_.initializer(node.input(1));
    if (!weight || weight->shape.size() != 2 || node.integer("transA", 0) != 0) return false;
    const std::size_t axis = node.integer("transB", 0) != 0 ? 0 : 1;
    mixture.logits = node.output(0);
    return width(mixture.logits) == width(mixture.gates) && slice(mixture, node.input(1), axis) &&
           (node.input(2).empty() || slice_vector(mixture, node.input(2)));
  }

  /// An initializer of the router is cut: nothing else may read it.
  bool slice(Mixture& mixture, const std::string& name, std::size_t axis) const {
    const Tensor& tensor = *graph_.initializer(name);
    if (!is_floating(tensor.dtype) || bits(tensor.dtype) % 8 != 0 || outputs_.contains(name) ||
        uses_.readers_of(name).size() != 1 || tensor.shape[axis] != width(mixture.gates))
      return false;
    mixture.router.push_back({name, axis});
    return true;
  }

  bool slice_vector(Mixture& mixture, const std::string& name) const {
    const Tensor* tensor = graph_.initializer(name);
    if (!tensor) return false;
    return tensor->count() == 1 || (!tensor->shape.empty() && slice(mixture, name, tensor->shape.size() - 1));
  }

  /// A node between product and gates: along the last axis, with constants of one element; a bias only right behind the product,
  /// so that a logit of minus infinity stays one.
  bool routing_node(Mixture& mixture, const Node& node) const {
    if (node.op == "Add") {
      const bool first = graph_.initializer(node.input(1)) && node.input(0) == mixture.logits;
      const bool second = graph_.initializer(node.input(0)) && node.input(1) == mixture.logits;
      if ((!first && !second) || !slice_vector(mixture, node.input(first ? 1 : 0))) return false;
      if (!only_read_by(mixture.logits, {static_cast<std::size_t>(uses_.producer_of(node.output(0)))})) return false;
      mixture.logits = node.output(0);
      return true;
    }
    if (node.op == "Softmax" || node.op == "TopK") {
      if (!last_axis(node, -1)) return false;
    } else if ((node.op == "ScatterElements" || node.op == "GatherElements") && !last_axis(node, 0)) {
      return false;
    }
    if (node.op == "TopK") return node.integer("largest", 1) != 0;
    return std::all_of(node.inputs.begin(), node.inputs.end(), [&](const std::string& input) {
      const Tensor* tensor = graph_.initializer(input);
      return !tensor || tensor->count() == 1;
    });
  }

  bool read_choice(Mixture& mixture) const {
    const Tensor* count = graph_.initializer(graph_.nodes[mixture.top_k].input(1));
    if (!count || count->dtype != DType::i64 || count->count() != 1) return false;
    mixture.used = count->integers()[0];
    return mixture.used >= 1 && mixture.used <= width(mixture.gates);
  }

  bool read_experts(Mixture& mixture) const {
    for (const std::string& gate : graph_.nodes[mixture.split].outputs) {
      const auto& readers = uses_.readers_of(gate);
      if (gate.empty() || readers.size() != 1 || outputs_.contains(gate) || width(gate) != 1) return false;
      const Node& product = graph_.nodes[readers[0].node];
      if (product.op != "Mul" || !product.domain.empty()) return false;
      Expert expert;
      expert.output = product.input(1 - readers[0].input);
      expert.share = product.output(0);
      if (uses_.producer_of(expert.output) < 0) return false;
      read_nodes(expert, readers[0].node);
      for (const auto& [tensor, axis] : mixture.router) {
        const Tensor& whole = *graph_.initializer(tensor);
        expert.parameters += whole.count() / whole.shape[axis];
      }
      mixture.experts.push_back(std::move(expert));
    }
    return true;
  }

  /// Nodes all of whose readers work for this expert, from its summand back.
  void read_nodes(Expert& expert, std::size_t share) const {
    std::set<std::size_t> own{share};
    std::vector<std::string> open{expert.output};
    while (!open.empty()) {
      const std::string value = open.back();
      open.pop_back();
      const auto maker = value.empty() ? -1 : uses_.producer_of(value);
      if (maker < 0 || own.contains(static_cast<std::size_t>(maker))) continue;
      const Node& node = graph_.nodes[static_cast<std::size_t>(maker)];
      if (!std::all_of(node.outputs.begin(), node.outputs.end(), [&](const auto& out) { return only_read_by(out, own); })) continue;
      own.insert(static_cast<std::size_t>(maker));
      open.insert(open.end(), node.inputs.begin(), node.inputs.end());
    }
    expert.nodes.assign(own.begin(), own.end());
    for (const std::size_t at : expert.nodes)
      for (const std::string& input : graph_.nodes[at].inputs) {
        const Tensor* tensor = graph_.initializer(input);
        const auto& known = expert.weights;
        if (!tensor || tensor->count() < 2 || !only_read_by(input, own) ||
            std::find(known.begin(), known.end(), input) != known.end())
          continue;
        expert.weights.push_back(input);
        if (bits(tensor->dtype) > 0 && tensor->dtype != DType::i64) expert.parameters += tensor->count();
      }
  }

  /// The values that a summand goes into, up to the first that is no sum.
  std::vector<std::string> sums_above(std::string value) const {
    std::vector<std::string> path;
    while (!outputs_.contains(value) && uses_.readers_of(value).size() == 1) {
      const Node& reader = graph_.nodes[uses_.readers_of(value)[0].node];
      if (!reader.domain.empty() || (reader.op != "Add" && reader.op != "Sum")) break;
      path.push_back(value = reader.output(0));
    }
    return path;
  }

  /// The first sum that all summands go into; empty where there is none.
  std::string sum_of(const std::vector<Expert>& experts) const {
    for (const std::string& sum : sums_above(experts.front().share)) {
      const bool all = std::all_of(experts.begin(), experts.end(), [&](const Expert& expert) {
        const auto path = sums_above(expert.share);
        return std::find(path.begin(), path.end(), sum) != path.end();
      });
      if (all) return sum;
    }
    return {};
  }

  const Graph& graph_;
  Uses uses_;
  ValueMap values_;
  std::set<std::string, std::less<>> outputs_;
};

}  // namespace

std::vector<Mixture> find_mixtures(const Graph& graph) {
  std::vector<Mixture> mixtures;
  if (std::none_of(graph.nodes.begin(), graph.nodes.end(), [](const Node& node) { return node.op == "TopK"; })) return mixtures;
  const Finder finder(graph);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    Mixture mixture;
    if (finder.read(n, mixture)) mixtures.push_back(std::move(mixture));
  }
  return mixtures;
}

}  // namespace espalier
