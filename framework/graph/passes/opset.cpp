// Older files say the same in older words. In the newest opset that every runtime here takes, the fusions have operators to fuse
// into (RMSNormalization, Attention, RotaryEmbedding), and one form of each operator is all that a pass has to know. A model is
// brought there whole or not at all: one node whose meaning would change keeps it where it is.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "graph/op.h"
#include "graph/passes.h"

namespace espalier {
namespace {

using Integers = std::vector<std::int64_t>;

constexpr std::int64_t kOldest = 11, kNewest = 23, kIr = 11;

/// One graph, or the body of an If, Loop or Scan, on its way up.
struct Upgrade {
  Graph& graph;
  const ValueMap* values;  ///< absent in bodies: their shapes follow from what enters them
  std::int64_t from;

  const Shape* shape(const std::string& value) const {
    if (!values) return nullptr;
    const auto found = values->find(value);
    return found == values->end() || !found->second.rank_known ? nullptr : &found->second.shape;
  }
  std::string constant(const std::string& stem, const Integers& numbers) {
    const std::string name = graph.fresh(stem);
    graph.initializers[name] = Tensor::of<std::int64_t>(DType::i64, {static_cast<std::int64_t>(numbers.size())}, numbers);
    return name;
  }
  /// An attribute that became input `slot`.
  void attribute_to_input(Node& node, const char* attribute, std::size_t slot) {
    if (!node.has(attribute)) return;
    if (node.inputs.size() <= slot) node.inputs.resize(slot + 1);
    node.inputs[slot] = constant(node.output(0) + "." + attribute, node.integers(attribute, {}));
    node.attributes.erase(attribute);
  }
};

/// What happened to an operator in opset `since`. Returns false where a node cannot say it in the new words.
struct Change {
  std::int64_t since;
  std::function<bool(Upgrade&, Node&)> rewrite;
};

bool keep(Upgrade&, Node&) { return true; }

bool axes_to_input(Upgrade& upgrade, Node& node) {
  upgrade.attribute_to_input(node, "axes", 1);
  return true;
}

/// Before 13 all axes from `axis` on were one; the same for the last axis alone.
bool last_axis_only(Upgrade& upgrade, Node& node) {
  const Shape* shape = upgrade.shape(node.input(0));
  const std::int64_t axis = node.integer("axis", 1);
  if (axis != -1 && (!shape || axis != static_cast<std::int64_t>(shape->size()) - 1)) return false;
  node.attributes["axis"] = std::int64_t{-1};
  return true;
}

bool split_to_input(Upgrade& upgrade, Node& node) {
  upgrade.attribute_to_input(node, "split", 1);
  return true;
}

bool count_of_parts(Upgrade&, Node& node) {
  if (node.input(1).empty()) {
    node.inputs.resize(1);
    node.attributes["num_outputs"] = static_cast<std::int64_t>(node.outputs.size());
  }
  return true;
}

/// Only training drops, and nothing says that this is training.
bool without_ratio(Upgrade&, Node& node) {
  node.attributes.erase("ratio");
  return true;
}

/// A tensor of no elements stood for an input that is not there.
bool absent_when_empty(Upgrade& upgrade, Node& node) {
  if (node.text("coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn") return false;
  for (std::size_t slot = 1; slot < node.inputs.size(); ++slot) {
    const Tensor* tensor = upgrade.graph.initializer(node.inputs[slot]);
    if (tensor && tensor->count() == 0) node.inputs[slot].clear();
  }
  while (!node.inputs.empty() && node.inputs.back().empty()) node.inputs.pop_back();
  return true;
}

bool one_output(Upgrade&, Node& node) {
  return std::all_of(node.outputs.begin() + 1, node.outputs.end(), [](const std::string& output) { return output.empty(); });
}

bool corner_pixels(Upgrade&, Node& node) {
  node.attributes.try_emplace("coordinate_transformation_mode", std::string("output_half_pixel"));
  return true;
}

bool modes_by_degree(Upgrade&, Node& node) {
  const std::map<std::string, std::string> renamed{{"bilinear", "linear"}, {"bicubic", "cubic"}, {"nearest", "nearest"}};
  const auto found = renamed.find(node.text("mode", "bilinear"));
  if (found == renamed.end()) return false;
  node.attributes["mode"] = found->second;
  return true;
}

bool axis_to_input(Upgrade& upgrade, Node& node) {
  const std::string name = upgrade.graph.fresh(node.output(0) + ".axis");
  upgrade.graph.initializers[name] = Tensor::of<std::int64_t>(DType::i64, {}, {node.integer("axis", 1)});
  node.attributes.erase("axis");
  node.inputs.resize(3);
  node.inputs[2] = name;
  return true;
}

/// Scales and biases were one for a group of channels, and are one for a channel.
bool scales_by_channel(Upgrade& upgrade, Node& node) {
  const Shape* shape = upgrade.shape(node.input(0));
  const std::int64_t groups = node.integer("num_groups", 0);
  if (!shape || shape->size() < 2 || !(*shape)[1].known() || groups <= 0 || (*shape)[1].constant() % groups != 0) return false;
  const auto width = static_cast<std::size_t>((*shape)[1].constant() / groups);
  for (const std::size_t slot : {1U, 2U}) {
    const Tensor* old = upgrade.graph.initializer(node.input(slot));
    if (!old || old->shape != Integers{groups} || old->bytes.size() % static_cast<std::size_t>(groups) != 0) return false;
    const std::size_t element = old->bytes.size() / static_cast<std::size_t>(groups);
    std::vector<std::byte> bytes;
    for (std::size_t group = 0; group < static_cast<std::size_t>(groups); ++group)
      for (std::size_t i = 0; i < width; ++i)
        bytes.insert(bytes.end(), old->bytes.begin() + static_cast<std::ptrdiff_t>(group * element),
                     old->bytes.begin() + static_cast<std::ptrdiff_t>((group + 1) * element));
    const std::string name = upgrade.graph.fresh(node.inputs[slot] + ".by_channel");
    upgrade.graph.initializers[name] = Tensor::own(old->dtype, {(*shape)[1].constant()}, std::move(bytes));
    node.inputs[slot] = name;
  }
  return true;
}

/// Operators whose meaning or whose words changed between kOldest and kNewest (the ONNX project's changelog of operators). `keep`:
/// a newer version only adds what is absent here, with the old meaning as its default.
const std::multimap<std::string, Change, std::less<>>& changes() {
  static const auto table = [] {
    std::multimap<std::string, Change, std::less<>> t;
    const auto add = [&](std::initializer_list<const char*> names, std::int64_t since, bool (*rewrite)(Upgrade&, Node&)) {
      for (const char* name : names) t.emplace(name, Change{since, rewrite});
    };
    add({"ReduceSum", "Squeeze", "Unsqueeze"}, 13, axes_to_input);
    add({"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
         "ReduceSumSquare"},
        18, axes_to_input);
    add({"Softmax", "LogSoftmax", "Hardmax"}, 13, last_axis_only);
    add({"Split"}, 13, split_to_input);
    add({"Split"}, 18, count_of_parts);
    add({"Dropout"}, 12, without_ratio);
    add({"Resize"}, 13, absent_when_empty);
    add({"Resize"}, 18, keep);
    add({"Resize"}, 19, keep);
    add({"BatchNormalization"}, 14, one_output);
    add({"BatchNormalization"}, 15, keep);
    add({"RoiAlign"}, 16, corner_pixels);
    add({"GridSample"}, 20, modes_by_degree);
    add({"DFT"}, 20, axis_to_input);
    add({"GroupNormalization"}, 21, scales_by_channel);
    add({"AveragePool"}, 19, keep);
    add({"LpPool", "Pad"}, 18, keep);
    add({"MaxPool"}, 12, keep);
    for (const std::int64_t since : {13, 19, 21, 23}) add({"QuantizeLinear", "DequantizeLinear"}, since, keep);
    add({"QLinearMatMul"}, 21, keep);
    return t;
  }();
  return table;
}

bool upgrade_node(Upgrade& upgrade, Node& node) {
  const Operator* before = find_operator(node.domain, node.op, upgrade.from);
  if (!before) return false;
  const Operator* after = find_operator(node.domain, node.op, kNewest);
  const auto [first, last] = changes().equal_range(node.op);
  std::int64_t reached = before->since;
  for (auto change = first; change != last; ++change) {
    if (change->second.since <= upgrade.from) continue;
    if (!change->second.rewrite(upgrade, node)) return false;
    reached = std::max(reached, change->second.since);
  }
  // The table of operators knows another meaning that none of the changes leads to.
  return after == before || (after && after->since <= reached);
}

bool upgrade_graph(Graph& graph, std::int64_t from, bool outermost) {
  ValueMap values;
  if (outermost) values = infer(graph);
  Upgrade upgrade{graph, outermost ? &values : nullptr, from};
  for (Node& node : graph.nodes) {
    if (node.domain.empty() && !upgrade_node(upgrade, node)) return false;
    for (auto& [name, attribute] : node.attributes) {
      std::vector<std::shared_ptr<Graph>*> bodies;
      if (auto* one = std::get_if<std::shared_ptr<Graph>>(&attribute)) bodies.push_back(one);
      if (auto* many = std::get_if<std::vector<std::shared_ptr<Graph>>>(&attribute))
        for (auto& body : *many) bodies.push_back(&body);
      for (auto* body : bodies) {
        if (!*body) continue;
        auto copy = std::make_shared<Graph>(**body);
        if (!upgrade_graph(*copy, from, false)) return false;
        *body = std::move(copy);
      }
    }
  }
  graph.opsets[""] = kNewest;
  graph.ir_version = std::max(graph.ir_version, kIr);
  return true;
}

std::int64_t run(Graph& graph, std::vector<std::string>& notes) {
  const std::int64_t from = graph.opset();
  if (from < kOldest || from >= kNewest) return 0;
  Graph copy = graph;
  if (!upgrade_graph(copy, from, true)) return 0;
  graph = std::move(copy);
  notes.push_back(fmt::format("opset {} → {}", from, kNewest));
  return 1;
}

const RegisterPass registered(1, {"opset", "brings a model of opset 11 or later to opset 23", run});

}  // namespace
}  // namespace espalier
