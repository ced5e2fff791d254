// Recurrent layers: a cut of hidden units equals their mask, and the activations are those that the node names.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>

#include "../graph/models.h"
#include "graph/op.h"
#include "graph/surgery.h"
#include "running.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr std::int64_t steps = 5, batch = 2, width = 6, hidden = 8, classes = 3;

std::int64_t gates_of(const std::string& op) { return op == "LSTM" ? 4 : op == "GRU" ? 3 : 1; }

/// x [steps, batch, 4] → linear [width] → layer → a linear layer for each direction, summed; the last states are read too.
Graph recurrent_model(const std::string& op, std::int64_t directions, std::map<std::string, Attribute> attributes = {}) {
  ModelBuilder b("recurrent", 5);
  b.graph.inputs.push_back({"x", DType::f32, {steps, batch, 4}});
  const std::int64_t rows = gates_of(op) * hidden;
  std::vector<std::string> inputs{b.add("/in/MatMul", "MatMul", {"x", b.weight("in", {4, width}, 0.5)}),
                                  b.weight("w", {directions, rows, width}, 0.4),
                                  b.weight("r", {directions, rows, hidden}, 0.4),
                                  b.weight("b", {directions, 2 * rows}, 0.4),
                                  "",
                                  b.weight("h", {directions, batch, hidden}, 0.5)};
  if (op == "LSTM") {
    inputs.push_back(b.weight("c", {directions, batch, hidden}, 0.5));
    inputs.push_back(b.weight("p", {directions, 3 * hidden}, 0.5));
  }
  attributes["hidden_size"] = hidden;
  attributes["direction"] = std::string(directions == 2 ? "bidirectional" : "forward");
  const auto y = b.add_many("/layer", op, inputs, op == "LSTM" ? 3 : 2, attributes);
  const auto axis = b.integers("direction_axis", {1});
  std::vector<std::string> parts{y[0]};
  if (directions == 2) parts = b.add_many("/Split", "Split", {y[0]}, 2, {{"axis", std::int64_t{1}}, {"num_outputs", directions}});
  std::string sum;
  for (std::size_t d = 0; d < parts.size(); ++d) {
    const auto name = fmt::format("/out.{}", d);
    const auto one = b.add(name + "/Squeeze", "Squeeze", {parts[d], axis});
    const auto scores = b.add(name + "/MatMul", "MatMul", {one, b.weight(fmt::format("out.{}", d), {hidden, classes}, 0.5)});
    sum = sum.empty() ? scores : b.add("/Add", "Add", {sum, scores});
  }
  b.graph.outputs.push_back({sum, DType::f32, {steps, batch, classes}});
  const auto last = b.add("/last/MatMul", "MatMul", {y.back(), b.weight("last", {hidden, classes}, 0.5)});
  b.graph.outputs.push_back({last, DType::f32, {directions, batch, classes}});
  return b.graph;
}

TensorMap some_input() {
  auto x = at::empty({steps, batch, 4});
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
  return {{"x", x}};
}

const CoupledGroup* group_of(const std::vector<CoupledGroup>& groups, const std::string& tensor, std::size_t axis) {
  for (const auto& group : groups)
    for (const auto& member : group.members)
      if (member.tensor == tensor && member.axis == axis) return &group;
  return nullptr;
}

}  // namespace

TEST_CASE("recurrent layers lose hidden units exactly") {
  for (const std::string op : {"LSTM", "GRU", "RNN"})
    for (const std::int64_t directions : {1, 2})
      for (const std::int64_t variant : {0, 1}) {  // GRU's other form, LSTM's coupled gates
        INFO(op << " of " << directions << " directions, variant " << variant);
        const auto graph = recurrent_model(op, directions, {{"linear_before_reset", variant}, {"input_forget", variant}});
        const auto groups = coupled_groups(graph, infer(graph));
        const auto* units = group_of(groups, "w", 1);
        REQUIRE(units);
        CHECK(units->exact);
        CHECK(units->units.size() == hidden);
        CHECK(units == group_of(groups, "r", 2));
        CHECK(units == group_of(groups, "b", 1));
        CHECK(units == group_of(groups, "h", 2));
        CHECK(units == group_of(groups, "out.0", 0));
        CHECK(units == group_of(groups, "last", 0));
        const auto* inner = group_of(groups, "in", 1);
        REQUIRE(inner);
        CHECK(inner == group_of(groups, "w", 2));
        const auto whole = Session(graph).run(some_input());
        for (const auto& removal : {Removal{{units->id, {0, 3, 4, 6}}}, Removal{{units->id, {7}}},
                                    Removal{{units->id, {1, 2, 3, 4, 5, 6, 7}}, {inner->id, {2, 5}}}}) {
          const auto small = cut(graph, groups, removal);
          const auto left = hidden - static_cast<std::int64_t>(removal.at(units->id).size());
          CHECK(small.initializers.at("w").shape[1] == gates_of(op) * left);
          CHECK(small.initializers.at("r").shape == std::vector<std::int64_t>{directions, gates_of(op) * left, left});
          CHECK(difference(mask(graph, groups, removal), small, some_input()) < 1e-5);
          CHECK(difference(Session(small).run(some_input()).begin()->second, whole.begin()->second) > 1e-3);
        }
      }
}

TEST_CASE("a recurrent layer whose units without weights say something is cut inexactly") {
  const auto graph = recurrent_model("GRU", 1, {{"activations", std::vector<std::string>{"Sigmoid", "Softplus"}}});
  const auto groups = coupled_groups(graph, infer(graph));
  const auto* units = group_of(groups, "w", 1);
  REQUIRE(units);
  CHECK_FALSE(units->exact);
}

namespace {

using Function = std::function<double(double)>;

double run_one(const std::string& op, double x, double w, double r, double h, double c,
               const std::map<std::string, Attribute>& attributes) {
  Graph graph;
  const auto gates = gates_of(op);
  const auto filled = [](std::vector<std::int64_t> shape, double value) {
    std::int64_t count = 1;
    for (auto n : shape) count *= n;
    return Tensor::of<double>(DType::f64, std::move(shape), std::vector<double>(static_cast<std::size_t>(count), value));
  };
  graph.initializers["x"] = filled({1, 1, 1}, x);
  graph.initializers["w"] = filled({1, gates, 1}, w);
  graph.initializers["r"] = filled({1, gates, 1}, r);
  graph.initializers["h"] = filled({1, 1, 1}, h);
  graph.initializers["c"] = filled({1, 1, 1}, c);
  Node node{op, "", "/layer", {"x", "w", "r", "", "", "h"}, {"y"}, attributes};
  if (op == "LSTM") node.inputs.push_back("c");
  graph.nodes = {node};
  graph.outputs = {{"y", DType::f64, {1, 1, 1, 1}}};
  return Session(graph, {.compute = DType::f64}).run({}).at("y").item<double>();
}

struct Named {
  const char* name;
  std::vector<double> alpha, beta;
  Function of;
};

std::vector<Named> functions() {
  return {{"Relu", {}, {}, [](double x) { return std::max(x, 0.0); }},
          {"Tanh", {}, {}, [](double x) { return std::tanh(x); }},
          {"Sigmoid", {}, {}, [](double x) { return 1 / (1 + std::exp(-x)); }},
          {"Affine", {0.5}, {0.25}, [](double x) { return 0.5 * x + 0.25; }},
          {"LeakyRelu", {}, {}, [](double x) { return x >= 0 ? x : 0.01 * x; }},
          {"LeakyRelu", {0.3}, {}, [](double x) { return x >= 0 ? x : 0.3 * x; }},
          {"ThresholdedRelu", {}, {}, [](double x) { return x >= 1 ? x : 0; }},
          {"ThresholdedRelu", {0.2}, {}, [](double x) { return x >= 0.2 ? x : 0; }},
          {"ScaledTanh", {1.5}, {0.5}, [](double x) { return 1.5 * std::tanh(0.5 * x); }},
          {"HardSigmoid", {}, {}, [](double x) { return std::clamp(0.2 * x + 0.5, 0.0, 1.0); }},
          {"HardSigmoid", {0.4}, {0.1}, [](double x) { return std::clamp(0.4 * x + 0.1, 0.0, 1.0); }},
          {"Elu", {}, {}, [](double x) { return x >= 0 ? x : std::expm1(x); }},
          {"Elu", {0.5}, {}, [](double x) { return x >= 0 ? x : 0.5 * std::expm1(x); }},
          {"Softsign", {}, {}, [](double x) { return x / (1 + std::abs(x)); }},
          {"softplus", {}, {}, [](double x) { return std::log1p(std::exp(x)); }}};
}

std::map<std::string, Attribute> attributes_of(const std::vector<Named>& used) {
  std::vector<std::string> names;
  std::vector<double> alpha, beta;
  for (const auto& f : used) {
    names.emplace_back(f.name);
    alpha.insert(alpha.end(), f.alpha.begin(), f.alpha.end());
    beta.insert(beta.end(), f.beta.begin(), f.beta.end());
  }
  std::map<std::string, Attribute> attributes{{"activations", names}};
  if (!alpha.empty()) attributes["activation_alpha"] = alpha;
  if (!beta.empty()) attributes["activation_beta"] = beta;
  return attributes;
}

void check_close(double got, double expected) {
  INFO(got << " against " << expected);
  CHECK(std::abs(got - expected) < 1e-9);
}

}  // namespace

TEST_CASE("recurrent layers compute every activation") {
  for (const auto& f : functions())
    for (const double x : {-1.5, -0.4, 0.3, 1.7}) {
      INFO(f.name << " at " << x);
      check_close(run_one("RNN", x, 1, 0.5, 0.2, 0, attributes_of({f})), f.of(x + 0.1));
    }
}

TEST_CASE("recurrent layers give each gate its activation, and the values in order") {
  const auto all = functions();
  const Named &gate = all[10], &inner = all[5], &outer = all[8];  // HardSigmoid, LeakyRelu, ScaledTanh
  for (const double x : {-1.2, 0.8}) {
    const double h = 0.3, c = -0.6, sum = 0.7 * x + 0.4 * h;
    const double cell = gate.of(sum) * c + gate.of(sum) * inner.of(sum);
    // Each takes an alpha, two of them a beta: by order, as no list is as long as the functions and says something else.
    auto lstm = attributes_of({gate, inner, outer});
    check_close(run_one("LSTM", x, 0.7, 0.4, h, c, lstm), gate.of(sum) * outer.of(cell));
    const double fresh = inner.of(0.7 * x + 0.4 * (gate.of(sum) * h));
    check_close(run_one("GRU", x, 0.7, 0.4, h, 0, attributes_of({gate, inner})), (1 - gate.of(sum)) * fresh + gate.of(sum) * h);
    const auto clipped = [&](double v) { return std::clamp(v, -0.35, 0.35); };
    auto limited = attributes_of({all[2], all[1], all[12]});
    limited["clip"] = 0.35;
    const double kept = all[2].of(clipped(sum)) * c + all[2].of(clipped(sum)) * std::tanh(clipped(sum));
    check_close(run_one("LSTM", x, 0.7, 0.4, h, c, limited), all[2].of(clipped(sum)) * all[12].of(clipped(kept)));
  }
}

TEST_CASE("recurrent layers refuse lengths that they cannot keep") {
  Graph graph = recurrent_model("RNN", 1);
  graph.inputs.push_back({"lengths", DType::i32, {batch}});
  for (auto& node : graph.nodes)
    if (node.op == "RNN") node.inputs[4] = "lengths";
  Session session(graph);
  const auto outcome = [&](int first) {
    auto inputs = some_input();
    inputs["lengths"] = at::tensor({first, 5}, at::kInt);
    try {
      session.run(inputs);
    } catch (const Error& error) {
      CHECK(error.where().find("/layer") != std::string::npos);
      return error.message();
    }
    return std::string();
  };
  CHECK(outcome(5).empty());
  CHECK(outcome(2).empty());
  CHECK(outcome(0) == "sequences of length 0 are not supported");
  CHECK(outcome(6) == "sequence_lens are not between 0 and 5 steps");
  CHECK(outcome(-1) == "sequence_lens are not between 0 and 5 steps");
}
