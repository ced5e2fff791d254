#include "run/features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <limits>

#include "graph/adapters.h"
#include "graph/gaussian.h"
#include "models.h"
#include "run/session.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;

namespace {

at::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return to_aten(gaussian(std::move(shape), 1, seed)).to(at::kDouble);
}

TensorMap tokens(std::int64_t length = 9) {
  return {{"input_ids", ((at::arange(2 * length, at::kLong) * 5 + 3) % 37).reshape({2, length})},
          {"attention_mask", at::ones({2, length}, at::kLong)},
          {"position_ids", at::arange(length, at::kLong).expand({2, length})}};
}

std::vector<Block> blocks(std::size_t count, const std::string& scope, std::size_t run = 0) {
  std::vector<Block> list(count);
  for (std::size_t i = 0; i < count; ++i) {
    list[i].scope = scope + std::to_string(i);
    list[i].run = run;
  }
  return list;
}

std::vector<std::size_t> teachers(const std::vector<LayerPair>& pairs) {
  std::vector<std::size_t> numbers;
  for (const auto& pair : pairs) numbers.push_back(pair.teacher);
  return numbers;
}

using Numbers = std::vector<std::size_t>;

/// Value and gradient of a loss of one tensor.
template <class Loss>
std::pair<double, at::Tensor> with_gradient(const at::Tensor& at, Loss loss) {
  const at::Tensor leaf = at.detach().clone().set_requires_grad(true);
  const at::Tensor value = loss(leaf);
  (value * 3).backward();
  return {value.template item<double>(), leaf.grad()};
}

}  // namespace

TEST_CASE("hidden and attention losses and their gradients are those of plain formulas") {
  const at::Tensor s = random({2, 5, 7}, 1), t = random({2, 5, 7}, 2);
  const auto compare = [](const auto& ours, const auto& plain) {
    CHECK(ours.first == Approx(plain.first).epsilon(1e-12));
    CHECK(ours.second.allclose(plain.second, 1e-10, 1e-13));
  };
  compare(with_gradient(s, [&](const at::Tensor& x) { return hidden_loss(x, t, 2, HiddenMeasure::mse); }),
          with_gradient(s, [&](const at::Tensor& x) { return ((x - t).pow(2).sum(2) / t.pow(2).sum(2)).mean(); }));
  // Channels in the middle are an image's: one mean for each.
  compare(with_gradient(s, [&](const at::Tensor& x) { return hidden_loss(x, t, 1, HiddenMeasure::mse); }),
          with_gradient(
              s, [&](const at::Tensor& x) { return ((x - t).pow(2).flatten(1).sum(1) / t.pow(2).flatten(1).sum(1)).mean(); }));
  // A position that is larger than all others does not drown them.
  at::Tensor large = t.clone(), off = t.clone();
  large.select(1, 0).mul_(1000);
  off.copy_(large);
  off.select(1, 3).zero_();
  CHECK(hidden_loss(off, large, 2, HiddenMeasure::mse).item<double>() == Approx(0.2));
  for (const std::int64_t axis : {1, 2})
    compare(with_gradient(s, [&](const at::Tensor& x) { return hidden_loss(x, t, axis, HiddenMeasure::cosine); }),
            with_gradient(s, [&](const at::Tensor& x) {
              return 1 - ((x * t).sum(axis) / x.pow(2).sum(axis).sqrt() / t.pow(2).sum(axis).sqrt()).mean();
            }));
  CHECK(hidden_loss(t * 3, t, 2, HiddenMeasure::cosine).item<double>() == Approx(0).margin(1e-12));
  CHECK(hidden_loss(t * 0, t, 2, HiddenMeasure::mse).item<double>() == Approx(1));

  const at::Tensor a = random({2, 3, 4, 4}, 3), b = at::softmax(random({2, 3, 4, 4}, 4), -1);
  compare(with_gradient(a, [&](const at::Tensor& x) { return attention_loss(at::softmax(x, -1), b); }),
          with_gradient(a, [&](const at::Tensor& x) { return (b * (b.log() - at::softmax(x, -1).log())).sum() / (2.0 * 3 * 4); }));
  const at::Tensor fewer = at::softmax(random({2, 1, 4, 4}, 5), -1);
  compare(with_gradient(a, [&](const at::Tensor& x) { return attention_loss(at::softmax(x, -1), fewer); }),
          with_gradient(a, [&](const at::Tensor& x) {
            const at::Tensor mean = at::softmax(x, -1).mean({1}, true);
            return (fewer * (fewer.log() - mean.log())).sum() / (2.0 * 4);
          }));
  // Keys that are shut have no probability: no NaN, in the value or the gradient.
  const at::Tensor open = at::arange(4, at::kLong).le(at::arange(4, at::kLong).unsqueeze(1));
  const auto masked = [&](const at::Tensor& x) {
    return at::softmax(at::where(open, x, -std::numeric_limits<double>::infinity()), -1);
  };
  const auto causal = with_gradient(a, [&](const at::Tensor& x) { return attention_loss(masked(x), masked(a * 2)); });
  CHECK(causal.first > 0);
  CHECK(causal.second.isfinite().all().item<bool>());
}

TEST_CASE("layers are paired by depth, by number, by scope") {
  CHECK(teachers(map_layers(blocks(4, "s."), blocks(4, "t."), {"auto"})) == Numbers{0, 1, 2, 3});
  CHECK(teachers(map_layers(blocks(3, "s."), blocks(12, "t."), {"auto"})) == Numbers{3, 7, 11});
  CHECK(teachers(map_layers(blocks(2, "s."), blocks(5, "t."), {"auto"})) == Numbers{1, 4});
  const auto narrow = map_layers(blocks(4, "s."), blocks(2, "t."), {"auto"});
  REQUIRE(narrow.size() == 2);
  CHECK(narrow[0].student == 1);
  CHECK(narrow[1].student == 3);
  CHECK(teachers(map_layers(blocks(2, "s."), blocks(5, "t."), {"0", "t.3"})) == Numbers{0, 3});
  const auto pairs = map_layers(blocks(4, "s."), blocks(6, "t."), {"s.1:5", "3:t.0"});
  REQUIRE(pairs.size() == 2);
  CHECK(pairs[0].student == 1);
  CHECK(pairs[0].teacher == 5);
  CHECK(pairs[1].student == 3);
  CHECK(pairs[1].teacher == 0);
  auto two = blocks(2, "s."), more = blocks(4, "wide.", 1);
  auto stages = two;
  stages.insert(stages.end(), more.begin(), more.end());
  const auto by_run = map_layers(stages, stages, {"auto"});
  CHECK(teachers(by_run) == Numbers{0, 1, 2, 3, 4, 5});
}

TEST_CASE("a bad layer map is told by its block") {
  const auto s = blocks(3, "s."), t = blocks(6, "t.");
  CHECK_THROWS_WITH(map_layers(s, t, {"0:9"}), ContainsSubstring("teacher has no block 9") && ContainsSubstring("t.5"));
  CHECK_THROWS_WITH(map_layers(s, t, {"s.7:1"}), ContainsSubstring("student has no block \"s.7\"") && ContainsSubstring("s.0"));
  CHECK_THROWS_WITH(map_layers(s, t, {"0", "1"}), ContainsSubstring("2 blocks") && ContainsSubstring("3"));
  CHECK_THROWS_WITH(map_layers(s, t, {"0:1", "2"}), ContainsSubstring("\"2\""));
  CHECK_THROWS_WITH(map_layers(s, t, {"1:1", "s.1:2"}), ContainsSubstring("block 1 (s.1)") && ContainsSubstring("twice"));
  CHECK_THROWS_WITH(map_layers(s, t, {}), ContainsSubstring("empty"));
  CHECK_THROWS_WITH(map_layers({}, t, {"auto"}), ContainsSubstring("student has no repeated blocks"));
  CHECK_THROWS_WITH(map_layers(s, {}, {"auto"}), ContainsSubstring("teacher has no repeated blocks"));
  auto stages = s;
  stages.back().run = 1;
  CHECK_THROWS_WITH(map_layers(stages, t, {"auto"}), ContainsSubstring("2 kinds") && ContainsSubstring("into 1"));
}

TEST_CASE("where widths differ, hidden states go through an orthogonal projection that is trained and left behind") {
  LanguageModelShape half;
  half.width = 8;
  half.hidden = 12;
  const Graph student = tiny_language_model(half, 2), teacher = tiny_language_model({}, 1);
  const FeatureLosses features(student, teacher, {.hidden = true, .seed = 5});
  REQUIRE(features.projections().size() == 2);
  CHECK(features.rows()[1].width == 8);
  CHECK(features.rows()[1].teacher_width == 16);
  const at::Tensor p = to_aten(*features.student().initializer(features.projections()[0])).to(at::kDouble);
  CHECK(at::matmul(p, p.t()).allclose(at::eye(8, at::TensorOptions().dtype(at::kDouble)), 1e-5, 1e-5));
  const FeatureLosses again(student, teacher, {.hidden = true, .seed = 5}), other(student, teacher, {.hidden = true, .seed = 6});
  const auto digest = [](const FeatureLosses& f, std::size_t i) { return f.student().initializer(f.projections()[i])->digest(); };
  CHECK(digest(again, 0) == digest(features, 0));
  CHECK(digest(other, 0) != digest(features, 0));
  CHECK(digest(features, 1) != digest(features, 0));

  // Loss and gradients against the formula on the blocks' own outputs.
  const auto own = find_blocks(student), whole = find_blocks(teacher);
  Session trained(features.student(), {DType::f64}), guide(features.teacher(), {DType::f64}), plain(student, {DType::f64});
  const auto weight = std::string("model.layers.0.mlp.up_proj.weight");
  trained.train({weight, features.projections()[0], features.projections()[1]});
  plain.train({weight});
  const TensorMap answers = guide.run(tokens(), features.teacher_values());
  const at::Tensor loss = features.hidden(trained.run(tokens(), features.student_values()), answers);
  loss.backward();
  const TensorMap values = plain.run(tokens(), {own[0].output, own[1].output});
  std::vector<at::Tensor> projections;
  at::Tensor expected;
  for (std::size_t i = 0; i < 2; ++i) {
    projections.push_back(trained.parameter(features.projections()[i]).detach().clone().set_requires_grad(true));
    const at::Tensor t = answers.at(whole[i].output);
    const at::Tensor part = ((at::matmul(values.at(own[i].output), projections[i]) - t).pow(2).sum(2) / t.pow(2).sum(2)).mean() / 2;
    expected = expected.defined() ? expected + part : part;
  }
  expected.backward();
  CHECK(loss.item<double>() == Approx(expected.item<double>()).epsilon(1e-12));
  CHECK(trained.parameter(weight).grad().allclose(plain.parameter(weight).grad(), 1e-9, 1e-13));
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(trained.parameter(features.projections()[i]).grad().allclose(projections[i].grad(), 1e-9, 1e-13));

  const Graph stripped = features.strip(trained.graph());
  CHECK(stripped.nodes.size() == student.nodes.size());
  CHECK(stripped.initializers.size() == student.initializers.size());
}

TEST_CASE("channels of images are projected by a pointwise convolution") {
  const auto network = [](std::int64_t channels, std::int64_t size) {
    Graph graph;
    graph.inputs = {{"image", DType::f32, {Dim::symbol("batch"), 3, size, size}}};
    const auto conv = [&](const std::string& name, const std::string& x, std::int64_t from) {
      graph.initializers[name] = gaussian({channels, from, 1, 1}, 0.3, seed_for(1, name));
      graph.nodes.push_back({"Conv", "", "/" + name, {x, name}, {name + "_y"}, {}});
      return name + "_y";
    };
    std::string x = conv("stem", "image", 3);
    for (int i = 0; i < 2; ++i) {
      const auto name = "block." + std::to_string(i);
      graph.nodes.push_back({"Relu", "", "/" + name + "/relu", {conv(name + ".conv", x, channels)}, {name + "_r"}, {}});
      graph.nodes.push_back({"Add", "", "/" + name + "/add", {x, name + "_r"}, {name + "_sum"}, {}});
      x = name + "_sum";
    }
    graph.outputs = {{x, DType::f32, {Dim::symbol("batch"), channels, size, size}}};
    return graph;
  };
  const Graph student = network(4, 5), teacher = network(6, 5);
  const FeatureLosses features(student, teacher, {.hidden = true, .measure = HiddenMeasure::cosine});
  const TensorMap inputs{{"image", random({2, 3, 5, 5}, 3)}};
  Session own(features.student(), {DType::f64}), guide(teacher, {DType::f64});
  const TensorMap answers = guide.run(inputs, features.teacher_values());
  const double loss = features.hidden(own.run(inputs, features.student_values()), answers).item<double>();
  Session plain(student, {DType::f64});
  const TensorMap values = plain.run(inputs, {"block.0_sum", "block.1_sum"});
  double expected = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto name = "block." + std::to_string(i) + "_sum";
    const at::Tensor p = own.parameter(features.projections()[i]).flatten(1), t = answers.at(name).movedim(1, -1);
    const at::Tensor s = at::matmul(values.at(name).movedim(1, -1), p.t());
    expected += (1 - ((s * t).sum(-1) / s.norm(2, -1) / t.norm(2, -1)).mean().item<double>()) / 2;
  }
  CHECK(loss == Approx(expected).epsilon(1e-9));

  const FeatureLosses larger(student, network(6, 7), {.hidden = true});
  Session other(larger.teacher(), {DType::f64}), again(larger.student(), {DType::f64});
  CHECK_THROWS_WITH(larger.hidden(again.run(inputs, larger.student_values()),
                                  other.run({{"image", random({2, 3, 7, 7}, 3)}}, larger.teacher_values())),
                    ContainsSubstring("block 0 (block.0)") && ContainsSubstring("[2, 6, 7, 7]"));
}

TEST_CASE("attention distributions are those of the model, and its answers stay the same") {
  const Graph graph = tiny_language_model();
  const FeatureLosses features(graph, graph, {.attention = true});
  REQUIRE(features.student_values().size() == 2);
  CHECK(features.rows()[0].attentions == 1);
  Session asked(features.student(), {DType::f64}), plain(graph, {DType::f64});
  auto wanted = features.student_values();
  wanted.emplace_back("logits");
  const TensorMap values = asked.run(tokens(), wanted);
  CHECK(values.at("logits").allclose(plain.run(tokens()).at("logits"), 1e-9, 1e-12));
  const auto block = find_blocks(graph)[0];
  for (const auto n : block.nodes) {
    const Node& node = graph.nodes[n];
    if (node.op != "Attention") continue;
    const TensorMap operands = plain.run(tokens(), {node.inputs[0], node.inputs[1]});
    const auto heads = [&](std::size_t i, std::int64_t count) {
      const at::Tensor x = operands.at(node.inputs[i]);
      return x.unflatten(2, {count, x.size(2) / count}).transpose(1, 2);
    };
    const at::Tensor q = heads(0, node.integer("q_num_heads", 0));
    const at::Tensor k = heads(1, node.integer("kv_num_heads", 0)).repeat_interleave(2, 1);
    const at::Tensor open = at::arange(9, at::kLong).le(at::arange(9, at::kLong).unsqueeze(1));
    const at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) / std::sqrt(static_cast<double>(q.size(3)));
    const at::Tensor expected = at::softmax(at::where(open, scores, -std::numeric_limits<double>::infinity()), -1);
    CHECK(values.at(features.student_values()[0]).allclose(expected, 1e-9, 1e-12));
  }
  CHECK(features.attention(values, values).item<double>() == Approx(0).margin(1e-12));
}

TEST_CASE("layers that cannot be compared are named") {
  const Graph graph = tiny_language_model(), cnn = residual_network(8);
  CHECK_THROWS_WITH(FeatureLosses(cnn, graph, {.hidden = true}), ContainsSubstring("student has no repeated blocks"));
  CHECK_THROWS_WITH(FeatureLosses(graph, cnn, {.hidden = true}), ContainsSubstring("teacher has no repeated blocks"));
  Graph plain = graph;  // an attention that already tells its scores
  for (auto& node : plain.nodes)
    if (node.op == "Attention") node.outputs.resize(4), node.outputs[3] = node.name + "_scores";
  CHECK_THROWS_WITH(FeatureLosses(plain, graph, {.attention = true}),
                    ContainsSubstring("block 0") && ContainsSubstring("another reader"));
}

TEST_CASE("a merged model answers as the adapted one does") {
  const auto compare = [](const Graph& graph, Adapted adapted, const TensorMap& inputs, const std::string& output) {
    Session before(graph), fresh(adapted.graph);
    const at::Tensor original = before.run(inputs).at(output);
    CHECK(fresh.run(inputs).at(output).allclose(original, 1e-6, 1e-6));
    std::uint64_t seed = 3;
    for (const auto& name : adapted.trainable()) {
      Tensor& tensor = adapted.graph.initializers.at(name);
      tensor = gaussian(tensor.shape, 0.1, ++seed);
    }
    Session trained(adapted.graph), merged(merge_adapters(graph, adapted.graph, adapted.adapters));
    const at::Tensor expected = trained.run(inputs).at(output), got = merged.run(inputs).at(output);
    CHECK((expected - original).abs().max().item<double>() > 1e-2);
    CHECK((expected - got).abs().max().item<double>() < 1e-5 * expected.abs().max().item<double>());
  };
  const Graph language = tiny_language_model();
  const auto sites = adapter_sites(language);
  compare(language, add_lora(language, sites, 3, 6, 1), tokens(), "logits");
  compare(language, add_ia3(language, sites), tokens(), "logits");

  // Gemm with factors and a bias, both ways round, and a Transpose in between.
  Graph gemm;
  gemm.inputs = {{"x", DType::f32, {Dim::symbol("batch"), 6}}};
  gemm.initializers = {{"a", gaussian({7, 6}, 0.5, 1)},
                       {"a.bias", gaussian({7}, 0.5, 2)},
                       {"b", gaussian({7, 5}, 0.5, 3)},
                       {"b.bias", gaussian({5}, 0.5, 4)},
                       {"c", gaussian({4, 5}, 0.5, 5)}};
  gemm.nodes = {
      {"Gemm", "", "a", {"x", "a", "a.bias"}, {"h"}, {{"transB", std::int64_t{1}}, {"alpha", 0.5}, {"beta", 2.0}}},
      {"Gemm", "", "b", {"h", "b", "b.bias"}, {"g"}, {}},
      {"Transpose", "", "turn", {"c"}, {"ct"}, {{"perm", std::vector<std::int64_t>{1, 0}}}},
      {"MatMul", "", "c", {"g", "ct"}, {"y"}, {}},
  };
  gemm.outputs = {{"y", DType::f32, {Dim::symbol("batch"), 4}}};
  const TensorMap inputs{{"x", random({3, 6}, 9).to(at::kFloat)}};
  compare(gemm, add_lora(gemm, adapter_sites(gemm), 2, 8, 1), inputs, "y");
  compare(gemm, add_ia3(gemm, adapter_sites(gemm)), inputs, "y");
}
