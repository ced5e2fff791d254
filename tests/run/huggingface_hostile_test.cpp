// Hugging Face directories that are damaged, of another kind, or made to do harm: errors name file and key, nothing else happens.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "formats/huggingface.h"
#include "huggingface_models.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;
using espalier::test::models;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// A file with other contents, put back with the object.
class Changed {
 public:
  Changed(fs::path file, const std::string& text) : file_(std::move(file)), there_(fs::exists(file_)), before_(text_of(file_)) {
    std::ofstream(file_) << text;
  }
  ~Changed() {
    if (there_)
      std::ofstream(file_) << before_;
    else
      fs::remove(file_);
  }
  Changed(const Changed&) = delete;

 private:
  fs::path file_;
  bool there_;
  std::string before_;
};

/// What the importer says; "" when it takes the directory.
std::string outcome(const fs::path& folder) {
  try {
    import_huggingface(folder);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

/// The same with one key of config.json changed; a value that is discarded takes the key away.
std::string with_key(const fs::path& folder, const std::string& key, const Json& value, const char* file = "config.json") {
  Json config = Json::parse(text_of(folder / file));
  if (value.is_discarded())
    config.erase(key);
  else
    config[key] = value;
  const Changed changed(folder / file, config.dump());
  return outcome(folder);
}

std::string with_key(const char* model, const std::string& key, const Json& value) {
  return with_key(models() / model, key, value);
}
const Json kMissing(Json::value_t::discarded);

}  // namespace

TEST_CASE("what a directory lacks, and what is not read, is named") {
  CHECK_THAT(with_key("llama", "model_type", "mamba"), ContainsSubstring("mamba") && ContainsSubstring("qwen3"));
  CHECK_THAT(with_key("llama", "hidden_act", "quick_gelu"), ContainsSubstring("quick_gelu"));
  CHECK_THAT(with_key("llama", "hidden_size", 36), ContainsSubstring("model.") && ContainsSubstring("36"));
  CHECK_THAT(with_key("llama", "hidden_size", -32), ContainsSubstring("\"hidden_size\""));
  CHECK_THAT(with_key("llama", "num_hidden_layers", 4), ContainsSubstring("layers.3"));
  CHECK_THAT(with_key("llama", "num_hidden_layers", 2), ContainsSubstring("model.layers.2."));
  CHECK_THAT(with_key("gemma3", "layer_types", {"sliding_attention", "odd", "full_attention"}), ContainsSubstring("layer_types"));
  CHECK_THAT(with_key("llama_yarn", "rope_parameters", {{"rope_type", "longrope"}}), ContainsSubstring("longrope"));
  CHECK_THAT(with_key("llama", "quantization_config", Json::object()), ContainsSubstring("quantized by another tool"));
  CHECK_THROWS_WITH(import_huggingface(models()), ContainsSubstring("config.json"));
}

TEST_CASE("errors call a key as the file does") {
  CHECK_THAT(with_key("gpt2", "n_embd", -1), ContainsSubstring("\"n_embd\""));
  CHECK_THAT(with_key("gpt2", "n_embd", kMissing), ContainsSubstring("\"n_embd\" is missing"));
  CHECK_THAT(with_key("gpt2", "n_embd", 36), ContainsSubstring("transformer.wte.weight"));
  CHECK_THAT(with_key("opt", "ffn_dim", "many"), ContainsSubstring("\"ffn_dim\""));
  CHECK_THAT(with_key("opt", "activation_function", "gelu_10"), ContainsSubstring("\"activation_function\" is \"gelu_10\""));
  CHECK_THAT(with_key("distilbert", "n_heads", 5), ContainsSubstring("\"n_heads\" does not divide"));
  CHECK_THAT(with_key("falcon_40b", "num_kv_heads", 3), ContainsSubstring("does not divide 4 heads"));
  // Both ways of writing it are read, as transformers does.
  const Json config = Json::parse(text_of(models() / "gpt2" / "config.json"));
  Json other = config;
  other.erase("n_embd");
  other["hidden_size"] = 32;
  const Changed changed(models() / "gpt2" / "config.json", other.dump());
  CHECK(outcome(models() / "gpt2").empty());
}

TEST_CASE("options that no graph has a place for are refused by their key") {
  struct Row {
    const char *model, *key;
    Json value;
  };
  const Row rows[] = {{"gpt2", "add_cross_attention", true},
                      {"opt", "layer_norm_elementwise_affine", false},
                      {"falcon_40b", "parallel_attn", false},
                      {"falcon_7b", "num_ln_in_parallel_attn", 2},
                      {"cohere", "use_qk_norm", true},
                      {"stablelm", "qk_layernorm", true},
                      {"gemma", "use_bidirectional_attention", true},
                      {"bert", "is_decoder", true},
                      {"bert", "position_embedding_type", "relative_key"},
                      {"bert", "architectures", Json::array({"BertForTokenClassification"})},
                      {"bert", "architectures", Json::array({"BertLMHeadModel"})},
                      {"electra", "architectures", Json::array({"ElectraForPreTraining"})},
                      {"roberta_tokens", "tie_word_embeddings", false},
                      {"mpnet", "relative_attention_num_buckets", 16},
                      {"albert", "inner_group_num", 2}};
  for (const Row& row : rows) {
    INFO(row.model << " " << row.key);
    CHECK_THAT(with_key(row.model, row.key, row.value), ContainsSubstring(fmt::format("\"{}\"", row.key)));
  }
}

TEST_CASE("whatever a config.json says, the importer takes it or says what is wrong") {
  const Json values[] = {"x", -1, 0, 1e300, 2147483647, 0.5, true, Json::array({1}), Json::object(), nullptr, kMissing};
  int refused = 0;
  for (const char* model :
       {"llama_yarn", "mixtral", "gemma3", "stablelm", "cohere", "gpt2", "gptj", "opt_350m", "falcon_40b", "falcon_rw", "bloom",
        "gpt_neox", "bert", "roberta_tokens", "distilbert_classes", "electra", "mpnet", "albert"}) {
    const Json config = Json::parse(text_of(models() / model / "config.json"));
    for (const auto& [key, before] : config.items()) {
      for (const Json& value : values) {
        INFO(model << " " << key << " = " << (value.is_discarded() ? "(missing)" : value.dump()));
        std::string said;
        CHECK_NOTHROW(said = with_key(model, key, value));
        refused += !said.empty();
      }
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("shards and modules stay in their folder") {
  const fs::path shards = models() / "qwen2", index = shards / "model.safetensors.index.json";
  std::string climbing = text_of(index);
  REQUIRE(climbing.find("model-00001-of-") != std::string::npos);
  climbing.insert(climbing.find("model-00001-of-"), "../");
  {
    const Changed changed(index, climbing);
    CHECK_THROWS_WITH(import_huggingface(shards), ContainsSubstring("../model-00001"));
  }
  const fs::path sentence = models() / "sentence_first", file = sentence / "modules.json";
  const Json modules = Json::parse(text_of(file));
  const auto with_module = [&](std::size_t number, const char* key, const Json& value) {
    Json changed = modules;
    changed[number][key] = value;
    const Changed other(file, changed.dump());
    return outcome(sentence);
  };
  CHECK_THAT(with_module(0, "path", "../bert"), ContainsSubstring("'../bert' is no folder"));
  CHECK_THAT(with_module(1, "path", ".."), ContainsSubstring("'..' is no folder"));
  CHECK_THAT(with_module(1, "path", 7), ContainsSubstring("\"path\" is no string"));
  CHECK_THAT(with_module(1, "type", "sentence_transformers.models.Dense"), ContainsSubstring("sentence_transformers.models.Dense"));
  CHECK_THAT(with_module(0, "type", "a.Pooling"), ContainsSubstring("config.json"));
  for (const char* text : {"{}", "[7]", "[", "[]"}) {
    const Changed changed(file, text);
    CHECK_THAT(outcome(sentence), ContainsSubstring("modules.json"));
  }
  const auto with_pooling = [&](const char* key, const Json& value) {
    return with_key(sentence, key, value, "1_Pooling/config.json");
  };
  CHECK_THAT(with_pooling("pooling_mode_cls_token", false), ContainsSubstring("no way of pooling"));
  CHECK_THAT(with_pooling("pooling_mode_lasttoken", true), ContainsSubstring("\"pooling_mode_lasttoken\""));
  CHECK_THAT(with_pooling("pooling_mode_max_tokens", true), ContainsSubstring("\"pooling_mode_max_tokens\""));
  CHECK_THAT(with_pooling("pooling_mode", "weighted"), ContainsSubstring("\"pooling_mode\" is \"weighted\""));
  CHECK(with_pooling("pooling_mode", "mean").empty());
  const fs::path decoder = models() / "llama";
  const Changed added(decoder / "modules.json", modules.dump());
  CHECK_THAT(outcome(decoder), ContainsSubstring("config.json"));  // the folder has no 0_Transformer
}

TEST_CASE("a tokenizer that is not read leaves the model its place, one that is damaged does not") {
  const fs::path folder = models() / "bert", file = folder / "tokenizer.json";
  CHECK_THAT(import_huggingface(folder).no_tokenizer, ContainsSubstring("holds no tokenizer.json"));
  {
    const Changed added(file, R"({"model": {"type": "Hieroglyphs", "vocab": {"a": 0}}})");
    const ImportedModel model = import_huggingface(folder);
    CHECK(!model.tokenizer);
    CHECK_THAT(model.no_tokenizer, ContainsSubstring("Hieroglyphs"));
  }
  const Changed damaged(file, "{");
  CHECK_THROWS_AS(import_huggingface(folder), Error);
}

TEST_CASE("heads that are not asked for are left out, and said") {
  const std::string config = text_of(models() / "bert_tokens" / "config.json");
  Json base = Json::parse(config);
  base["architectures"] = {"BertModel"};
  const Changed changed(models() / "bert_tokens" / "config.json", base.dump());
  const ImportedModel model = import_huggingface(models() / "bert_tokens");
  REQUIRE(model.notes.size() == 1);
  CHECK_THAT(model.notes[0], ContainsSubstring("cls.predictions"));
  CHECK(model.graph.metadata.at("espalier.task") == "feature-extraction");
}
