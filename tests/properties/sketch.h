#pragma once
/// Small graphs written by hand, and passes applied to them.
#include <ATen/ops/randn.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <string>
#include <vector>

#include "../graph/models.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "running.h"

namespace espalier::test {

using Ints = std::vector<std::int64_t>;

inline std::int64_t count(const Graph& graph, const std::string& op) {
  return std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return node.op == op; });
}

/// A model in the making with f32 inputs of known shape.
class Sketch : public ModelBuilder {
 public:
  Sketch() : ModelBuilder("sketch", 5) {}

  std::string input(const std::string& name, Ints shape) {
    graph.inputs.push_back({name, DType::f32, Shape(shape.begin(), shape.end())});
    return name;
  }
  std::string op(const std::string& op, std::vector<std::string> inputs, std::map<std::string, Attribute> attributes = {}) {
    return add("/" + op + "_" + std::to_string(number_++), op, std::move(inputs), std::move(attributes));
  }
  std::string scalar(float value) { return numbers("scalar_" + std::to_string(number_++), {}, {value}); }
  std::string list(Ints values) { return integers("list_" + std::to_string(number_++), std::move(values)); }
  std::string row(std::int64_t length, double mean = 0) { return weight("row_" + std::to_string(number_++), {length}, 0.3, mean); }
  Graph done(const std::vector<std::string>& outputs) {
    for (const auto& name : outputs) graph.outputs.push_back({name, DType::f32, {}});
    const auto values = infer(graph);
    for (auto& output : graph.outputs) output.shape = values.find(output.name)->second.shape;
    return graph;
  }

  std::string mean_of_squares_root(const std::string& x, std::int64_t axis = -1) {
    const auto mean = op("ReduceMean", {op("Pow", {x, scalar(2)}), list({axis})});
    return op("Sqrt", {op("Add", {mean, scalar(1e-5F)})});
  }
  std::string centred(const std::string& x) { return op("Sub", {x, op("ReduceMean", {x, list({-1})})}); }
  std::string transposed(const std::string& x, Ints perm) { return op("Transpose", {x}, {{"perm", std::move(perm)}}); }
  std::string rotate_half(const std::string& x, std::int64_t size) {
    const auto left = op("Slice", {x, list({0}), list({size / 2}), list({-1})});
    const auto right = op("Slice", {x, list({size / 2}), list({INT64_MAX}), list({-1})});
    return op("Concat", {op("Neg", {right}), left}, {{"axis", std::int64_t{-1}}});
  }

 private:
  int number_ = 0;
};

inline TensorMap random_inputs(const Graph& graph) {
  TensorMap inputs;
  for (const auto& value : graph.inputs) {
    std::vector<std::int64_t> shape;
    for (const auto& dim : value.shape) shape.push_back(dim.value_or(3));
    inputs[value.name] = at::randn(shape);
  }
  return inputs;
}

/// Runs one pass; outputs must stay. Returns its changes.
inline std::int64_t apply(const std::string& pass, Graph& graph) {
  const auto before = graph;
  const auto inputs = random_inputs(graph);
  const auto reports = optimize(graph, {pass});
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].pass == pass);
  CHECK(reports[0].nodes_before == static_cast<std::int64_t>(before.nodes.size()));
  CHECK(reports[0].nodes_after == static_cast<std::int64_t>(graph.nodes.size()));
  CHECK(reports[0].notes.empty() == (reports[0].changes == 0));
  CHECK(difference(before, graph, inputs) < 1e-5);
  if (reports[0].changes == 0) CHECK(before.nodes.size() == graph.nodes.size());
  return reports[0].changes;
}

}  // namespace espalier::test
