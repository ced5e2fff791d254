#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <fstream>

#include "deploy/tiny.h"
#include "run/arrays.h"
#include "run/dataset.h"
#include "run/models.h"
#include "sdk/error.h"
#include "sdk/statistics.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Approx;

namespace {

/// The protocol, written out: exp of the mean cross-entropy of tokens 1 … of each window, each counted once.
double naive_perplexity(LanguageModel& model, std::span<const std::int32_t> tokens, std::int64_t window, std::int64_t stride) {
  double sum = 0;
  std::int64_t counted = 0, reached = 0;
  for (std::int64_t begin = 0; begin + window <= static_cast<std::int64_t>(tokens.size()); begin += stride) {
    std::vector<std::int64_t> fed(tokens.begin() + begin, tokens.begin() + begin + window);
    model.reset();
    const at::Tensor log_p = at::log_softmax(model.feed(fed, true).to(at::kDouble), 1);
    for (std::int64_t i = 1; i < window; ++i) {
      if (begin + i < reached) continue;
      sum -= log_p[i - 1][fed[static_cast<std::size_t>(i)]].item<double>();
      ++counted;
    }
    reached = begin + window;
  }
  return std::exp(sum / static_cast<double>(counted));
}

bool refused(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    INFO(error.what());
    return exit_code(error.code()) == 2;
  }
  return false;
}

}  // namespace

TEST_CASE("perplexity follows the protocol, for the model and for its packages") {
  Tiny& tiny = Tiny::get();
  const TokenDataset data(tiny.workshop.context(), tiny.heldout);
  REQUIRE(data.sequence() == 48);
  REQUIRE(data.count() >= 3);
  const auto own = language_model(tiny.graph(tiny.model), {2, false});
  const double expected = naive_perplexity(*own, data.tokens(), 48, 48);

  const Outcome of_model = tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", tiny.heldout}});
  CHECK(of_model.figures.at("perplexity") == Approx(expected).epsilon(1e-6));
  CHECK(of_model.figures.at("nll") == Approx(std::log(expected)).epsilon(1e-6));
  CHECK(of_model.figures.at("tokens") == static_cast<double>(47 * data.count()));
  CHECK(of_model.details.at("samples.nll").size() == static_cast<std::size_t>(data.count()));
  for (const char* backend : {"backend/openvino", "backend/libtorch", "backend/onnxruntime", "backend/torchscript"}) {
    const Outcome of_package =
        tiny.workshop.run("evaluator/perplexity", {{"package", tiny.package(backend, tiny.model)}, {"data", tiny.heldout}});
    INFO(backend);
    CHECK(of_package.figures.at("perplexity") == Approx(expected).epsilon(1e-5));
  }
  const Outcome of_int8 = tiny.workshop.run(
      "evaluator/perplexity", {{"package", tiny.package("backend/openvino", tiny.quantized())}, {"data", tiny.heldout}});
  CHECK(of_int8.figures.at("perplexity") == Approx(expected).epsilon(0.05));
}

TEST_CASE("where data is examples, each is measured alone, by its tokens that count") {
  Tiny& tiny = Tiny::get();
  const auto file = tiny.workshop.folder() / "chats.jsonl";
  std::ofstream(file) << R"({"messages": [{"role": "user", "content": "the red"}, {"role": "assistant", "content": "fox"}]})"
                      << "\n"
                      << R"({"messages": [{"role": "user", "content": "so"}]})"
                      << "\n"
                      << R"({"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "?"},)"
                      << R"( {"role": "assistant", "content": "the cat"}, {"role": "user", "content": "and"}]})"
                      << "\n";
  const auto source = [&](const Json& more) {
    Json params{{"files", {file.string()}}, {"sequence", 64}, {"turn", "{role} {content}<|end|>\n"}};
    params.update(more);
    return tiny.workshop.run("source/jsonl", {{"tokenizer", tiny.tokenizer}}, params).outputs.at("data");
  };
  const Artifact chats = source(Json::object());
  const TokenDataset data(tiny.workshop.context(), chats);
  REQUIRE(data.count() == 2);
  const Artifact int8 = tiny.quantized();
  const auto original = language_model(tiny.graph(tiny.model), {2, false}),
             candidate = language_model(tiny.graph(int8), {2, false});
  double nll = 0, kl = 0, counted = 0;
  for (std::int64_t w = 0; w < data.count(); ++w) {
    std::vector<std::int64_t> fed;
    std::vector<std::int64_t> asked;
    for (std::int64_t i = 0; i < 64; ++i) {
      const auto at = static_cast<std::size_t>(64 * w + i);
      if (!(data.flags()[at] & TokenFlag::real)) break;
      fed.push_back(data.tokens()[at]);
      if (data.flags()[at] & TokenFlag::counted) asked.push_back(i);
    }
    original->reset();
    candidate->reset();
    const at::Tensor p = at::log_softmax(original->feed(fed, true).to(at::kDouble), 1),
                     q = at::log_softmax(candidate->feed(fed, true).to(at::kDouble), 1);
    for (const std::int64_t i : asked) {
      nll -= p[i - 1][fed[static_cast<std::size_t>(i)]].item<double>();
      kl += (p[i - 1].exp() * (p[i - 1] - q[i - 1])).sum().item<double>();
    }
    counted += static_cast<double>(asked.size());
  }
  CHECK(counted == 3 + 1 + 1 + 1 + 7 + 1);  // what the assistant says, and its ends
  const Outcome made = tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", chats}});
  CHECK(made.figures.at("nll") == Approx(nll / counted).epsilon(1e-6));
  CHECK(made.figures.at("tokens") == counted);
  CHECK(made.details.at("samples.tokens") == Json({4.0, 10.0}));
  for (const char* backend : {"backend/openvino", "backend/onnxruntime"}) {
    INFO(backend);
    const Outcome deployed =
        tiny.workshop.run("evaluator/perplexity", {{"package", tiny.package(backend, tiny.model)}, {"data", chats}});
    CHECK(deployed.figures.at("nll") == Approx(nll / counted).epsilon(1e-5));
  }
  const Outcome agreement = tiny.workshop.run("evaluator/agreement", {{"model", int8}, {"original", tiny.model}, {"data", chats}});
  CHECK(agreement.figures.at("kl") == Approx(kl / counted).epsilon(1e-5));
  CHECK(agreement.figures.at("tokens") == counted);

  // Longer padding changes nothing, and one window may be asked for; windows of another cut are refused.
  const Outcome longer = tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", source({{"sequence", 200}})}});
  CHECK(longer.figures.at("nll") == made.figures.at("nll"));
  const Outcome one = tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", chats}}, {{"limit", 1}});
  CHECK(one.figures.at("tokens") == 4);
  for (const char* name : {"window", "stride"})
    CHECK(refused([&] { tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", chats}}, {{name, 32}}); }));
}

TEST_CASE("quality has an interval over windows, and keeps what it was made of") {
  Tiny& tiny = Tiny::get();
  const Outcome made = tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", tiny.heldout}});
  const Samples samples{made.details.at("samples.nll"), made.details.at("samples.tokens")};
  REQUIRE(samples.values.size() >= 3);
  CHECK(std::exp(samples.mean()) == Approx(made.figures.at("perplexity")));
  const auto interval = bootstrap_mean(samples);
  CHECK(made.figures.at("perplexity_low") == Approx(std::exp(interval->low)));
  CHECK(made.figures.at("perplexity_high") == Approx(std::exp(interval->high)));
  CHECK(made.figures.at("perplexity_low") < made.figures.at("perplexity"));
  CHECK(made.figures.at("perplexity_high") > made.figures.at("perplexity"));
  const Outcome one = tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", tiny.heldout}}, {{"limit", 1}});
  CHECK(one.figures.contains("perplexity"));
  CHECK_FALSE(one.figures.contains("perplexity_low"));  // one window says nothing about its spread
}

TEST_CASE("agreement is the divergence and the common favourites, position by position") {
  Tiny& tiny = Tiny::get();
  const TokenDataset data(tiny.workshop.context(), tiny.heldout);
  const Artifact int8 = tiny.quantized();
  const auto original = language_model(tiny.graph(tiny.model), {2, false}),
             candidate = language_model(tiny.graph(int8), {2, false});
  double kl = 0, same = 0, counted = 0;
  for (std::int64_t w = 0; w < data.count(); ++w) {
    const auto tokens = data.tokens().subspan(static_cast<std::size_t>(48 * w), 48);
    const std::vector<std::int64_t> fed(tokens.begin(), tokens.end());
    original->reset();
    candidate->reset();
    const at::Tensor p = at::log_softmax(original->feed(fed, true).to(at::kDouble), 1).contiguous(),
                     q = at::log_softmax(candidate->feed(fed, true).to(at::kDouble), 1).contiguous();
    for (std::int64_t i = 0; i < 47; ++i, ++counted) {
      const double *a = p.const_data_ptr<double>() + i * 257, *b = q.const_data_ptr<double>() + i * 257;
      for (int t = 0; t < 257; ++t) kl += std::exp(a[t]) * (a[t] - b[t]);
      same += std::max_element(a, a + 257) - a == std::max_element(b, b + 257) - b;
    }
  }
  const Outcome made =
      tiny.workshop.run("evaluator/agreement", {{"model", int8}, {"original", tiny.model}, {"data", tiny.heldout}});
  CHECK(made.figures.at("kl") == Approx(kl / counted).epsilon(1e-6));
  CHECK(made.figures.at("top1_agreement") == Approx(same / counted).epsilon(1e-9));
  CHECK(made.figures.at("tokens") == counted);
  CHECK(made.figures.at("kl") > 0);
  CHECK(made.figures.at("kl_low") < made.figures.at("kl"));
  CHECK(made.figures.at("kl_high") > made.figures.at("kl"));
  CHECK(made.figures.contains("top1_agreement_low"));
  CHECK(made.details.at("samples.kl").size() == static_cast<std::size_t>(data.count()));

  const Outcome deployed =
      tiny.workshop.run("evaluator/agreement", {{"package", tiny.package("backend/libtorch", int8)},
                                                {"original_package", tiny.package("backend/libtorch", tiny.model)},
                                                {"data", tiny.heldout}});
  CHECK(deployed.figures.at("kl") == Approx(made.figures.at("kl")).epsilon(1e-3));
  const Outcome itself =
      tiny.workshop.run("evaluator/agreement", {{"model", tiny.model}, {"original", tiny.model}, {"data", tiny.heldout}});
  CHECK(itself.figures.at("kl") == 0);
  CHECK(itself.figures.at("top1_agreement") == 1);
  // The direction counts: KL(original‖candidate).
  const Outcome turned =
      tiny.workshop.run("evaluator/agreement", {{"model", tiny.model}, {"original", int8}, {"data", tiny.heldout}});
  CHECK(turned.figures.at("kl") != made.figures.at("kl"));

  CHECK(refused([&] { tiny.workshop.run("evaluator/agreement", {{"model", int8}, {"data", tiny.heldout}}); }));
  Artifact foreign = int8;
  foreign.meta["tokenizer"] = std::string(64, '0');
  CHECK(refused([&] {
    tiny.workshop.run("evaluator/agreement", {{"model", foreign}, {"original", tiny.model}, {"data", tiny.heldout}});
  }));
}

TEST_CASE("windows, stride and limit of perplexity") {
  Tiny& tiny = Tiny::get();
  const TokenDataset data(tiny.workshop.context(), tiny.heldout);
  const auto own = language_model(tiny.graph(tiny.model), {2, false});
  const auto run = [&](const Json& params) {
    return tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", tiny.heldout}}, params);
  };
  const Outcome overlapping = run({{"window", 32}, {"stride", 16}});
  CHECK(overlapping.figures.at("perplexity") == Approx(naive_perplexity(*own, data.tokens(), 32, 16)).epsilon(1e-6));
  const Outcome two = run({{"limit", 2}});
  CHECK(two.figures.at("tokens") == 94);
  CHECK(two.figures.at("perplexity") == Approx(naive_perplexity(*own, data.tokens().first(96), 48, 48)).epsilon(1e-6));
  const Outcome marked = run({{"limit", 2}, {"bos", 256}});
  CHECK(marked.figures.at("tokens") == 94);
  CHECK(marked.figures.at("perplexity") != two.figures.at("perplexity"));
  CHECK(refused([&] { run({{"window", 32}, {"stride", 33}}); }));
  CHECK(refused([&] { run({{"window", 1 << 20}}); }));
}

TEST_CASE("accuracy of a package is that of the model, in every runtime, alone and against a baseline") {
  Tiny& tiny = Tiny::get();
  Context& context = tiny.workshop.context();
  constexpr std::int64_t count = 70;  // a whole batch and a part of one
  const Graph graph = residual_network(8), other = residual_network(8, 2);
  std::uint64_t seed = 5;
  const Tensor images = normal({count, 1, 12, 12}, 1, seed);
  const auto answers = [&](const Graph& of) {
    const auto model = deployed_model(of, {2, false});
    const at::Tensor best = at::argmax(model->run({{"image", to_aten(images)}}).at("scores"), 1);
    return std::vector<std::int64_t>(best.const_data_ptr<std::int64_t>(), best.const_data_ptr<std::int64_t>() + count);
  };
  // Labels: what the model says, but for every fifth example.
  std::vector<std::int64_t> labels = answers(graph);
  const std::vector<std::int64_t> others = answers(other);
  for (std::size_t i = 0; i < labels.size(); i += 5) labels[i] = (labels[i] + 1) % 4;
  double same = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) same += others[i] == labels[i] ? 1 : 0;
  REQUIRE(same < 56);
  const Artifact data = save_arrays(context, {{"image", images}, {"labels", Tensor::of(DType::i64, {count}, labels)}}, {});
  const auto save = [&](const Graph& of) {
    Artifact model = save_model(context, of);
    model.meta["task"] = "image-classification";
    return model;
  };

  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  INFO(backend);
  const Artifact package = tiny.package(backend, save(graph)), baseline = tiny.package(backend, save(other));
  const Outcome alone = tiny.workshop.run("evaluator/accuracy", {{"package", package}, {"data", data}});
  CHECK(alone.figures.at("examples") == count);
  CHECK(alone.figures.at("accuracy") == Approx(56.0 / 70));
  std::vector<double> right;
  for (std::size_t i = 0; i < labels.size(); ++i) right.push_back(i % 5 == 0 ? 0 : 1);
  CHECK(alone.details.at("samples.correct").get<std::vector<double>>() == right);
  const Outcome pair = tiny.workshop.run("evaluator/accuracy",
                                         {{"package", package}, {"baseline_package", baseline}, {"data", data}}, {{"batch", 16}});
  CHECK(pair.figures.at("accuracy_baseline") == Approx(same / 70));
  CHECK(pair.figures.at("accuracy_drop_points") == Approx(100 * (same - 56) / 70));
  CHECK(pair.figures.at("accuracy_drop_points_high") < 0);
  // A package beside a model, too.
  const Outcome mixed = tiny.workshop.run("evaluator/accuracy", {{"package", package}, {"baseline", save(graph)}, {"data", data}});
  CHECK(mixed.figures.at("accuracy_drop_points") == 0);
  CHECK(refused([&] { tiny.workshop.run("evaluator/accuracy", {{"package", package}, {"model", save(graph)}, {"data", data}}); }));
}

TEST_CASE("an evaluator wants one subject, and data of the subject's tokenizer") {
  Tiny& tiny = Tiny::get();
  const Artifact package = tiny.package("backend/libtorch", tiny.model);
  for (const char* name : {"evaluator/perplexity", "evaluator/size"}) {
    Workshop::Inputs inputs;
    if (std::string(name) == "evaluator/perplexity") inputs["data"] = tiny.heldout;
    CHECK(refused([&] { tiny.workshop.run(name, inputs); }));
    inputs["model"] = tiny.model;
    inputs["package"] = package;
    CHECK(refused([&] { tiny.workshop.run(name, inputs); }));
  }
  Artifact other = tiny.heldout;
  other.meta["tokenizer"] = std::string(64, '0');
  CHECK(refused([&] { tiny.workshop.run("evaluator/perplexity", {{"model", tiny.model}, {"data", other}}); }));
  CHECK(refused([&] { tiny.workshop.run("evaluator/perplexity", {{"package", package}, {"data", other}}); }));
}

TEST_CASE("size tells exact figures") {
  Tiny& tiny = Tiny::get();
  const Artifact package = tiny.package("backend/openvino", tiny.model);
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(tiny.workshop.lay_out(package))) bytes += entry.file_size();
  const Outcome of_package = tiny.workshop.run("evaluator/size", {{"package", package}});
  const Outcome of_model = tiny.workshop.run("evaluator/size", {{"model", tiny.model}});
  CHECK(of_package.figures.at("size_bytes") == static_cast<double>(bytes));

  // hidden 32, 4 heads over 2 of size 8, FFN 64, 257 tokens, 2 layers, 5 norms; rotary tables are no parameters
  const double projections = 2 * (32 * 32 + 32 * 16 * 2 + 32 * 32 + 3 * 32 * 64), head = 32 * 257;
  CHECK(of_model.figures.at("parameters") == projections + head + 5 * 32);
  CHECK(of_package.figures.at("parameters") == of_model.figures.at("parameters"));
  // One token attends to itself: a product with its key and one with its value, in each head.
  const double attention = 2 * (2 * 4 * 8);
  CHECK(of_model.figures.at("macs") >= projections + head);
  CHECK(of_model.figures.at("macs") <= 1.02 * (projections + head + attention));
  CHECK(of_package.figures.at("macs") == Approx(of_model.figures.at("macs")).epsilon(0.01));
}

TEST_CASE("sparsity counts the zeros of weights, quantized ones too") {
  Tiny& tiny = Tiny::get();
  Graph graph = tiny.graph(tiny.model);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  std::vector<float> values;
  for (const float v : graph.initializers.at(name).as<float>()) values.push_back(v);
  std::fill_n(values.begin(), 1000, 0.0f);
  values[1000] = -0.0f;
  graph.initializers[name] = Tensor::of(DType::f32, {64, 32}, values);
  const double before = tiny.workshop.run("evaluator/size", {{"model", tiny.model}}).figures.at("sparsity");
  const double all = static_cast<double>(graph.parameter_count());
  const Artifact holed = save_model(tiny.workshop.context(), graph);
  CHECK(tiny.workshop.run("evaluator/size", {{"model", holed}}).figures.at("sparsity") ==
        Approx(before + 1001 / all).epsilon(1e-9));

  const Artifact int8 = tiny.workshop.run("quantizer/rtn", {{"model", holed}}).outputs.at("model");
  CHECK(tiny.workshop.run("evaluator/size", {{"model", int8}}).figures.at("sparsity") > 1001 / (1.2 * all));
}

TEST_CASE("latency keeps its raw samples and tells what follows from them") {
  Tiny& tiny = Tiny::get();
  const Artifact package = tiny.package("backend/openvino", tiny.quantized()),
                 baseline = tiny.package("backend/openvino", tiny.model);
  const Outcome made = tiny.workshop.run("evaluator/latency", {{"package", package}, {"baseline", baseline}},
                                         {{"prompt", 20}, {"decode", 30}, {"samples", 3}, {"warmup", 1}});
  const auto numbers = [&](const char* name) { return made.details.at(name).get<std::vector<double>>(); };
  CHECK(numbers("samples.prefill_ms").size() == 3);
  CHECK(numbers("samples.decode_ms").size() == 90);
  CHECK(numbers("samples.baseline_decode_ms").size() == 90);
  const auto own = numbers("samples.total_ms"), other = numbers("samples.baseline_total_ms");
  REQUIRE(own.size() == 3);
  REQUIRE(other.size() == 3);
  std::vector<double> ratios;
  for (std::size_t i = 0; i < 3; ++i) ratios.push_back(other[i] / own[i]);
  std::sort(ratios.begin(), ratios.end());
  CHECK(made.figures.at("speedup") == Approx(ratios[1]));
  CHECK(made.figures.at("latency_samples") == 90);
  for (const char* name : {"latency_p50_ms", "latency_p95_ms", "latency_p99_ms"}) CHECK_FALSE(made.figures.contains(name));
  CHECK(std::any_of(made.log.begin(), made.log.end(),
                    [](const std::string& line) { return line.find("90 samples of latency are too few") != std::string::npos; }));
  for (const char* name :
       {"prefill_tokens_per_second", "decode_tokens_per_second", "startup_ms", "peak_rss_bytes", "speedup_prefill",
        "speedup_decode", "peak_rss_opening_bytes", "peak_rss_prompt_bytes", "peak_rss_decode_bytes"}) {
    INFO(name);
    CHECK(made.figures.at(name) > 0);
  }
  CHECK(made.figures.at("peak_rss_bytes") >=
        std::max({made.figures.at("peak_rss_opening_bytes"), made.figures.at("peak_rss_prompt_bytes"),
                  made.figures.at("peak_rss_decode_bytes")}));
  // The last third of the rounds against the first, both packages together.
  CHECK(made.figures.at("drift") == Approx((own[2] + other[2]) / (own[0] + other[0]) - 1));
  CHECK(made.details.at("machine").at("rows").size() >= 3);
  CHECK(made.details.at("memory").at("rows").size() == 2);
  CHECK(made.figures.at("size_bytes") == package.meta.at("size_bytes").get<double>());

  const Outcome alone = tiny.workshop.run("evaluator/latency", {{"package", package}},
                                          {{"prompt", 4}, {"decode", 50}, {"samples", 2}, {"warmup", 0}});
  auto steps = alone.details.at("samples.decode_ms").get<std::vector<double>>();
  std::sort(steps.begin(), steps.end());
  REQUIRE(steps.size() == 100);
  CHECK(alone.figures.at("latency_p50_ms") == Approx(steps[49]));
  CHECK(alone.figures.at("latency_p95_ms") == Approx(steps[94]));
  CHECK(alone.figures.at("latency_p99_ms") == Approx(steps[98]));
  CHECK(alone.figures.at("latency_p99_ms") >= alone.figures.at("latency_p95_ms"));
  CHECK_FALSE(alone.figures.contains("speedup"));
  // More tokens than the model has positions: the error of the process that runs the package arrives here.
  CHECK(refused([&] { tiny.workshop.run("evaluator/latency", {{"package", package}}, {{"prompt", 60}, {"decode", 10}}); }));
}

// In a process of its own: threads that other cases started do not survive the fork of a package's process. Stages have none.
TEST_CASE("latency of a model that is no language model is the time of its runs", "[.own-process]") {
  Tiny& tiny = Tiny::get();
  const Graph graph = residual_network(8);
  Artifact model = save_model(tiny.workshop.context(), graph);
  model.meta["task"] = "image-classification";
  const Artifact package = tiny.package("backend/libtorch", model);
  const auto run = [&](const Json& params) {
    return tiny.workshop.run("evaluator/latency", {{"package", package}, {"baseline", package}}, params);
  };
  const Outcome made = run(Json::object());  // 100 runs of each
  CHECK(made.details.at("samples.total_ms").size() == 100);
  CHECK(made.details.at("samples.baseline_total_ms").size() == 100);
  for (const char* name : {"latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "speedup", "speedup_low", "speedup_high",
                           "startup_ms", "peak_rss_run_bytes"})
    CHECK(made.figures.at(name) > 0);
  CHECK(made.figures.at("speedup_low") <= made.figures.at("speedup"));
  CHECK_FALSE(made.figures.contains("prefill_tokens_per_second"));
  CHECK_FALSE(made.figures.contains("peak_rss_decode_bytes"));
  CHECK(refused([&] { run({{"dimensions", {{graph.inputs[0].shape[0].text(), 0.5}}}}); }));
  const Outcome batch = run({{"dimensions", {{graph.inputs[0].shape[0].text(), 64}}}, {"samples", 3}});
  CHECK(batch.details.at("samples.total_ms").size() == 3);
  CHECK_FALSE(batch.figures.contains("latency_p50_ms"));
}

TEST_CASE("a profile's nodes add up to no more than the run, by operator and by layer alike") {
  Tiny& tiny = Tiny::get();
  const Outcome made =
      tiny.workshop.run("evaluator/profile", {{"model", tiny.model}}, {{"tokens", 32}, {"repetitions", 3}, {"warmup", 1}});
  CHECK(made.figures.at("nodes_ms") > 0);
  CHECK(made.figures.at("nodes_ms") <= made.figures.at("run_ms"));
  CHECK(made.figures.at("covered") == Approx(made.figures.at("nodes_ms") / made.figures.at("run_ms")));
  const auto runs = made.details.at("samples.run_ms").get<std::vector<double>>(),
             nodes = made.details.at("samples.nodes_ms").get<std::vector<double>>();
  REQUIRE(runs.size() == 3);
  REQUIRE(nodes.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(nodes[i] <= runs[i]);
  const Graph graph = tiny.graph(tiny.model);
  for (const char* name : {"operators", "layers", "flame.time"}) {
    INFO(name);
    const Json& table = made.details.at(name);
    const std::size_t keys = table.at("columns").size() - 3;
    double milliseconds = 0, share = 0, last = 1e300;
    for (const Json& row : table.at("rows")) {
      milliseconds += row[keys + 1].get<double>();
      share += row[keys + 2].get<double>();
      if (std::string(name) != "flame.time") CHECK(row[keys + 1].get<double>() <= last);
      last = row[keys + 1].get<double>();
    }
    CHECK(milliseconds == Approx(made.figures.at("nodes_ms")));
    CHECK(share == Approx(100));
  }
  const auto row_of = [&](const char* table, const std::string& key) {
    for (const Json& row : made.details.at(table).at("rows"))
      if (row[0] == key) return row;
    FAIL(key << " is not in " << made.details.at(table).dump());
    throw 0;
  };
  std::int64_t products = 0;
  for (const Node& node : graph.nodes) products += node.op == "MatMul";
  CHECK(row_of("operators", "MatMul")[1] == products);
  CHECK(row_of("layers", "model.layers.1")[1].get<std::int64_t>() > 5);

  Artifact model = save_model(tiny.workshop.context(), residual_network(8));
  CHECK(tiny.workshop.run("evaluator/profile", {{"model", model}}).figures.at("nodes_ms") > 0);
  CHECK(refused([&] { tiny.workshop.run("evaluator/profile", {{"model", tiny.model}}, {{"dimensions", {{"sequence", -3}}}}); }));
}
