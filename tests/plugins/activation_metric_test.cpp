#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <numeric>
#include <set>

#include "formats/model_artifact.h"
#include "run/arrays.h"
#include "run/metric_examples.h"
#include "run/session.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

namespace {

/// What a weight reads, over all examples in one run.
struct Read {
  std::string weight;  ///< whose member's slices say which channels are a unit's
  std::size_t axis;    ///< of the weight
  std::string value;
  std::int64_t channels;  ///< axis of the value
};

/// The measures, by their definitions.
double expected(const std::string& measure, const std::vector<at::Tensor>& channels) {
  at::Tensor all;
  double spread = 0, count = 0;
  for (const auto& channel : channels) {
    const auto flat = channel.flatten().to(at::kDouble);
    all = all.defined() ? at::cat({all, flat}) : flat;
    spread += (flat - flat.mean()).square().sum().item<double>();
    count += double(flat.numel());
  }
  if (measure == "l1") return all.abs().sum().item<double>();
  if (measure == "l2") return all.square().sum().sqrt().item<double>();
  if (measure == "mean_abs") return all.abs().mean().item<double>();
  return spread / count;
}

void check_group(const CoupledGroup& group, const std::vector<Read>& reads, const TensorMap& values, const std::string& measure,
                 const Scores& scores) {
  const auto& own = scores.at(group.id);
  REQUIRE(own.size() == group.units.size());
  for (std::size_t u = 0; u < own.size(); ++u) {
    std::vector<at::Tensor> channels;
    for (const auto& read : reads)
      for (const auto& slice : group.units[u]) {
        const auto& member = group.members[slice.member];
        if (member.tensor != read.weight || member.axis != read.axis) continue;
        for (const auto index : slice.indices) channels.push_back(values.at(read.value).select(read.channels, index));
      }
    REQUIRE(!channels.empty());
    CAPTURE(group.id, u, measure);
    CHECK_THAT(own[u], WithinRel(expected(measure, channels), 1e-5));
  }
}

TensorMap values_of(const Graph& graph, const TensorMap& batch, const std::vector<std::string>& names) {
  const c10::AutoGradMode off(false);
  return Session(graph).run(inputs_for(graph, batch), names);
}

/// Two products of x whose channels only meet each other, as queries meet keys, and a third that a weight reads.
Graph pair_of_products() {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("batch"), 5, 4}}};
  graph.outputs = {{"met", DType::f32, {Dim::symbol("batch"), 5, 5}}, {"read", DType::f32, {Dim::symbol("batch"), 5, 3}}};
  std::vector<float> values(24);
  std::iota(values.begin(), values.end(), -7.0F);
  for (const char* name : {"wq", "wk", "wu"}) graph.initializers.emplace(name, Tensor::of(DType::f32, {4, 6}, values));
  graph.initializers.emplace("wd", Tensor::of(DType::f32, {6, 3}, std::vector<float>(18, 0.5F)));
  graph.nodes = {{"MatMul", "", "/q", {"x", "wq"}, {"q"}, {}},
                 {"MatMul", "", "/k", {"x", "wk"}, {"k"}, {}},
                 {"Transpose", "", "/t", {"k"}, {"kt"}, {{"perm", std::vector<std::int64_t>{0, 2, 1}}}},
                 {"MatMul", "", "/met", {"q", "kt"}, {"met"}, {}},
                 {"MatMul", "", "/u", {"x", "wu"}, {"u"}, {}},
                 {"MatMul", "", "/d", {"u", "wd"}, {"read"}, {}}};
  graph.validate();
  return graph;
}

Artifact rows(TestContext& context, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count * 20));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) + 3;
  return save_arrays(context, {{"x", Tensor::of(DType::f32, {count, 5, 4}, values)}}, {});
}

}  // namespace

TEST_CASE("activation measures what the weights of a language model read") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 5, 16, 6);
  const auto groups = groups_of(graph);
  const std::string measure = GENERATE("l1", "l2", "mean_abs", "variance");
  const int batch = GENERATE(1, 2, 5);
  const auto scores = score(context, "metric/activation", {{"measure", measure}, {"samples", 5}, {"batch", batch}}, model, &data);
  CHECK(scores.size() == groups.size());
  CHECK(context.warnings.empty());

  const std::string ffn = "/model/layers.0/mlp/Mul_output", heads = "/model/layers.1/self_attn/Attention_output";
  const auto values = values_of(graph, TokenDataset(context, data).batch({0, 1, 2, 3, 4}), {ffn, heads});
  const std::string down = "model.layers.0.mlp.down_proj.weight", out = "model.layers.1.self_attn.o_proj.weight";
  check_group(group_with(groups, down), {{down, 0, ffn, 2}}, values, measure, scores);
  const auto& of_heads = group_with(groups, out);
  REQUIRE(of_heads.kind == CoupledGroup::Kind::heads);
  REQUIRE(of_heads.units.size() == 2);
  check_group(of_heads, {{out, 0, heads, 2}}, values, measure, scores);

  const auto& observed = context.details.at("observed").at("rows");
  const auto row = Json{group_with(groups, down).id, ffn, 2, 5.0 * 16};
  CHECK(std::find(observed.begin(), observed.end(), row) != observed.end());
}

TEST_CASE("activation measures feature maps, and adds up what several layers read") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_residual_network();
  const auto model = save_model(context, graph);
  const auto data = toy_images(context, 6, 4);
  const auto groups = groups_of(graph);
  const std::string measure = GENERATE("l1", "l2", "mean_abs", "variance");
  const auto scores = score(context, "metric/activation", {{"measure", measure}, {"samples", 6}, {"batch", 4}}, model, &data);
  CHECK(scores.size() == groups.size());

  const std::string inner = "/block.0/Relu_output";
  const std::vector<Read> stream{{"block.0.conv1.weight", 1, "/stem/Relu_output", 1},
                                 {"block.1.conv1.weight", 1, "/block.0/Relu_1_output", 1},
                                 {"head.weight", 1, "/Flatten_output", 1}};
  std::vector<std::string> names{inner};
  for (const auto& read : stream) names.push_back(read.value);
  const auto values = values_of(graph, ArrayDataset(context, data).batch({0, 1, 2, 3, 4, 5}), names);
  for (const auto& group : groups) {
    const auto touches = [&](const std::string& tensor) {
      return std::any_of(group.members.begin(), group.members.end(), [&](const auto& m) { return m.tensor == tensor; });
    };
    if (touches("head.weight")) check_group(group, stream, values, measure, scores);
    if (touches("block.0.conv2.weight") && !touches("head.weight"))
      check_group(group, {{"block.0.conv2.weight", 1, inner, 1}}, values, measure, scores);
  }
}

TEST_CASE("a constant channel has no variance, however large it is") {
  const TemporaryFolder folder;
  TestContext context(folder);
  Graph graph = pair_of_products();
  std::vector<float> values(24, 0.0F);
  for (std::size_t i = 0; i < 4; ++i) values[i * 6 + 1] = 100;  // channel 1: a hundred times the sum of x
  graph.initializers["wu"] = Tensor::of(DType::f32, {4, 6}, values);
  std::vector<float> ones(60, 1.0F);
  for (std::size_t i = 40; i < 60; ++i) ones[i] = 1.001F;  // the last example differs by a little
  const auto data = save_arrays(context, {{"x", Tensor::of(DType::f32, {3, 5, 4}, ones)}}, {});
  const auto scores =
      score(context, "metric/activation", {{"measure", "variance"}, {"samples", 3}}, save_model(context, graph), &data);
  const auto& own = scores.at("wu:1:0");
  CHECK(own[0] == 0);
  CHECK_THAT(own[1], WithinRel(0.4 * 0.4 * 2 / 9, 1e-3));  // 400, 400, 400.4
}

TEST_CASE("activation leaves padding out") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const std::int64_t count = 3, length = 8, kept = 5;
  const auto tokens = toy_tokens(count * length, ToySize{}.vocabulary, 0.15, 3);
  const auto data = [&](std::int64_t held, std::int64_t open) {
    std::vector<std::int64_t> ids, mask, positions;
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t p = 0; p < held; ++p) {
        ids.push_back(tokens[static_cast<std::size_t>(i * length + p)]);
        mask.push_back(p < open);
        positions.push_back(p);
      }
    const auto array = [&](const auto& values) { return Tensor::of(DType::i64, {count, held}, values); };
    return save_arrays(context, {{"input_ids", array(ids)}, {"attention_mask", array(mask)}, {"position_ids", array(positions)}},
                       {});
  };
  const std::string measure = GENERATE("mean_abs", "variance");
  const Json params{{"measure", measure}, {"samples", 3}, {"batch", 2}};
  const auto padded = data(length, kept), cut = data(kept, kept);
  const auto with = score(context, "metric/activation", params, model, &padded);
  const auto without = score(context, "metric/activation", params, model, &cut);
  for (const auto& [id, own] : without)
    for (std::size_t u = 0; u < own.size(); ++u) CHECK_THAT(with.at(id)[u], WithinRel(own[u], 1e-4));
}

TEST_CASE("activation names the groups that no weight reads") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = pair_of_products();
  const auto model = save_model(context, graph);
  const auto data = rows(context, 3);
  REQUIRE(groups_of(graph).size() == 2);
  const auto scores = score(context, "metric/activation", {{"samples", 3}}, model, &data);
  CHECK(scores.size() == 1);
  CHECK(scores.contains("wu:1:0"));
  REQUIRE(context.warnings.size() == 1);
  CHECK_THAT(context.warnings[0], ContainsSubstring("1 of 2 groups") && ContainsSubstring("wq:1:0"));
  // What has no score is refused by what would use it, not cut as if it were worth nothing.
  const Json metric{{"use", "metric/activation"}, {"samples", 3}};
  CHECK_THROWS_WITH(context.run("pruner/channels", {{"sparsity", 0.3}, {"metric", metric}}, {{"model", model}, {"data", data}}),
                    ContainsSubstring("say nothing of group \"wq:1:0\""));
  CHECK_THROWS_WITH(score(context, "metric/ensemble", {{"metrics", Json::array({metric})}}, model, &data),
                    ContainsSubstring("no score for every unit of group \"wq:1:0\""));

  Graph alone = graph;
  alone.nodes.resize(4);
  alone.outputs.resize(1);
  alone.initializers.erase("wu");
  alone.initializers.erase("wd");
  CHECK_THROWS_WITH(score(context, "metric/activation", {{"samples", 3}}, save_model(context, alone), &data),
                    ContainsSubstring("no weight reads the channels of any of the 1 groups"));
  CHECK_THROWS_WITH(score(context, "metric/activation", {}, model), ContainsSubstring("metric/activation needs data"));
}

TEST_CASE("observing runs no more of the graph than the values need") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto data = toy_dataset(context, 4, 8, 6);
  const MetricExamples examples(context, Params({{"samples", 3}, {"batch", 2}}), &data, "metric/none");
  CHECK(examples.count() == 3);
  REQUIRE(examples.batches().size() == 2);
  CHECK(examples.batches()[1].size() == 1);
  Session session(graph);
  std::set<std::string> run;
  std::map<std::string, int> seen;
  session.observe([&](const Node& node, double) { run.insert(node.name); });
  const std::vector<std::string> values{"/model/layers.0/mlp/Mul_output", "/model/layers.1/self_attn/q_proj/MatMul_output",
                                        "/model/layers.1/self_attn/v_proj/MatMul_output", "input_ids"};
  for (const auto& value : values)
    session.hook(value, [&](const std::string& name, const at::Tensor&) {
      ++seen[name];
      return at::Tensor();
    });
  examples.observe(context, session, graph, values, "nothing");
  for (const auto& value : values) CHECK(seen[value] == 2);
  CHECK(run.contains("/model/layers.1/self_attn/v_proj/MatMul"));
  CHECK_FALSE(run.contains("/model/layers.1/self_attn/k_proj/MatMul"));
  CHECK_FALSE(run.contains("/lm_head/MatMul"));
}
