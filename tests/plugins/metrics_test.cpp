#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "formats/model_artifact.h"
#include "run/dataset.h"
#include "run/metric.h"
#include "run/session.h"
#include "run/training.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

namespace {

/// Walks the elements of one slice of a tensor.
template <class Visit>
void each_element(const Tensor& tensor, std::size_t axis, std::int64_t index, Visit visit) {
  std::int64_t inner = 1;
  for (std::size_t d = axis + 1; d < tensor.shape.size(); ++d) inner *= tensor.shape[d];
  for (std::int64_t i = 0; i < tensor.count(); ++i) {
    if (i / inner % tensor.shape[axis] == index) visit(std::size_t(i));
  }
}

/// The graph with one unit's slices of one member scaled by `factor`.
Graph scaled(Graph graph, const CoupledGroup& group, std::size_t unit, const std::string& tensor, float factor) {
  const Tensor& old = *graph.initializer(tensor);
  std::vector<float> values(old.as<float>().begin(), old.as<float>().end());
  for (const auto& slice : group.units[unit]) {
    const auto& member = group.members[slice.member];
    if (member.tensor != tensor) continue;
    for (auto index : slice.indices) each_element(old, member.axis, index, [&](std::size_t i) { values[i] *= factor; });
  }
  graph.initializers[tensor] = Tensor::of(DType::f32, old.shape, values);
  return graph;
}

}  // namespace

TEST_CASE("magnitude is the norm of all slices of a unit") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto groups = groups_of(graph);
  const bool producers = GENERATE(false, true);
  const int p = GENERATE(1, 2);
  CAPTURE(p, producers);
  const auto scores = score(context, "metric/magnitude", {{"p", p}, {"members", producers ? "producers" : "all"}}, model);
  REQUIRE(scores.size() == groups.size());
  for (const auto& group : groups) {
    const auto& own = scores.at(group.id);
    REQUIRE(own.size() == group.units.size());
    for (std::size_t u : {std::size_t(0), group.units.size() - 1}) {
      double sum = 0;
      for (const auto& slice : group.units[u]) {
        const auto& member = group.members[slice.member];
        const Tensor& tensor = *graph.initializer(member.tensor);
        if (tensor.dtype != DType::f32 || (producers && !member.producer)) continue;
        const auto values = tensor.as<float>();
        for (auto index : slice.indices) {
          each_element(tensor, member.axis, index, [&](std::size_t i) { sum += std::pow(std::abs(double(values[i])), p); });
        }
      }
      CHECK_THAT(own[u], WithinRel(p == 1 ? sum : std::sqrt(sum), 1e-9));
    }
  }
}

TEST_CASE("magnitude normalises by group") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  for (const auto& [id, own] : score(context, "metric/magnitude", {{"normalise", "mean"}}, model)) {
    double sum = 0;
    for (double s : own) sum += s;
    CHECK_THAT(sum / double(own.size()), WithinRel(1.0, 1e-6));
  }
  for (const auto& [id, own] : score(context, "metric/magnitude", {{"normalise", "max"}}, model)) {
    CHECK_THAT(*std::max_element(own.begin(), own.end()), WithinRel(1.0, 1e-6));
  }
}

TEST_CASE("taylor is the slope of the loss along a unit's weights") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 1, 24, 5);
  const auto groups = groups_of(graph);
  const auto scores = score(context, "metric/taylor", {{"samples", 1}}, model, &data);
  const float step = 1e-3f;
  for (const std::string tensor :
       {"model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight"}) {
    const auto& group = group_with(groups, tensor);
    const auto& own = scores.at(group.id);
    const double largest = *std::max_element(own.begin(), own.end());
    for (std::size_t u = 0; u < group.units.size(); u += 5) {
      CAPTURE(group.id, u);
      const double up = loss_of(scaled(graph, group, u, tensor, 1 + step), context, data, true);
      const double down = loss_of(scaled(graph, group, u, tensor, 1 - step), context, data, true);
      CHECK(std::abs(own[u] - std::abs(up - down) / (2 * step)) < 2e-3 * largest);
    }
  }
}

TEST_CASE("taylor agrees with gradients taken by hand") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 4, 16, 6);
  const auto groups = groups_of(graph);
  const bool per_pass = GENERATE(true, false);
  const auto scores =
      score(context, "metric/taylor",
            {{"samples", 4}, {"batch", 2}, {"members", "producers"}, {"absolute", per_pass ? "pass" : "data"}}, model, &data);

  const auto& group = group_with(groups, "model.layers.0.mlp.gate_proj.weight");
  std::vector<double> expected(group.units.size()), sum(group.units.size());
  const TokenDataset windows(context, data);
  for (const auto& pass : {std::vector<std::int64_t>{0, 1}, {2, 3}}) {
    Session session(graph);
    session.train({"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"});
    const auto batch = windows.batch(pass);
    causal_cross_entropy(session.run(batch, {"logits"}).at("logits"), batch.at("input_ids")).backward();
    for (std::size_t u = 0; u < group.units.size(); ++u) {
      double s = 0;
      for (const auto& name : session.trainable()) {
        const auto weight = session.parameter(name);
        s += at::mul(weight.detach(), weight.grad()).select(1, std::int64_t(u)).sum().item<double>() / 2;
      }
      expected[u] += std::abs(s);
      sum[u] += s;
    }
  }
  if (!per_pass) std::transform(sum.begin(), sum.end(), expected.begin(), [](double s) { return std::abs(s); });
  const auto& own = scores.at(group.id);
  const double largest = *std::max_element(own.begin(), own.end());
  for (std::size_t u = 0; u < own.size(); ++u) CHECK(std::abs(own[u] - expected[u]) < 1e-4 * largest);
}

TEST_CASE("hessian is half the weights' squares times their squared gradients") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 3, 16, 6);
  const auto groups = groups_of(graph);
  const std::string members = GENERATE("readers", "producers");
  const int batch = GENERATE(1, 2);
  CAPTURE(members, batch);
  const auto scores = score(context, "metric/hessian", {{"samples", 3}, {"batch", batch}, {"members", members}}, model, &data);

  const auto& group = group_with(groups, "model.layers.0.mlp.gate_proj.weight");
  std::vector<double> expected(group.units.size());
  const TokenDataset windows(context, data);
  const std::vector<std::vector<std::int64_t>> one{{0}, {1}, {2}}, two{{0, 1}, {2}};
  for (const auto& pass : batch == 1 ? one : two) {
    Session session(graph);
    if (members == "readers")
      session.train({"model.layers.0.mlp.down_proj.weight"});
    else
      session.train({"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"});
    const auto examples = windows.batch(pass);
    // The examples' losses added, not averaged: the gradient's square expects the sum of their gradients' squares.
    const auto loss = causal_cross_entropy(session.run(examples, {"logits"}).at("logits"), examples.at("input_ids"));
    at::mul(loss, double(pass.size())).backward();
    for (const auto& name : session.trainable()) {
      const auto product = at::mul(session.parameter(name).detach(), session.parameter(name).grad()).to(at::kDouble);
      for (std::size_t u = 0; u < group.units.size(); ++u)
        expected[u] += product.select(members == "readers" ? 0 : 1, std::int64_t(u)).square().sum().item<double>() / 2 / 3;
    }
  }
  const auto& own = scores.at(group.id);
  for (std::size_t u = 0; u < own.size(); ++u) CHECK_THAT(own[u], WithinRel(expected[u], 1e-3));
  CHECK(context.figures.at("groups") == double(groups.size()));
  CHECK(context.details.at("scores").at("rows").size() == groups.size());
  CHECK_THROWS_WITH(score(context, "metric/hessian", {}, model), ContainsSubstring("metric/hessian needs data"));
}

TEST_CASE("gradients in bf16 give other scores that are nearly the same") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 4, 16, 6);
  const std::string metric = GENERATE("metric/taylor", "metric/hessian", "metric/fisher");
  CAPTURE(metric);
  const auto wide = score(context, metric, {{"samples", 4}}, model, &data);
  const auto narrow = score(context, metric, {{"samples", 4}, {"precision", "bf16"}}, model, &data);
  CHECK(narrow != wide);
  for (const auto& [group, scores] : wide) {
    CAPTURE(group);
    const double largest = *std::max_element(scores.begin(), scores.end());
    for (std::size_t u = 0; u < scores.size(); ++u) CHECK(std::abs(narrow.at(group)[u] - scores[u]) < 0.1 * largest);
  }
}

TEST_CASE("taylor says what it lacks") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  CHECK_THROWS_WITH(score(context, "metric/taylor", {}, model), ContainsSubstring("needs data"));
  auto data = toy_dataset(context, 2, 16, 6);
  score(context, "metric/taylor", {{"samples", 3}}, model, &data);
  REQUIRE(context.warnings.size() == 1);
  CHECK_THAT(context.warnings[0], ContainsSubstring("2 windows"));
  CHECK(context.reports > 0);
  data.meta["tokenizer"] = sha256("another").hex();
  CHECK_THROWS_AS(score(context, "metric/taylor", {}, model, &data), Error);
  data = toy_dataset(context, 4, 16, 6);
  context.cancel_after = 1;
  try {
    score(context, "metric/taylor", {{"samples", 4}}, model, &data);
    FAIL("not cancelled");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::cancelled);
  }
}

TEST_CASE("an ensemble is the weighted mean of normalised metrics") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 3, 16, 6);
  const auto taylor = score(context, "metric/taylor", {{"samples", 3}}, model, &data);
  const auto magnitude = score(context, "metric/magnitude", {}, model);
  const Json metrics = Json::array({{{"use", "metric/taylor"}, {"samples", 3}, {"weight", 3}}, {{"use", "metric/magnitude"}}});
  const auto mean_of = [](const std::vector<double>& scores) {
    double sum = 0;
    for (double s : scores) sum += std::abs(s);
    return sum / double(scores.size());
  };
  for (const auto& [id, own] : score(context, "metric/ensemble", {{"metrics", metrics}}, model, &data)) {
    const auto &t = taylor.at(id), &m = magnitude.at(id);
    for (std::size_t u = 0; u < own.size(); ++u)
      CHECK_THAT(own[u], WithinRel(0.75 * t[u] / mean_of(t) + 0.25 * m[u] / mean_of(m), 1e-9));
  }
  // One metric alone keeps its order under every scale; ranks and deviations have known means.
  for (const std::string how : {"mean", "max", "rank", "z"}) {
    const Json one = Json::array({{{"use", "metric/ensemble"}, {"metrics", Json::array({{{"use", "metric/magnitude"}}})}}});
    CAPTURE(how);
    for (const auto& [id, own] : score(context, "metric/ensemble", {{"metrics", one}, {"normalise", how}}, model)) {
      const auto& m = magnitude.at(id);
      double sum = 0;
      for (double s : own) sum += s;
      for (std::size_t u = 1; u < own.size(); ++u) CHECK((own[u] < own[u - 1]) == (m[u] < m[u - 1]));
      if (how == "rank") CHECK_THAT(sum / double(own.size()), WithinRel(0.5, 1e-9));
      if (how == "z") CHECK(std::abs(sum) < 1e-9 * double(own.size()));
    }
  }
  // Over the whole model, differences between groups stay.
  const Json alone = Json::array({{{"use", "metric/magnitude"}}});
  const auto over = score(context, "metric/ensemble", {{"metrics", alone}, {"over", "model"}}, model);
  const auto &first = *over.begin(), &last = *over.rbegin();
  CHECK_THAT(first.second[0] / last.second[0], WithinRel(magnitude.at(first.first)[0] / magnitude.at(last.first)[0], 1e-9));
  CHECK_THROWS_WITH(score(context, "metric/ensemble", {{"metrics", Json::array()}}, model), ContainsSubstring("no metrics"));
  const Json nothing = Json::array({{{"use", "metric/magnitude"}, {"weight", 0}}});
  CHECK_THROWS_WITH(score(context, "metric/ensemble", {{"metrics", nothing}}, model), ContainsSubstring("weight is 0"));
  CHECK_THROWS_WITH(score(context, "metric/ensemble", {{"metrics", metrics}}, model), ContainsSubstring("needs data"));
}
