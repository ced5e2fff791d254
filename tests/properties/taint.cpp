#include "taint.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>
#include <numeric>
#include <random>

namespace espalier::test {
namespace {

/// The elements of all ports of one node, joined by its links; the transitive closure of what the maps say.
class Closure {
 public:
  Closure(const Graph& graph, const ValueMap& values, const Node& node) : node_(node), maps_(axis_maps(graph, values, node)) {
    for (const bool output : {false, true}) {
      const auto& names = output ? node.outputs : node.inputs;
      for (std::size_t slot = 0; slot < names.size(); ++slot) {
        if (names[slot].empty()) continue;
        const auto& shape = values.find(names[slot])->second.shape;
        for (std::size_t axis = 0; axis < shape.size(); ++axis) {
          const auto length = shape[axis].value_or(0);
          first_[{output, slot, axis}] = {parent_.size(), length};
          for (std::int64_t i = 0; i < length; ++i) parent_.push_back(parent_.size());
          // A value that a node reads twice is poisoned twice.
          for (std::size_t earlier = 0; earlier < slot && !output; ++earlier)
            if (names[earlier] == names[slot])
              for (std::int64_t i = 0; i < length; ++i) join(at({false, earlier, axis}, i), at({false, slot, axis}, i));
        }
      }
    }
    for (const auto& link : maps_.links) add(link);
  }

  const AxisMaps& maps() const { return maps_; }
  std::int64_t length(const AxisMaps::Port& port) const {
    const auto found = first_.find({port.output, port.slot, port.axis});
    return found == first_.end() ? 0 : found->second.second;
  }
  std::size_t unit(const AxisMaps::Port& port, std::int64_t index) { return find(at({port.output, port.slot, port.axis}, index)); }
  /// Indices of a port that belong to a unit.
  std::vector<std::int64_t> indices(const AxisMaps::Port& port, std::size_t unit) {
    std::vector<std::int64_t> result;
    for (std::int64_t i = 0; i < length(port); ++i)
      if (this->unit(port, i) == unit) result.push_back(i);
    return result;
  }
  /// Some index of the axis is linked with an output.
  bool reaches_output(const AxisMaps::Port& port) {
    if (of_outputs_.empty())
      for (const auto& [key, elements] : first_)
        for (std::int64_t i = 0; std::get<0>(key) && i < elements.second; ++i) of_outputs_.insert(find(at(key, i)));
    for (std::int64_t i = 0; i < length(port); ++i)
      if (of_outputs_.contains(unit(port, i))) return true;
    return false;
  }
  std::optional<AxisMaps::Mark::Kind> mark(const AxisMaps::Port& port) const {
    for (const auto& m : maps_.marks)
      if (m.port.output == port.output && m.port.slot == port.slot && m.port.axis == port.axis) return m.kind;
    return std::nullopt;
  }

 private:
  using Key = std::tuple<bool, std::size_t, std::size_t>;

  std::size_t at(const Key& key, std::int64_t index) const { return first_.at(key).first + static_cast<std::size_t>(index); }
  std::size_t find(std::size_t e) {
    while (parent_[e] != e) e = parent_[e] = parent_[parent_[e]];
    return e;
  }
  void join(std::size_t a, std::size_t b) { parent_[find(a)] = find(b); }
  void add(const AxisMaps::Link& link) {
    const Key a{link.a.output, link.a.slot, link.a.axis}, b{link.b.output, link.b.slot, link.b.axis};
    if (!first_.contains(a) || !first_.contains(b)) return;
    const auto la = first_[a].second, lb = first_[b].second;
    if (la == 0 || lb == 0) return;
    const auto units =
        link.units > 0 ? link.units : std::min((la - link.a_begin) / link.a_width, (lb - link.b_begin) / link.b_width);
    for (std::int64_t u = 0; u < units; ++u) {
      const auto x = at(a, link.a_begin + u * link.a_width), y = at(b, link.b_begin + u * link.b_width);
      join(x, y);
      for (std::int64_t i = 1; i < link.a_width; ++i) join(x, x + static_cast<std::size_t>(i));
      for (std::int64_t i = 1; i < link.b_width; ++i) join(y, y + static_cast<std::size_t>(i));
    }
  }

  const Node& node_;
  AxisMaps maps_;
  std::map<Key, std::pair<std::size_t, std::int64_t>> first_;
  std::vector<std::size_t> parent_;
  std::set<std::size_t> of_outputs_;
};

at::Tensor poisoned(const at::Tensor& value, std::size_t axis, const std::vector<std::int64_t>& indices) {
  auto copy = value.clone();
  for (auto i : indices) copy.select(static_cast<std::int64_t>(axis), i).fill_(std::numeric_limits<double>::quiet_NaN());
  return copy;
}

/// What a mark of these says is about the mask (a zeroed divisor), not about which elements are read.
bool elementwise(const std::string& op) { return op == "Div" || op == "Pow" || op == "Reciprocal" || op == "Log"; }

class NodeCheck {
 public:
  NodeCheck(const Graph& graph, const ValueMap& values, const Node& node, Session& session, const TensorMap& recorded, Taint& taint)
      : graph_(graph), node_(node), session_(session), taint_(taint), closure_(graph, values, node) {
    for (const auto& name : node.inputs)
      if (!name.empty() && !graph.initializer(name)) inputs_[name] = recorded.at(name);
    for (const auto& name : node.outputs)
      if (!name.empty() && recorded.at(name).is_floating_point()) wanted_.push_back(name);
  }

  void run() {
    if (wanted_.empty()) return;
    clean_ = session_.run(inputs_, wanted_);
    for (std::size_t slot = 0; slot < node_.inputs.size(); ++slot) {
      const auto& name = node_.inputs[slot];
      if (name.empty()) continue;
      const auto value = graph_.initializer(name) ? session_.parameter(name) : inputs_.at(name);
      if (!value.is_floating_point()) continue;
      for (std::size_t axis = 0; axis < static_cast<std::size_t>(value.dim()); ++axis) check_axis(slot, axis, value);
    }
  }

 private:
  void check_axis(std::size_t slot, std::size_t axis, const at::Tensor& value) {
    const auto port = AxisMaps::in(slot, axis);
    const auto length = closure_.length(port);
    const auto mark = closure_.mark(port);
    if (length < 2 || mark == AxisMaps::Mark::pinned) return;
    const bool linked = closure_.reaches_output(port);
    const bool everything = !linked || (mark && !elementwise(node_.op));
    std::set<std::size_t> done;
    for (std::int64_t i = 0; i < length && done.size() < 6; i += 1 + length / 16) {
      const auto unit = closure_.unit(port, i);
      if (!done.insert(unit).second) continue;
      const auto outputs = joint() ? unit_under(unit) : outputs_under(slot, axis, value, closure_.indices(port, unit));
      for (const auto& [name, output] : outputs) {
        const auto expected = everything ? at::zeros(output.sizes(), at::kBool).logical_not() : expectation(name, output, unit);
        // Fused attention turns rows of nothing but NaN into zeros: tainted is what is not as it was.
        const auto tainted = at::isnan(output).logical_or((output - clean_.at(name)).abs() > 1e-5);
        if (tainted.equal(expected)) continue;
        taint_.violations.push_back(fmt::format(
            "{} ({}): input {} axis {} index {}: {} of {} elements of {} are tainted, the maps say {}", node_.name, node_.op, slot,
            axis, i, tainted.sum().item<std::int64_t>(), output.numel(), name, expected.sum().item<std::int64_t>()));
      }
      ++taint_.claims;
      taint_.operators.insert(node_.op);
    }
  }

  TensorMap outputs_under(std::size_t slot, std::size_t axis, const at::Tensor& value, const std::vector<std::int64_t>& indices) {
    const auto& name = node_.inputs[slot];
    const auto bad = poisoned(value, axis, indices);
    if (graph_.initializer(name)) {
      session_.set_parameter(name, bad);
      auto outputs = session_.run(inputs_, wanted_);
      session_.set_parameter(name, value);
      return outputs;
    }
    auto inputs = inputs_;
    inputs[name] = bad;
    return session_.run(inputs, wanted_);
  }

  /// The parts of a Concat share their other axes, and an attention that hands on its keys joins them with the past: here a unit is
  /// poisoned in all inputs at once.
  bool joint() const { return node_.op == "Concat" || (node_.op == "Attention" && node_.outputs.size() > 1); }
  TensorMap unit_under(std::size_t unit) {
    auto inputs = inputs_;
    for (std::size_t slot = 0; slot < node_.inputs.size(); ++slot)
      if (const auto found = inputs.find(node_.inputs[slot]); found != inputs.end())
        for (std::size_t axis = 0; axis < static_cast<std::size_t>(found->second.dim()); ++axis)
          found->second = poisoned(found->second, axis, closure_.indices(AxisMaps::in(slot, axis), unit));
    return session_.run(inputs, wanted_);
  }

  at::Tensor expectation(const std::string& name, const at::Tensor& output, std::size_t unit) {
    auto expected = at::zeros(output.sizes(), at::kBool);
    for (std::size_t slot = 0; slot < node_.outputs.size(); ++slot) {
      if (node_.outputs[slot] != name) continue;
      for (std::size_t axis = 0; axis < static_cast<std::size_t>(output.dim()); ++axis)
        for (auto i : closure_.indices(AxisMaps::out(slot, axis), unit))
          expected.select(static_cast<std::int64_t>(axis), i).fill_(true);
    }
    return expected;
  }

  const Graph& graph_;
  const Node& node_;
  Session& session_;
  Taint& taint_;
  Closure closure_;
  TensorMap inputs_, clean_;
  std::vector<std::string> wanted_;
};

}  // namespace

void check_taint(const Graph& graph, const TensorMap& inputs, Taint& taint) {
  const auto values = infer(graph);
  SessionOptions options;
  options.fold_constants = false;
  Session session(graph, options);
  // What flows through the graph, observed.
  TensorMap recorded = inputs;
  std::vector<std::string> all;
  for (const auto& node : graph.nodes)
    for (const auto& name : node.outputs) {
      if (name.empty()) continue;
      all.push_back(name);
      session.hook(name, [&recorded](const std::string& value, const at::Tensor& tensor) {
        recorded[value] = tensor.detach().clone();
        return at::Tensor();
      });
    }
  session.run(inputs, all);
  for (const auto& name : all) session.hook(name, {});
  for (const auto& node : graph.nodes) NodeCheck(graph, values, node, session, recorded, taint).run();
}

SingleNode single_node(const std::string& op, const std::vector<Operand>& operands, std::map<std::string, Attribute> attributes,
                       std::size_t outputs, std::int64_t opset) {
  SingleNode single;
  single.graph.opsets[""] = opset;
  std::mt19937_64 random(7);
  std::uniform_real_distribution<float> positive(0.2F, 0.9F);
  Node node;
  node.op = op;
  node.name = "/single/" + op;
  node.attributes = std::move(attributes);
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const auto name = operands[i].absent ? "" : fmt::format("in{}", i);
    node.inputs.push_back(name);
    if (operands[i].absent) continue;
    if (operands[i].constant) {
      single.graph.initializers[name] = *operands[i].constant;
      continue;
    }
    const auto& shape = operands[i].shape;
    auto data = at::empty(shape);
    for (std::int64_t k = 0; k < data.numel(); ++k) data.data_ptr<float>()[k] = positive(random);
    single.inputs[name] = data;
    single.graph.inputs.push_back({name, DType::f32, Shape(shape.begin(), shape.end())});
  }
  for (std::size_t i = 0; i < outputs; ++i) node.outputs.push_back(fmt::format("out{}", i));
  single.graph.nodes = {node};
  for (const auto& name : node.outputs) single.graph.outputs.push_back({name, DType::f32, {}});
  const auto values = infer(single.graph);
  for (auto& output : single.graph.outputs)
    output = {output.name, values.find(output.name)->second.dtype, values.find(output.name)->second.shape};
  return single;
}

}  // namespace espalier::test
