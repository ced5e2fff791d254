// Weights that stay float under their rounding: trained, frozen, cut and adapted.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "formats/model_artifact.h"
#include "formats/safetensors.h"
#include "graph/passes.h"
#include "graph/rounded_weights.h"
#include "graph/surgery.h"
#include "run/dataset.h"
#include "run/objective.h"
#include "run/runtime.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

namespace {

Artifact through(TestContext& context, const std::string& component, const Artifact& model,
                 const Json& parameters = Json::object()) {
  context.run(component, parameters, {{"model", model}});
  return context.outputs.at("model");
}

Json trainable(Json parameters) {
  parameters["trainable"] = true;
  return parameters;
}

const Json four{{"bits", 4}, {"group", 16}, {"embedding_bits", 4}};

TensorMap prompt() {
  const at::Tensor ids = at::arange(24, at::kLong).mul(7).remainder(ToySize{}.vocabulary).unsqueeze(0);
  return {{"input_ids", ids}, {"attention_mask", at::ones_like(ids)}, {"position_ids", at::arange(24, at::kLong).unsqueeze(0)}};
}

at::Tensor logits_of(const Graph& graph) {
  c10::NoGradGuard off;
  return Session(graph).run(prompt(), {"logits"}).at("logits");
}

double off_by(const at::Tensor& a, const at::Tensor& b) { return ((a - b).abs().max() / b.abs().max()).item<double>(); }

/// Mean KL(teacher ‖ student) in nats, from whole logits.
double divergence(const TestContext& context, const Graph& student, const Graph& teacher, const Artifact& data) {
  c10::NoGradGuard off;
  const TokenDataset windows(context, data);
  const TensorMap batch = windows.batch({0, 1, 2, 3, 4, 5, 6, 7});
  const auto answers = [&](const Graph& graph) {
    return at::log_softmax(Session(graph).run(batch, {"logits"}).at("logits").to(at::kDouble), -1);
  };
  const at::Tensor p = answers(teacher), q = answers(student);
  return (p.exp() * (p - q)).sum(-1).mean().item<double>();
}

std::vector<std::string> scales_of(const Graph& graph) {
  std::vector<std::string> digests;
  for (const auto& [name, tensor] : graph.initializers)
    if (name.ends_with(".scale") || name.ends_with(".zero")) digests.push_back(tensor.digest().hex());
  return digests;
}

/// A model that has learned the toy language.
Artifact teacher_of(TestContext& context, const Artifact& data) {
  context.run("distiller/finetune", {{"steps", 80}, {"batch", 8}, {"warmup", 4}, {"learning_rate", 5e-3}},
              {{"model", save_model(context, toy_language_model())}, {"data", data}});
  return context.outputs.at("model");
}

}  // namespace

TEST_CASE("weights under their rounding compute what rounded weights do, and are stored as them later") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  const auto model = save_model(context, graph);
  for (const Json& how : {Json{{"bits", 8}}, four, Json{{"bits", 4}, {"group", 8}, {"symmetric", false}, {"scale", "mse"}},
                          Json{{"bits", 8}, {"per", "tensor"}, {"symmetric", false}}}) {
    CAPTURE(how.dump());
    const Graph plain = load_model(context, through(context, "quantizer/rtn", model, how));
    const auto kept = through(context, "quantizer/rtn", model, trainable(how));
    const Graph under = load_model(context, kept);
    CHECK(context.figures.at("bits") < 9);
    CHECK(under.parameter_count() == graph.parameter_count());
    CHECK(rounded_weights(under).size() == 2 * 7 + 1);
    for (const auto& [name, tensor] : graph.initializers) CHECK(under.initializers.at(name).digest() == tensor.digest());
    const at::Tensor expected = logits_of(plain);
    CHECK(off_by(expected, logits_of(graph)) > 1e-3);
    CHECK(off_by(logits_of(under), expected) < 1e-6);
    // Whatever bits the later stage has, these weights keep their grid.
    const Graph frozen = load_model(context, through(context, "quantizer/rtn", kept, {{"bits", 8}}));
    CHECK(context.figures.at("frozen") == 2 * 7 + 1);
    CHECK(rounded_weights(frozen).empty());
    CHECK(frozen.nodes.size() == plain.nodes.size());
    CHECK(frozen.weight_bytes() == plain.weight_bytes());
    CHECK(scales_of(frozen) == scales_of(plain));
    CHECK(off_by(logits_of(frozen), expected) < 1e-6);
    for (const auto& [name, tensor] : plain.initializers) {
      REQUIRE(frozen.initializer(name));
      CHECK(frozen.initializer(name)->digest() == tensor.digest());
    }
  }
}

TEST_CASE("training reaches the numbers under the rounding; what was trained is what is stored") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const auto kept = through(context, "quantizer/rtn", save_model(context, toy_language_model()), trainable(four));
  const Graph before = load_model(context, kept);
  for (const bool checkpoint : {false, true}) {
    context.run("distiller/finetune",
                {{"steps", 30}, {"batch", 8}, {"warmup", 4}, {"learning_rate", 5e-3}, {"checkpoint", checkpoint}},
                {{"model", kept}, {"data", data}, {"heldout", heldout}});
    CHECK(context.figures.at("heldout_loss_after") < 0.8 * context.figures.at("heldout_loss_before"));
  }
  const auto trained = context.outputs.at("model");
  const Graph after = load_model(context, trained);
  for (const RoundedWeight& each : rounded_weights(after))
    CHECK(after.initializers.at(each.weight).digest() != before.initializers.at(each.weight).digest());
  CHECK(scales_of(after) == scales_of(before));
  const Graph frozen = load_model(context, through(context, "quantizer/rtn", trained));
  CHECK(scales_of(frozen) == scales_of(before));
  CHECK(frozen.weight_bytes() < after.weight_bytes() / 3);
  const at::Tensor expected = logits_of(after);
  CHECK(off_by(logits_of(frozen), expected) < 1e-6);
  Graph optimized = after;
  optimize(optimized);
  CHECK(rounded_weights(optimized).empty());
  CHECK(optimized.weight_bytes() <= frozen.weight_bytes());
  CHECK(off_by(logits_of(optimized), expected) < 1e-5);
  // Our runner's packed form, from either.
  for (const Graph& each : {after, frozen}) {
    const auto open = language_model(each, {.threads = 1});
    const at::Tensor ids = prompt().at("input_ids").contiguous();
    const at::Tensor got = open->feed({ids.const_data_ptr<std::int64_t>(), 24}, true);
    CHECK(off_by(got, expected.squeeze(0)) < 1e-5);
  }
  // Only what the scope names: a rounded weight answers to its own name and to those of its readers.
  context.run("distiller/finetune", {{"steps", 2}, {"train", {"*.mlp"}}}, {{"model", kept}, {"data", data}});
  const Graph part = load_model(context, context.outputs.at("model"));
  const auto same = [&](const std::string& name) {
    return part.initializers.at(name).digest() == before.initializers.at(name).digest();
  };
  CHECK_FALSE(same("model.layers.0.mlp.up_proj.weight"));
  CHECK(same("model.layers.0.self_attn.q_proj.weight"));
  CHECK(same("model.embed_tokens.weight"));
  context.run("distiller/finetune", {{"steps", 2}, {"train", {"lm_head"}}}, {{"model", kept}, {"data", data}});
}

TEST_CASE("distilling under four bits comes nearer to the teacher than rounding it") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const auto teacher = teacher_of(context, data);
  const Graph original = load_model(context, teacher);
  const Graph plain = load_model(context, through(context, "quantizer/rtn", teacher, four));
  const auto student = through(context, "quantizer/rtn", teacher, trainable(four));
  const double rounded = divergence(context, plain, original, heldout);
  CHECK_THAT(divergence(context, load_model(context, student), original, heldout), WithinRel(rounded, 1e-3));
  context.run("distiller/distill",
              {{"steps", 60},
               {"batch", 8},
               {"warmup", 4},
               {"learning_rate", 1e-3},
               {"losses", {{"soft", 1.0}, {"hidden", 0.1}, {"temperature", 1.0}}}},
              {{"student", student}, {"teacher", teacher}, {"data", data}});
  const Graph distilled = load_model(context, through(context, "quantizer/rtn", context.outputs.at("model")));
  const double learned = divergence(context, distilled, original, heldout);
  CAPTURE(rounded, learned);
  CHECK(distilled.weight_bytes() == plain.weight_bytes());
  CHECK(learned < 0.7 * rounded);
}

TEST_CASE("the head under its rounding is walked in chunks, with the gradients of its logits") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 2, 24, 5);
  const Graph graph =
      load_model(context, through(context, "quantizer/rtn", save_model(context, toy_language_model()), trainable(four)));
  const TokenDataset windows(context, data);
  const TensorMap batch = windows.batch({0, 1});
  const auto objective = objective_for(graph, windows);
  CHECK(objective->values().back() == "model.embed_tokens.weight.rounded");
  Session session(graph, {.compute = DType::f64});
  session.train({"model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"});
  const auto gradients = [&](const at::Tensor& loss) {
    for (const auto& name : session.trainable()) session.parameter(name).mutable_grad().reset();
    loss.backward();
    std::vector<at::Tensor> found;
    for (const auto& name : session.trainable()) found.push_back(session.parameter(name).grad());
    return found;
  };
  const at::Tensor scores = session.run(batch, {"logits"}).at("logits");
  const at::Tensor logs = at::log_softmax(scores.narrow(1, 0, 23), -1);
  const auto whole = gradients(-logs.gather(-1, batch.at("input_ids").narrow(1, 1, 23).unsqueeze(-1)).mean());
  const auto chunked = gradients(objective->hard(session.run(batch, objective->values()), batch));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    CHECK(whole[i].abs().max().item<double>() > 0);
    CHECK(chunked[i].allclose(whole[i], 1e-9, 1e-12));
  }
}

TEST_CASE("blocks round with their own scale; the gradient passes inside the range only") {
  Graph graph;
  // Columns of four in blocks of two: scales 1 and 0.5 for the first, 0.25 and 2 for the second.
  graph.initializers["w"] = Tensor::of<float>(DType::f32, {4, 2}, {1.4f, 0.3f, -9, 1.8f, 3.9f, -3, 0.2f, 16});
  graph.initializers["s"] = Tensor::of<float>(DType::f32, {2, 2}, {1, 0.25f, 0.5f, 2});
  const std::map<std::string, Attribute> blocks{{"axis", std::int64_t{0}}, {"block_size", std::int64_t{2}}};
  auto with_type = blocks;
  with_type["output_dtype"] = static_cast<std::int64_t>(DType::i4);
  graph.nodes = {{"QuantizeLinear", "", "q", {"w", "s"}, {"c"}, with_type},
                 {"DequantizeLinear", "", "d", {"c", "s"}, {"y"}, blocks}};
  graph.outputs = {{"y", DType::f32, {4, 2}}};
  Session session(graph);
  session.train({"w"});
  const at::Tensor y = session.run({}).at("y");
  const at::Tensor expected = at::tensor({1.0f, 0.25f, -8.0f, 1.75f, 3.5f, -4.0f, 0.0f, 14.0f}).reshape({4, 2});
  CHECK(y.detach().equal(expected));
  CHECK(Session(graph).run({}).at("y").equal(expected));
  const at::Tensor slope = at::arange(1, 9, at::kFloat).reshape({4, 2});
  (y * slope).sum().backward();
  // -9 lies below −8 steps of 1, 3.9 is 8 steps of 0.5, 16 is 8 steps of 2: saturated.
  CHECK(session.parameter("w").grad().equal(at::tensor({1.0f, 2.0f, 0.0f, 4.0f, 0.0f, 6.0f, 7.0f, 0.0f}).reshape({4, 2})));
}

TEST_CASE("adapters change a weight before it is rounded, and merge into it") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 64, 24, 5), heldout = toy_dataset(context, 8, 24, 99);
  const auto kept = through(context, "quantizer/rtn", save_model(context, toy_language_model()), trainable(four));
  for (const std::string kind : {"lora", "ia3"}) {
    CAPTURE(kind);
    context.run("distiller/finetune",
                {{"steps", 30}, {"batch", 8}, {"warmup", 4}, {"learning_rate", 2e-2}, {"adapter", kind}, {"rank", 4}},
                {{"model", kept}, {"data", data}, {"heldout", heldout}});
    CHECK(context.figures.at("adapters") == 2 * 7);
    CHECK(context.figures.at("heldout_loss_after") < context.figures.at("heldout_loss_before") - 0.02);
    const double said = context.figures.at("heldout_loss_after");
    const Graph merged = load_model(context, context.outputs.at("model"));
    CHECK(merged.nodes.size() == load_model(context, kept).nodes.size());
    CHECK(rounded_weights(merged).size() == 2 * 7 + 1);
    // A product in doubles may fall to the other side of a tie than the one in floats: a code of thousands.
    CHECK_THAT(loss_of(merged, context, heldout), WithinAbs(said, 2e-3));
    CHECK(scales_of(merged) == scales_of(load_model(context, kept)));
  }
}

TEST_CASE("channels and heads are cut through the rounding, and the cut computes what the mask does") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto data = toy_dataset(context, 6, 24, 5);
  // Blocks along the inputs tie sixteen channels of the feed-forward layer together.
  for (const Json& how : {Json{{"bits", 8}}, four, Json{{"bits", 4}, {"group", 8}, {"symmetric", false}}}) {
    CAPTURE(how.dump());
    const auto kept = through(context, "quantizer/rtn", save_model(context, toy_language_model()), trainable(how));
    const Graph graph = load_model(context, kept);
    for (const auto& [pruner, scope] : {std::pair("pruner/channels", "*.mlp"), {"pruner/heads", "*.self_attn"}}) {
      CAPTURE(pruner);
      context.run(pruner, {{"sparsity", 0.5}, {"scope", {scope}}}, {{"model", kept}});
      const Graph smaller = load_model(context, context.outputs.at("model"));
      CHECK(smaller.parameter_count() < graph.parameter_count());
      CHECK(rounded_weights(smaller).size() == 2 * 7 + 1);
      const auto file = context.map(context.outputs.at("masks").blobs.at("masks.safetensors"));
      Removal removal;
      for (const auto& [group, mask] : parse_safetensors(file.bytes(), file.owner(), "masks")) {
        const auto left = mask.as<std::uint8_t>();
        for (std::size_t u = 0; u < left.size(); ++u)
          if (!left[u]) removal[group].push_back(std::int64_t(u));
      }
      const Graph masked = mask(graph, coupled_groups(graph, infer(graph)), removal);
      CHECK(off_by(logits_of(smaller), logits_of(masked)) < 1e-5);
      CHECK(off_by(logits_of(smaller), logits_of(graph)) > 1e-3);
      const Graph frozen = load_model(context, through(context, "quantizer/rtn", save_model(context, smaller)));
      CHECK(off_by(logits_of(frozen), logits_of(smaller)) < 1e-6);
    }
  }
}

TEST_CASE("trainable weights are refused where they have no meaning") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const auto model = save_model(context, toy_language_model());
  const auto rtn = [&](const Artifact& given, const Json& parameters) {
    return through(context, "quantizer/rtn", given, parameters);
  };
  CHECK_THROWS_WITH(rtn(model, trainable({{"activations", "dynamic"}})),
                    ContainsSubstring("dynamic activations") && ContainsSubstring("trainable"));
  const auto kept = rtn(model, trainable(four));
  CHECK_THROWS_WITH(rtn(kept, {{"activations", "dynamic"}}), ContainsSubstring("trained under") && ContainsSubstring(".weight"));
  CHECK_THROWS_WITH(rtn(kept, trainable(four)), ContainsSubstring("nothing to quantize"));
  CHECK_THROWS_WITH(through(context, "quantizer/cast", kept),
                    ContainsSubstring("rounded to integers") && ContainsSubstring("without trainable"));
  const auto halves = through(context, "quantizer/cast", model, {{"storage", "f16"}});
  CHECK_THROWS_WITH(rtn(halves, trainable(four)), ContainsSubstring("float16") && ContainsSubstring("Cast"));
  Graph old = toy_language_model();
  old.opsets[""] = 20;
  CHECK_THROWS_WITH(rtn(save_model(context, old), trainable({{"bits", 8}})), ContainsSubstring("opset 20"));
  Graph broken = load_model(context, kept);
  auto& weight = broken.initializers.at("model.layers.0.mlp.up_proj.weight");
  std::vector<float> values(weight.as<float>().begin(), weight.as<float>().end());
  values[3] = NAN;
  weight = Tensor::of(DType::f32, weight.shape, values);
  CHECK_THROWS_WITH(rtn(save_model(context, broken), Json::object()),
                    ContainsSubstring("up_proj.weight") && ContainsSubstring("element 3"));
}
