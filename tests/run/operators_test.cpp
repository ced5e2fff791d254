#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <set>

#include "cases.h"
#include "graph/learnable.h"
#include "graph/op.h"
#include "run/op.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Four-bit tensors exist as initializers only.
std::vector<std::string> packed(const Case& c) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : c.inputs)
    if (bits(tensor.dtype) == 4) names.push_back(name);
  return names;
}

TensorMap feeds(const Case& c, const std::vector<std::string>& bound) {
  TensorMap inputs;
  for (const auto& [name, tensor] : c.inputs)
    if (std::find(bound.begin(), bound.end(), name) == bound.end()) inputs[name] = to_aten(tensor);
  return inputs;
}

/// "" when equal within the case's tolerance; half precision has its own.
std::string difference(const Case& c, const Tensor& expected, const at::Tensor& got) {
  const at::Tensor wanted = to_aten(expected);
  if (wanted.sizes() != got.sizes()) return "shape differs";
  if (is_floating(expected.dtype) != got.is_floating_point()) return "type differs";
  if (!is_floating(expected.dtype) && wanted.scalar_type() != got.scalar_type()) return "type differs";
  const bool half = bits(expected.dtype) < 32 && is_floating(expected.dtype);
  const double rtol = half ? 1e-2 : c.rtol, atol = half ? 1e-2 : c.atol;
  const at::Tensor a = wanted.to(at::kDouble), b = got.to(at::kDouble);
  if (a.allclose(b, rtol, atol, true)) return "";
  return fmt::format("values differ by {}", a.numel() ? (a - b).abs().max().item<double>() : 0.0);
}

struct Tally {
  int right = 0, refused = 0;
  std::vector<std::string> wrong;
};

Tally tally() {
  Tally t;
  for (const Case& c : cases()) {
    const auto bound = packed(c);
    try {
      Session session(graph_of(c, bound));
      const TensorMap outputs = session.run(feeds(c, bound));
      std::string bad;
      for (const auto& [name, expected] : c.outputs)
        if (const std::string why = difference(c, expected, outputs.at(name)); !why.empty()) bad = name + ": " + why;
      if (bad.empty()) {
        ++t.right;
      } else {
        t.wrong.push_back(c.name + ": " + bad);
      }
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported) {
        t.wrong.push_back(c.name + " threw " + error.what());
      } else {
        ++t.refused;
      }
    } catch (const std::exception& error) {
      t.wrong.push_back(c.name + " threw something else: " + error.what());
    }
  }
  return t;
}

/// Central differences of Σ weights · output against autograd, in f64, for every input that can be trained.
std::string gradient_difference(const Case& c) {
  std::vector<std::string> all, floating;
  for (const auto& [name, tensor] : c.inputs) {
    all.push_back(name);
    if (is_floating(tensor.dtype)) floating.push_back(name);
  }
  // Limits, statistics and caches are constants; a scale is one too, but may be trained.
  if (c.node.op != "DequantizeLinear") floating = learnable(graph_of(c, all));
  if (floating.empty()) return "nothing to check";
  const std::string output = c.node.outputs.at(0);
  const auto objective = [&](Session& session) {
    const at::Tensor y = session.run({}, {output}).at(output);
    return (y * at::linspace(0.3, 1.7, y.numel(), y.options()).reshape(y.sizes())).sum();
  };
  Session session(graph_of(c, all), {.compute = DType::f64});
  session.train(floating);
  objective(session).backward();
  Session probe(graph_of(c, all), {.compute = DType::f64});
  constexpr double step = 1e-6;
  for (const std::string& name : floating) {
    const at::Tensor gradient = session.parameter(name).grad(), start = probe.parameter(name).clone();
    if (!gradient.defined()) return "no gradient for " + name;
    for (std::int64_t i = 0; i < start.numel(); ++i) {
      const auto at_offset = [&](double offset) {
        at::Tensor moved = start.clone();
        moved.flatten()[i] += offset;
        probe.set_parameter(name, moved);
        return objective(probe).item<double>();
      };
      const double numeric = (at_offset(step) - at_offset(-step)) / (2 * step), analytic = gradient.flatten()[i].item<double>();
      if (std::abs(numeric - analytic) > 1e-6 + 1e-5 * std::abs(numeric))
        return fmt::format("{}[{}]: {} by differences, {} by autograd", name, i, numeric, analytic);
    }
    probe.set_parameter(name, start);
  }
  return "";
}

}  // namespace

TEST_CASE("operators agree with the reference evaluator, or are refused by name") {
  const Tally t = tally();
  for (const std::string& line : t.wrong) UNSCOPED_INFO(line);
  UNSCOPED_INFO(t.right << " right, " << t.refused << " refused by name");
  CHECK(t.wrong.empty());
  CHECK(t.right >= 680);
  CHECK(t.refused < t.right / 5);
}

TEST_CASE("gradients agree with central differences in f64") {
  int checked = 0;
  std::set<std::string> operators;
  for (const Case& c : cases()) {
    if (!c.gradient) continue;
    ++checked;
    operators.insert(c.node.op);
    std::string problem;
    try {
      problem = gradient_difference(c);
    } catch (const std::exception& error) {
      problem = error.what();
    }
    INFO(c.name << ": " << problem);
    CHECK(problem.empty());
  }
  CHECK(checked > 80);
  // Every operator that calls itself differentiable has a gradient case.
  const std::set<std::string> elsewhere = {"Cast", "QuantizeLinear",
                                           "DynamicQuantizeLinear"};  // straight-through, and no gradient through integers
  for (const Operator* op : all_operators())
    if (op->differentiable && op->domain.empty() && find_run("", op->name) && !elsewhere.contains(op->name)) {
      INFO(op->name);
      CHECK(operators.contains(op->name));
    }
}

TEST_CASE("every operator of the table has a run, and the other way round is known") {
  for (const Operator* op : all_operators()) {
    INFO(op->name);
    CHECK((find_run(op->domain, op->name) || find_values_run(op->domain, op->name)));
  }
}

TEST_CASE("quantization passes gradients straight through, and none where it saturates") {
  Graph graph;
  graph.inputs = {};
  graph.initializers["x"] = Tensor::of<float>(DType::f32, {4}, {0.26f, -0.74f, 3.0f, 100.0f});
  graph.initializers["scale"] = Tensor::of<float>(DType::f32, {}, {0.5f});
  graph.initializers["zero"] = Tensor::of<std::int8_t>(DType::i8, {}, {0});
  graph.nodes = {{"QuantizeLinear", "", "q", {"x", "scale", "zero"}, {"q"}, {}},
                 {"DequantizeLinear", "", "d", {"q", "scale", "zero"}, {"y"}, {}}};
  graph.outputs = {{"y", DType::f32, {4}}};
  Session frozen(graph);
  const at::Tensor plain = frozen.run({}, {"q", "y"}).at("q");
  CHECK(plain.scalar_type() == at::kChar);
  Session session(graph);
  session.train({"x"});
  const at::Tensor y = session.run({}).at("y");
  CHECK(y.detach().equal(frozen.run({}).at("y")));
  y.sum().backward();
  const at::Tensor gradient = session.parameter("x").grad();
  CHECK(gradient[0].item<float>() == 1.0f);
  CHECK(gradient[1].item<float>() == 1.0f);
  CHECK(gradient[2].item<float>() == 1.0f);
  CHECK(gradient[3].item<float>() == 0.0f);  // 200 steps away from zero: saturated at 127
}
