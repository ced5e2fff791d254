#include "formats/gguf_tokenizer.h"

#include <fmt/format.h>

#include <set>

#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kDamaged = "the file is damaged";
constexpr std::int64_t kControl = 3, kUserDefined = 4;  // token types

const GgufFile::Scalar* scalar(const GgufFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) return nullptr;
  const auto* value = std::get_if<GgufFile::Scalar>(&found->second);
  if (!value) throw_invalid("metadata '" + key + "' is a list", file.where(), kDamaged);
  return value;
}

const std::vector<GgufFile::Scalar>& list(const GgufFile& file, const std::string& key) {
  static const std::vector<GgufFile::Scalar> none;
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) return none;
  const auto* value = std::get_if<GgufFile::Array>(&found->second);
  if (!value) throw_invalid("metadata '" + key + "' is no list", file.where(), kDamaged);
  return value->items;
}

const std::string& text_of(const GgufFile& file, const std::string& key, const GgufFile::Scalar& item) {
  const auto* text = std::get_if<std::string>(&item);
  if (!text || !valid_utf8(*text))
    throw_invalid("metadata '" + key + "' holds an entry that is no UTF-8 text", file.where(), kDamaged);
  return *text;
}

std::optional<std::int64_t> whole(const GgufFile::Scalar& value) {
  if (const auto* i = std::get_if<std::int64_t>(&value)) return *i;
  if (const auto* u = std::get_if<std::uint64_t>(&value); u && *u <= INT64_MAX) return static_cast<std::int64_t>(*u);
  return std::nullopt;
}

/// The pre-tokenizer that a name in tokenizer.ggml.pre stands for.
Json pre_tokenizer(const std::string& name, const std::string& where) {
  const auto byte_level = [](bool pattern) {
    return Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", pattern}};
  };
  const auto sequence = [](Json first, Json second) {
    return Json{{"type", "Sequence"}, {"pretokenizers", Json::array({std::move(first), std::move(second)})}};
  };
  const std::set<std::string> plain{"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais"};
  const std::set<std::string> digits{"smollm", "starcoder", "refact", "command-r", "codeshell"};
  const std::set<std::string> llama3{"llama3", "llama-v3", "llama-bpe"};
  if (plain.count(name)) return byte_level(true);
  if (digits.count(name)) return sequence({{"type", "Digits"}, {"individual_digits", true}}, byte_level(true));
  if (llama3.count(name)) {
    const char* pattern =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    return sequence({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}},
                    byte_level(false));
  }
  throw_unsupported("the pre-tokenizer '" + name + "' (tokenizer.ggml.pre)", where, "GPT-2's, SmolLM's and LLaMA 3's are read");
}

Json added_tokens(const GgufFile& file, const std::vector<GgufFile::Scalar>& tokens) {
  const auto& types = list(file, "tokenizer.ggml.token_type");
  if (!types.empty() && types.size() != tokens.size()) {
    throw_invalid(fmt::format("{} tokens have {} types", tokens.size(), types.size()), file.where(), kDamaged);
  }
  const auto role_id = [&](const std::string& key) {
    const std::int64_t id = metadata_integer(file, key, -1);
    if (id < -1 || id >= static_cast<std::int64_t>(tokens.size()))
      throw_invalid(fmt::format("{} is {}, which is no token", key, id), file.where(), kDamaged);
    return id;
  };
  const std::int64_t bos = role_id("tokenizer.ggml.bos_token_id"), eos = role_id("tokenizer.ggml.eos_token_id");
  Json added = Json::array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<std::int64_t>(i);
    const std::int64_t type = types.empty() ? 1 : whole(types[i]).value_or(0);
    const bool control = type == kControl || id == bos || id == eos;
    if (!control && type != kUserDefined) continue;
    Json token{{"id", id},
               {"content", text_of(file, "tokenizer.ggml.tokens", tokens[i])},
               {"single_word", false},
               {"lstrip", false},
               {"rstrip", false},
               {"normalized", false},
               {"special", control}};
    // tokenizer.json has no place for these; its readers ignore keys of a token that they do not know.
    const std::string role = std::string(id == bos ? "bos" : "") + (id == bos && id == eos ? " " : "") + (id == eos ? "eos" : "");
    if (!role.empty()) token["role"] = role;
    added.push_back(std::move(token));
  }
  return added;
}

Json post_processor(const GgufFile& file, const std::vector<GgufFile::Scalar>& tokens) {
  const std::int64_t bos = metadata_integer(file, "tokenizer.ggml.bos_token_id", -1);
  if (!metadata_flag(file, "tokenizer.ggml.add_bos_token", false) || bos < 0) return nullptr;
  const std::string& content = text_of(file, "tokenizer.ggml.tokens", tokens[static_cast<std::size_t>(bos)]);
  const Json token{{"SpecialToken", {{"id", content}, {"type_id", 0}}}};
  const auto sequence = [](const char* id, int type) { return Json{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({token, sequence("A", 0)})},
          {"pair", Json::array({token, sequence("A", 0), sequence("B", 1)})},
          {"special_tokens", {{content, {{"id", content}, {"ids", Json::array({bos})}, {"tokens", Json::array({content})}}}}}};
}

}  // namespace

std::int64_t metadata_integer(const GgufFile& file, const std::string& key, std::int64_t fallback) {
  const auto* value = scalar(file, key);
  if (!value) return fallback;
  const auto number = whole(*value);
  if (!number) throw_invalid("metadata '" + key + "' is no whole number", file.where(), kDamaged);
  return *number;
}

double metadata_number(const GgufFile& file, const std::string& key, double fallback) {
  const auto* value = scalar(file, key);
  if (!value) return fallback;
  if (const auto* number = std::get_if<double>(value)) return *number;
  return static_cast<double>(metadata_integer(file, key, 0));
}

std::string metadata_text(const GgufFile& file, const std::string& key, const std::string& fallback) {
  const auto* value = scalar(file, key);
  return value ? text_of(file, key, *value) : fallback;
}

bool metadata_flag(const GgufFile& file, const std::string& key, bool fallback) {
  const auto* value = scalar(file, key);
  if (!value) return fallback;
  if (!std::holds_alternative<bool>(*value)) throw_invalid("metadata '" + key + "' is no truth value", file.where(), kDamaged);
  return std::get<bool>(*value);
}

bool has_metadata(const GgufFile& file, const std::string& key) { return file.metadata().count(key) > 0; }

std::shared_ptr<Tokenizer> gguf_tokenizer(const GgufFile& file) {
  const std::string& where = file.where();
  const std::string model = metadata_text(file, "tokenizer.ggml.model", "");
  if (model != "gpt2")
    throw_unsupported("the tokenizer '" + model + "' (tokenizer.ggml.model)", where, "byte-level BPE (\"gpt2\") is read");
  const auto& tokens = list(file, "tokenizer.ggml.tokens");
  if (tokens.empty()) throw_invalid("tokenizer.ggml.tokens is missing or empty", where, kDamaged);
  const std::string pre = metadata_text(file, "tokenizer.ggml.pre", "");
  Json vocab = Json::object(), merges = Json::array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::string& token = text_of(file, "tokenizer.ggml.tokens", tokens[i]);
    if (!vocab.emplace(token, i).second) throw_invalid("token '" + token + "' appears twice", where, kDamaged);
  }
  for (const auto& merge : list(file, "tokenizer.ggml.merges")) merges.push_back(text_of(file, "tokenizer.ggml.merges", merge));
  const Json json{{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", added_tokens(file, tokens)},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", pre_tokenizer(pre, where)},
                  {"post_processor", post_processor(file, tokens)},
                  {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
                  {"model",
                   {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"ignore_merges", pre.rfind("llama", 0) == 0},
                    {"vocab", std::move(vocab)},
                    {"merges", std::move(merges)}}}};
  return Tokenizer::from_json(json.dump(), where);
}

}  // namespace espalier
