// What surgery and the causal rewrites write is valid ONNX and means the same to other runtimes.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch_test_macros.hpp>
#include <numeric>

#include "../graph/models.h"
#include "graph/causal.h"
#include "graph/op.h"
#include "graph/surgery.h"
#include "running.h"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Every group loses a share of its units.
Graph cut_all(const Graph& graph, double share) {
  const auto groups = coupled_groups(graph, infer(graph));
  Removal removal;
  for (const auto& group : groups) {
    if (group.pinned || !group.exact) continue;
    const auto count = static_cast<double>(group.units.size());
    std::vector<std::int64_t> units(static_cast<std::size_t>(std::max(1.0, share * count)));
    std::iota(units.begin(), units.end(), 0);
    if (units.size() < group.units.size()) removal[group.id] = units;
  }
  return cut(graph, groups, removal);
}

/// One step of a model with a cache: tokens [begin, end) after the cache of `past`.
TensorMap step_inputs(const Graph& cached, const TensorMap& whole, std::int64_t begin, std::int64_t end, const TensorMap& past) {
  TensorMap inputs{{"input_ids", whole.at("input_ids").slice(1, begin, end).contiguous()},
                   {"attention_mask", whole.at("attention_mask").slice(1, 0, end).contiguous()},
                   {"position_ids", whole.at("position_ids").slice(1, begin, end).contiguous()}};
  const auto batch = whole.at("input_ids").size(0);
  for (const auto& value : cached.inputs) {
    if (value.name.rfind("past_key_values.", 0) != 0) continue;
    const auto present = past.find("present" + value.name.substr(15));
    inputs[value.name] =
        present != past.end() ? present->second : at::zeros({batch, value.shape[1].value(), 0, value.shape[3].value()});
  }
  return inputs;
}

}  // namespace

TEST_CASE("cut files pass the checker and run in ONNX Runtime and OpenVINO") {
  TemporaryFolder folder;
  write_case(folder.path() / "language_model", language_model(21), language_inputs(2, 7, 50, 1));
  write_case(folder.path() / "residual_cnn", residual_cnn(22), image_inputs(2, 2));
  for (const double share : {0.2, 0.5}) {
    const auto suffix = share < 0.3 ? "_20" : "_50";
    write_case(folder.path() / (std::string("language_model") + suffix), cut_all(language_model(21), share),
               language_inputs(2, 7, 50, 1));
    write_case(folder.path() / (std::string("residual_cnn") + suffix), cut_all(residual_cnn(22), share), image_inputs(2, 2));
  }
  CHECK(check_with_runtimes(folder.path()) == 0);
}

TEST_CASE("a cache gives what the whole sequence gives, in every runtime") {
  TemporaryFolder folder;
  const auto graph = cut_all(language_model(23), 0.3);
  const auto cached = with_kv_cache(graph);
  auto whole = language_inputs(2, 9, 50, 3);
  const auto expected = Session(graph).run(whole).at("logits");
  Session session(cached);
  TensorMap past;
  int number = 0;
  // An empty past, several tokens after a past, one token after a past.
  for (const auto& [begin, end] : std::vector<std::pair<int, int>>{{0, 4}, {4, 8}, {8, 9}}) {
    const auto inputs = step_inputs(cached, whole, begin, end, past);
    write_case(folder.path() / ("step_" + std::to_string(number++)), cached, inputs);
    past = session.run(inputs);
    CHECK(difference(expected.slice(1, begin, end), past.at("logits")) < 1e-4);
  }
  const auto shapes = cache_shapes(graph);
  REQUIRE(shapes.size() == 4);
  for (std::size_t n = 0; n < shapes.size(); ++n) {
    const auto key = past.at("present." + std::to_string(n) + ".key");
    CHECK(key.sizes() == at::IntArrayRef({2, shapes[n].kv_heads, 9, shapes[n].head_size}));
    CHECK(cache_shapes(cached)[n].kv_heads == shapes[n].kv_heads);
  }
  CHECK(check_with_runtimes(folder.path()) == 0);
}

TEST_CASE("padding in front is not attended through a cache") {
  const auto graph = language_model(24);
  const auto cached = with_kv_cache(graph);
  auto plain = language_inputs(1, 6, 50, 4);
  const auto expected = Session(graph).run(plain).at("logits");
  // The same tokens after one padded position; the padded one sees itself only, so nothing else may see it.
  TensorMap padded{{"input_ids", at::cat({at::ones({1, 1}, at::kLong), plain.at("input_ids")}, 1)},
                   {"attention_mask", at::cat({at::ones({1, 1}, at::kLong), plain.at("attention_mask")}, 1)},
                   {"position_ids", at::cat({at::zeros({1, 1}, at::kLong), plain.at("position_ids")}, 1)}};
  Session session(cached);
  const auto first = session.run(step_inputs(cached, padded, 0, 1, {}));
  padded["attention_mask"] = at::cat({at::zeros({1, 1}, at::kLong), plain.at("attention_mask")}, 1);
  const auto rest = session.run(step_inputs(cached, padded, 1, 7, first));
  CHECK(difference(expected, rest.at("logits")) < 1e-4);
}

TEST_CASE("the last position alone gives the last row of the logits, in every runtime") {
  TemporaryFolder folder;
  const auto graph = language_model(25);
  const auto last = last_position_only(graph);
  const auto inputs = language_inputs(2, 5, 50, 5);
  const auto expected = Session(graph).run(inputs).at("logits").slice(1, 4, 5);
  const auto got = Session(last).run(inputs).at("logits");
  CHECK(difference(expected, got) < 1e-5);
  write_case(folder.path() / "last", last, inputs);
  write_case(folder.path() / "last_cached", last_position_only(with_kv_cache(graph)),
             step_inputs(with_kv_cache(graph), inputs, 0, 5, {}));
  CHECK(check_with_runtimes(folder.path()) == 0);
}
