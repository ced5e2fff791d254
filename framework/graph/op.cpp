#include "graph/op.h"

#include <algorithm>
#include <utility>

#include "graph/infer_node.h"
#include "sdk/error.h"

namespace espalier {
namespace {

std::string label(const Node& node) { return "node '" + node.name + "' (" + node.op + ")"; }

using Registry = std::map<std::pair<std::string, std::string>, std::vector<Operator>, std::less<>>;

Registry& registry() {
  static Registry table;
  return table;
}

std::string_view plain_domain(std::string_view domain) { return domain == "ai.onnx" ? std::string_view{} : domain; }

// Larger integer tensors are data, not shape arithmetic.
constexpr std::int64_t kMostContent = 256;
constexpr std::size_t kHighestRank = 64;  // as in NumPy

}  // namespace

ValueInfo info_of(const Tensor& tensor) {
  ValueInfo info{tensor.dtype, Shape(tensor.shape.begin(), tensor.shape.end()), std::nullopt, true};
  const bool integer = tensor.dtype == DType::i64 || tensor.dtype == DType::i32 || tensor.dtype == DType::boolean;
  if (integer && tensor.shape.size() <= 1 && tensor.count() <= kMostContent) {
    const auto elements = tensor.integers();
    info.content.emplace(elements.begin(), elements.end());
  }
  return info;
}

namespace {

ValueInfo unknown() { return {DType::undefined, {}, std::nullopt, false}; }

void check(const Node& node, std::size_t slot, const ValueInfo& info) {
  if (!info.rank_known) return;
  if (info.shape.size() > kHighestRank)
    throw_invalid("output " + std::to_string(slot) + " has rank " + std::to_string(info.shape.size()), label(node));
  for (const Dim& d : info.shape)
    if (d.known() && d.constant() < 0)
      throw_invalid("output " + std::to_string(slot) + " would have shape " + text(info.shape), label(node));
  const auto count = element_count(info.shape);
  if (count && bits(info.dtype) > 0) byte_size(info.dtype, *count);
  if (info.content && count && static_cast<std::int64_t>(info.content->size()) != *count)
    throw Error(ErrorCode::internal, "output " + std::to_string(slot) + " carries another number of elements than its shape",
                label(node));
}

/// An error from arithmetic on dimensions does not know where it happened.
template <class F>
auto located(const Node& node, F&& work) {
  try {
    return work();
  } catch (const Error& e) {
    if (!e.where().empty()) throw;
    throw Error(e.code(), e.message(), label(node), e.hint());
  }
}

}  // namespace

std::vector<ValueInfo> infer_node(const Graph& graph, const ValueMap& values, const Node& node) {
  const Operator* op = find_operator(graph, node);
  const bool ranked = std::all_of(node.inputs.begin(), node.inputs.end(),
                                  [&](const std::string& i) { return i.empty() || values.find(i)->second.rank_known; });
  if (!op || !op->infer || (!ranked && !op->sequences)) return std::vector<ValueInfo>(node.outputs.size(), unknown());
  if (!op->sequences)
    for (const std::string& i : node.inputs)
      if (!i.empty() && values.find(i)->second.sequence)
        throw_unsupported("input '" + i + "' is a sequence, which " + node.op + " does not take", label(node));
  return located(node, [&] {
    auto out = op->infer(NodeView{graph, node, values});
    if (out.size() < node.outputs.size())
      throw_invalid("the node has " + std::to_string(node.outputs.size()) + " outputs, the operator " + std::to_string(out.size()));
    for (std::size_t i = 0; i < out.size(); ++i) check(node, i, out[i]);
    return out;
  });
}

namespace {

double elements(const ValueInfo& info, const Bindings& bindings) {
  double n = 1;
  for (const Dim& d : info.shape) n *= static_cast<double>(evaluate(d, bindings));
  return n;
}

/// The ranks of all that the node reads and makes are known.
bool ranked(const ValueMap& values, const Node& node) {
  for (const auto* names : {&node.inputs, &node.outputs}) {
    for (const auto& name : *names) {
      auto it = values.find(name);
      if (!name.empty() && (it == values.end() || !it->second.rank_known)) return false;
    }
  }
  return true;
}

double bytes_of(const ValueMap& values, const std::string& name, const Bindings& bindings) {
  auto it = values.find(name);
  if (it == values.end() || !it->second.rank_known) return 0;
  return elements(it->second, bindings) * bits(it->second.dtype) / 8;
}

}  // namespace

const ValueInfo& NodeView::in(std::size_t i) const {
  if (!has(i)) fail("input " + std::to_string(i) + " is absent");
  auto it = values.find(node.inputs[i]);
  if (it == values.end()) fail("nothing is known of input '" + node.inputs[i] + "'");
  return it->second;
}

const ValueInfo& NodeView::out(std::size_t i) const {
  auto it = values.find(node.output(i));
  if (node.output(i).empty() || it == values.end()) fail("output " + std::to_string(i) + " is absent");
  return it->second;
}

bool NodeView::has(std::size_t i) const { return !node.input(i).empty(); }

const Tensor* NodeView::constant(std::size_t i) const { return has(i) ? graph.initializer(node.inputs[i]) : nullptr; }

std::optional<std::vector<std::int64_t>> NodeView::integers(std::size_t i) const {
  if (!has(i)) return std::nullopt;
  const ValueInfo& info = in(i);
  if (info.content) {
    std::vector<std::int64_t> out;
    for (const Dim& d : *info.content) {
      if (!d.known()) return std::nullopt;
      out.push_back(d.constant());
    }
    return out;
  }
  const Tensor* tensor = constant(i);
  if (tensor && (tensor->dtype == DType::i64 || tensor->dtype == DType::i32)) return tensor->integers();
  return std::nullopt;
}

std::size_t NodeView::axis(std::string_view attribute, std::int64_t fallback, std::size_t rank) const {
  const std::int64_t given = node.integer(attribute, fallback), r = static_cast<std::int64_t>(rank);
  if (given < -r || given >= r)
    fail(std::string(attribute) + " " + std::to_string(given) + " is outside a value of rank " + std::to_string(r));
  return static_cast<std::size_t>(given < 0 ? given + r : given);
}

void NodeView::fail(std::string message) const { throw_invalid(std::move(message), label(node)); }

void NodeView::refuse(std::string message) const { throw_unsupported(std::move(message), label(node)); }

void AxisMaps::same(Port a, Port b) { links.push_back({a, 0, 1, b, 0, 1, all}); }
void AxisMaps::range(Port a, std::int64_t a_begin, Port b, std::int64_t b_begin, std::int64_t length) {
  if (length > 0) links.push_back({a, a_begin, 1, b, b_begin, 1, length});
}
void AxisMaps::blocks(Port a, std::int64_t a_width, Port b, std::int64_t b_width) {
  links.push_back({a, 0, a_width, b, 0, b_width, all});
}
void AxisMaps::bundle(Port a, std::int64_t width) {
  if (width > 1) links.push_back({a, 0, width, a, 0, width, all});
}
void AxisMaps::pin(Port a, std::string reason) { marks.push_back({a, std::move(reason), Mark::pinned}); }
void AxisMaps::whole(Port a, bool exact, std::string reason) {
  marks.push_back({a, std::move(reason), exact ? Mark::rewrite : Mark::inexact});
}

AxisMaps axis_maps(const Graph& graph, const ValueMap& values, const Node& node) {
  const Operator* op = find_operator(graph, node);
  bool ranked = true;
  auto each = [&](const std::vector<std::string>& names, bool output, auto&& visit) {
    for (std::size_t slot = 0; slot < names.size(); ++slot) {
      if (names[slot].empty()) continue;
      auto it = values.find(names[slot]);
      if (it == values.end()) throw_invalid("nothing is known of value '" + names[slot] + "'", label(node));
      visit(output, slot, it->second);
    }
  };
  auto both = [&](auto&& visit) {
    each(node.inputs, false, visit);
    each(node.outputs, true, visit);
  };
  both([&](bool, std::size_t, const ValueInfo& info) { ranked = ranked && info.rank_known; });
  AxisMaps maps;
  if (op && op->axes && ranked) {
    located(node, [&] { op->axes(NodeView{graph, node, values}, maps); });
    return maps;
  }
  const std::string reason = !op ? "operator " + node.op + " is not known" : "the axes of " + node.op + " are not known";
  both([&](bool output, std::size_t slot, const ValueInfo& info) {
    for (std::size_t axis = 0; axis < info.shape.size(); ++axis) maps.pin({output, slot, axis}, reason);
  });
  return maps;
}

void Adjust::set_constant(std::size_t input, Tensor tensor) {
  if (input >= node.inputs.size()) node.inputs.resize(input + 1);
  std::string& name = node.inputs[input];
  bool shared = std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const Value& v) { return v.name == name; });
  std::size_t own = 0;
  for (const std::string& i : node.inputs) own += i == name;
  shared = shared || own > 1;
  for (const Node& other : graph.nodes) {
    if (shared) break;
    if (&other == &node) continue;
    shared = std::find(other.inputs.begin(), other.inputs.end(), name) != other.inputs.end();
    const auto inner = captures(other);
    shared = shared || std::binary_search(inner.begin(), inner.end(), name);
  }
  if (name.empty() || shared || !graph.initializer(name))
    name = graph.fresh(name.empty() ? node.name + ".input_" + std::to_string(input) : name);
  graph.initializers[name] = std::move(tensor);
}

const Operator* find_operator(std::string_view domain, std::string_view name, std::int64_t opset) {
  auto it = registry().find(std::pair<std::string, std::string>(plain_domain(domain), name));
  if (it == registry().end()) return nullptr;
  const Operator* best = nullptr;
  for (const Operator& op : it->second)
    if (op.since <= opset && (!best || op.since > best->since)) best = &op;
  return best;
}

const Operator* find_operator(const Graph& graph, const Node& node) {
  return find_operator(node.domain, node.op, graph.opset(node.domain));
}

std::vector<const Operator*> all_operators() {
  std::vector<const Operator*> out;
  for (const auto& [key, entries] : registry())
    for (const Operator& op : entries) out.push_back(&op);
  return out;
}

RegisterOperator::RegisterOperator(Operator op) {
  auto key = std::pair(op.domain, op.name);
  auto& entries = registry()[std::move(key)];
  entries.push_back(std::move(op));
  std::sort(entries.begin(), entries.end(), [](const Operator& a, const Operator& b) { return a.since < b.since; });
}

namespace {

void infer_nodes(const Graph& graph, ValueMap& values) {
  for (const auto& [name, tensor] : graph.initializers) {
    if (tensor.shape.size() > kHighestRank)
      throw_invalid("the tensor has rank " + std::to_string(tensor.shape.size()), "'" + name + "'");
    if (!values.emplace(name, info_of(tensor)).second) throw_invalid("the initializer is also an input", "'" + name + "'");
  }
  for (const Node& node : graph.nodes) {
    for (const std::string& i : node.inputs)
      if (!i.empty() && !values.contains(i)) throw_invalid("input '" + i + "' is not defined before the node", label(node));
    auto out = infer_node(graph, values, node);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i].empty()) continue;
      if (!values.emplace(node.outputs[i], std::move(out[i])).second)
        throw_invalid("output '" + node.outputs[i] + "' is defined twice", label(node));
    }
  }
  for (const Value& v : graph.outputs)
    if (!values.contains(v.name)) throw_invalid("no node makes this output of the graph", "'" + v.name + "'");
}

}  // namespace

ValueMap infer(const Graph& graph) {
  ValueMap values;
  for (const Value& v : graph.inputs) {
    if (v.shape.size() > kHighestRank) throw_invalid("the input has rank " + std::to_string(v.shape.size()), "'" + v.name + "'");
    for (const Dim& d : v.shape)
      if (d.known() && d.constant() < 0) throw_invalid("an input has shape " + text(v.shape), "'" + v.name + "'");
    if (!values.emplace(v.name, ValueInfo{v.dtype, v.shape, std::nullopt, !v.sequence, v.sequence}).second)
      throw_invalid("the input is defined twice", "'" + v.name + "'");
  }
  infer_nodes(graph, values);
  return values;
}

ValueMap infer_body(const Graph& body, const std::vector<ValueInfo>& inputs, const ValueMap& outer) {
  // A loop may infer its body several times, and so each loop inside it: the work grows with a power of the depth.
  constexpr int deepest = 8;
  thread_local int depth = 0;
  struct Deeper {
    Deeper() { ++depth; }
    ~Deeper() { --depth; }
  } const deeper;
  if (depth > deepest) throw_unsupported("bodies are nested more than " + std::to_string(deepest) + " deep");
  if (inputs.size() != body.inputs.size())
    throw_invalid("the body has " + std::to_string(body.inputs.size()) + " inputs and is given " + std::to_string(inputs.size()));
  ValueMap values;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!values.emplace(body.inputs[i].name, inputs[i]).second)
      throw_invalid("the body's input is defined twice", "'" + body.inputs[i].name + "'");
  for (const std::string& name : captures(body)) {
    const auto found = outer.find(name);
    if (found == outer.end()) throw_invalid("nothing is known of value '" + name + "', which the body reads");
    values.emplace(name, found->second);
  }
  infer_nodes(body, values);
  return values;
}

Cost cost(const Graph& graph, const ValueMap& values, const Node& node, const Bindings& bindings) {
  return located(node, [&] {
    Cost c;
    for (const auto& i : node.inputs) c.bytes_read += bytes_of(values, i, bindings);
    for (const auto& o : node.outputs) c.bytes_written += bytes_of(values, o, bindings);
    const Operator* op = find_operator(graph, node);
    if (op && op->macs && ranked(values, node)) c.macs = op->macs(NodeView{graph, node, values}, bindings);
    return c;
  });
}

Cost total_cost(const Graph& graph, const ValueMap& values, const Bindings& bindings) {
  Cost sum;
  for (const Node& node : graph.nodes) {
    const Cost c = cost(graph, values, node, bindings);
    sum.macs += c.macs;
    sum.bytes_read += c.bytes_read;
    sum.bytes_written += c.bytes_written;
  }
  return sum;
}

}  // namespace espalier
