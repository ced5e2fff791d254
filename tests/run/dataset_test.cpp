#include "run/dataset.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "memory_context.h"
#include "run/metric.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;

namespace {

Artifact token_artifact(MemoryContext& context, const std::vector<std::int32_t>& tokens, std::int64_t count,
                        std::int64_t sequence) {
  Artifact artifact;
  artifact.type = ArtifactType::dataset;
  artifact.meta = {{"kind", "tokens"}, {"count", count}, {"sequence", sequence}, {"tokenizer", "abc"}};
  artifact.blobs["tokens.i32"] = context.put(std::as_bytes(std::span(tokens)));
  return artifact;
}

Artifact flagged(MemoryContext& context, const std::vector<std::int32_t>& tokens, const std::vector<std::uint8_t>& flags,
                 std::int64_t count, std::int64_t sequence) {
  Artifact artifact = token_artifact(context, tokens, count, sequence);
  artifact.meta["flags"] = true;
  artifact.blobs["flags.u8"] = context.put(std::as_bytes(std::span(flags)));
  return artifact;
}

}  // namespace

TEST_CASE("token windows become batches") {
  MemoryContext context;
  const TokenDataset data(context, token_artifact(context, {1, 2, 3, 4, 5, 6}, 2, 3));
  CHECK(data.count() == 2);
  CHECK(data.tokens().size() == 6);
  const TensorMap batch = data.batch({1, 0});
  CHECK(batch.at("input_ids").equal(at::tensor({4, 5, 6, 1, 2, 3}, at::kLong).reshape({2, 3})));
  CHECK(batch.at("position_ids").equal(at::tensor({0, 1, 2, 0, 1, 2}, at::kLong).reshape({2, 3})));
  CHECK(batch.at("attention_mask").equal(at::tensor({1, 1, 1, 1, 1, 1}, at::kLong).reshape({2, 3})));
  CHECK_THROWS_WITH(data.batch({2}), ContainsSubstring("window 2"));
}

TEST_CASE("a data set whose bytes do not match its description is refused") {
  MemoryContext context;
  const std::vector<std::int32_t> tokens{1, 2, 3, 4, 5, 6};
  CHECK_THROWS_AS(TokenDataset(context, token_artifact(context, tokens, 3, 3)), Error);
  CHECK_THROWS_AS(TokenDataset(context, token_artifact(context, tokens, 1, 4)), Error);
  CHECK_THROWS_AS(TokenDataset(context, token_artifact(context, tokens, std::int64_t{1} << 62, 4)), Error);
  CHECK_THROWS_AS(TokenDataset(context, token_artifact(context, tokens, 0, 3)), Error);
  Artifact other = token_artifact(context, tokens, 2, 3);
  other.meta["kind"] = "images";
  CHECK_THROWS_WITH(TokenDataset(context, other), ContainsSubstring("images"));
}

TEST_CASE("flags tell padding and what counts") {
  MemoryContext context;
  // Two windows of four: an example of three tokens of which the last counts, and one of two that has a flag on its first.
  const Artifact artifact = flagged(context, {1, 2, 3, 0, 4, 5, 0, 0}, {1, 1, 3, 0, 3, 3, 0, 0}, 2, 4);
  const TokenDataset data(context, artifact);
  const TensorMap batch = data.batch({1, 0});
  const auto is = [&](const char* name, const at::Tensor& expected) { return batch.at(name).equal(expected.reshape({2, 4})); };
  CHECK(is("input_ids", at::tensor({4, 5, 0, 0, 1, 2, 3, 0}, at::kLong)));
  CHECK(is("attention_mask", at::tensor({1, 1, 0, 0, 1, 1, 1, 0}, at::kLong)));
  CHECK(is("position_ids", at::tensor({0, 1, 1, 1, 0, 1, 2, 2}, at::kLong)));
  CHECK(is("labels", at::tensor({-1, 5, -1, -1, -1, -1, 3, -1}, at::kLong)));
  CHECK(data.weight({0}) == 1);
  CHECK(data.weight({0, 1}) == 2);
  CHECK(data.flags().size() == 8);
  Graph graph;
  graph.inputs = {{"input_ids", DType::i64, {}}, {"attention_mask", DType::i64, {}}};
  const TensorMap inputs = inputs_for(graph, batch);
  CHECK(inputs.size() == 2);
  CHECK(inputs.at("attention_mask").equal(batch.at("attention_mask")));
  const TokenDataset plain(context, token_artifact(context, {1, 2, 3, 4}, 2, 2));
  CHECK(plain.weight({0, 1}) == 2);
  CHECK(plain.flags().empty());
  CHECK_FALSE(plain.batch({0}).contains("labels"));
}

TEST_CASE("flags that say what cannot be are refused by their token") {
  MemoryContext context;
  const auto refused = [&](const std::vector<std::uint8_t>& flags) {
    try {
      const TokenDataset data(context, flagged(context, {1, 2, 3, 4, 5, 6}, flags, 2, 3));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::invalid_input);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(refused({1, 3, 0, 1, 3, 3}) == "accepted");
  CHECK_THAT(refused({1, 3, 0, 0, 3, 3}), ContainsSubstring("token 0 of window 1 is padding, at the front"));
  CHECK_THAT(refused({1, 0, 3, 1, 3, 3}), ContainsSubstring("token 2 of window 0 is real behind padding"));
  CHECK_THAT(refused({1, 3, 2, 1, 3, 3}), ContainsSubstring("token 2 of window 0 is padding that counts"));
  CHECK_THAT(refused({1, 3, 1, 1, 7, 3}), ContainsSubstring("token 1 of window 1 has flags that mean nothing"));
  CHECK_THAT(refused({3, 1, 1, 3, 1, 0}), ContainsSubstring("no token of the data counts"));
  CHECK_THAT(refused({1, 3, 1, 1, 3}), ContainsSubstring("5 flags for 6 tokens"));
  CHECK_THAT(refused({}), ContainsSubstring("0 flags for 6 tokens"));
  Artifact artifact = flagged(context, {1, 2}, {1, 3}, 1, 2);
  artifact.meta.erase("flags");
  CHECK_THROWS_WITH(TokenDataset(context, artifact), ContainsSubstring("does not tell of"));
  artifact.meta["flags"] = true;
  artifact.blobs.erase("flags.u8");
  CHECK_THROWS_WITH(TokenDataset(context, artifact), ContainsSubstring("no blob \"flags.u8\""));
}

TEST_CASE("a part and the rest make the whole, by the seed alone") {
  const auto all = examples_of_part(100, "all", 0.25, 1), held = examples_of_part(100, "heldout", 0.25, 1);
  auto together = examples_of_part(100, "train", 0.25, 1);
  CHECK(held.size() == 25);
  CHECK(std::is_sorted(held.begin(), held.end()));
  together.insert(together.end(), held.begin(), held.end());
  std::sort(together.begin(), together.end());
  CHECK(together == all);
  CHECK(examples_of_part(100, "heldout", 0.25, 2) != held);
  CHECK(examples_of_part(0, "train", 0.5, 1).empty());
}

TEST_CASE("model and data must come from one tokenizer") {
  Artifact model, data;
  model.meta["tokenizer"] = "abc";
  data.meta["tokenizer"] = "abd";
  CHECK_THROWS_WITH(check_tokenizers(model, data), ContainsSubstring("abc") && ContainsSubstring("abd"));
  data.meta["tokenizer"] = "abc";
  CHECK_NOTHROW(check_tokenizers(model, data));
}

TEST_CASE("an epoch's order is a permutation that the seed alone decides") {
  const auto order = shuffled(1000, 7);
  CHECK(order == shuffled(1000, 7));
  CHECK(order != shuffled(1000, 8));
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 1000; ++i) REQUIRE(sorted[static_cast<std::size_t>(i)] == i);
  CHECK(shuffled(0, 1).empty());
  CHECK(shuffled(1, 1) == std::vector<std::int64_t>{0});
}

TEST_CASE("scores come back as they were stored") {
  MemoryContext context;
  const Scores scores{{"a:1:0", {0.5, -1.25}}, {"b:0:0", {3.0}}};
  const Artifact artifact = save_scores(context, scores);
  CHECK(load_scores(context, artifact) == scores);
  CHECK_THROWS_AS(load_scores(context, token_artifact(context, {1}, 1, 1)), Error);
}
