#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <catch2/catch_test_macros.hpp>
#include <numeric>
#include <set>

#include "graph/causal.h"
#include "models.h"
#include "run/cache.h"
#include "run/runtime.h"
#include "run/session.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;

namespace {

at::Tensor recompute(Session& session, const std::vector<std::int64_t>& ids) {
  const auto n = static_cast<std::int64_t>(ids.size());
  return session
      .run({{"input_ids", at::tensor(ids, at::kLong).unsqueeze(0)},
            {"attention_mask", at::ones({1, n}, at::kLong)},
            {"position_ids", at::arange(n, at::kLong).unsqueeze(0)}})
      .at("logits")[0];
}

}  // namespace

TEST_CASE("a cached language model gives the logits of the whole, however it is fed") {
  const LanguageModelShape shape{.positions = 640};
  const Graph graph = tiny_language_model(shape);
  Session session(graph);
  std::vector<std::int64_t> ids(600);  // past two doublings of the cache
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i * i % 37);
  const at::Tensor expected = recompute(session, ids);
  for (const bool last_only : {false, true}) {
    const auto model = language_model(graph, {.threads = 2, .last_only = last_only});
    std::size_t fed = 0;
    for (const std::size_t count : {7, 1, 1, 250, 1, 300, 40}) {
      const bool all = !last_only && count % 2 == 0;
      const at::Tensor got = model->feed(std::span(ids).subspan(fed, count), all);
      fed += count;
      const auto rows = static_cast<std::int64_t>(all ? count : 1), end = static_cast<std::int64_t>(fed);
      REQUIRE(got.sizes() == at::IntArrayRef({rows, shape.vocabulary}));
      CHECK(got.allclose(expected.slice(0, end - rows, end), 1e-4, 1e-5));
      CHECK(model->position() == end);
    }
    model->reset();
    CHECK(model->position() == 0);
    CHECK(model->feed(std::span(ids).first(5), false)[0].allclose(expected[4], 1e-4, 1e-5));
  }
}

TEST_CASE("padding on the left changes nothing for the tokens behind it") {
  Session session(tiny_language_model());
  const at::Tensor plain = recompute(session, {3, 1, 4});
  const at::Tensor padded = session
                                .run({{"input_ids", at::tensor({0, 0, 3, 1, 4}, at::kLong).unsqueeze(0)},
                                      {"attention_mask", at::tensor({0, 0, 1, 1, 1}, at::kLong).unsqueeze(0)},
                                      {"position_ids", at::tensor({0, 0, 0, 1, 2}, at::kLong).unsqueeze(0)}})
                                .at("logits")[0];
  CHECK(padded.slice(0, 2).allclose(plain, 1e-4, 1e-5));
  CHECK(padded.isfinite().all().item<bool>());
}

TEST_CASE("generation is greedy or sampled, ends at eos and when told to") {
  const auto model = language_model(tiny_language_model(), {.threads = 2, .last_only = true});
  const std::vector<std::int32_t> prompt{1, 2, 3};
  const auto run = [&](const GenerateOptions& options, std::size_t stop = 1000) {
    model->reset();
    std::size_t seen = 0;
    return generate(*model, prompt, options, [&](std::int32_t) { return ++seen < stop; });
  };
  const auto greedy = run({.tokens = 12});
  CHECK(greedy.size() == 12);
  CHECK(run({.tokens = 12}) == greedy);
  CHECK(run({.tokens = 12}, 4) == std::vector(greedy.begin(), greedy.begin() + 4));
  const auto at_end = run({.tokens = 12, .eos = greedy[0]});
  CHECK(at_end.empty());
  CHECK(run({.tokens = 12, .temperature = 1.0, .seed = 1}) == run({.tokens = 12, .temperature = 1.0, .seed = 1}));
  std::set<std::vector<std::int32_t>> kinds;
  for (std::uint64_t seed = 0; seed < 5; ++seed) kinds.insert(run({.tokens = 12, .temperature = 2.0, .seed = seed}));
  CHECK(kinds.size() > 1);
}

TEST_CASE("a cache grows in place only for its own buffers, and never past their end") {
  const at::Tensor buffer = at::ones({1, 2, 8, 4}), fresh = at::ones({1, 2, 3, 4}) * 2;
  const std::vector<at::Tensor> buffers{buffer};
  c10::AutoGradMode off(false);
  CHECK_FALSE(GrowingCache::append(buffer.narrow(2, 0, 4), fresh).defined());
  const GrowingCache scope(buffers);
  const at::Tensor present = GrowingCache::append(buffer.narrow(2, 0, 4), fresh);
  REQUIRE(present.defined());
  CHECK(present.is_alias_of(buffer));
  CHECK(present.size(2) == 7);
  CHECK(present[0][1][6][3].item<float>() == 2.0f);
  CHECK(present[0][1][3][3].item<float>() == 1.0f);
  CHECK_FALSE(GrowingCache::append(buffer.narrow(2, 0, 6), fresh).defined());
  CHECK_FALSE(GrowingCache::append(at::ones({1, 2, 4, 4}), fresh).defined());
  CHECK(GrowingCache::append(buffer.narrow(2, 0, 0), fresh).defined());
}

TEST_CASE("tokens outside the vocabulary or past the last position are refused") {
  const auto model = language_model(tiny_language_model(), {.threads = 2});
  CHECK_THROWS_AS(model->feed(std::vector<std::int64_t>{37}, false), Error);
  CHECK_THROWS_AS(model->feed(std::vector<std::int64_t>(65, 1), false), Error);
  CHECK_THROWS_AS(model->feed({}, false), Error);
}
