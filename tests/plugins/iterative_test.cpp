#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <fstream>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/surgery.h"
#include "run/iterative.h"
#include "run/origins.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

Removal removal_of(const TestContext& context) {
  const auto file = context.map(context.outputs.at("masks").blobs.at("masks.safetensors"));
  Removal removal;
  for (const auto& [group, mask] : parse_safetensors(file.bytes(), file.owner(), "masks")) {
    const auto kept = mask.as<std::uint8_t>();
    for (std::size_t u = 0; u < kept.size(); ++u)
      if (!kept[u]) removal[group].push_back(std::int64_t(u));
  }
  return removal;
}

/// The original cut in one go by the masks that the stage wrote.
Artifact in_one_go(TestContext& context, const Graph& original) {
  return save_model(context, cut(original, coupled_groups(original, infer(original)), removal_of(context)));
}

Json finetune(std::int64_t steps) {
  return {{"use", "distiller/finetune"}, {"steps", steps}, {"batch", 4}, {"warmup", 2}, {"learning_rate", 5e-3}};
}

bool said(const std::vector<std::string>& messages, const std::string& text) {
  return std::any_of(messages.begin(), messages.end(), [&](const auto& m) { return m.find(text) != std::string::npos; });
}

/// A toy language model that has learned its language: what is cut hurts.
Artifact learned(TestContext& context, const Artifact& data) {
  context.run("distiller/finetune", {{"steps", 60}, {"batch", 8}, {"warmup", 4}, {"learning_rate", 5e-3}},
              {{"model", save_model(context, toy_language_model())}, {"data", data}});
  return context.outputs.at("model");
}

}  // namespace

TEST_CASE("the schedules of iterative pruning end where they should, each on its own way") {
  CHECK(removal_schedule("linear", 0.6, 3).at(0) == 0.6 * (1.0 / 3.0));
  CHECK_THAT(removal_schedule("cubic", 0.8, 4).at(1), WithinAbs(0.8 * (1 - 0.125), 1e-12));
  const auto geometric = removal_schedule("geometric", 1 - std::pow(0.9, 5), 5);
  for (int t = 0; t < 5; ++t) CHECK_THAT(geometric.at(std::size_t(t)), WithinAbs(1 - std::pow(0.9, t + 1), 1e-12));
  for (const char* name : {"linear", "cubic", "geometric"}) CHECK(removal_schedule(name, 0.3, 7).back() == 0.3);
  CHECK_THROWS_WITH(removal_schedule("square", 0.3, 2), ContainsSubstring("linear, cubic, geometric"));
}

TEST_CASE("units are followed through cuts by their indices, though offsets and ids move") {
  Graph graph;
  graph.initializers["w"] = Tensor::of(DType::f32, {1, 8}, std::vector<float>(8));
  const auto group = [](std::int64_t first, std::int64_t count) {
    CoupledGroup g;
    g.id = "w:1:" + std::to_string(first);
    g.members = {{"w", 1, 1, true}};
    for (std::int64_t u = 0; u < count; ++u) g.units.push_back({{0, {first + u}}});
    return g;
  };
  const std::vector<CoupledGroup> original{group(0, 4), group(4, 4)};
  Origins origins(graph, original);
  origins.cut(original, {{"w:1:0", {1, 2}}, {"w:1:4", {0}}});
  const std::vector<CoupledGroup> second{group(0, 2), group(2, 3)};
  CHECK(*origins.of(second[0]) == std::vector<Origins::Unit>{{0, 0}, {0, 3}});
  CHECK(*origins.of(second[1]) == std::vector<Origins::Unit>{{1, 1}, {1, 2}, {1, 3}});
  origins.cut(second, {{"w:1:0", {0}}, {"w:1:2", {1}}});
  CHECK(origins.removal() == Removal{{"w:1:0", {0, 1, 2}}, {"w:1:4", {0, 2}}});
  CHECK(*origins.of(group(1, 2)) == std::vector<Origins::Unit>{{1, 1}, {1, 3}});
  CHECK_THROWS_WITH(origins.of(group(0, 9)), ContainsSubstring("was not there"));
  CHECK_FALSE(origins.restore({{"w:1:1", {0}}}));
  CHECK_FALSE(origins.restore({{"w:1:0", {9}}}));
  CHECK(origins.restore({{"w:1:4", {3}}}));
  CHECK(origins.of(group(0, 4))->back() == Origins::Unit{0, 3});
}

TEST_CASE("rounds without recovery end in the model of one cut") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph original = toy_language_model();
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, original)}};
  const auto rounds = GENERATE(1, 2, 5);
  const int multiple = GENERATE(1, 4);
  context.run("pruner/channels", {{"sparsity", 0.4}, {"scope", {"*.mlp"}}, {"multiple", multiple}}, inputs);
  const auto once = context.outputs.at("model").digest(), once_masks = context.outputs.at("masks").digest();
  const auto widths = context.details.at("widths");
  const double sparsity = context.figures.at("sparsity");
  const std::string schedule = GENERATE("linear", "cubic", "geometric");
  context.run("pruner/iterative",
              {{"sparsity", 0.4},
               {"rounds", rounds},
               {"schedule", schedule},
               {"channels_scope", {"*.mlp"}},
               {"channels_multiple", multiple}},
              inputs);
  CHECK(context.outputs.at("model").digest() == once);
  CHECK(context.outputs.at("masks").digest() == once_masks);
  CHECK(context.details.at("widths") == widths);
  CHECK(context.figures.at("sparsity") == sparsity);
  CHECK(context.figures.at("rounds") == rounds);
  CHECK(context.details.at("rounds").at("rows").size() == std::size_t(rounds));
  CHECK(context.reports > 0);
}

TEST_CASE("channels and heads go in the same rounds, each to its share of what the original had") {
  const TemporaryFolder folder;
  TestContext context(folder);
  ToySize size;
  size.heads = 8;
  size.kv_heads = 4;
  size.head = 4;
  const Graph original = toy_language_model(size);
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, original)}, {"data", toy_dataset(context, 4, 24, 5)}};
  context.run("pruner/iterative",
              {{"share", 0.15},
               {"rounds", 4},
               {"kinds", {"channels", "heads"}},
               {"per_kind", {{"heads", 0.2}}},
               {"channels_scope", {"*.mlp"}},
               {"metric", {{"use", "metric/taylor"}, {"samples", 4}}}},
              inputs);
  const Graph smaller = load_model(context, context.outputs.at("model"));
  CHECK(context.outputs.at("model").digest() == in_one_go(context, original).digest());
  // 1 - 0.85^4 = 0.478 of 48 channels, 1 - 0.8^4 = 0.59 of 4 key-value heads a layer.
  CHECK(smaller.initializer("model.layers.0.mlp.down_proj.weight")->shape.at(0) == 48 - 22);
  std::int64_t heads = 0;
  for (const std::string layer : {"0", "1"})
    heads += smaller.initializer("model.layers." + layer + ".self_attn.k_proj.weight")->shape.at(1) / 4;
  CHECK(heads == 8 - 4);
  const Json& rows = context.details.at("rounds").at("rows");
  for (std::size_t i = 1; i < rows.size(); ++i) CHECK(rows[i][1] < rows[i - 1][1]);
  CHECK(rows.back()[1].get<double>() == context.figures.at("parameters"));
  CHECK(rows.back()[2].get<double>() == context.figures.at("sparsity"));
}

TEST_CASE("a residual network is cut in rounds, and the masks speak of the original") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph original = toy_residual_network();
  context.run("pruner/iterative", {{"share", 0.2}, {"rounds", 3}, {"channels_ranking", "global"}, {"channels_normalise", "mean"}},
              {{"model", save_model(context, original)}});
  CHECK(context.outputs.at("model").digest() == in_one_go(context, original).digest());
  CHECK(context.figures.at("sparsity") <= 1 - std::pow(0.8, 3));
  CHECK(context.figures.at("sparsity") > 0.45);
}

TEST_CASE("minimum is a share of the original's width, not of what rounds have left") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  context.run("pruner/iterative", {{"sparsity", 0.9}, {"rounds", 5}, {"channels_scope", {"*.mlp"}}, {"channels_minimum", 0.5}},
              {{"model", model}});
  for (const auto& row : context.details.at("widths").at("rows")) CHECK(row[2] == 24);
  CHECK(said(context.warnings, "cannot be reached"));
  CHECK_THAT(context.figures.at("sparsity"), WithinAbs(0.5, 1e-9));
}

TEST_CASE("recovery between rounds brings back what one-shot cuts lose, the same by seed") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const auto model = learned(context, data);
  const std::map<std::string, Artifact> inputs{{"model", model}, {"data", data}, {"heldout", heldout}};
  Json parameters{{"sparsity", 0.6}, {"rounds", 3}, {"channels_scope", {"*.mlp"}}};
  context.run("pruner/iterative", parameters, inputs);
  const double without = context.figures.at("heldout_loss_after");
  CHECK_THAT(context.figures.at("heldout_loss_before"), WithinRel(loss_of(load_model(context, model), context, heldout), 1e-4));
  CHECK_FALSE(context.details.contains("curve.loss"));

  const bool distil = GENERATE(false, true);
  parameters["recover"] = finetune(15);
  if (distil) parameters["recover"].update({{"use", "distiller/distill"}, {"losses", {{"soft", 1.0}, {"temperature", 2.0}}}});
  context.run("pruner/iterative", parameters, inputs);
  const auto first = context.outputs.at("model");
  const double after = context.figures.at("heldout_loss_after");
  CHECK(after < without);
  CHECK_THAT(loss_of(load_model(context, first), context, heldout), WithinRel(after, 1e-4));
  CHECK(context.details.at("curve.loss").size() == 45);
  const auto& curve = context.details.at("curve.heldout");
  REQUIRE(curve.size() == 4);
  CHECK(curve[0][1] == context.figures.at("heldout_loss_before"));
  CHECK(curve[3][1] == after);
  for (const auto& row : context.details.at("rounds").at("rows")) CHECK(row[4] < row[3]);

  context.run("pruner/iterative", parameters, inputs);
  CHECK(context.outputs.at("model").digest() == first.digest());
  context.seed_ = 8;
  context.run("pruner/iterative", parameters, inputs);
  CHECK(context.outputs.at("model").digest() != first.digest());
}

TEST_CASE("an iterative pruning that is broken off goes on to the digest of an unbroken one") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, toy_language_model())},
                                               {"data", toy_dataset(context, 64, 24, 5)},
                                               {"heldout", toy_dataset(context, 4, 24, 99)}};
  Json parameters{{"share", 0.2}, {"rounds", 3}, {"channels_scope", {"*.mlp"}}, {"recover", finetune(8)}, {"compensate", true}};
  parameters["recover"]["resume_every"] = 2;
  context.run("pruner/iterative", parameters, inputs);
  const auto whole = context.outputs.at("model").digest();
  const auto details = context.details;
  const auto state = context.scratch() / "rounds";
  CHECK_FALSE(std::filesystem::exists(state));
  CHECK_FALSE(std::filesystem::exists(context.scratch() / "model"));
  bool first = false, second = false, inside = false;
  for (int after = 60; after <= 400; after += 17) {
    context.cancel_after = after;
    try {
      context.run("pruner/iterative", parameters, inputs);
      break;  // it was done before it could be stopped
    } catch (const Error& error) {
      REQUIRE(error.code() == ErrorCode::cancelled);
    }
    context.cancel_after = -1;
    context.run("pruner/iterative", parameters, inputs);
    first = first || said(context.messages, "going on after round 1 of 3");
    second = second || said(context.messages, "going on after round 2 of 3");
    inside = inside || said(context.messages, "of 8");
    CHECK(context.outputs.at("model").digest() == whole);
    for (const char* name : {"curve.loss", "curve.heldout", "widths", "compensation"})
      CHECK(context.details.at(name) == details.at(name));
  }
  CHECK(first);
  CHECK(second);
  CHECK(inside);
}

TEST_CASE("a state that does not fit is ignored, and said so") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const std::map<std::string, Artifact> inputs{{"model", save_model(context, toy_language_model())},
                                               {"data", toy_dataset(context, 64, 24, 5)}};
  const Json parameters{{"share", 0.2}, {"rounds", 2}, {"channels_scope", {"*.mlp"}}, {"recover", finetune(8)}};
  context.run("pruner/iterative", parameters, inputs);
  const auto whole = context.outputs.at("model").digest();
  const auto state = context.scratch() / "rounds";
  const auto break_off = [&] {
    for (int after = 20; !std::filesystem::exists(state) && after < 200; ++after) {
      context.cancel_after = after;
      CHECK_THROWS_WITH(context.run("pruner/iterative", parameters, inputs), ContainsSubstring("stopped"));
    }
    context.cancel_after = -1;
    REQUIRE(std::filesystem::exists(state));
  };
  const auto again = [&](const Json& with, const std::string& reason) {
    context.run("pruner/iterative", with, inputs);
    CHECK(said(context.warnings, reason));
    CHECK_FALSE(context.figures.contains("resumed_at"));
  };
  break_off();
  std::ofstream(state, std::ios::binary | std::ios::in | std::ios::ate) << "x";
  again(parameters, "it is damaged");
  CHECK(context.outputs.at("model").digest() == whole);
  break_off();
  for (const auto& blob : std::filesystem::directory_iterator(context.scratch() / "model")) {
    std::fstream file(blob.path(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(8);
    file << "no weight";
  }
  again(parameters, "its model is not whole");
  CHECK(context.outputs.at("model").digest() == whole);
  break_off();
  Json other = parameters;
  other["share"] = 0.1;
  again(other, "it belongs to another run");
}

TEST_CASE("the stop rule gives the last round that was good enough") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const auto model = learned(context, data);
  const Graph original = load_model(context, model);
  const std::map<std::string, Artifact> inputs{{"model", model}, {"heldout", heldout}};
  Json parameters{{"sparsity", 0.9}, {"rounds", 9}, {"channels_scope", {"*.mlp"}}};
  context.run("pruner/iterative", parameters, inputs);
  const Json rows = context.details.at("rounds").at("rows");
  const double before = context.figures.at("heldout_loss_before");
  // A ratio that lets the first rounds pass and not the last.
  const double ratio = (rows[3][4].get<double>() + rows[8][4].get<double>()) / 2 / before;
  std::size_t good = 0;
  while (rows.at(good)[4].get<double>() <= ratio * before) ++good;
  REQUIRE(good > 0);
  parameters["max_loss_ratio"] = ratio;
  context.run("pruner/iterative", parameters, inputs);
  CHECK(context.figures.at("rounds") == double(good));
  CHECK(context.figures.at("stopped_at") == double(good + 1));
  CHECK(context.figures.at("heldout_loss_after") == rows[good - 1][4]);
  CHECK(context.figures.at("parameters") == rows[good - 1][1]);
  CHECK(context.figures.at("sparsity") == rows[good - 1][2]);
  const Json& told = context.details.at("rounds").at("rows");
  REQUIRE(told.size() == good + 1);
  CHECK(told[good][6] == "no");
  CHECK(told[good - 1][6] == "yes");
  CHECK(said(context.messages, "stopped: held-out loss"));
  CHECK(context.outputs.at("model").digest() == in_one_go(context, original).digest());
  // Nothing is good enough: the model comes out as it went in, with a warning.
  parameters["max_loss_ratio"] = 0.5;
  context.run("pruner/iterative", parameters, inputs);
  CHECK(context.outputs.at("model").digest() == model.digest());
  CHECK(context.figures.at("sparsity") == 0);
  CHECK(said(context.warnings, "the model as it came"));
}

TEST_CASE("iterative pruning refuses what makes no sense, and says what would") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto refused = [&](const Json& more, const std::string& reason, const std::string& hint) {
    Json parameters{{"share", 0.1}, {"channels_scope", {"*.mlp"}}};
    parameters.update(more);
    for (auto it = parameters.begin(); it != parameters.end();) it = it->is_null() ? parameters.erase(it) : std::next(it);
    CHECK_THROWS_WITH(context.run("pruner/iterative", parameters, {{"model", model}}),
                      ContainsSubstring(reason) && ContainsSubstring(hint));
    CHECK(context.outputs.empty());
  };
  refused({{"share", 0.0}}, "share = 0 must be above 0 and below 1", "parameter share");
  refused({{"share", 1.0}}, "share = 1 must be above 0 and below 1", "parameter share");
  refused({{"share", nullptr}, {"sparsity", 1.0}}, "sparsity = 1 must be above 0", "parameter sparsity");
  refused({{"sparsity", 0.5}}, "share and sparsity are both given", "of what is left");
  refused({{"share", nullptr}}, "neither share nor sparsity", "of the whole");
  refused({{"schedule", "cubic"}}, "schedule has no meaning", "give sparsity");
  refused({{"kinds", {"chanels"}}}, "\"chanels\" is no kind", "channels, heads");
  refused({{"kinds", {"channels", "channels"}}}, "twice", "kinds");
  refused({{"kinds", Json::array()}}, "kinds is empty", "such as");
  refused({{"per_kind", {{"heads", 0.1}}}}, "per_kind speaks of \"heads\"", "channels");
  refused({{"recover", {{"use", "metric/magnitude"}}}}, "metric/magnitude", "espalier.trainer/1");
  refused({{"recover", finetune(2)}}, "recover needs training data", "data = ");
  refused({{"compensate", true}}, "compensate = true needs training data", "data = ");
  refused({{"max_loss_ratio", 1.1}}, "max_loss_ratio needs held-out data", "heldout = ");
  refused({{"channels_scope", {"*.mpl"}}}, "\"*.mpl\"", "model.layers.*.mlp");
  refused({{"rounds", 0}}, "rounds = 0", "1 or more");
}
