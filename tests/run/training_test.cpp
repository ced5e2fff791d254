#include "run/training.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/kl_div.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <numbers>

#include "models.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;

namespace {

at::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return to_aten(normal(std::move(shape), 1, seed)).to(at::kDouble);
}

TensorMap tokens(std::int64_t batch, std::int64_t length, std::int64_t vocabulary, std::int64_t offset) {
  const at::Tensor ids = ((at::arange(batch * length, at::kLong) * 5 + offset) % vocabulary).reshape({batch, length});
  return {{"input_ids", ids},
          {"attention_mask", at::ones({batch, length}, at::kLong)},
          {"position_ids", at::arange(length, at::kLong).expand({batch, length})}};
}

}  // namespace

TEST_CASE("causal cross-entropy is PyTorch's on shifted logits") {
  at::Tensor logits = random({2, 5, 7}, 3).set_requires_grad(true), other = logits.detach().clone().set_requires_grad(true);
  const at::Tensor ids = (at::arange(10, at::kLong) * 3 % 7).reshape({2, 5});
  const at::Tensor loss = causal_cross_entropy(logits, ids);
  const at::Tensor expected = at::cross_entropy_loss(other.slice(1, 0, 4).reshape({-1, 7}), ids.slice(1, 1).reshape({-1}));
  CHECK(loss.item<double>() == Approx(expected.item<double>()).epsilon(1e-12));
  (loss * 3).backward();
  (expected * 3).backward();
  CHECK(logits.grad().allclose(other.grad(), 1e-9, 1e-12));
  CHECK_THROWS_WITH(causal_cross_entropy(logits, ids + 7), ContainsSubstring("vocabulary"));
  CHECK_THROWS_AS(causal_cross_entropy(logits, ids.slice(1, 1)), Error);
}

TEST_CASE("the soft-target loss is KL at a temperature, times its square") {
  at::Tensor student = random({2, 3, 11}, 4).set_requires_grad(true), other = student.detach().clone().set_requires_grad(true);
  const at::Tensor teacher = random({2, 3, 11}, 5);
  const double t = 2.5;
  const at::Tensor loss = soft_target_loss(student, teacher, t);
  const at::Tensor expected = at::kl_div(at::log_softmax(other / t, -1), at::softmax(teacher / t, -1)) * (11.0 * t * t);
  CHECK(loss.item<double>() == Approx(expected.item<double>() * 1.0).epsilon(1e-10));
  (loss * 2).backward();
  (expected * 2).backward();
  CHECK(student.grad().allclose(other.grad(), 1e-9, 1e-12));
  CHECK(soft_target_loss(teacher, teacher, 1).item<double>() == Approx(0).margin(1e-12));
  CHECK_THROWS_AS(soft_target_loss(student, teacher, 0), Error);
}

TEST_CASE("losses over more rows than one piece agree with PyTorch") {
  at::Tensor logits = random({1, 70, 40000}, 6).to(at::kFloat).set_requires_grad(true);
  const at::Tensor ids = (at::arange(70, at::kLong) * 571 % 40000).unsqueeze(0);
  const at::Tensor loss = causal_cross_entropy(logits, ids);
  CHECK(loss.item<double>() ==
        Approx(at::cross_entropy_loss(logits.detach()[0].slice(0, 0, 69), ids[0].slice(0, 1)).item<double>()).epsilon(1e-6));
  loss.backward();
  CHECK(logits.grad().sum().item<double>() == Approx(0).margin(1e-4));
}

TEST_CASE("the rate warms up, then falls along a cosine") {
  TrainingOptions o{.steps = 110, .learning_rate = 1.0, .warmup = 10, .final_share = 0.1};
  CHECK(scheduled_rate(o, 0) == Approx(0.1));
  CHECK(scheduled_rate(o, 9) == Approx(1.0));
  CHECK(scheduled_rate(o, 10) == Approx(1.0));
  CHECK(scheduled_rate(o, 60) == Approx(0.55));
  CHECK(scheduled_rate(o, 110) == Approx(0.1));
}

TEST_CASE("AdamW takes the steps of its paper") {
  Graph graph;
  graph.initializers["w"] = Tensor::of<float>(DType::f32, {2}, {1.0f, -2.0f});
  graph.initializers["t"] = Tensor::of<float>(DType::f32, {2}, {0.0f, 0.0f});
  graph.nodes = {{"Sub", "", "d", {"w", "t"}, {"y"}, {}}};
  graph.outputs = {{"y", DType::f32, {2}}};
  Session session(graph);
  session.train({"w"});
  const TrainingOptions o{.steps = 3, .learning_rate = 0.1, .warmup = 0, .final_share = 1.0, .weight_decay = 0.1, .clip = 0};
  double w[2] = {1, -2}, m[2] = {}, v[2] = {};
  for (int step = 1; step <= 3; ++step)
    for (int i = 0; i < 2; ++i) {
      const double g = 2 * w[i];
      w[i] *= 1 - 0.1 * 0.1;
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      w[i] -= 0.1 * (m[i] / (1 - std::pow(0.9, step))) / (std::sqrt(v[i] / (1 - std::pow(0.999, step))) + 1e-8);
    }
  train_loop(
      session, o, [](auto, auto) { return TensorMap{}; },
      [&](const TensorMap& inputs) { return session.run(inputs).at("y").square().sum(); }, nullptr);
  CHECK(session.parameter("w")[0].item<double>() == Approx(w[0]).epsilon(1e-6));
  CHECK(session.parameter("w")[1].item<double>() == Approx(w[1]).epsilon(1e-6));
}

TEST_CASE("accumulated halves are the whole batch") {
  const auto train = [](std::int64_t accumulation) {
    Session session(tiny_language_model());
    session.train();
    const TrainingOptions o{.steps = 3, .accumulation = accumulation, .learning_rate = 1e-2, .warmup = 0};
    const TensorMap all = tokens(2, 8, 37, 0);
    train_loop(
        session, o,
        [&](std::int64_t, std::int64_t pass) {
          if (accumulation == 1) return all;
          TensorMap half;
          for (const auto& [name, value] : all) half[name] = value.narrow(0, pass, 1);
          return half;
        },
        [&](const TensorMap& inputs) { return causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")); },
        nullptr);
    return session.parameter("model.layers.0.mlp.up_proj.weight").detach().clone();
  };
  CHECK(train(1).allclose(train(2), 1e-3, 1e-5));
}

TEST_CASE("a language model learns its sequence; the same seed gives the same bytes") {
  const auto train = [] {
    Session session(tiny_language_model());
    session.train();
    const TrainingOptions o{.steps = 60, .batch = 2, .learning_rate = 1e-2, .warmup = 5, .seed = 3};
    const TrainingResult result = train_loop(
        session, o, [](std::int64_t step, std::int64_t) { return tokens(2, 16, 37, step % 4); },
        [&](const TensorMap& inputs) { return causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")); },
        nullptr);
    return std::pair(result, session.graph());
  };
  at::set_num_threads(2);
  const auto [first, graph] = train();
  CHECK(first.losses.front() > 3);
  CHECK(first.losses.back() < first.losses.front() / 4);
  CHECK(first.tokens == 60 * 32);
  const auto [second, again] = train();
  CHECK(first.losses == second.losses);
  for (const auto& [name, tensor] : graph.initializers) CHECK(tensor.digest() == again.initializers.at(name).digest());
}

TEST_CASE("training says what is wrong") {
  Session session(tiny_language_model());
  const auto loss = [&](const TensorMap& inputs) {
    return causal_cross_entropy(session.run(inputs).at("logits") / 0.0, inputs.at("input_ids"));
  };
  const auto batches = [](std::int64_t, std::int64_t) { return tokens(1, 4, 37, 0); };
  CHECK_THROWS_WITH(train_loop(session, {}, batches, loss, nullptr), ContainsSubstring("nothing to train"));
  session.train();
  CHECK_THROWS_WITH(train_loop(session, {}, batches, loss, nullptr), ContainsSubstring("step 0"));
}

namespace {

/// Bars at four angles, shifted, with noise: [count, 1, 12, 12] and their class.
std::pair<at::Tensor, at::Tensor> bars(std::int64_t count, std::uint64_t seed) {
  const Tensor noise = normal({count, 1, 12, 12}, 0.3, seed), shift = normal({count}, 1.0, seed);
  at::Tensor images = to_aten(noise).clone(), labels = at::empty({count}, at::kLong);
  auto* pixel = images.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t label = i % 4;
    labels.mutable_data_ptr<std::int64_t>()[i] = label;
    const double angle = std::numbers::pi * static_cast<double>(label) / 4, offset = shift.as<float>()[static_cast<std::size_t>(i)];
    for (int y = 0; y < 12; ++y)
      for (int x = 0; x < 12; ++x, ++pixel)
        if (std::abs((x - 5.5) * std::sin(angle) - (y - 5.5) * std::cos(angle) - offset) < 1.0) *pixel += 1;
  }
  return {images, labels};
}

}  // namespace

TEST_CASE("a residual CNN learns to tell bars apart") {
  at::set_num_threads(2);
  Session session(residual_network(8));
  session.train();
  const auto [images, labels] = bars(512, 1);
  const TrainingOptions o{.steps = 120, .batch = 32, .learning_rate = 1e-2, .warmup = 5};
  const TrainingResult result = train_loop(
      session, o,
      [&, &images = images](std::int64_t step, std::int64_t) {
        return TensorMap{{"image", images.narrow(0, step * 32 % 512, 32)}};
      },
      [&, &labels = labels, step = std::int64_t{0}](const TensorMap& inputs) mutable {
        return at::cross_entropy_loss(session.run(inputs).at("scores"), labels.narrow(0, step++ * 32 % 512, 32));
      },
      nullptr);
  CHECK(result.losses.back() < result.losses.front());
  const auto [held, answers] = bars(256, 99);
  Session trained(session.graph());
  const double accuracy = trained.run({{"image", held}}).at("scores").argmax(1).eq(answers).to(at::kDouble).mean().item<double>();
  INFO("accuracy " << accuracy);
  CHECK(accuracy > 0.9);
}
