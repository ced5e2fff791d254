#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <numeric>

#include "graph/passes/pattern.h"

namespace espalier {
namespace {

using Axes = std::vector<std::int64_t>;

enum class Way {
  elementwise,  ///< the same whatever the order of axes
  along,        ///< has one attribute `axis`
  reduction,    ///< reduces the axes of input 1 or of an attribute, and keeps them as 1
};

std::optional<Way> way_of(const Pattern& p, const Node& node) {
  static const std::set<std::string, std::less<>> elementwise = {"Abs",
                                                                 "Add",
                                                                 "And",
                                                                 "Cast",
                                                                 "Ceil",
                                                                 "Celu",
                                                                 "Clip",
                                                                 "Cos",
                                                                 "Div",
                                                                 "Elu",
                                                                 "Equal",
                                                                 "Erf",
                                                                 "Exp",
                                                                 "Floor",
                                                                 "Gelu",
                                                                 "Greater",
                                                                 "GreaterOrEqual",
                                                                 "HardSigmoid",
                                                                 "HardSwish",
                                                                 "Identity",
                                                                 "LeakyRelu",
                                                                 "Less",
                                                                 "LessOrEqual",
                                                                 "Log",
                                                                 "Max",
                                                                 "Mean",
                                                                 "Min",
                                                                 "Mish",
                                                                 "Mul",
                                                                 "Neg",
                                                                 "Not",
                                                                 "Or",
                                                                 "PRelu",
                                                                 "Pow",
                                                                 "Reciprocal",
                                                                 "Relu",
                                                                 "Round",
                                                                 "Selu",
                                                                 "Sigmoid",
                                                                 "Sign",
                                                                 "Sin",
                                                                 "Softplus",
                                                                 "Softsign",
                                                                 "Sqrt",
                                                                 "Sub",
                                                                 "Sum",
                                                                 "Swish",
                                                                 "Tanh",
                                                                 "ThresholdedRelu",
                                                                 "Where",
                                                                 "Xor"};
  if (!node.domain.empty() || node.outputs.size() != 1) return std::nullopt;
  if (elementwise.contains(node.op)) return Way::elementwise;
  // Before opset 13 a softmax flattened what follows its axis.
  if ((node.op == "Softmax" || node.op == "LogSoftmax") && p.graph.opset() >= 13) return Way::along;
  if (node.op == "Concat") return Way::along;
  if (node.op == "ReduceMean" || node.op == "ReduceSum" || node.op == "ReduceMax" || node.op == "ReduceMin")
    return node.integer("keepdims", 1) != 0 && p.axes(node) ? std::optional(Way::reduction) : std::nullopt;
  return std::nullopt;
}

Axes inverse(const Axes& perm) {
  Axes back(perm.size());
  for (std::size_t i = 0; i < perm.size(); ++i) back[static_cast<std::size_t>(perm[i])] = static_cast<std::int64_t>(i);
  return back;
}

/// A constant with its axes in another order, filled up with leading axes of length 1 first.
Tensor permuted(const Tensor& tensor, const Axes& perm) {
  Axes from(perm.size() - tensor.shape.size(), 1), shape;
  from.insert(from.end(), tensor.shape.begin(), tensor.shape.end());
  Axes strides(from.size(), 1), steps;
  for (std::size_t i = from.size(); i-- > 1;) strides[i - 1] = strides[i] * from[i];
  for (std::int64_t axis : perm) {
    shape.push_back(from[static_cast<std::size_t>(axis)]);
    steps.push_back(strides[static_cast<std::size_t>(axis)]);
  }
  const auto width = static_cast<std::size_t>(bits(tensor.dtype) / 8);
  std::vector<std::byte> bytes(tensor.bytes.size());
  Axes at(shape.size(), 0);
  for (std::size_t to = 0; to < bytes.size(); to += width) {
    const auto source = std::inner_product(at.begin(), at.end(), steps.begin(), std::int64_t{0});
    std::copy_n(tensor.bytes.begin() + source * static_cast<std::int64_t>(width), width,
                bytes.begin() + static_cast<std::ptrdiff_t>(to));
    for (std::size_t i = at.size(); i-- > 0;) {
      if (++at[i] < shape[i]) break;
      at[i] = 0;
    }
  }
  return Tensor::own(tensor.dtype, shape, std::move(bytes));
}

/// Nodes behind a Transpose that do not care for the order of axes, and what lies at their shores. Inside, every value gets the
/// order of axes from before the Transpose.
class Island {
 public:
  Island(const Pattern& p, const Node& entry) : p_(p), perm_(p.permutation(entry)), back_(inverse(perm_)) {
    grow(entry);
    survey();
  }
  /// Transposes that go less those that come.
  std::int64_t gain() const { return gain_; }
  void apply(Graph& graph) const;
  std::size_t size() const { return nodes_.size(); }

 private:
  bool is(const Node* node, const Axes& perm) const { return node != nullptr && p_.permutation(*node) == perm; }
  const Node& node(std::size_t at) const { return p_.graph.nodes[at]; }
  bool has_rank(const std::string& value) const { return p_.shape(value) != nullptr && p_.shape(value)->size() == perm_.size(); }
  /// Inputs of which the order of axes matters.
  std::vector<std::size_t> data_inputs(const Node& node) const {
    std::vector<std::size_t> list;
    const auto way = way_of(p_, node);
    const bool first_alone = way == Way::reduction || node.op == "Clip" || node.op == "Cast";
    for (std::size_t i = 0; i < (first_alone ? 1 : node.inputs.size()); ++i)
      if (!node.inputs[i].empty()) list.push_back(i);
    return list;
  }
  bool single(const std::string& value) const { return p_.shape(value) != nullptr && element_count(*p_.shape(value)) == 1; }
  const Tensor* constant(const std::string& value) const { return p_.graph.initializer(value); }
  bool fits(const Node& node) const {
    if (!way_of(p_, node) || !has_rank(node.outputs[0])) return false;
    for (std::size_t i : data_inputs(node)) {
      const std::string& value = node.inputs[i];
      const Tensor* tensor = constant(value);
      if (single(value) && p_.shape(value)->size() <= perm_.size() && (tensor || p_.shape(value)->empty())) continue;
      if (tensor ? tensor->shape.size() > perm_.size() || bits(tensor->dtype) < 8 || tensor->dtype == DType::string
                 : !has_rank(value))
        return false;
    }
    return true;
  }
  void grow(const Node& entry);
  void survey();

  const Pattern& p_;
  const Axes perm_, back_;
  std::set<std::size_t> nodes_;
  std::set<std::string> brought_;               ///< values from elsewhere that need a Transpose on the way in
  std::set<std::string> left_;                  ///< values that somebody elsewhere reads as they were
  std::map<std::string, std::string> returns_;  ///< output of a Transpose that only undoes → the value inside
  std::int64_t gain_ = 0;
};

void Island::grow(const Node& entry) {
  std::deque<std::size_t> open;
  const auto visit = [&](std::size_t at) {
    if (fits(node(at)) && nodes_.insert(at).second) open.push_back(at);
  };
  for (const auto& reader : p_.uses.readers_of(entry.outputs[0])) visit(reader.node);
  while (!open.empty()) {
    const Node& current = node(open.front());
    open.pop_front();
    for (const auto& reader : p_.uses.readers_of(current.outputs[0])) visit(reader.node);
    for (std::size_t i : data_inputs(current))
      if (const auto at = p_.uses.producer_of(current.inputs[i]); at >= 0) visit(static_cast<std::size_t>(at));
  }
}

void Island::survey() {
  std::set<std::string> entries;
  for (std::size_t at : nodes_) {
    for (std::size_t i : data_inputs(node(at))) {
      const std::string& value = node(at).inputs[i];
      const auto maker = p_.uses.producer_of(value);
      if (constant(value) || single(value) || (maker >= 0 && nodes_.contains(static_cast<std::size_t>(maker)))) continue;
      (is(p_.made_by(value, "Transpose"), perm_) ? entries : brought_).insert(value);
    }
    const std::string& made = node(at).outputs[0];
    if (p_.exposed(made)) left_.insert(made);
    for (const auto& reader : p_.uses.readers_of(made)) {
      if (nodes_.contains(reader.node)) continue;
      const Node& outside = node(reader.node);
      if (outside.op == "Transpose" && outside.domain.empty() && is(&outside, back_)) {
        returns_[outside.outputs[0]] = made;
      } else {
        left_.insert(made);
      }
    }
  }
  gain_ = static_cast<std::int64_t>(returns_.size()) - static_cast<std::int64_t>(brought_.size() + left_.size());
  for (const std::string& value : entries) {
    const auto& readers = p_.uses.readers_of(value);
    gain_ +=
        !p_.exposed(value) && std::all_of(readers.begin(), readers.end(), [&](const auto& r) { return nodes_.contains(r.node); });
  }
}

void Island::apply(Graph& graph) const {
  std::map<std::string, std::string> inside;  // value → its name in the other order of axes
  const auto turn = [&](const std::string& from, const std::string& to, const Axes& perm) {
    graph.nodes.push_back({"Transpose", "", to + "/Transpose", {from}, {to}, {{"perm", perm}}});
  };
  const auto within = [&](const std::string& value) -> std::string {
    const auto [found, fresh] = inside.try_emplace(value);
    if (!fresh) return found->second;
    const auto maker = p_.uses.producer_of(value);
    if (maker >= 0 && nodes_.contains(static_cast<std::size_t>(maker))) return found->second = graph.fresh(value + ".inner");
    if (const Tensor* tensor = constant(value)) {
      if (tensor->count() == 1) return found->second = value;
      found->second = graph.fresh(value + ".turned");
      graph.initializers[found->second] = permuted(*tensor, back_);
      return found->second;
    }
    if (single(value)) return found->second = value;
    if (const Node* entry = p_.made_by(value, "Transpose"); is(entry, perm_)) return found->second = entry->inputs[0];
    found->second = graph.fresh(value + ".inner");
    turn(value, found->second, back_);
    return found->second;
  };
  for (std::size_t at : nodes_) {
    Node changed = node(at);
    const auto way = *way_of(p_, changed);
    for (std::size_t i : data_inputs(changed)) changed.inputs[i] = within(changed.inputs[i]);
    const auto rank = static_cast<std::int64_t>(perm_.size());
    if (way == Way::along) {
      const auto axis = changed.integer("axis", -1);
      changed.attributes["axis"] = perm_[static_cast<std::size_t>(axis < 0 ? axis + rank : axis)];
    } else if (way == Way::reduction) {
      Axes axes = *p_.axes(node(at));
      for (auto& axis : axes) axis = perm_[static_cast<std::size_t>(axis)];
      if (changed.has("axes")) {
        changed.attributes["axes"] = axes;
      } else {
        changed.inputs[1] = graph.fresh(changed.inputs[1] + ".turned");
        graph.initializers[changed.inputs[1]] = Tensor::of(DType::i64, {static_cast<std::int64_t>(axes.size())}, axes);
      }
    }
    changed.outputs[0] = within(changed.outputs[0]);
    graph.nodes[at] = std::move(changed);
  }
  for (const std::string& value : left_) turn(inside.at(value), value, perm_);
  for (auto& node : graph.nodes)
    if (const auto found = node.op == "Transpose" && node.domain.empty() ? returns_.find(node.outputs[0]) : returns_.end();
        found != returns_.end())
      become(node, "Identity", {inside.at(found->second)}, {});
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  std::int64_t gone = 0;
  std::size_t turned = 0;
  for (bool again = true; again;) {
    again = false;
    const Graph before = graph;  // the pattern looks at this one while the other changes
    const Pattern p(before);
    for (const Node& node : before.nodes) {
      if (node.op != "Transpose" || !node.domain.empty() || p.permutation(node).empty()) continue;
      const Island island(p, node);
      if (island.size() == 0 || island.gain() <= 0) continue;
      island.apply(graph);
      graph.sort();
      remove_dead(graph);
      gone += island.gain();
      turned += island.size();
      again = true;
      break;
    }
  }
  if (gone > 0)
    notes.push_back(fmt::format("{} Transpose nodes fewer: {} nodes work in the order of axes around them", gone, turned));
  return gone;
}

const RegisterPass registered(31, {"layout", "lets nodes between Transposes work in the layout around them", run});

}  // namespace
}  // namespace espalier
