#pragma once
/// A graph of one node, made for one question: which outputs does it infer, which axes does it link.
#include <algorithm>
#include <string>
#include <vector>

#include "graph/op.h"
#include "sdk/error.h"

namespace espalier {

inline Dim sym(const char* name) { return Dim::symbol(name); }

struct SingleNode {
  Graph graph;
  Node& node;

  explicit SingleNode(std::string op, std::int64_t opset = 23) : node(graph.nodes.emplace_back()) {
    graph.opsets[""] = opset;
    node.op = std::move(op);
    node.name = "/test/" + node.op;
    node.outputs = {"y"};
  }
  SingleNode& input(Shape shape, DType type = DType::f32) {
    const std::string name = "x" + std::to_string(node.inputs.size());
    graph.inputs.push_back({name, type, std::move(shape)});
    node.inputs.push_back(name);
    return *this;
  }
  SingleNode& absent() {
    node.inputs.emplace_back();
    return *this;
  }
  SingleNode& constant(Tensor tensor) {
    const std::string name = "x" + std::to_string(node.inputs.size());
    graph.initializers[name] = std::move(tensor);
    node.inputs.push_back(name);
    return *this;
  }
  SingleNode& weight(std::vector<std::int64_t> shape) {
    std::int64_t n = 1;
    for (auto d : shape) n *= d;
    return constant(Tensor::of(DType::f32, std::move(shape), std::vector<float>(static_cast<std::size_t>(n), 1.f)));
  }
  SingleNode& list(std::vector<std::int64_t> values) {
    return constant(Tensor::of(DType::i64, {static_cast<std::int64_t>(values.size())}, values));
  }
  SingleNode& scalar(std::int64_t v) { return constant(Tensor::of(DType::i64, {}, std::vector<std::int64_t>{v})); }
  SingleNode& set(const std::string& name, Attribute value) {
    node.attributes[name] = std::move(value);
    return *this;
  }
  SingleNode& ints(const std::string& name, std::vector<std::int64_t> values) { return set(name, std::move(values)); }
  SingleNode& outputs(std::size_t n) {
    node.outputs = {"y"};
    for (std::size_t i = 1; i < n; ++i) node.outputs.push_back("y" + std::to_string(i));
    return *this;
  }

  ValueInfo out(std::size_t i = 0) const { return infer(graph).find(node.outputs[i])->second; }
  std::string shape(std::size_t i = 0) const { return text(out(i).shape); }
  AxisMaps maps() const { return axis_maps(graph, infer(graph), node); }
  double macs(const Bindings& bindings = {}) const { return cost(graph, infer(graph), node, bindings).macs; }

  /// The message of the error that infer() must end in; it must name the node.
  std::string refusal() const {
    try {
      infer(graph);
    } catch (const Error& e) {
      return e.where().find(node.name) == std::string::npos ? "names no node: " + std::string(e.what()) : e.message();
    }
    return "";
  }

  /// "i0.1=o0.2" (same), "i0.1*4=o0.1*1" (blocks), "i0.0[0]=o0.0[3]x2" (range), sorted.
  std::vector<std::string> links() const {
    std::vector<std::string> out;
    for (const auto& l : maps().links) {
      auto side = [&](AxisMaps::Port p, std::int64_t begin, std::int64_t width) {
        std::string s = std::string(p.output ? "o" : "i") + std::to_string(p.slot) + "." + std::to_string(p.axis);
        if (l.units != AxisMaps::all) s += "[" + std::to_string(begin) + "]";
        if (width != 1 || l.a_width != 1 || l.b_width != 1) s += "*" + std::to_string(width);
        return s;
      };
      out.push_back(side(l.a, l.a_begin, l.a_width) + "=" + side(l.b, l.b_begin, l.b_width) +
                    (l.units == AxisMaps::all ? "" : "x" + std::to_string(l.units)));
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  /// "pin i0.0", "inexact i0.1", "rewrite i0.2", sorted, each once.
  std::vector<std::string> marks() const {
    std::vector<std::string> out;
    for (const auto& m : maps().marks) {
      const char* kind = m.kind == AxisMaps::Mark::pinned ? "pin " : m.kind == AxisMaps::Mark::inexact ? "inexact " : "rewrite ";
      out.push_back(std::string(kind) + (m.port.output ? "o" : "i") + std::to_string(m.port.slot) + "." +
                    std::to_string(m.port.axis));
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  /// The node after a cut that keeps these indices of (value, axis).
  using Kept = std::map<std::pair<std::string, std::size_t>, std::vector<std::int64_t>>;
  void cut(const Kept& kept) {
    const ValueMap before = infer(graph);
    Adjust adjust{graph, node, before, [&](const std::string& value, std::size_t axis) -> const std::vector<std::int64_t>* {
                    auto it = kept.find({value, axis});
                    return it == kept.end() ? nullptr : &it->second;
                  }};
    find_operator(graph, node)->adjust(adjust);
  }
  std::vector<std::int64_t> constant_ints(std::size_t slot) const { return graph.initializers.at(node.inputs.at(slot)).integers(); }
};

using Texts = std::vector<std::string>;

}  // namespace espalier
