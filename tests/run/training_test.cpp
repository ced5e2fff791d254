#include "run/training.h"

#include <unistd.h>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/kl_div.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numbers>

#include "memory_peak.h"
#include "models.h"
#include "run/recompute.h"
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

namespace {

struct Outcome {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> parameters;
  TrainingResult result;
};

Outcome outcome(const Session& session, TrainingResult result) {
  Outcome out{result.losses, {}, std::move(result)};
  for (const std::string& name : session.trainable()) out.parameters[name] = session.parameter(name).detach().clone();
  return out;
}

/// A few steps on the tiny language model through its objective's head.
Outcome trained(SessionOptions how, TrainingOptions options, const TrainingWatch& watch = {}, std::int64_t fail_at = -1) {
  Session session(tiny_language_model(), how);
  session.train();
  options.learning_rate = 1e-2;
  options.warmup = 2;
  auto result = train_loop(
      session, options,
      [&](std::int64_t step, std::int64_t pass) {
        if (step == fail_at) throw Error(ErrorCode::cancelled, "broken off");
        return tokens(2, 16, 37, (step * options.accumulation + pass) % 4);
      },
      [&](const TensorMap& inputs) { return causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")); },
      nullptr, watch);
  return outcome(session, std::move(result));
}

struct ScratchFolder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("espalier-training-" + std::to_string(::getpid()));
  ScratchFolder() { std::filesystem::create_directories(path); }
  ~ScratchFolder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("products in bf16 learn as f32 does; parameters stay f32") {
  const Outcome wide = trained({}, {.steps = 40}), narrow = trained({.products = DType::bf16}, {.steps = 40});
  CHECK(narrow.losses.back() < wide.losses.front() / 2);
  CHECK(narrow.losses != wide.losses);
  for (std::size_t i = 0; i < wide.losses.size(); ++i) {
    CAPTURE(i);
    CHECK(narrow.losses[i] == Approx(wide.losses[i]).epsilon(0.03).margin(0.02));
  }
  for (const auto& [name, value] : narrow.parameters) CHECK(value.scalar_type() == at::kFloat);
}

TEST_CASE("without kernels for bf16 the same rounding is computed in f32") {
  std::map<bool, TensorMap> answers;
  std::map<bool, at::Tensor> gradients;
  const Graph graph = tiny_language_model();
  for (const bool emulate : {false, true}) {
    Session session(graph, {.products = DType::bf16, .emulate_bf16 = emulate});
    const std::string name = session.train().front();
    const auto inputs = tokens(2, 8, 37, 0);
    answers[emulate] = session.run(inputs);
    causal_cross_entropy(answers[emulate].at("logits"), inputs.at("input_ids")).backward();
    gradients[emulate] = session.parameter(name).grad().clone();
  }
  const at::Tensor &native = answers[false].at("logits"), &emulated = answers[true].at("logits");
  CHECK(emulated.scalar_type() == at::kBFloat16);
  const at::Tensor wide = Session(graph).run(tokens(2, 8, 37, 0)).at("logits");
  const auto distance = [&](const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kFloat) - b.to(at::kFloat)).norm().item<double>();
  };
  CHECK(distance(emulated, native) <= 0.02 * wide.norm().item<double>());
  CHECK(distance(emulated, wide) > 0);  // it does round
  CHECK(distance(gradients[true], gradients[false]) <= 0.05 * gradients[false].norm().item<double>());
}

TEST_CASE("a session with narrow products gives hidden states in that type and norms in the wide one") {
  Session session(tiny_language_model(), {.products = DType::bf16});
  const auto inputs = tokens(1, 8, 37, 0);
  const Graph graph = tiny_language_model();
  const Uses uses(graph);
  bool seen = false;
  for (const Node& node : graph.nodes)
    if (node.op == "RMSNormalization") {
      seen = true;
      session.hook(node.outputs[0], [](const std::string&, const at::Tensor& value) {
        CHECK(value.scalar_type() == at::kFloat);
        return at::Tensor();
      });
    }
  CHECK(seen);
  CHECK(session.run(inputs).at("logits").scalar_type() == at::kBFloat16);
}

TEST_CASE("blocks that run again in the backward pass give the same gradients, with less memory") {
  const LanguageModelShape shape{
      .vocabulary = 37, .width = 64, .heads = 4, .kv_heads = 2, .layers = 6, .hidden = 256, .positions = 64};
  std::map<bool, std::map<std::string, at::Tensor>> gradients;
  std::map<bool, std::int64_t> peaks;
  for (const DType products : {DType::f32, DType::bf16}) {
    for (const bool recompute : {false, true}) {
      Session session(tiny_language_model(shape), {.products = products, .recompute = recompute});
      session.train();
      const auto inputs = tokens(4, 64, 37, 0);
      const auto backward = [&] { causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")).backward(); };
      backward();  // gradients exist before the measure starts
      const MemoryPeak memory;
      backward();
      peaks[recompute] = memory.bytes();
      for (const auto& name : session.trainable()) gradients[recompute][name] = session.parameter(name).grad();
    }
    for (const auto& [name, gradient] : gradients[false]) {
      CAPTURE(name);
      const at::Tensor& again = gradients[true].at(name);
      REQUIRE(gradient.defined() == again.defined());
      // Without gradients a norm is one pass over its rows, with them LibTorch's composite: the last bits differ.
      const double share = products == DType::f32 ? 1e-5 : 2e-2;
      if (gradient.defined()) CHECK((gradient - again).norm().item<double>() <= share * gradient.norm().item<double>());
    }
    CHECK(peaks[true] < peaks[false] / 2);
  }
}

TEST_CASE("narrow gradients are the wide ones to the last bit, in the products' type where only products read") {
  const auto inputs = tokens(2, 16, 37, 0);
  for (const bool recompute : {false, true}) {
    CAPTURE(recompute);
    Session wide(tiny_language_model(), {.products = DType::bf16, .recompute = recompute});
    Session narrow(tiny_language_model(), {.products = DType::bf16, .recompute = recompute});
    wide.train();
    narrow.train();
    narrow.narrow_gradients(true);
    const auto backward = [&](Session& session) {
      causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")).backward();
    };
    std::size_t halved = 0;
    const auto compare = [&] {
      halved = 0;
      for (const auto& name : wide.trainable()) {
        CAPTURE(name);
        const at::Tensor one = wide.gradient(name), other = narrow.gradient(name);
        REQUIRE(one.defined() == other.defined());
        if (!one.defined()) continue;
        CHECK(one.scalar_type() == at::kFloat);
        halved += other.scalar_type() == at::kBFloat16;
        CHECK(other.to(at::kFloat).equal(one));
      }
    };
    backward(wide);
    backward(narrow);
    compare();
    CHECK((recompute || halved > 0));         // stretches that run again give their weights' gradients in the wide type
    CHECK(halved < wide.trainable().size());  // norms' gains are no products'
    // What was cast is cast anew when a parameter has changed.
    for (Session* session : {&wide, &narrow}) {
      session->forget_gradients();
      for (const auto& name : session->trainable()) {
        CHECK_FALSE(session->gradient(name).defined());
        session->set_parameter(name, session->parameter(name).detach() * 0.9);
      }
      backward(*session);
    }
    compare();
  }
}

TEST_CASE("elementwise runs are run again where that keeps fewer values") {
  // 0: gate, 1: up, 2: sigmoid, 3: silu, 4: result, 5: product
  const PlannedStep sigmoid{"Sigmoid", false, {0}, {2}}, silu{"Mul", false, {0, 2}, {3}}, result{"Mul", false, {3, 1}, {4}};
  const PlannedStep product{"MatMul", true, {4}, {5}};
  const std::vector<bool> all(6, true);
  const auto runs = elementwise_runs({product, sigmoid, silu, result, product}, all);
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].begin == 1);
  CHECK(runs[0].end == 4);
  CHECK(elementwise_runs({sigmoid, silu, result}, std::vector<bool>(6, false)).empty());  // no gradients, nothing kept
  CHECK(elementwise_runs({sigmoid, product, silu}, all).empty());                         // none of two operators
  // A sum keeps nothing: to drop it and keep both of its terms would be more, not less.
  const PlannedStep sum{"Add", false, {0, 1}, {2}}, scaled{"Mul", false, {2, 2}, {3}};
  CHECK(elementwise_runs({sum, scaled, product}, all).empty());
  // What is read behind the run is kept anyway.
  const PlannedStep later{"MatMul", true, {3, 2}, {5}};
  CHECK(elementwise_runs({sigmoid, silu, later}, all).empty());
}

TEST_CASE("a gated product keeps its factors alone for the backward pass") {
  const std::int64_t rows = 64, width = 1024, bytes = rows * width * 4;
  Graph graph;
  graph.name = "gated";
  graph.inputs = {{"x", DType::f32, {}}};
  graph.outputs = {{"y", DType::f32, {}}};
  std::uint64_t seed = 5;
  for (const char* name : {"gate", "up"}) graph.initializers[name] = normal({rows, width}, 1, seed);
  graph.nodes = {{"Mul", "", "g", {"x", "gate"}, {"a"}, {}},   {"Mul", "", "u", {"x", "up"}, {"b"}, {}},
                 {"Relu", "", "r1", {"a"}, {"a1"}, {}},        {"Sigmoid", "", "s", {"a1"}, {"s1"}, {}},
                 {"Mul", "", "silu", {"a1", "s1"}, {"m"}, {}}, {"Mul", "", "out", {"m", "b"}, {"y"}, {}}};
  Session session(graph);
  session.train();
  const at::Tensor x = at::ones({rows, width});
  session.run({{"x", x}});  // plans are made once
  const MemoryPeak memory;
  const at::Tensor y = session.run({{"x", x}}).at("y");
  CHECK(memory.held() < 1.1 * bytes);  // the result; operator by operator four more would be kept
  y.sum().backward();
  at::Tensor gate = session.parameter("gate").detach().clone().set_requires_grad(true), up = session.parameter("up").detach();
  const at::Tensor a = at::relu(x * gate);
  (a * at::sigmoid(a) * (x * up)).sum().backward();
  CHECK(session.parameter("gate").grad().allclose(gate.grad(), 1e-5, 1e-6));
}

TEST_CASE("residual networks run again, too, and inner values can still be asked for") {
  const Graph graph = residual_network(8);
  const auto images = to_aten([] {
    std::uint64_t seed = 3;
    return normal({4, 1, 12, 12}, 1, seed);
  }());
  std::vector<std::map<std::string, at::Tensor>> gradients;
  for (const bool recompute : {false, true}) {
    Session session(graph, {.recompute = recompute});
    session.train();
    std::vector<std::string> wanted{"scores"};
    for (const Node& node : graph.nodes)
      if (node.op == "Conv") wanted.push_back(node.outputs[0]);
    const TensorMap values = session.run({{"image", images}}, wanted);
    at::Tensor sum = values.at("scores").square().sum();
    for (const auto& name : wanted) sum = sum + values.at(name).square().mean();
    sum.backward();
    gradients.emplace_back();
    for (const auto& name : session.trainable()) gradients.back()[name] = session.parameter(name).grad();
  }
  for (const auto& [name, gradient] : gradients[0]) {
    CAPTURE(name);
    REQUIRE(gradient.defined() == gradients[1].at(name).defined());
    if (gradient.defined()) CHECK(gradient.allclose(gradients[1].at(name), 1e-6, 1e-7));
  }
}

TEST_CASE("a broken run goes on to the bytes of an unbroken one") {
  const ScratchFolder folder;
  int evaluations = 0;
  const TrainingWatch watch{
      .heldout = [&] { return 3.0 - 0.1 * ++evaluations; }, .scratch = folder.path, .key = "0123456789abcdef0"};
  const TrainingOptions options{.steps = 20, .evaluate_every = 4, .resume_every = 3};
  const Outcome whole = trained({}, options, {.heldout = watch.heldout});
  evaluations = 0;
  CHECK_THROWS_WITH(trained({}, options, watch, 16), ContainsSubstring("broken off"));
  const Outcome resumed = trained({}, options, watch);
  CHECK(resumed.result.resumed_at == 15);
  CHECK(resumed.losses == whole.losses);
  CHECK(resumed.result.tokens == whole.result.tokens);
  CHECK(resumed.result.heldout.size() == 5);
  for (const auto& [name, value] : whole.parameters) CHECK(value.equal(resumed.parameters.at(name)));
  CHECK(std::filesystem::is_empty(folder.path));
}

TEST_CASE("a state that is damaged, of another run or hostile is not read") {
  const ScratchFolder folder;
  const TrainingWatch watch{.scratch = folder.path, .key = "0123456789abcdef0"};
  const auto file = folder.path / "training-0123456789abcdef";
  const TrainingOptions options{.steps = 20, .resume_every = 3};
  const Outcome whole = trained({}, options);
  const auto break_off = [&] {
    CHECK_THROWS_AS(trained({}, options, watch, 16), Error);
    std::ifstream in(file, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  const auto refused = [&](const std::string& bytes, const std::string& key = "0123456789abcdef0") {
    std::ofstream(file, std::ios::binary) << bytes;
    const Outcome again = trained({}, options, {.scratch = folder.path, .key = key});
    CHECK(again.result.resumed_at == 0);
    CHECK(again.losses == whole.losses);
  };
  const auto sealed = [](std::string body) {
    const Digest digest = sha256(body);
    return body.append(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  };
  const std::string good = break_off(), body = good.substr(0, good.size() - 32);
  const std::string magic = body.substr(0, body.find('\n') + 1);
  refused("");
  refused(good.substr(0, good.size() / 2));
  std::string flipped = good;
  flipped[flipped.size() / 2] ^= 1;
  refused(flipped);
  refused(good, "0123456789abcdef1");
  refused(sealed(magic + std::string(8, '\xff') + "{}"));
  refused(sealed(magic + std::string("\2\0\0\0\0\0\0\0", 8) + "{}"));
  refused(sealed(magic + std::string("\2\0\0\0\0\0\0\0", 8) + "[["));
  refused(sealed(body.substr(0, body.size() - 4)));
  std::string steps = body;
  steps.replace(steps.find("\"step\":15"), 9, "\"step\":16");
  refused(sealed(steps));
}

TEST_CASE("training stops when held-out loss rises, and keeps the best parameters") {
  const ScratchFolder folder;
  for (const auto& scratch : {std::filesystem::path(), folder.path}) {
    const std::vector<double> curve{3, 2, 2.5, 2.2, 2.1, 1};
    std::size_t evaluations = 0;
    const TrainingWatch watch{.heldout = [&] { return curve.at(evaluations++); }, .scratch = scratch, .key = "fedcba98765432100"};
    TrainingOptions options{.steps = 30, .evaluate_every = 5, .patience = 3, .keep_best = true};
    const Outcome best = trained({}, options, watch);
    CHECK(best.result.stopped_early);
    CHECK(best.losses.size() == 25);
    CHECK(best.result.best_step == 10);
    CHECK(best.result.heldout_after == 2.0);
    TrainingOptions ten{.steps = 30};
    int step = 0;
    // The same schedule, looked at after ten steps.
    Session session(tiny_language_model());
    session.train();
    ten.learning_rate = 1e-2;
    ten.warmup = 2;
    std::map<std::string, at::Tensor> after_ten;
    train_loop(
        session, ten,
        [&](std::int64_t at, std::int64_t) {
          if (step++ == 10)
            for (const auto& name : session.trainable()) after_ten[name] = session.parameter(name).detach().clone();
          return tokens(2, 16, 37, at % 4);
        },
        [&](const TensorMap& inputs) { return causal_cross_entropy(session.run(inputs).at("logits"), inputs.at("input_ids")); },
        nullptr);
    for (const auto& [name, value] : best.parameters) CHECK(value.equal(after_ten.at(name)));
  }
  CHECK_THROWS_WITH(trained({}, {.steps = 3, .patience = 2}), ContainsSubstring("patience needs held-out evaluations"));
  CHECK_THROWS_WITH(trained({}, {.steps = 3, .keep_best = true}), ContainsSubstring("keep = \"best\""));
  CHECK_THROWS_WITH(trained({}, {.steps = 3, .evaluate_every = 2}), ContainsSubstring("nothing to evaluate on"));
}
