#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <functional>

#include "formats/byte_level.h"
#include "formats/model_artifact.h"
#include "formats/vocabulary_cut.h"
#include "run/dataset.h"
#include "run/session.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::vector<std::pair<std::string, std::string>> merge_rules = {
    {"l", "o"}, {"lo", "w"}, {"e", "r"}, {"low", "er"}, {"n", "e"}, {"ne", "w"}, {"z", "z"}, {"zz", "z"}, {"q", "u"}};

/// Bytes, the merges, and an added token at the end: 256 + 9 + 1.
Json merging_tokenizer() {
  Json vocabulary, merges = Json::array();
  int id = 0;
  for (int byte = 0; byte < 256; ++byte) vocabulary[to_byte_characters(std::string(1, char(byte)))] = id++;
  for (const auto& [left, right] : merge_rules) {
    vocabulary[left + right] = id++;
    merges.push_back({left, right});
  }
  const Json added = {{"id", id},        {"content", "<end>"},  {"single_word", false}, {"lstrip", false},
                      {"rstrip", false}, {"normalized", false}, {"special", true}};
  return {{"version", "1.0"},
          {"added_tokens", {added}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

constexpr std::int64_t kTokens = 266;
constexpr const char* kText = "lower new low lower newer lower\nlow new lower low\n";

struct Stage {
  TemporaryFolder folder;
  TestContext context{folder};
  Artifact tokenizer, model, data;
  Graph graph;

  explicit Stage(std::int64_t rows = kTokens, bool untied = false) {
    tokenizer = save_tokenizer(context, *Tokenizer::from_json(merging_tokenizer().dump(), "test"));
    graph = toy_language_model({.vocabulary = rows}, 3);
    if (untied) untie();
    graph.metadata["espalier.tokenizer"] = tokenizer.digest().hex();
    model = save_model(context, graph);
    const auto file = folder.write("text.txt", kText);
    context.run("source/text", {{"files", {file.string()}}, {"sequence", 10}}, {{"tokenizer", tokenizer}});
    data = context.outputs.at("data");
  }
  void prune(const Json& parameters) {
    context.run("pruner/vocabulary", parameters, {{"model", model}, {"tokenizer", tokenizer}, {"data", data}});
  }
  /// The head reads a copy of the embedding of its own.
  void untie() {
    const std::string table = "model.embed_tokens.weight";
    graph.initializers["head.weight"] = *graph.initializer(table);
    for (Node& node : graph.nodes)
      if (node.op != "Gather") std::replace(node.inputs.begin(), node.inputs.end(), table, std::string("head.weight"));
  }
};

at::Tensor logits(const Graph& graph, const std::vector<std::int32_t>& ids) {
  const auto length = static_cast<std::int64_t>(ids.size());
  return Session(graph)
      .run({{"input_ids", at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0)},
            {"attention_mask", at::ones({1, length}, at::kLong)},
            {"position_ids", at::arange(length, at::kLong).unsqueeze(0)}})
      .at("logits");
}

}  // namespace

TEST_CASE("tokens that nobody uses leave model and tokenizer, and text is read and answered as before") {
  for (const bool untied : {false, true}) {
    CAPTURE(untied);
    Stage stage(kTokens, untied);
    stage.prune(Json::object());
    const Graph smaller = load_model(stage.context, stage.context.outputs.at("model"));
    const auto before = load_tokenizer(stage.context, stage.tokenizer),
               after = load_tokenizer(stage.context, stage.context.outputs.at("tokenizer"));
    // "zz", "zzz" and "qu" are gone; "lo" stays, though only as a step to "low".
    CHECK(after->vocabulary() == kTokens - 3);
    CHECK(stage.context.figures.at("vocabulary") == double(kTokens - 3));
    CHECK(stage.context.figures.at("coverage") == 1);
    CHECK(stage.context.outputs.at("model").meta.at("tokenizer") == stage.context.outputs.at("tokenizer").digest().hex());
    CHECK(double(stage.graph.parameter_count() - smaller.parameter_count()) == 3.0 * 32 * (untied ? 2 : 1));

    const std::string text = "newer lower<end>";
    const auto old_ids = before->encode(text), new_ids = after->encode(text);
    REQUIRE(old_ids.size() == new_ids.size());
    CHECK(after->decode(new_ids) == text);
    CHECK(before->encode("zzz").size() == 1);
    CHECK(after->encode("zzz").size() == 3);
    // New column k answers for the old token that now is k.
    std::vector<std::int64_t> kept;
    for (std::int64_t id = 0; id < kTokens; ++id)
      if (id < 256 + 6 || id > 256 + 8) kept.push_back(id);
    const auto expected = logits(stage.graph, old_ids).index_select(-1, at::tensor(kept, at::kLong));
    CHECK(at::allclose(logits(smaller, new_ids), expected, 1e-5, 1e-6));
    CHECK(smaller.outputs[0].shape.back() == Dim(kTokens - 3));
  }
}

TEST_CASE("rows beyond the tokenizer leave, sizes and multiples are kept") {
  Stage stage(320);
  stage.prune({{"multiple", 8}});
  CHECK(stage.context.figures.at("vocabulary") == 264);
  stage.prune({{"size", 259}, {"minimum", 1}});
  CHECK(stage.context.figures.at("vocabulary") <= 259);
  CHECK(stage.context.figures.at("coverage") < 1);
  CHECK(stage.context.figures.at("coverage") > 0.4);
}

TEST_CASE("cutting a vocabulary refuses what does not go together") {
  Stage stage;
  CHECK_THROWS_WITH(stage.prune({{"size", 100}}), ContainsSubstring("257 tokens have to stay, 100 may"));
  Stage small(100);
  CHECK_THROWS_WITH(small.prune(Json::object()), ContainsSubstring("no Gather of an input looks up rows of a table with 266 rows"));
  const auto other = save_tokenizer(stage.context, *Tokenizer::from_json(
                                                       [] {
                                                         Json json = merging_tokenizer();
                                                         json["model"]["merges"].erase(8);
                                                         return json.dump();
                                                       }(),
                                                       "test"));
  CHECK_THROWS_WITH(
      stage.context.run("pruner/vocabulary", Json::object(), {{"model", stage.model}, {"tokenizer", other}, {"data", stage.data}}),
      ContainsSubstring("the model names another tokenizer"));
}

TEST_CASE("damaged tokenizers are refused by the part") {
  const auto refuses = [](const std::function<void(Json&)>& damage, const std::string& words) {
    Json json = merging_tokenizer();
    damage(json);
    CHECK_THROWS_WITH(VocabularyCut(json.dump(), "test"), ContainsSubstring(words));
  };
  refuses([](Json& j) { j.erase("model"); }, "no \"model\"");
  refuses([](Json& j) { j["model"]["type"] = "WordLevel"; }, "WordLevel");
  refuses([](Json& j) { j["model"]["vocab"] = Json::array(); }, "no map");
  refuses([](Json& j) { j["model"]["vocab"]["a"] = -1; }, "no usable id");
  refuses([](Json& j) { j["model"]["vocab"]["a"] = 1LL << 40; }, "no usable id");
  refuses([](Json& j) { j["model"]["vocab"]["new token"] = 3; }, "share the id 3");
  refuses([](Json& j) { j["model"]["merges"][0] = {"l", "absent"}; }, "is not of tokens");
  refuses([](Json& j) { j["model"]["merges"][0] = 5; }, "no pair");
  refuses([](Json& j) { j["added_tokens"][0].erase("id"); }, "no id");
}

TEST_CASE("WordPiece and Unigram vocabularies keep what they are made of") {
  const Json pieces = {
      {"model", {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"vocab", {{"[UNK]", 0}, {"a", 1}, {"##b", 2}, {"c", 3}}}}},
      {"post_processor", {{"type", "BertProcessing"}, {"sep", {"c", 3}}, {"cls", {"c", 3}}}}};
  const VocabularyCut cut(pieces.dump(), "test");
  CHECK(cut.closed({1}) == std::vector<std::int32_t>{0, 1});
  CHECK_THROWS_WITH(cut.json({0, 1}), ContainsSubstring("token 3 is used by the tokenizer itself"));
  const Json small = Json::parse(cut.json({0, 3}));
  CHECK(small["model"]["vocab"] == Json{{"[UNK]", 0}, {"c", 1}});
  CHECK(small["post_processor"]["sep"][1] == 1);

  const Json entries = Json::array({Json::array({"x", -1.0}), Json::array({"<unk>", 0.0}), Json::array({"y", -2.5})});
  const Json unigram = {{"model", {{"type", "Unigram"}, {"unk_id", 1}, {"vocab", entries}}}};
  const VocabularyCut words(unigram.dump(), "test");
  const auto kept = words.closed({2});
  CHECK(kept == std::vector<std::int32_t>{1, 2});
  const Json left = Json::parse(words.json(kept));
  CHECK(left["model"]["unk_id"] == 0);
  CHECK(left["model"]["vocab"][1][1] == -2.5);
}
