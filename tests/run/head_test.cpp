#include "run/head.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "memory_peak.h"
#include "models.h"
#include "run/objective.h"
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

struct Gradients {
  double loss;
  at::Tensor hidden, weight;
};

struct Case {
  bool transposed;
  double hard, soft;
  at::Tensor hidden = random({2, 7, 5}, 3), weight = transposed ? random({31, 5}, 4) : random({5, 31}, 4);
  at::Tensor ids = (at::arange(14, at::kLong) * 5 % 31).reshape({2, 7});
  HeadValues teacher{random({2, 7, 6}, 5), random({31, 6}, 6), true};

  Gradients chunked(std::int64_t positions, bool whole_teacher) const {
    at::Tensor h = hidden.clone().set_requires_grad(true), w = weight.clone().set_requires_grad(true);
    HeadTargets targets{.hard = hard, .labels = next_tokens(ids), .soft = soft, .temperature = 2.5};
    if (whole_teacher) {
      targets.teacher_logits = teacher.logits();
    } else {
      targets.teacher = teacher;
    }
    const HeadLoss loss = head_loss({h, w, transposed}, targets, positions);
    CHECK(loss.hard.has_value() == (hard > 0));
    CHECK(loss.soft.has_value() == (soft > 0));
    (loss.sum * 3).backward();
    return {loss.sum.item<double>(), h.grad(), w.grad()};
  }
  Gradients whole() const {
    at::Tensor h = hidden.clone().set_requires_grad(true), w = weight.clone().set_requires_grad(true);
    const at::Tensor logits = h.matmul(transposed ? w.t() : w);
    at::Tensor sum = at::zeros({}, at::kDouble);
    if (hard > 0) sum = sum + causal_cross_entropy(logits, ids) * hard;
    if (soft > 0) sum = sum + soft_target_loss(logits, teacher.logits(), 2.5) * soft;
    (sum * 3).backward();
    return {sum.item<double>(), h.grad(), w.grad()};
  }
};

}  // namespace

TEST_CASE("head and loss in chunks give the values and gradients of the whole matrix") {
  for (const bool transposed : {false, true})
    for (const auto& [hard, soft] : {std::pair{1.0, 0.0}, {0.0, 1.0}, {0.3, 1.7}})
      for (const std::int64_t positions : {1, 4, 100, 0}) {
        const Case c{transposed, hard, soft};
        const Gradients expected = c.whole(), got = c.chunked(positions, positions == 4);
        CAPTURE(transposed, hard, soft, positions);
        CHECK(got.loss == Approx(expected.loss).epsilon(1e-12));
        CHECK(got.hidden.allclose(expected.hidden, 1e-10, 1e-13));
        CHECK(got.weight.allclose(expected.weight, 1e-10, 1e-13));
      }
}

TEST_CASE("a model's objective reads its hidden state; the gradients are those of its logits") {
  const Graph graph = tiny_language_model();
  const auto head = find_head(graph, "logits");
  REQUIRE(head);
  CHECK(head->transposed);  // tied to the embedding
  Session session(graph, {.compute = DType::f64});
  session.train();
  const at::Tensor ids = (at::arange(24, at::kLong) * 7 % 37).reshape({2, 12});
  const TensorMap batch{{"input_ids", ids},
                        {"attention_mask", at::zeros({2, 12}, at::kLong) + 1},
                        {"position_ids", at::arange(12, at::kLong).expand({2, 12})}};
  const auto gradients = [&](const at::Tensor& loss) {
    for (const auto& name : session.trainable()) session.parameter(name).mutable_grad().reset();
    loss.backward();
    std::map<std::string, at::Tensor> found;
    for (const auto& name : session.trainable()) found[name] = session.parameter(name).grad();
    return found;
  };
  const at::Tensor whole = causal_cross_entropy(session.run(batch).at("logits"), ids);
  const auto expected = gradients(whole);
  const TensorMap values = session.run(batch, {head->hidden, head->weight});
  const HeadLoss loss =
      head_loss({values.at(head->hidden), values.at(head->weight), true}, {.hard = 1, .labels = next_tokens(ids)});
  CHECK(loss.sum.item<double>() == Approx(whole.item<double>()).epsilon(1e-12));
  for (const auto& [name, gradient] : gradients(loss.sum)) {
    CAPTURE(name);
    CHECK(gradient.allclose(expected.at(name), 1e-9, 1e-12));
  }
}

TEST_CASE("heads are found by structure, others are left alone") {
  Graph graph;
  graph.inputs = {{"h", DType::f32, {}}};
  graph.outputs = {{"logits", DType::f32, {}}};
  std::uint64_t seed = 1;
  graph.initializers["w"] = normal({4, 9}, 1, seed);
  graph.initializers["b"] = normal({9}, 1, seed);
  graph.initializers["shape"] = Tensor::of<std::int64_t>(DType::i64, {3}, {1, -1, 9});
  graph.nodes = {{"MatMul", "", "m", {"h", "w"}, {"logits"}, {}}};
  CHECK(find_head(graph, "logits")->weight == "w");
  CHECK_FALSE(find_head(graph, "logits")->transposed);
  graph.nodes = {{"Gemm", "", "m", {"h", "w"}, {"g"}, {}}, {"Reshape", "", "r", {"g", "shape"}, {"logits"}, {}}};
  CHECK(find_head(graph, "logits")->hidden == "h");
  graph.nodes = {{"Gemm", "", "m", {"h", "w", "b"}, {"logits"}, {}}};
  CHECK_FALSE(find_head(graph, "logits"));
  graph.nodes = {{"MatMul", "", "m", {"h", "w"}, {"g"}, {}}, {"Add", "", "a", {"g", "b"}, {"logits"}, {}}};
  CHECK_FALSE(find_head(graph, "logits"));
}

TEST_CASE("the matrix of logits never stands in memory whole") {
  const auto shape = GENERATE(std::array<std::int64_t, 2>{256, 40000}, std::array<std::int64_t, 2>{512, 49152});
  const std::int64_t positions = shape[0], words = shape[1], width = 16, matrix = positions * words * 4;
  at::Tensor hidden = random({1, positions, width}, 1).to(at::kFloat).set_requires_grad(true);
  at::Tensor weight = random({words, width}, 2).to(at::kFloat).set_requires_grad(true);
  const HeadValues teacher{hidden.detach() * 2, weight.detach(), true};
  const at::Tensor ids = (at::arange(positions, at::kLong) * 571 % words).unsqueeze(0);
  const auto peak = [&](double hard, double soft) {
    hidden.mutable_grad().reset();
    weight.mutable_grad().reset();
    const MemoryPeak memory;
    head_loss({hidden, weight, true},
              {.hard = hard, .labels = next_tokens(ids), .soft = soft, .temperature = 2, .teacher = teacher})
        .sum.backward();
    return memory.bytes();
  };
  {  // The measure sees what it is meant to see.
    const MemoryPeak memory;
    causal_cross_entropy(HeadValues{hidden, weight, true}.logits(), ids).backward();
    CHECK(memory.bytes() > 2 * matrix);
  }
  CHECK(peak(1, 0) < 2 * matrix / 3);
  CHECK(peak(0, 1) < 5 * matrix / 4);
  CHECK(peak(0.5, 1) < 5 * matrix / 4);  // unchunked: student's and teacher's logits, and gradients: more than four
}

TEST_CASE("a head says what does not fit") {
  const HeadValues head{random({1, 3, 5}, 1), random({5, 11}, 2), false};
  CHECK_THROWS_WITH(head_loss(head, {.hard = 1, .labels = at::arange(3, at::kLong) + 10}), ContainsSubstring("vocabulary of 11"));
  CHECK_THROWS_WITH(head_loss(head, {.hard = 1, .labels = at::arange(4, at::kLong)}), ContainsSubstring("4 labels for 3"));
  CHECK_THROWS_WITH(head_loss(head, {.soft = 1, .teacher_logits = random({1, 3, 12}, 3)}), ContainsSubstring("over 12"));
}
