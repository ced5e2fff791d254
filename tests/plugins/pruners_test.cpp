#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/linalg_lstsq.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/surgery.h"
#include "run/dataset.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

/// Unit numbers that a masks artifact removes.
Removal removal_of(const TestContext& context, const Artifact& masks) {
  const auto file = context.map(masks.blobs.at("masks.safetensors"));
  Removal removal;
  for (const auto& [group, mask] : parse_safetensors(file.bytes(), file.owner(), "masks")) {
    const auto kept = mask.as<std::uint8_t>();
    for (std::size_t u = 0; u < kept.size(); ++u) {
      if (!kept[u]) removal[group].push_back(std::int64_t(u));
    }
  }
  return removal;
}

std::int64_t width(const Graph& graph, const std::string& tensor, std::size_t axis) {
  return graph.initializer(tensor)->shape.at(axis);
}

}  // namespace

TEST_CASE("pruning channels gives a smaller model that computes what its mask does") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 6, 24, 5);
  const Json metric = GENERATE(Json{{"use", "metric/magnitude"}}, Json{{"use", "metric/taylor"}, {"samples", 3}});
  const std::string ranking = GENERATE("layer", "global");
  context.run("pruner/channels",
              {{"sparsity", 0.3}, {"scope", {"*.mlp"}}, {"metric", metric}, {"ranking", ranking}, {"multiple", 4}},
              {{"model", model}, {"data", data}});
  const auto output = context.outputs.at("model");
  const Graph smaller = load_model(context, output);
  const auto figures = context.figures;
  CHECK(output.meta.at("tokenizer") == toy_tokenizer_digest());
  CHECK(output.meta.at("task") == "causal-lm");

  const double gone = double(graph.parameter_count() - smaller.parameter_count());
  const double mlp = 2 * 3 * 32 * 48;
  CHECK_THAT(figures.at("sparsity"), WithinAbs(gone / mlp, 1e-9));
  CHECK(figures.at("sparsity") <= 0.3);
  CHECK(figures.at("sparsity") > 0.2);
  CHECK(figures.at("groups") == 2);
  CHECK(figures.at("parameters") == double(smaller.parameter_count()));
  for (const std::string layer : {"model.layers.0.mlp.", "model.layers.1.mlp."}) {
    const auto left = width(smaller, layer + "down_proj.weight", 0);
    CHECK(left % 4 == 0);
    CHECK(left == width(smaller, layer + "up_proj.weight", 1));
    CHECK(left == width(smaller, layer + "gate_proj.weight", 1));
  }
  const auto& rows = context.details.at("widths").at("rows");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0][1] == 48);
  CHECK(rows[0][2] == width(smaller, "model.layers.0.mlp.down_proj.weight", 0));

  const Graph masked = mask(graph, coupled_groups(graph, infer(graph)), removal_of(context, context.outputs.at("masks")));
  CHECK_THAT(loss_of(smaller, context, data), WithinRel(loss_of(masked, context, data), 1e-5));
  CHECK(loss_of(smaller, context, data) != loss_of(graph, context, data));
  // The same again gives the same bytes.
  context.run("pruner/channels",
              {{"sparsity", 0.3}, {"scope", {"*.mlp"}}, {"metric", metric}, {"ranking", ranking}, {"multiple", 4}},
              {{"model", model}, {"data", data}});
  CHECK(context.outputs.at("model").digest() == output.digest());
}

TEST_CASE("pruning heads takes whole key-value groups") {
  const TemporaryFolder folder;
  TestContext context(folder);
  ToySize size;
  size.heads = 8;
  size.kv_heads = 4;
  size.head = 4;
  const Graph graph = toy_language_model(size);
  const auto data = toy_dataset(context, 4, 24, 5);
  context.run("pruner/heads", {{"sparsity", 0.4}, {"per_scope", {{"*.layers.0", 0.5}}}}, {{"model", save_model(context, graph)}});
  const Graph smaller = load_model(context, context.outputs.at("model"));
  CHECK(width(smaller, "model.layers.0.self_attn.k_proj.weight", 1) == 2 * 4);
  CHECK(width(smaller, "model.layers.0.self_attn.q_proj.weight", 1) == 4 * 4);
  CHECK(width(smaller, "model.layers.0.self_attn.o_proj.weight", 0) == 4 * 4);
  CHECK(width(smaller, "model.layers.1.self_attn.v_proj.weight", 1) == 3 * 4);
  CHECK(context.warnings.size() == 1);  // a quarter instead of 0.4
  const Graph masked = mask(graph, coupled_groups(graph, infer(graph)), removal_of(context, context.outputs.at("masks")));
  CHECK_THAT(loss_of(smaller, context, data), WithinRel(loss_of(masked, context, data), 1e-5));
}

TEST_CASE("a residual network is cut by the same code") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_residual_network();
  const auto model = save_model(context, graph);
  context.run("pruner/channels",
              {{"sparsity", 0.4}, {"ranking", "global"}, {"metric", {{"use", "metric/magnitude"}, {"normalise", "mean"}}}},
              {{"model", model}});
  const Graph smaller = load_model(context, context.outputs.at("model"));
  CHECK(context.figures.at("groups") == 3);  // the residual stream and each block's inside
  CHECK(context.figures.at("sparsity") <= 0.4);
  CHECK(context.figures.at("sparsity") > 0.35);
  // Elements that the scope reaches: all but the head's bias.
  CHECK_THAT(context.figures.at("sparsity"),
             WithinAbs(double(graph.parameter_count() - smaller.parameter_count()) / double(graph.parameter_count() - 10), 1e-9));

  c10::NoGradGuard no_gradients;
  const Graph masked = mask(graph, coupled_groups(graph, infer(graph)), removal_of(context, context.outputs.at("masks")));
  const TensorMap image{{"image", at::ones({2, 3, 8, 8})}};
  const auto cut = Session(smaller).run(image).at("scores"), zeroed = Session(masked).run(image).at("scores");
  CHECK(at::allclose(cut, zeroed, 1e-4, 1e-5));
  CHECK_FALSE(at::allclose(cut, Session(graph).run(image).at("scores"), 1e-3, 1e-3));

  context.run("pruner/channels", {{"sparsity", 0.5}, {"scope", {"block.*.conv1"}}}, {{"model", model}});
  const Graph inside = load_model(context, context.outputs.at("model"));
  CHECK(width(inside, "stem.weight", 0) == 16);
  CHECK(width(inside, "block.0.conv1.weight", 0) == 12);
  CHECK(width(inside, "block.1.conv2.weight", 1) == 12);
}

TEST_CASE("scores of a metric's stage take the metric's place") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  context.run("metric/magnitude", {{"p", 1}}, {{"model", model}});
  const auto scores = context.outputs.at("scores");
  const Json parameters{{"sparsity", 0.25}, {"scope", {"*.mlp"}}};
  context.run("pruner/channels", parameters, {{"model", model}, {"scores", scores}});
  const auto by_scores = context.outputs.at("model").digest();
  auto with_metric = parameters;
  with_metric["metric"] = {{"use", "metric/magnitude"}, {"p", 1}};
  context.run("pruner/channels", with_metric, {{"model", model}});
  CHECK(context.outputs.at("model").digest() == by_scores);
  // Scores of another model do not fit.
  const auto cut = context.outputs.at("model");
  CHECK_THROWS_WITH(context.run("pruner/channels", parameters, {{"model", cut}, {"scores", scores}}),
                    ContainsSubstring("48 scores"));
}

TEST_CASE("pruners refuse what makes no sense, and say what would") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  CHECK_THROWS_WITH(context.run("pruner/channels", {{"sparsity", 0.2}, {"scope", {"*.mpl"}}}, {{"model", model}}),
                    ContainsSubstring("\"*.mpl\"") && ContainsSubstring("model.layers.*.mlp"));
  CHECK_THROWS_WITH(context.run("pruner/heads", {{"sparsity", 0.2}, {"scope", {"*.mlp"}}}, {{"model", model}}),
                    ContainsSubstring("attention heads") && ContainsSubstring("self_attn"));
  CHECK_THROWS_WITH(
      context.run("pruner/channels", {{"sparsity", 0.2}, {"scope", {"*.mlp"}}, {"metric", {{"use", "metric/taylor"}}}},
                  {{"model", model}}),
      ContainsSubstring("needs data"));
  CHECK_THROWS_WITH(context.run("pruner/heads", {{"sparsity", 0.2}}, {{"model", save_model(context, toy_residual_network())}}),
                    ContainsSubstring("no attention heads"));
  CHECK(context.outputs.empty());
}

TEST_CASE("compensation refits the readers of cut channels by least squares") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  const auto data = toy_dataset(context, 12, 24, 5);
  const std::string down = "model.layers.0.mlp.down_proj.weight";
  Json parameters{{"sparsity", 0.3}, {"scope", {"*.mlp"}}};
  context.run("pruner/channels", parameters, {{"model", model}, {"data", data}});
  const Graph plain = load_model(context, context.outputs.at("model"));
  const Removal removal = removal_of(context, context.outputs.at("masks"));
  CHECK_FALSE(context.details.contains("compensation"));
  parameters.update({{"compensate", true}, {"compensation_samples", 12}, {"ridge", 1e-9}});
  context.run("pruner/channels", parameters, {{"model", model}, {"data", data}});
  const Graph refitted = load_model(context, context.outputs.at("model"));
  CHECK(removal_of(context, context.outputs.at("masks")) == removal);

  // The oracle: what the uncut model's kept channels carry, against what its product was, by LibTorch's own least squares.
  Session session(graph);
  at::Tensor x, y;
  const Uses uses(graph);
  const Node& product = graph.nodes[uses.readers_of(down).front().node];
  const auto batch = open_dataset(context, data)->batch(spread(12, 12));
  const TensorMap values = session.run(inputs_for(graph, batch), {product.input(0), product.output(0)});
  x = values.at(product.input(0)).flatten(0, 1).to(at::kDouble);
  y = values.at(product.output(0)).flatten(0, 1).to(at::kDouble);
  std::vector<std::int64_t> kept;
  const auto& gone = std::find_if(removal.begin(), removal.end(), [](const auto& entry) {
                       return entry.first.find("layers.0.mlp") != std::string::npos;
                     })->second;
  for (std::int64_t i = 0; i < x.size(1); ++i)
    if (!std::binary_search(gone.begin(), gone.end(), i)) kept.push_back(i);
  const at::Tensor seen = x.index_select(1, at::tensor(at::ArrayRef<std::int64_t>(kept), at::kLong));
  const at::Tensor best = std::get<0>(at::linalg_lstsq(seen, y));
  const at::Tensor ours = to_aten(*refitted.initializer(down)).to(at::kDouble);
  REQUIRE(ours.sizes() == best.sizes());
  CHECK(at::allclose(at::matmul(seen, ours), at::matmul(seen, best), 1e-3, 1e-3 * y.abs().mean().item<double>()));

  // The report says what it brought, and every other weight is as it was cut.
  const Json& rows = context.details.at("compensation").at("rows");
  CHECK(rows.size() == 2);
  for (const Json& row : rows) CHECK(row[2].get<double>() < 0.9 * row[1].get<double>());
  for (const auto& [name, tensor] : plain.initializers)
    if (name.find("down_proj") == std::string::npos) CHECK(tensor.digest() == refitted.initializer(name)->digest());
}

TEST_CASE("compensation in bf16 comes to other weights that are nearly the same") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 12, 24, 5);
  const auto refitted = [&](const char* precision) {
    context.run("pruner/channels",
                {{"sparsity", 0.4}, {"scope", {"*.mlp"}}, {"compensate", true}, {"compensation_precision", precision}},
                {{"model", model}, {"data", data}});
    return load_model(context, context.outputs.at("model"));
  };
  const Graph wide = refitted("f32"), narrow = refitted("bf16");
  for (const char* name : {"model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"}) {
    const at::Tensor a = to_aten(*wide.initializer(name)), b = to_aten(*narrow.initializer(name));
    const double apart = (a - b).abs().max().item<double>() / a.abs().max().item<double>();
    CHECK(apart > 0);
    CHECK(apart < 0.05);
  }
}

TEST_CASE("compensation works on attention heads, and says when it cannot") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 12, 24, 5);
  const Json parameters{{"sparsity", 0.5}, {"compensate", true}, {"compensation_samples", 12}};
  context.run("pruner/heads", parameters, {{"model", model}, {"data", data}});
  const Json& rows = context.details.at("compensation").at("rows");
  REQUIRE_FALSE(rows.empty());
  for (const Json& row : rows) CHECK(row[2].get<double>() <= row[1].get<double>());
  CHECK_THROWS_WITH(context.run("pruner/heads", parameters, {{"model", model}}), ContainsSubstring("needs data"));
  const auto network = save_model(context, toy_residual_network());
  CHECK_THROWS_WITH(context.run("pruner/channels", {{"sparsity", 0.3}, {"compensate", true}}, {{"model", network}, {"data", data}}),
                    ContainsSubstring("input"));
}
