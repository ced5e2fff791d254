#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>

#include "deploy/tiny.h"
#include "run/dataset.h"
#include "sdk/error.h"

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
  for (const char* backend : {"backend/openvino", "backend/libtorch"}) {
    const Outcome of_package =
        tiny.workshop.run("evaluator/perplexity", {{"package", tiny.package(backend, tiny.model)}, {"data", tiny.heldout}});
    INFO(backend);
    CHECK(of_package.figures.at("perplexity") == Approx(expected).epsilon(1e-5));
  }
  const Outcome of_int8 = tiny.workshop.run(
      "evaluator/perplexity", {{"package", tiny.package("backend/openvino", tiny.quantized())}, {"data", tiny.heldout}});
  CHECK(of_int8.figures.at("perplexity") == Approx(expected).epsilon(0.05));
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
  auto steps = numbers("samples.decode_ms");
  std::sort(steps.begin(), steps.end());
  CHECK(made.figures.at("latency_p50_ms") == Approx(steps[44]));
  CHECK(made.figures.at("latency_p95_ms") == Approx(steps[85]));
  CHECK_FALSE(made.figures.contains("latency_p99_ms"));
  for (const char* name : {"prefill_tokens_per_second", "decode_tokens_per_second", "startup_ms", "peak_rss_bytes",
                           "speedup_prefill", "speedup_decode"}) {
    INFO(name);
    CHECK(made.figures.at(name) > 0);
  }
  CHECK(made.figures.at("size_bytes") == package.meta.at("size_bytes").get<double>());

  const Outcome alone = tiny.workshop.run("evaluator/latency", {{"package", package}},
                                          {{"prompt", 4}, {"decode", 50}, {"samples", 2}, {"warmup", 0}});
  CHECK(alone.figures.at("latency_p99_ms") >= alone.figures.at("latency_p95_ms"));
  CHECK_FALSE(alone.figures.contains("speedup"));
  // More tokens than the model has positions: the error of the process that runs the package arrives here.
  CHECK(refused([&] { tiny.workshop.run("evaluator/latency", {{"package", package}}, {{"prompt", 60}, {"decode", 10}}); }));
}
