// Padding and uncounted tokens in every component of training and pruning: results are those of the examples without padding.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "formats/model_artifact.h"
#include "run/dataset.h"
#include "scoring.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

/// `count` examples of `length` tokens, of which all from `prompt` on count, in windows of `sequence`.
Artifact examples(TestContext& context, std::int64_t count, std::int64_t length, std::int64_t prompt, std::int64_t sequence,
                  std::uint64_t seed = 5) {
  const auto text = toy_tokens(count * length, ToySize{}.vocabulary, 0.15, seed);
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> flags;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t p = 0; p < sequence; ++p) {
      tokens.push_back(p < length ? text[static_cast<std::size_t>(i * length + p)] : 9);
      flags.push_back(p >= length ? 0 : p >= prompt && p > 0 ? 3 : 1);
    }
  Artifact data = toy_dataset(context, tokens, sequence);
  data.meta["flags"] = true;
  data.blobs["flags.u8"] = context.put(std::as_bytes(std::span(flags)));
  return data;
}

double figure(const TestContext& context, const char* name) { return context.figures.at(name); }

}  // namespace

TEST_CASE("finetuning on padded examples is finetuning on the examples") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto run = [&](std::int64_t sequence, const Json& more) {
    Json params{{"steps", 6},          {"batch", 4},    {"warmup", 2},   {"learning_rate", 5e-3},
                {"evaluate_every", 2}, {"patience", 3}, {"keep", "best"}};
    params.update(more);
    context.run("distiller/finetune", params,
                {{"model", model},
                 {"data", examples(context, 16, 12, 5, sequence)},
                 {"heldout", examples(context, 4, 12, 5, sequence, 99)}});
  };
  const Json kinds{Json::object(), {{"checkpoint", true}}, {{"adapter", "lora"}, {"adapter_scope", {"*.mlp"}}}};
  const Json& more = kinds.at(GENERATE(0u, 1u, 2u));
  run(12, more);
  const auto alone = context.figures;
  run(40, more);
  for (const char* name :
       {"loss_first", "loss_last", "heldout_loss_before", "heldout_loss_after", "heldout_loss_best", "best_step", "tokens"})
    CHECK_THAT(figure(context, name), WithinRel(alone.at(name), 1e-4));
  CHECK(figure(context, "tokens") == 6 * 4 * 12);
}

TEST_CASE("the loss on held-out examples counts each by its tokens") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto loss = [&](const Artifact& heldout) {
    context.run("distiller/finetune", {{"steps", 1}},
                {{"model", model}, {"data", toy_dataset(context, 4, 12, 5)}, {"heldout", heldout}});
    return figure(context, "heldout_loss_before");
  };
  const auto many = examples(context, 1, 12, 2, 20, 7), few = examples(context, 1, 6, 4, 20, 8);
  Artifact both = many;
  std::vector<std::byte> tokens, flags;
  for (const Artifact* one : {&many, &few})
    for (const auto& [name, bytes] : {std::pair{"tokens.i32", &tokens}, {"flags.u8", &flags}}) {
      const auto file = context.map(one->blobs.at(name));
      bytes->insert(bytes->end(), file.bytes().begin(), file.bytes().end());
    }
  both.meta["count"] = 2;
  both.blobs["tokens.i32"] = context.put(tokens);
  both.blobs["flags.u8"] = context.put(flags);
  CHECK_THAT(loss(both), WithinRel((10 * loss(many) + 2 * loss(few)) / 12, 1e-5));
}

TEST_CASE("every loss of distillation leaves padding out") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto student = save_model(context, toy_language_model({}, 4)), teacher = save_model(context, toy_language_model());
  const auto run = [&](std::int64_t sequence) {
    context.run("distiller/distill",
                {{"steps", 3},
                 {"batch", 4},
                 {"warmup", 1},
                 {"learning_rate", 5e-3},
                 {"losses", {{"soft", 1.0}, {"hard", 0.5}, {"hidden", 0.25}, {"attention", 2.0}, {"temperature", 2.0}}}},
                {{"student", student}, {"teacher", teacher}, {"data", examples(context, 12, 12, 5, sequence)}});
    return context.figures;
  };
  const auto alone = run(12), padded = run(30);
  for (const char* loss : {"loss_soft_last", "loss_hard_last", "loss_hidden_last", "loss_attention_last", "loss_last"})
    CHECK_THAT(padded.at(loss), WithinRel(alone.at(loss), 1e-4));
}

TEST_CASE("metrics score units as they do without padding") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const std::string metric = GENERATE("metric/taylor", "metric/hessian", "metric/fisher", "metric/activation", "metric/attention");
  const int batch = GENERATE(1, 3);
  CAPTURE(metric, batch);
  const auto model = save_model(context, toy_language_model());
  const Json params{{"samples", 6}, {"batch", batch}};
  const auto alone = examples(context, 6, 12, 5, 12), padded = examples(context, 6, 12, 5, 33);
  const auto expected = score(context, metric, params, model, &alone), got = score(context, metric, params, model, &padded);
  REQUIRE(got.size() == expected.size());
  for (const auto& [group, own] : expected)
    for (std::size_t u = 0; u < own.size(); ++u) CHECK_THAT(got.at(group)[u], WithinRel(own[u], 2e-3) || WithinAbs(own[u], 1e-9));
}

TEST_CASE("heads of a model that takes no mask are scored without the queries of padding") {
  const TemporaryFolder folder;
  TestContext context(folder);
  Graph graph = toy_language_model();
  std::erase_if(graph.inputs, [](const Value& input) { return input.name == "attention_mask"; });
  std::erase_if(graph.nodes, [](const Node& node) { return node.name.starts_with("/mask/"); });
  graph.initializers.erase("mask_axes");
  for (Node& node : graph.nodes)
    if (node.op == "Attention") node.inputs.resize(3);
  const auto model = save_model(context, graph);
  const Json params{{"samples", 4}, {"measure", "distance"}};
  const auto alone = examples(context, 4, 12, 5, 12), padded = examples(context, 4, 12, 5, 33);
  const auto expected = score(context, "metric/attention", params, model, &alone),
             got = score(context, "metric/attention", params, model, &padded);
  for (const auto& [group, own] : expected)
    for (std::size_t u = 0; u < own.size(); ++u) CHECK_THAT(got.at(group)[u], WithinRel(own[u], 1e-4));
}

TEST_CASE("gradient metrics count each example by its tokens, and want some") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  auto none = examples(context, 4, 12, 5, 16);
  std::vector<std::uint8_t> flags(64, 1);
  flags[3 * 16 + 4] = 3;  // of the last window, which two samples do not reach
  none.blobs["flags.u8"] = context.put(std::as_bytes(std::span(flags)));
  CHECK_THROWS_WITH(score(context, "metric/taylor", {{"samples", 2}}, model, &none), ContainsSubstring("none of the 2 windows"));
  const auto some = score(context, "metric/taylor", {{"samples", 4}}, model, &none);
  CHECK(some.begin()->second.size() > 0);
}

TEST_CASE("compensation and rounds of pruning look at real positions only") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto cut = [&](std::int64_t sequence) {
    context.run("pruner/channels", {{"sparsity", 0.4}, {"scope", {"*.mlp"}}, {"compensate", true}, {"compensation_samples", 8}},
                {{"model", model}, {"data", examples(context, 8, 12, 5, sequence)}});
    return load_model(context, context.outputs.at("model"));
  };
  const Graph alone = cut(12), padded = cut(33);
  for (const char* name : {"model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"}) {
    const auto a = alone.initializer(name)->numbers(), b = padded.initializer(name)->numbers();
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK_THAT(b[i], WithinAbs(a[i], 2e-3));
  }
}
