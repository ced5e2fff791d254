// Padding and tokens that do not count: losses and gradients are those of the example alone.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>

#include "memory_context.h"
#include "memory_peak.h"
#include "models.h"
#include "run/features.h"
#include "run/head.h"
#include "run/objective.h"
#include "run/padding.h"
#include "run/session.h"
#include "run/training.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;

namespace {

at::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return to_aten(normal(std::move(shape), 1, seed)).to(at::kDouble);
}

struct Example {
  std::vector<std::int32_t> tokens;
  std::vector<bool> counted;
};

/// A conversation of nine tokens whose third and fourth, and last three, count; and a shorter one.
const Example talk{{3, 14, 15, 9, 26, 5, 35, 8, 7}, {false, false, true, true, false, false, true, true, true}};
const Example brief{{2, 7, 18, 28}, {false, false, true, false}};

/// Windows of `sequence`, an example each, padded with token 1.
Artifact dataset(MemoryContext& context, const std::vector<Example>& examples, std::size_t sequence) {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> flags;
  for (const Example& example : examples) {
    tokens.insert(tokens.end(), example.tokens.begin(), example.tokens.end());
    for (const bool counts : example.counted) flags.push_back(counts ? 3 : 1);
    const std::size_t end = sequence * (1 + (&example - examples.data()));
    tokens.resize(end, 1);
    flags.resize(end, 0);
  }
  Artifact artifact;
  artifact.type = ArtifactType::dataset;
  artifact.meta = {{"kind", "tokens"}, {"count", examples.size()}, {"sequence", sequence}, {"flags", true}};
  artifact.blobs["tokens.i32"] = context.put(std::as_bytes(std::span(tokens)));
  artifact.blobs["flags.u8"] = context.put(std::as_bytes(std::span(flags)));
  return artifact;
}

TensorMap batch_of(MemoryContext& context, const std::vector<Example>& examples, std::size_t sequence) {
  const TokenDataset data(context, dataset(context, examples, sequence));
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < data.count(); ++i) all.push_back(i);
  return data.batch(all);
}

/// The model with a head that is no plain product, so that logits come whole.
Graph with_bias(Graph graph) {
  graph.initializers["head.bias"] = Tensor::of(DType::f32, {37}, std::vector<float>(37, 0.0F));
  for (Node& node : graph.nodes)
    for (std::string& output : node.outputs)
      if (output == "logits") output = "head.product";
  graph.nodes.push_back({"Add", "", "/head/Add", {"head.product", "head.bias"}, {"logits"}, {}});
  return graph;
}

struct Learned {
  double loss;
  std::map<std::string, at::Tensor> gradients;
};

class Student {
 public:
  explicit Student(const Graph& graph) : graph_(graph), session_(graph, {.compute = DType::f64}) { session_.train(); }

  template <class Loss>
  Learned learn(const TensorMap& batch, const std::vector<std::string>& wanted, Loss loss) {
    for (const auto& name : session_.trainable()) session_.parameter(name).mutable_grad().reset();
    const at::Tensor value = loss(session_.run(inputs_for(graph_, batch), wanted));
    value.backward();
    Learned learned{value.template item<double>(), {}};
    for (const auto& name : session_.trainable())
      if (const at::Tensor gradient = session_.parameter(name).grad(); gradient.defined())
        learned.gradients[name] = gradient.clone();
    return learned;
  }

 private:
  Graph graph_;
  Session session_;
};

void check_same(const Learned& a, const Learned& b) {
  CHECK(a.loss == Approx(b.loss).epsilon(1e-10));
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (const auto& [name, gradient] : a.gradients) {
    CAPTURE(name);
    CHECK(gradient.allclose(b.gradients.at(name), 1e-8, 1e-12));
  }
}

Learned sum_of(const Learned& a, double wa, const Learned& b, double wb) {
  Learned sum{wa * a.loss + wb * b.loss, {}};
  for (const auto& [name, gradient] : a.gradients) sum.gradients[name] = gradient * wa + b.gradients.at(name) * wb;
  return sum;
}

TensorMap answers(const Graph& graph, const TensorMap& batch, const std::vector<std::string>& wanted) {
  Session session(graph, {.compute = DType::f64});
  TensorMap values = session.run(inputs_for(graph, batch), wanted);
  for (auto& [name, value] : values) value = value.detach();
  return values;
}

}  // namespace

TEST_CASE("a loss over counted tokens is the mean of their own, by hand") {
  const at::Tensor logits = random({2, 4, 6}, 1).set_requires_grad(true), guide = random({2, 4, 6}, 2);
  const TensorMap batch{{"input_ids", at::tensor({1, 2, 3, 4, 5, 0, 1, 1}, at::kLong).reshape({2, 4})},
                        {"labels", at::tensor({-1, 2, -1, 4, -1, 0, -1, -1}, at::kLong).reshape({2, 4})}};
  const at::Tensor next = next_tokens(batch);
  CHECK(next.ge(0).equal(at::tensor({1, 0, 1, 0, 1, 0, 0, 0}, at::kLong).ne(0)));
  const at::Tensor log_p = at::log_softmax(logits, -1);
  const at::Tensor expected = -(log_p[0][0][2] + log_p[0][2][4] + log_p[1][0][0]) / 3;
  const at::Tensor loss = next_token_cross_entropy(logits, next);
  CHECK(loss.item<double>() == Approx(expected.item<double>()).epsilon(1e-12));
  expected.backward();
  const at::Tensor plain = logits.grad().clone();
  logits.mutable_grad().reset();
  loss.backward();
  CHECK(logits.grad().allclose(plain, 1e-10, 1e-14));

  // Soft targets over the same three positions; whatever the others hold.
  logits.mutable_grad().reset();
  const at::Tensor log_q = at::log_softmax(logits / 2, -1), log_t = at::log_softmax(guide / 2, -1);
  const at::Tensor kl = (log_t.exp() * (log_t - log_q)).sum(-1);
  const at::Tensor wanted = (kl[0][0] + kl[0][2] + kl[1][0]) * 4 / 3;
  const at::Tensor soft = soft_target_loss(logits, guide, 2, next.ge(0));
  CHECK(soft.item<double>() == Approx(wanted.item<double>()).epsilon(1e-12));
  wanted.backward();
  const at::Tensor of_soft = logits.grad().clone();
  logits.mutable_grad().reset();
  soft.backward();
  CHECK(logits.grad().allclose(of_soft, 1e-10, 1e-14));

  // Nothing that counts is no loss, and no division by nothing.
  const at::Tensor none = at::full({8}, -1, at::kLong);
  CHECK(next_token_cross_entropy(logits, none).item<double>() == 0);
  CHECK(soft_target_loss(logits, guide, 2, none.ge(0)).item<double>() == 0);
  CHECK_THROWS_WITH(next_token_cross_entropy(logits, at::full({8}, 6, at::kLong)), ContainsSubstring("vocabulary of 6"));
  CHECK_THROWS_WITH(next_token_cross_entropy(logits, at::full({7}, 1, at::kLong)), ContainsSubstring("7 labels"));
}

TEST_CASE("losses of padded windows are those of the examples alone, with a head in chunks and with whole logits") {
  MemoryContext context;
  const bool whole = GENERATE(false, true), whole_teacher = GENERATE(false, true);
  const double hard = GENERATE(0.0, 0.7), soft = GENERATE(0.0, 1.3);
  if (hard + soft == 0) return;
  CAPTURE(whole, whole_teacher, hard, soft);
  const auto made = [](bool biased, std::uint64_t seed) {
    const Graph graph = tiny_language_model({}, seed);
    return biased ? with_bias(graph) : graph;
  };
  const Graph graph = made(whole, 1), teacher = made(whole_teacher, 5);
  const TokenDataset data(context, dataset(context, {talk, brief}, 16));
  const auto objective = objective_for(graph, data, "model", &teacher), of_teacher = objective_for(teacher, data);
  Student student(graph);
  const auto learned = [&](const TensorMap& batch) {
    const TensorMap guide = answers(teacher, batch, of_teacher->values());
    return student.learn(batch, objective->values(),
                         [&](const TensorMap& values) { return objective->weighted(values, guide, batch, hard, soft, 2).sum; });
  };
  const Learned first = learned(batch_of(context, {talk}, 9)), second = learned(batch_of(context, {brief}, 4));
  check_same(learned(batch_of(context, {talk}, 16)), first);
  check_same(learned(batch_of(context, {talk}, 61)), first);
  // Together each counts by its tokens: five of the one, one of the other.
  check_same(learned(data.batch({0, 1})), sum_of(first, 5.0 / 6, second, 1.0 / 6));
  if (soft == 0) {
    const TensorMap batch = data.batch({0, 1});
    const double loss =
        student.learn(batch, objective->values(), [&](const TensorMap& values) { return objective->hard(values, batch); }).loss;
    CHECK(loss * hard == Approx(sum_of(first, 5.0 / 6, second, 1.0 / 6).loss).epsilon(1e-10));
  }
}

TEST_CASE("what is masked moves nothing: prompts may say anything after the last token that counts") {
  MemoryContext context;
  const Graph graph = tiny_language_model();
  Student student(graph);
  const auto learned = [&](const Example& example) {
    const TensorMap batch = batch_of(context, {example}, 12);
    const TokenDataset data(context, dataset(context, {example}, 12));
    const auto objective = objective_for(graph, data);
    return student.learn(batch, objective->values(), [&](const TensorMap& values) { return objective->hard(values, batch); });
  };
  Example longer = talk, all = talk;
  longer.tokens.insert(longer.tokens.end(), {33, 34});
  longer.counted.insert(longer.counted.end(), {false, false});
  check_same(learned(longer), learned(talk));
  all.counted.assign(all.counted.size(), true);
  const at::Tensor ids = at::tensor(std::vector<std::int64_t>(talk.tokens.begin(), talk.tokens.end()), at::kLong).unsqueeze(0);
  const TensorMap plain{
      {"input_ids", ids}, {"attention_mask", at::ones({1, 9}, at::kLong)}, {"position_ids", at::arange(9, at::kLong).unsqueeze(0)}};
  check_same(learned(all), student.learn(plain, {"logits"},
                                         [&](const TensorMap& values) { return causal_cross_entropy(values.at("logits"), ids); }));
}

TEST_CASE("hidden and attention losses leave padding out") {
  MemoryContext context;
  const Graph graph = tiny_language_model({}, 1), teacher = tiny_language_model({}, 5);
  for (const HiddenMeasure measure : {HiddenMeasure::mse, HiddenMeasure::cosine}) {
    const FeatureLosses features(graph, teacher, {.hidden = true, .attention = true, .measure = measure});
    Student student(features.student());
    const auto learned = [&](const TensorMap& batch, bool attention) {
      const TensorMap guide = answers(features.teacher(), batch, features.teacher_values());
      return student.learn(batch, features.student_values(), [&](const TensorMap& values) {
        return attention ? features.attention(values, guide, batch) : features.hidden(values, guide, batch);
      });
    };
    for (const bool attention : {false, true}) {
      CAPTURE(attention);
      const Learned first = learned(batch_of(context, {talk}, 9), attention),
                    second = learned(batch_of(context, {brief}, 4), attention);
      check_same(learned(batch_of(context, {talk}, 20), attention), first);
      check_same(learned(batch_of(context, {talk, brief}, 20), attention), sum_of(first, 9.0 / 13, second, 4.0 / 13));
    }
  }
}

TEST_CASE("padding is told apart in values by position, or refused") {
  const at::Tensor real = real_positions({{"attention_mask", at::tensor({1, 1, 0, 1, 0, 0}, at::kLong).reshape({2, 3})}});
  const at::Tensor value = random({2, 3, 4}, 1);
  const at::Tensor rows = without_padding(value, real, "x");
  CHECK(rows.equal(value.flatten(0, 1).index_select(0, at::tensor({0, 1, 3}, at::kLong))));
  CHECK(without_padding(value.flatten(0, 1), real, "x").equal(rows));
  CHECK_FALSE(real_positions({{"attention_mask", at::ones({2, 3}, at::kLong)}}).defined());
  CHECK_FALSE(real_positions({}).defined());
  CHECK(without_padding(value, {}, "x").is_same(value));
  CHECK_THROWS_WITH(without_padding(random({2, 4, 3}, 1), real, "/model/x"),
                    ContainsSubstring("/model/x") && ContainsSubstring("[2, 4, 3]"));
}

TEST_CASE("a head walks the positions that count and no others, in no more memory") {
  const at::Tensor hidden = random({2, 7, 5}, 3), weight = random({31, 5}, 4), teacher = random({2, 7, 31}, 5);
  const at::Tensor picked = at::tensor({1, 4, 5, 12}, at::kLong), labels = at::tensor({3, 30, 0, 11}, at::kLong);
  const auto gradients = [&](const at::Tensor& h, const HeadTargets& targets, std::int64_t positions) {
    const at::Tensor own = h.clone().set_requires_grad(true), head = weight.clone().set_requires_grad(true);
    const HeadLoss loss = head_loss({own, head, true}, targets, positions);
    (loss.sum * 2).backward();
    return std::tuple(loss.sum.item<double>(), own.grad(), head.grad());
  };
  const at::Tensor few = hidden.flatten(0, 1).index_select(0, picked), of_few = teacher.flatten(0, 1).index_select(0, picked);
  for (const std::int64_t positions : {1, 3, 0}) {
    const auto [loss, to_hidden, to_weight] = gradients(
        hidden, {.hard = 0.4, .labels = labels, .soft = 0.9, .temperature = 2, .teacher_logits = teacher, .positions = picked},
        positions);
    const auto [expected, few_hidden, few_weight] =
        gradients(few, {.hard = 0.4, .labels = labels, .soft = 0.9, .temperature = 2, .teacher_logits = of_few}, positions);
    CHECK(loss == Approx(expected).epsilon(1e-12));
    CHECK(to_weight.allclose(few_weight, 1e-10, 1e-14));
    CHECK(to_hidden.flatten(0, 1).index_select(0, picked).allclose(few_hidden, 1e-10, 1e-14));
    CHECK(to_hidden.abs().sum().item<double>() == Approx(few_hidden.abs().sum().item<double>()));
  }
  const at::Tensor none = at::zeros({0}, at::kLong);
  const auto [nothing, to_hidden, to_weight] =
      gradients(hidden, {.hard = 1, .labels = none, .soft = 1, .teacher_logits = teacher, .positions = none}, 0);
  CHECK(nothing == 0);
  CHECK(to_weight.abs().sum().item<double>() == 0);
  CHECK_THROWS_WITH(head_loss({hidden, weight, true}, {.hard = 1, .labels = labels, .positions = picked + 9}),
                    ContainsSubstring("outside the 14"));
  CHECK_THROWS_WITH(head_loss({hidden, weight, true}, {.hard = 1, .labels = labels, .positions = none}),
                    ContainsSubstring("4 labels for 0"));

  const std::int64_t count = 512, words = 40000, matrix = count * words * 4;
  const at::Tensor wide = random({1, count, 16}, 1).to(at::kFloat).set_requires_grad(true);
  const at::Tensor table = random({words, 16}, 2).to(at::kFloat).set_requires_grad(true);
  const auto peak = [&](const at::Tensor& positions) {
    const at::Tensor next = at::arange(positions.defined() ? positions.numel() : count, at::kLong) * 71 % words;
    const MemoryPeak memory;
    head_loss({wide, table, true},
              {.hard = 1, .labels = next, .soft = 1, .teacher = {wide.detach() * 2, table.detach(), true}, .positions = positions})
        .sum.backward();
    return memory.bytes();
  };
  CHECK(peak(at::arange(0, count, 2, at::kLong)) < 5 * matrix / 8 + (std::int64_t{16} << 20));
  CHECK(peak(at::arange(count, at::kLong)) < 5 * matrix / 4);
}

TEST_CASE("passes of a step count by their tokens") {
  MemoryContext context;
  const Graph graph = tiny_language_model();
  const TokenDataset data(context, dataset(context, {talk, brief}, 12));
  const auto objective = objective_for(graph, data);
  const auto trained = [&](std::int64_t batch) {
    Session session(graph, {.compute = DType::f64});
    session.train({"model.layers.0.mlp.up_proj.weight"});
    TrainingOptions options;
    options.steps = 3;
    options.batch = batch;
    options.accumulation = 2 / batch;
    const auto examples = [&](std::int64_t pass) {
      return batch == 2 ? std::vector<std::int64_t>{0, 1} : std::vector<std::int64_t>{pass};
    };
    TrainingWatch watch;
    watch.weight = [&](std::int64_t, std::int64_t pass) { return data.weight(examples(pass)); };
    const auto result = train_loop(
        session, options, [&](std::int64_t, std::int64_t pass) { return data.batch(examples(pass)); },
        [&](const TensorMap& batch_) {
          return objective->hard(session.run(inputs_for(graph, batch_), objective->values()), batch_);
        },
        nullptr, watch);
    CHECK(result.tokens == 3 * (9 + 4));
    return std::pair(result.losses, session.parameter("model.layers.0.mlp.up_proj.weight").detach().clone());
  };
  const auto together = trained(2), apart = trained(1);
  for (std::size_t i = 0; i < 3; ++i) CHECK(apart.first[i] == Approx(together.first[i]).epsilon(1e-9));
  CHECK(apart.second.allclose(together.second, 1e-8, 1e-10));
}
