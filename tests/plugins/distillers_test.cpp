#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "formats/model_artifact.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

namespace {

Json brief(std::int64_t steps = 40) { return {{"steps", steps}, {"batch", 8}, {"warmup", 4}, {"learning_rate", 5e-3}}; }

Digest tensor_digest(const TestContext& context, const Artifact& model, const std::string& name) {
  return load_model(context, model).initializer(name)->digest();
}

}  // namespace

TEST_CASE("finetuning lowers the loss, on held-out text too, and is the same by seed") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const std::map<std::string, Artifact> inputs{{"model", model}, {"data", data}, {"heldout", heldout}};
  context.run("distiller/finetune", brief(), inputs);
  const auto first = context.outputs.at("model");
  CHECK(context.figures.at("loss_last") < 0.7 * context.figures.at("loss_first"));
  CHECK(context.figures.at("heldout_loss_after") < 0.7 * context.figures.at("heldout_loss_before"));
  CHECK_THAT(context.figures.at("heldout_loss_before"), WithinRel(loss_of(toy_language_model(), context, heldout), 1e-4));
  CHECK_THAT(context.figures.at("heldout_loss_after"), WithinRel(loss_of(load_model(context, first), context, heldout), 1e-4));
  CHECK(context.figures.at("tokens") == 40 * 8 * 24);
  CHECK(context.details.at("curve.loss").size() == 40);
  CHECK(first.meta.at("tokenizer") == toy_tokenizer_digest());
  CHECK(first.meta.at("task") == "causal-lm");
  // Tables are no weights: rotary caches stay.
  CHECK(tensor_digest(context, first, "rotary.cos") == tensor_digest(context, model, "rotary.cos"));

  context.run("distiller/finetune", brief(), inputs);
  CHECK(context.outputs.at("model").digest() == first.digest());
  context.seed_ = 8;
  context.run("distiller/finetune", brief(), inputs);
  CHECK(context.outputs.at("model").digest() != first.digest());
}

TEST_CASE("only what the scope names is trained") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 16, 24, 5);
  auto parameters = brief(3);
  parameters["train"] = {"*.mlp"};
  context.run("distiller/finetune", parameters, {{"model", model}, {"data", data}});
  const auto tuned = context.outputs.at("model");
  const auto same = [&](const std::string& name) {
    return tensor_digest(context, tuned, name) == tensor_digest(context, model, name);
  };
  CHECK_FALSE(same("model.layers.0.mlp.up_proj.weight"));
  CHECK(same("model.layers.0.self_attn.q_proj.weight"));
  CHECK(same("model.embed_tokens.weight"));
  parameters["train"] = {"*.mpl"};
  CHECK_THROWS_WITH(context.run("distiller/finetune", parameters, {{"model", model}, {"data", data}}),
                    ContainsSubstring("*.mpl") && ContainsSubstring("model.layers.*.mlp"));
}

TEST_CASE("distillation regains what a cut has cost") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  context.run("distiller/finetune", brief(80), {{"model", save_model(context, toy_language_model())}, {"data", data}});
  const auto teacher = context.outputs.at("model");
  const double teacher_loss = loss_of(load_model(context, teacher), context, heldout);
  context.run("pruner/channels", {{"sparsity", 0.6}, {"scope", {"*.mlp"}}}, {{"model", teacher}});
  const auto student = context.outputs.at("model");
  const double cut_loss = loss_of(load_model(context, student), context, heldout);
  REQUIRE(cut_loss > teacher_loss);
  context.run("distiller/distill",
              Json{{"steps", 60}, {"batch", 8}, {"learning_rate", 3e-3}, {"losses", {{"soft", 1.0}, {"temperature", 2.0}}}},
              {{"student", student}, {"teacher", teacher}, {"data", data}, {"heldout", heldout}});
  const double distilled_loss = context.figures.at("heldout_loss_after");
  CAPTURE(teacher_loss, cut_loss, distilled_loss);
  CHECK(cut_loss - distilled_loss > 0.3 * (cut_loss - teacher_loss));
  CHECK(load_model(context, context.outputs.at("model")).parameter_count() == load_model(context, student).parameter_count());
}

TEST_CASE("a student that is its teacher has no soft loss to lose") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 8, 24, 5);
  context.run("distiller/distill", {{"steps", 1}, {"losses", {{"soft", 1.0}}}},
              {{"student", model}, {"teacher", model}, {"data", data}});
  CHECK(std::abs(context.figures.at("loss_first")) < 1e-5);
}

TEST_CASE("distillers refuse what makes no sense") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto data = toy_dataset(context, 4, 24, 5);
  const auto losses = [&](const Json& map) {
    context.run("distiller/distill", {{"steps", 1}, {"losses", map}}, {{"student", model}, {"teacher", model}, {"data", data}});
  };
  CHECK_THROWS_WITH(losses({{"sotf", 1.0}}), ContainsSubstring("\"sotf\"") && ContainsSubstring("did you mean \"soft\"?"));
  CHECK_THROWS_WITH(losses({{"soft", 1.0}, {"logits", 0.1}}),
                    ContainsSubstring("\"logits\"") && ContainsSubstring("soft, hard, hidden, attention, temperature"));
  CHECK_THROWS_WITH(losses({{"soft", 1.0}, {"temperature", 0.0}}), ContainsSubstring("above 0"));
  CHECK_THROWS_WITH(losses({{"soft", -1.0}}), ContainsSubstring("0 or more"));
  CHECK_THROWS_WITH(losses({{"temperature", 2.0}}), ContainsSubstring("nothing to learn"));

  Graph other = toy_language_model();
  other.metadata["espalier.tokenizer"] = sha256("another").hex();
  CHECK_THROWS_WITH(
      context.run("distiller/distill", brief(1), {{"student", model}, {"teacher", save_model(context, other)}, {"data", data}}),
      ContainsSubstring("different tokenizers"));
  ToySize larger;
  larger.vocabulary = 80;
  CHECK_THROWS_WITH(context.run("distiller/distill", brief(1),
                                {{"student", model}, {"teacher", save_model(context, toy_language_model(larger))}, {"data", data}}),
                    ContainsSubstring("80") && ContainsSubstring("64"));
  CHECK_THROWS_AS(context.run("distiller/finetune", brief(1), {{"model", save_model(context, other)}, {"data", data}}), Error);
  CHECK_THROWS_WITH(
      context.run("distiller/finetune", brief(1), {{"model", save_model(context, toy_residual_network())}, {"data", data}}),
      ContainsSubstring("causal language model"));
  context.cancel_after = 2;
  CHECK_THROWS_WITH(context.run("distiller/finetune", brief(10), {{"model", model}, {"data", data}}), ContainsSubstring("stopped"));
}

TEST_CASE("finetuning in bf16 and with checkpointed blocks learns as plain finetuning does") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, toy_language_model())},
                                               {"data", toy_dataset(context, 64, 24, 5)},
                                               {"heldout", toy_dataset(context, 8, 24, 99)}};
  const auto after = [&](const Json& more) {
    auto parameters = brief();
    parameters.update(more);
    context.run("distiller/finetune", parameters, inputs);
    return context.figures.at("heldout_loss_after");
  };
  const double plain = after(Json::object());
  CHECK_THAT(after({{"checkpoint", true}}), WithinRel(plain, 1e-3));
  const double narrow = after({{"precision", "bf16"}});
  CHECK_THAT(narrow, WithinRel(plain, 0.05));
  CHECK(narrow != plain);
  CHECK(load_model(context, context.outputs.at("model")).initializer("model.embed_tokens.weight")->dtype == DType::f32);
}

TEST_CASE("the best checkpoint is returned, and its held-out loss is what the figures say") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto heldout = toy_dataset(context, 8, 24, 99);
  // A few windows, learned by heart at a high rate: held-out loss turns up again.
  context.run(
      "distiller/finetune",
      {{"steps", 60},
       {"batch", 4},
       {"warmup", 2},
       {"learning_rate", 2e-2},
       {"final_share", 1.0},
       {"evaluate_every", 4},
       {"patience", 2},
       {"keep", "best"}},
      {{"model", save_model(context, toy_language_model())}, {"data", toy_dataset(context, 4, 24, 5)}, {"heldout", heldout}});
  const auto& curve = context.details.at("curve.heldout");
  double lowest = 1e9, step = 0;
  for (const auto& point : curve)
    if (point[1].get<double>() < lowest) {
      lowest = point[1];
      step = point[0];
    }
  CHECK(context.figures.at("best_step") == step);
  CHECK(context.figures.at("steps_taken") < 60);
  CHECK(context.figures.at("kept_step") == step);
  CHECK(context.figures.at("heldout_loss_after") == lowest);
  CHECK_THAT(loss_of(load_model(context, context.outputs.at("model")), context, heldout), WithinRel(lowest, 1e-4));
  CHECK_THROWS_WITH(context.run("distiller/finetune", {{"steps", 2}, {"patience", 2}},
                                {{"model", save_model(context, toy_language_model())}, {"data", toy_dataset(context, 4, 24, 5)}}),
                    ContainsSubstring("patience needs held-out evaluations") && ContainsSubstring("heldout"));
}

TEST_CASE("a finetuning that is broken off goes on to the digest of an unbroken one") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, toy_language_model())},
                                               {"data", toy_dataset(context, 64, 24, 5)}};
  auto parameters = brief(40);
  parameters["resume_every"] = 3;
  context.run("distiller/finetune", parameters, inputs);
  const auto whole = context.outputs.at("model").digest();
  const auto curve = context.details.at("curve.loss");
  context.cancel_after = 32;
  CHECK_THROWS_WITH(context.run("distiller/finetune", parameters, inputs), ContainsSubstring("stopped"));
  context.cancel_after = -1;
  context.messages.clear();
  context.run("distiller/finetune", parameters, inputs);
  CHECK(context.outputs.at("model").digest() == whole);
  CHECK(context.details.at("curve.loss") == curve);
  CHECK(std::any_of(context.messages.begin(), context.messages.end(),
                    [](const std::string& text) { return text.find("going on after step 30 of 40") != std::string::npos; }));
}
