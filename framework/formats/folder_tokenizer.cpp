#include "formats/folder_tokenizer.h"

#include <fmt/format.h>

#include <array>

#include "formats/bounds.h"
#include "formats/tokenizer_part.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::string_view without_blanks_behind(std::string_view line) {
  std::size_t end = 0;
  for (std::size_t at = 0; at < line.size();) {
    if (!is_white_space(next_code_point(line, at))) end = at;
  }
  return line.substr(0, end);
}

/// "[CLS]", or {"content": "[CLS]", …}.
std::string special_name(const Json& config, const char* key, const char* fallback) {
  const Json& value = json_member(config, key);
  const Json& name = value.is_object() ? json_member(value, "content") : value;
  return name.is_string() ? name.get<std::string>() : fallback;
}

}  // namespace

std::string word_piece_json(std::string_view vocabulary, const Json& config, const std::string& where) {
  if (!valid_utf8(vocabulary)) throw_invalid("the vocabulary is no UTF-8 text", where, kDamagedTokenizer);
  Json vocab = Json::object();
  for (std::int64_t id = 0; !vocabulary.empty(); ++id) {
    const std::size_t end = std::min(vocabulary.find('\n'), vocabulary.size());
    vocab[std::string(without_blanks_behind(vocabulary.substr(0, end)))] = id;
    vocabulary.remove_prefix(std::min(end + 1, vocabulary.size()));
  }
  static constexpr std::array<std::pair<const char*, const char*>, 5> specials = {
      {{"unk_token", "[UNK]"}, {"sep_token", "[SEP]"}, {"pad_token", "[PAD]"}, {"cls_token", "[CLS]"}, {"mask_token", "[MASK]"}}};
  Json added = Json::array();
  for (const auto& [key, fallback] : specials) {
    const std::string name = special_name(config, key, fallback);
    if (!vocab.contains(name)) continue;
    added.push_back({{"id", vocab[name]},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const auto named = [&](const char* key, const char* fallback) {
    const std::string name = special_name(config, key, fallback);
    if (!vocab.contains(name)) throw_invalid(fmt::format("the vocabulary lacks the {} '{}'", key, name), where, kDamagedTokenizer);
    return name;
  };
  const auto setting = [&](const char* key, const Json& fallback) {
    const Json& value = json_member(config, key);
    return value.is_boolean() ? value : fallback;
  };
  const std::string unknown = named("unk_token", "[UNK]"), first = named("cls_token", "[CLS]"), last = named("sep_token", "[SEP]");
  return Json{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer",
       {{"type", "BertNormalizer"},
        {"clean_text", true},
        {"handle_chinese_chars", setting("tokenize_chinese_chars", true)},
        {"strip_accents", setting("strip_accents", nullptr)},
        {"lowercase", setting("do_lower_case", true)}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "BertProcessing"}, {"sep", Json::array({last, vocab[last]})}, {"cls", Json::array({first, vocab[first]})}}},
      {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", unknown},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 100},
        {"vocab", vocab}}}}
      .dump();
}

std::shared_ptr<Tokenizer> folder_tokenizer(const fs::path& folder) {
  if (const fs::path file = folder / "tokenizer.json"; fs::exists(file))
    return Tokenizer::from_json(text_of(MappedFile(file)), file.string());
  const fs::path vocabulary = folder / "vocab.txt", settings = folder / "tokenizer_config.json";
  if (!fs::exists(vocabulary)) return nullptr;
  const Json config = fs::exists(settings) ? parse_json(text_of(MappedFile(settings)), settings.string()) : Json();
  const std::string json = word_piece_json(text_of(MappedFile(vocabulary)), config, vocabulary.string());
  return Tokenizer::from_json(json, vocabulary.string());
}

}  // namespace espalier
