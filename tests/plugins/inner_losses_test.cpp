// Distillation by what flows inside, and adapters, as stages.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <set>

#include "formats/model_artifact.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

namespace {

Json brief(std::int64_t steps, Json more) {
  Json all{{"steps", steps}, {"batch", 4}, {"warmup", 4}, {"learning_rate", 5e-3}};
  all.update(more);
  return all;
}

std::set<std::string> changed(const Graph& before, const Graph& after) {
  std::set<std::string> names;
  REQUIRE(before.initializers.size() == after.initializers.size());
  for (const auto& [name, tensor] : before.initializers)
    if (after.initializers.at(name).digest() != tensor.digest()) names.insert(name);
  return names;
}

ToySize half_size() {
  ToySize size;
  size.hidden = 16;
  size.ffn = 24;
  return size;
}

}  // namespace

TEST_CASE("a student of half the width and depth learns from hidden states alone; the projection stays behind") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 32, 16, 5);
  ToySize deep;
  deep.layers = 4;
  const auto teacher = save_model(context, toy_language_model(deep));
  const Graph small = toy_language_model(half_size(), 3);
  const std::map<std::string, Artifact> inputs{{"student", save_model(context, small)}, {"teacher", teacher}, {"data", data}};
  for (const char* measure : {"mse", "cosine"}) {
    CAPTURE(measure);
    context.run("distiller/distill", brief(60, {{"losses", {{"hidden", 1.0}}}, {"hidden_loss", measure}}), inputs);
    CHECK(context.figures.at("loss_hidden_last") < 0.7 * context.figures.at("loss_hidden_first"));
    CHECK(context.figures.at("loss_last") < 0.7 * context.figures.at("loss_first"));
    CHECK(context.figures.at("projections") == 2);
    CHECK(context.details.at("curve.loss_hidden").size() == 60);
    CHECK(context.details.at("layers").at("rows").at(0) ==
          Json({"block 0 (model.layers.0)", "block 1 (model.layers.1)", 16, 32, 0}));
    const Graph trained = load_model(context, context.outputs.at("model"));
    CHECK(trained.nodes.size() == small.nodes.size());
    const auto names = changed(small, trained);
    CHECK(names.contains("model.layers.1.mlp.down_proj.weight"));
    CHECK_FALSE(names.contains("model.norm.weight"));  // behind the last block: no loss reaches it
    const auto first = context.outputs.at("model").digest();
    context.run("distiller/distill", brief(60, {{"losses", {{"hidden", 1.0}}}, {"hidden_loss", measure}}), inputs);
    CHECK(context.outputs.at("model").digest() == first);
  }
}

TEST_CASE("attention of a student with fewer heads comes near its teacher's") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 32, 16, 5);
  const auto teacher = save_model(context, toy_language_model({}, 1));
  ToySize fewer;
  fewer.heads = 2;
  fewer.kv_heads = 1;
  const auto student = save_model(context, toy_language_model(fewer, 9));
  context.run("distiller/distill", brief(60, {{"losses", {{"attention", 1.0}}}}),
              {{"student", student}, {"teacher", teacher}, {"data", data}});
  CHECK(context.figures.at("loss_attention_last") < 0.5 * context.figures.at("loss_attention_first"));
  CHECK(context.details.at("layers").at("rows").at(1).at(4) == 1);
  // Nothing but what attention depends on is moved.
  const auto names = changed(load_model(context, student), load_model(context, context.outputs.at("model")));
  CHECK(names.contains("model.layers.1.self_attn.q_proj.weight"));
  CHECK_FALSE(names.contains("model.layers.1.self_attn.v_proj.weight"));
  for (const auto& node : load_model(context, context.outputs.at("model")).nodes) CHECK_FALSE(node.has("qk_matmul_output_mode"));
}

TEST_CASE("all losses together are their weighted sum") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 8, 16, 5);
  context.run("distiller/distill",
              brief(3, {{"losses", {{"soft", 1.0}, {"hard", 0.5}, {"hidden", 0.25}, {"attention", 2.0}, {"temperature", 2.0}}}}),
              {{"student", save_model(context, toy_language_model({}, 4))},
               {"teacher", save_model(context, toy_language_model())},
               {"data", data}});
  const auto& f = context.figures;
  CHECK_THAT(f.at("loss_last"), WithinRel(f.at("loss_soft_last") + 0.5 * f.at("loss_hard_last") + 0.25 * f.at("loss_hidden_last") +
                                              2 * f.at("loss_attention_last"),
                                          1e-5));
  CHECK_FALSE(f.contains("projections"));
}

TEST_CASE("a quantized and pruned teacher has the same blocks") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 8, 16, 5);
  const auto model = save_model(context, toy_language_model());
  context.run("pruner/heads", {{"sparsity", 0.5}}, {{"model", model}});
  context.run("quantizer/rtn", {{"bits", 8}}, {{"model", context.outputs.at("model")}});
  const auto teacher = context.outputs.at("model");
  REQUIRE(load_model(context, teacher).nodes.size() > load_model(context, model).nodes.size());
  context.run("distiller/distill",
              brief(2, {{"losses", {{"hidden", 1.0}, {"attention", 1.0}}}, {"layer_map", {"1:model.layers.1"}}}),
              {{"student", model}, {"teacher", teacher}, {"data", data}});
  CHECK(context.figures.at("loss_hidden_first") > 0);
  CHECK(context.details.at("layers").at("rows") == Json({{"block 1 (model.layers.1)", "block 1 (model.layers.1)", 32, 32, 1}}));
}

TEST_CASE("layers that do not fit are refused before any training") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 8, 16, 5);
  const auto model = save_model(context, toy_language_model());
  const auto run = [&](const Json& more) {
    context.run("distiller/distill", brief(1, more), {{"student", model}, {"teacher", model}, {"data", data}});
  };
  const Json hidden{{"hidden", 1.0}};
  CHECK_THROWS_WITH(run({{"losses", hidden}, {"layer_map", {"0:0", "model.layers.5:1"}}}),
                    ContainsSubstring("student has no block \"model.layers.5\""));
  CHECK_THROWS_WITH(run({{"losses", {{"soft", 1.0}}}, {"layer_map", {"0:0"}}}), ContainsSubstring("no loss compares layers"));
  ToySize one;
  one.layers = 1;
  CHECK_THROWS_WITH(context.run("distiller/distill", brief(1, {{"losses", hidden}}),
                                {{"student", save_model(context, toy_language_model(one))}, {"teacher", model}, {"data", data}}),
                    ContainsSubstring("student has no repeated blocks") && ContainsSubstring("leave hidden"));
}

TEST_CASE("LoRA learns, leaves all other bytes, and gives a model of the same shape") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const Graph base = toy_language_model();
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, base)}, {"data", data}, {"heldout", heldout}};
  const Json lora{
      {"adapter", "lora"}, {"rank", 4}, {"alpha", 8.0}, {"learning_rate", 1e-2}, {"adapter_scope", {"*.mlp", "*.q_proj"}}};
  context.run("distiller/finetune", brief(60, lora), inputs);
  const Graph tuned = load_model(context, context.outputs.at("model"));
  CHECK(tuned.nodes.size() == base.nodes.size());
  CHECK(changed(base, tuned) == std::set<std::string>{"model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.gate_proj.weight",
                                                      "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight",
                                                      "model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.gate_proj.weight",
                                                      "model.layers.1.mlp.up_proj.weight",
                                                      "model.layers.1.self_attn.q_proj.weight"});
  CHECK(context.figures.at("heldout_loss_after") < context.figures.at("heldout_loss_before") - 0.1);
  // What was measured on the adapted graph holds for the merged one.
  CHECK_THAT(context.figures.at("heldout_loss_after"), WithinRel(loss_of(tuned, context, heldout), 1e-4));
  CHECK(context.figures.at("adapters") == 8);
  CHECK(context.figures.at("adapter_parameters") == 2 * 4 * (3 * (32 + 48) + 32 + 32));
  CHECK(context.details.at("adapters").at("rows").size() == 8);
  const auto first = context.outputs.at("model").digest();
  context.run("distiller/finetune", brief(60, lora), inputs);
  CHECK(context.outputs.at("model").digest() == first);
}

TEST_CASE("(IA)3 scales output channels, and goes with a teacher and projections, too") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 32, 16, 5);
  const Graph base = toy_language_model(half_size(), 3);
  context.run("distiller/distill",
              brief(40, {{"losses", {{"soft", 1.0}, {"hidden", 1.0}}}, {"adapter", "ia3"}, {"learning_rate", 2e-2}}),
              {{"student", save_model(context, base)}, {"teacher", save_model(context, toy_language_model())}, {"data", data}});
  const Graph tuned = load_model(context, context.outputs.at("model"));
  CHECK(context.figures.at("loss_last") < context.figures.at("loss_first"));
  CHECK(context.figures.at("adapters") == 14);
  const auto names = changed(base, tuned);
  CHECK(names.size() == 14);
  CHECK_FALSE(names.contains("model.norm.weight"));
  // One factor for each column of [inputs, outputs].
  const auto before = base.initializer("model.layers.0.mlp.up_proj.weight")->numbers();
  const auto after = tuned.initializer("model.layers.0.mlp.up_proj.weight")->numbers();
  for (std::size_t column = 0; column < 24; ++column)
    CHECK_THAT(after[5 * 24 + column] / before[5 * 24 + column], WithinRel(after[column] / before[column], 1e-4));
}

TEST_CASE("adapters that make no sense are refused") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 8, 16, 5);
  const auto model = save_model(context, toy_language_model());
  const auto run = [&](const Json& more) { context.run("distiller/finetune", brief(1, more), {{"model", model}, {"data", data}}); };
  CHECK_THROWS_WITH(run({{"adapter", "lora"}, {"adapter_scope", {"*.mpl"}}}),
                    ContainsSubstring("*.mpl") && ContainsSubstring("model.layers.*.mlp"));
  CHECK_THROWS_WITH(run({{"adapter", "lora"}, {"adapter_scope", {"*.embed_tokens"}}}), ContainsSubstring("no matrix"));
  CHECK_THROWS_WITH(run({{"adapter", "lora"}, {"rank", 64}}), ContainsSubstring("rank = 64"));
  CHECK_THROWS_WITH(run({{"adapter", "ia3"}, {"train", {"*.mlp"}}}),
                    ContainsSubstring("adapter_scope") && ContainsSubstring("*.mlp"));
}
