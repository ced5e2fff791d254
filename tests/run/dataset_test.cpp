#include "run/dataset.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "run/metric.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

/// Blobs in memory; nothing else of a stage.
class MemoryContext final : public Context {
 public:
  const Params& params() const override { return params_; }
  const Artifact& input(std::string_view) const override { throw Error(ErrorCode::internal, "no inputs"); }
  bool has_input(std::string_view) const override { return false; }
  std::vector<Artifact> inputs(std::string_view) const override { return {}; }
  MappedFile map(const BlobRef& blob) const override { return MappedFile(path(blob)); }
  std::filesystem::path path(const BlobRef& blob) const override { return folder_ / blob.digest.hex(); }
  std::uint64_t seed() const override { return 0; }
  int threads() const override { return 1; }
  const std::string& device() const override { return device_; }
  BlobRef put(std::span<const std::byte> bytes) override {
    const BlobRef blob{sha256(bytes), bytes.size()};
    std::FILE* file = std::fopen(path(blob).c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    return blob;
  }
  BlobRef put(std::span<const std::byte> bytes, const Digest&) override { return put(bytes); }
  BlobRef put_file(const std::filesystem::path&) override { return {}; }
  void output(std::string_view, Artifact) override {}
  void figure(std::string_view, double) override {}
  void detail(std::string_view, Json) override {}
  void log(LogLevel, std::string_view) override {}
  void progress(const Progress&) override {}
  void check_cancelled() const override {}
  std::filesystem::path scratch() override { return folder_; }
  ComponentHandle component(std::string_view) override { return {}; }
  ComponentHandle component_for(const Artifact&) override { return {}; }

  MemoryContext()
      : folder_(std::filesystem::temp_directory_path() /
                ("espalier-run-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)))) {
    std::filesystem::create_directories(folder_);
  }
  ~MemoryContext() override { std::filesystem::remove_all(folder_); }

 private:
  std::filesystem::path folder_;
  Params params_;
  std::string device_ = "cpu";
};

Artifact token_artifact(MemoryContext& context, const std::vector<std::int32_t>& tokens, std::int64_t count,
                        std::int64_t sequence) {
  Artifact artifact;
  artifact.type = ArtifactType::dataset;
  artifact.meta = {{"kind", "tokens"}, {"count", count}, {"sequence", sequence}, {"tokenizer", "abc"}};
  artifact.blobs["tokens.i32"] = context.put(std::as_bytes(std::span(tokens)));
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
