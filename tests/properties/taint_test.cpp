// Poisoned channels come out where the axis maps say, for every operator of the table.
#include <catch2/catch_test_macros.hpp>

#include "../graph/models.h"
#include "run/op.h"
#include "running.h"
#include "taint.h"

using namespace espalier;
using namespace espalier::test;

namespace {

using Ints = std::vector<std::int64_t>;

Operand data(Ints shape) { return {std::move(shape)}; }
Operand ints(Ints values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {{}, Tensor::of<std::int64_t>(DType::i64, {count}, values)};
}
Operand table(Ints shape, Ints values) { return {{}, Tensor::of<std::int64_t>(DType::i64, std::move(shape), values)}; }
Operand number(float value) { return {{}, Tensor::of<float>(DType::f32, {}, {value})}; }
Operand absent() { return {{}, std::nullopt, true}; }
Operand flags(Ints shape, std::uint8_t value) {
  std::int64_t count = 1;
  for (auto length : shape) count *= length;
  return {{},
          Tensor::of<std::uint8_t>(DType::boolean, std::move(shape),
                                   std::vector<std::uint8_t>(static_cast<std::size_t>(count), value))};
}
Operand bytes(Ints shape) {
  std::vector<std::int8_t> values;
  std::int64_t count = 1;
  for (auto length : shape) count *= length;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<std::int8_t>(i % 7 + 1));
  return {{}, Tensor::of<std::int8_t>(DType::i8, std::move(shape), values)};
}
std::int64_t one() { return 1; }

std::vector<SingleNode> element_wise() {
  std::vector<SingleNode> cases;
  for (const auto* op :
       {"Relu", "Sigmoid", "Tanh",        "Neg",       "Abs", "Sqrt",      "Reciprocal", "Exp",   "Log",  "Erf",   "Gelu",
        "Elu",  "Sin",     "HardSigmoid", "HardSwish", "Cos", "LeakyRelu", "Softplus",   "Floor", "Ceil", "Round", "Identity"})
    cases.push_back(single_node(op, {data({2, 6, 5})}));
  cases.push_back(single_node("Swish", {data({2, 6, 5})}, {}, 1, 24));
  cases.push_back(single_node("Cast", {data({2, 6, 5})}, {{"to", one()}}));
  cases.push_back(single_node("Clip", {data({2, 6, 5}), number(0.1F), number(0.8F)}));
  for (const auto* op : {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"}) {
    cases.push_back(single_node(op, {data({2, 6, 5}), data({2, 6, 5})}));
    cases.push_back(single_node(op, {data({2, 6, 5}), data({6, 1})}));
    cases.push_back(single_node(op, {data({5}), data({2, 6, 5})}));
  }
  cases.push_back(single_node("Where", {flags({6, 1}, 1), data({2, 6, 5}), number(0)}));
  return cases;
}

std::vector<SingleNode> shapes() {
  std::vector<SingleNode> cases;
  cases.push_back(single_node("Transpose", {data({2, 6, 5})}, {{"perm", Ints{1, 2, 0}}}));
  cases.push_back(single_node("Reshape", {data({2, 6, 5}), ints({2, 3, 2, 5})}));
  cases.push_back(single_node("Reshape", {data({2, 6, 5}), ints({2, -1})}));
  cases.push_back(single_node("Reshape", {data({4, 6}), ints({6, 4})}));
  cases.push_back(single_node("Reshape", {data({2, 3, 2, 5}), ints({0, 6, 5})}));
  cases.push_back(single_node("Flatten", {data({2, 6, 5})}));
  cases.push_back(single_node("Flatten", {data({2, 6, 5})}, {{"axis", std::int64_t{2}}}));
  cases.push_back(single_node("Squeeze", {data({2, 1, 5}), ints({1})}));
  cases.push_back(single_node("Unsqueeze", {data({2, 5}), ints({1, 3})}));
  cases.push_back(single_node("Expand", {data({6, 1}), ints({2, 6, 5})}));
  cases.push_back(single_node("Slice", {data({2, 6, 5}), ints({1}), ints({5}), ints({1})}));
  cases.push_back(single_node("Slice", {data({2, 6, 5}), ints({-1, 1}), ints({-100, 4}), ints({1, 2}), ints({-2, 1})}));
  cases.push_back(single_node("Concat", {data({2, 3, 5}), data({2, 4, 5})}, {{"axis", one()}}));
  cases.push_back(single_node("Split", {data({2, 6, 5})}, {{"axis", one()}, {"num_outputs", std::int64_t{3}}}, 3));
  cases.push_back(single_node("Split", {data({2, 6, 5}), ints({1, 5})}, {{"axis", one()}}, 2));
  cases.push_back(single_node("Gather", {data({2, 6, 5}), table({2, 2}, {0, 3, 5, 1})}, {{"axis", one()}}));
  cases.push_back(single_node("GatherElements", {data({2, 6}), table({2, 3}, {0, 3, 5, 1, 2, 4})}, {{"axis", one()}}));
  return cases;
}

std::vector<SingleNode> layers() {
  std::vector<SingleNode> cases;
  cases.push_back(single_node("MatMul", {data({2, 3, 4}), data({4, 5})}));
  cases.push_back(single_node("MatMul", {data({2, 3, 4}), data({2, 4, 5})}));
  cases.push_back(single_node("Gemm", {data({3, 4}), data({4, 5}), data({5})}));
  cases.push_back(single_node("Gemm", {data({4, 3}), data({5, 4}), data({3, 1})}, {{"transA", one()}, {"transB", one()}}));
  cases.push_back(single_node("Conv", {data({2, 6, 7, 7}), data({4, 6, 3, 3}), data({4})}));
  cases.push_back(single_node("Conv", {data({2, 6, 7, 7}), data({9, 2, 3, 3}), data({9})}, {{"group", std::int64_t{3}}}));
  cases.push_back(single_node("Conv", {data({2, 6, 7, 7}), data({6, 1, 3, 3}), absent()}, {{"group", std::int64_t{6}}}));
  cases.push_back(single_node("Conv", {data({2, 6, 7}), data({4, 6, 3})}));
  cases.push_back(single_node("BatchNormalization", {data({2, 6, 5}), data({6}), data({6}), data({6}), data({6})}));
  for (const auto* op : {"MaxPool", "AveragePool"})
    cases.push_back(single_node(op, {data({2, 6, 7, 7})}, {{"kernel_shape", Ints{3, 3}}}));
  cases.push_back(single_node("GlobalAveragePool", {data({2, 6, 7, 7})}));
  for (const auto* op : {"Softmax", "LogSoftmax"}) {
    cases.push_back(single_node(op, {data({2, 6, 5})}));
    cases.push_back(single_node(op, {data({2, 6, 5})}, {{"axis", one()}}));
  }
  cases.push_back(single_node("RMSNormalization", {data({2, 6, 5}), data({5})}));
  cases.push_back(single_node("LayerNormalization", {data({2, 6, 5}), data({5}), data({5})}));
  for (const auto* op : {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}) {
    cases.push_back(single_node(op, {data({2, 6, 5}), ints({1})}));
    cases.push_back(single_node(op, {data({2, 6, 5}), ints({-1})}, {{"keepdims", std::int64_t{0}}}));
  }
  const std::map<std::string, Attribute> heads{{"q_num_heads", std::int64_t{6}}, {"kv_num_heads", std::int64_t{2}}};
  cases.push_back(single_node("Attention", {data({2, 5, 24}), data({2, 5, 8}), data({2, 5, 8})}, heads));
  cases.push_back(single_node("Attention", {data({2, 6, 5, 4}), data({2, 3, 5, 4}), data({2, 3, 5, 4})}));
  cases.push_back(single_node(
      "Attention", {data({2, 5, 24}), data({2, 5, 8}), data({2, 5, 8}), absent(), data({2, 2, 3, 4}), data({2, 2, 3, 4})}, heads,
      3));
  cases.push_back(single_node("RotaryEmbedding", {data({2, 5, 24}), data({8, 2}), data({8, 2}), table({2, 5}, Ints(10, 3))},
                              {{"num_heads", std::int64_t{6}}}));
  cases.push_back(single_node("RotaryEmbedding", {data({2, 6, 5, 4}), data({2, 5, 2}), data({2, 5, 2})}));
  cases.push_back(single_node("DequantizeLinear", {bytes({6, 4}), data({4})}, {{"axis", one()}}));
  cases.push_back(
      single_node("DequantizeLinear", {bytes({6, 4}), data({3, 4})}, {{"axis", std::int64_t{0}}, {"block_size", std::int64_t{2}}}));
  return cases;
}

/// Operators whose outputs are integers or flags, or that read no floating data: NaN does not pass through them. (The range that
/// DynamicQuantizeLinear finds is everyone's; it holds zero always, so channels of zeros go without a trace.)
const std::set<std::string> without_nan{"Shape",
                                        "Size",
                                        "ConstantOfShape",
                                        "Range",
                                        "Equal",
                                        "Less",
                                        "LessOrEqual",
                                        "Greater",
                                        "GreaterOrEqual",
                                        "And",
                                        "Or",
                                        "Not",
                                        "QuantizeLinear",
                                        "DynamicQuantizeLinear"};

void report(const Taint& taint) {
  for (const auto& violation : taint.violations) UNSCOPED_INFO(violation);
  CHECK(taint.violations.empty());
}

}  // namespace

TEST_CASE("poisoned channels of a language model come out where the maps say") {
  Taint taint;
  check_taint(language_model(31), language_inputs(2, 5, 50, 1), taint);
  report(taint);
  CHECK(taint.claims > 400);
}

TEST_CASE("poisoned channels of a residual CNN come out where the maps say") {
  Taint taint;
  check_taint(residual_cnn(32), image_inputs(2, 1), taint);
  report(taint);
  CHECK(taint.claims > 300);
}

TEST_CASE("poisoned channels of every operator come out where the maps say") {
  Taint taint;
  for (const auto& list : {element_wise(), shapes(), layers()})
    for (const auto& single : list) check_taint(single.graph, single.inputs, taint);
  report(taint);
  for (const auto* op : all_operators()) {
    if (!op->domain.empty() || !op->axes || without_nan.contains(op->name)) continue;
    INFO(op->name << " is in the table and in no case of this test");
    CHECK(taint.operators.contains(op->name));
  }
}

TEST_CASE("a map that says the wrong thing is found out") {
  // Rows come out one later than they went in; the map says that they stay.
  RegisterOperator({"Shifted", "espalier.test", 1, [](const NodeView& view) { return std::vector<ValueInfo>{view.in(0)}; },
                    [](const NodeView&, AxisMaps& maps) { maps.same(AxisMaps::in(0, 1), AxisMaps::out(0, 1)); }, nullptr, nullptr,
                    false});
  RegisterRun("espalier.test", "Shifted", [](const RunView& view) { return std::vector<at::Tensor>{view.in(0).roll(1, 1)}; });
  auto single = single_node("Identity", {data({2, 6})});
  single.graph.nodes[0].op = "Shifted";
  single.graph.nodes[0].domain = "espalier.test";
  single.graph.opsets["espalier.test"] = 1;
  Taint taint;
  check_taint(single.graph, single.inputs, taint);
  CHECK(taint.claims > 0);
  CHECK(!taint.violations.empty());
}
