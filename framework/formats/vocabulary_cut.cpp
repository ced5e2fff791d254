#include "formats/vocabulary_cut.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "formats/bounds.h"
#include "formats/byte_level.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::int64_t kMostTokens = 1 << 24;

std::int32_t id_in(const Json& json, const std::string& what, const std::string& where) {
  if (!json.is_number_integer() || json.get<std::int64_t>() < 0 || json.get<std::int64_t>() >= kMostTokens)
    throw_invalid(fmt::format("{} has no usable id: {}", what, json.dump(-1, ' ', false, Json::error_handler_t::replace)), where);
  return json.get<std::int32_t>();
}

/// The two halves of a merge, written "a b" or ["a", "b"].
std::pair<std::string, std::string> halves(const Json& merge, const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (merge.is_string()) {
    const auto text = merge.get<std::string>();
    if (const auto space = text.find(' '); space != std::string::npos) return {text.substr(0, space), text.substr(space + 1)};
  }
  throw_invalid("a merge is no pair of tokens", where);
}

/// <0x00> to <0xFF>: what byte_fallback falls back to.
bool is_byte(const std::string& token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">") &&
         std::all_of(token.begin() + 3, token.begin() + 5, [](unsigned char c) { return std::isxdigit(c) != 0; });
}

/// Gives every id under `json` its new number where `place` says that numbers are ids.
void renumber(Json& json, const std::map<std::int32_t, std::int32_t>& numbers, const std::string& where) {
  const auto found = numbers.find(id_in(json, "a part of the tokenizer", where));
  if (found == numbers.end())
    throw_invalid(fmt::format("token {} is used by the tokenizer itself and would go", json.dump()), where);
  json = found->second;
}

}  // namespace

VocabularyCut::VocabularyCut(std::string_view tokenizer_json, const std::string& where) : json_(parse_json(tokenizer_json, where)) {
  if (!json_.is_object() || !json_.contains("model") || !json_["model"].is_object())
    throw_invalid("this is no tokenizer.json: it has no \"model\"", where);
  model_ = json_["model"].value("type", std::string("BPE"));
  if (model_ != "BPE" && model_ != "WordPiece" && model_ != "Unigram")
    throw_unsupported(fmt::format("the vocabulary of a tokenizer of type \"{}\" cannot be cut", model_), where + ", model.type");
  read_vocabulary(where);
  if (model_ == "BPE") read_merges(where);
  if (json_.contains("added_tokens"))
    for (const Json& added : json_["added_tokens"]) {
      if (!added.is_object() || !added.contains("content") || !added["content"].is_string() || !added.contains("id"))
        throw_invalid("an added token has no content or no id", where + ", added_tokens");
      const std::int32_t id = id_in(added["id"], "an added token", where + ", added_tokens");
      place(id, added["content"].get<std::string>(), where + ", added_tokens");
      required_.push_back(id);
    }
}

void VocabularyCut::place(std::int32_t id, const std::string& token, const std::string& where) {
  const auto [there, fresh] = tokens_.emplace(id, token);
  if (!fresh && there->second != token)
    throw_invalid(fmt::format("\"{}\" and \"{}\" share the id {}", there->second, token, id), where);
  ids_[token] = id;
}

void VocabularyCut::read_vocabulary(const std::string& where) {
  const Json& model = json_["model"];
  if (!model.contains("vocab")) throw_invalid("the model has no vocabulary", where + ", model.vocab");
  const Json& vocabulary = model["vocab"];
  if (model_ == "Unigram") {
    if (!vocabulary.is_array()) throw_invalid("the vocabulary is no list", where + ", model.vocab");
    std::size_t id = 0;
    for (const Json& entry : vocabulary) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        throw_invalid("an entry is no pair of a token and its score", where + ", model.vocab");
      place(static_cast<std::int32_t>(id++), entry[0].get<std::string>(), where + ", model.vocab");
    }
    if (id > static_cast<std::size_t>(kMostTokens)) throw_invalid("the vocabulary is too long", where + ", model.vocab");
    if (model.contains("unk_id") && !model["unk_id"].is_null())
      required_.push_back(id_in(model["unk_id"], "the unknown token", where));
  } else {
    if (!vocabulary.is_object()) throw_invalid("the vocabulary is no map", where + ", model.vocab");
    for (const auto& [token, id] : vocabulary.items())
      place(id_in(id, "token \"" + token + "\"", where), token, where + ", model.vocab");
    if (model.contains("unk_token") && model["unk_token"].is_string())
      if (const auto unknown = ids_.find(model["unk_token"].get<std::string>()); unknown != ids_.end())
        required_.push_back(unknown->second);
  }
  for (const auto& [token, id] : ids_)
    if (is_byte(token)) required_.push_back(id);
  if (model_ != "BPE") return;
  for (int byte = 0; byte < 256; ++byte)
    if (const auto found = ids_.find(to_byte_characters(std::string(1, static_cast<char>(byte)))); found != ids_.end())
      required_.push_back(found->second);
}

void VocabularyCut::read_merges(const std::string& where) {
  const Json& model = json_["model"];
  if (!model.contains("merges") || !model["merges"].is_array())
    throw_invalid("the model has no list of merges", where + ", model.merges");
  for (const Json& merge : model["merges"]) {
    const auto [left, right] = halves(merge, where + ", model.merges");
    const auto a = ids_.find(left), b = ids_.find(right), whole = ids_.find(left + right);
    if (a == ids_.end() || b == ids_.end() || whole == ids_.end())
      throw_invalid(fmt::format("the merge of \"{}\" and \"{}\" is not of tokens", left, right), where + ", model.merges");
    parts_.emplace(whole->second, std::pair(a->second, b->second));
  }
}

std::vector<std::int32_t> VocabularyCut::closed(const std::vector<std::int32_t>& ids) const {
  std::set<std::int32_t> kept;
  std::vector<std::int32_t> open = ids;
  open.insert(open.end(), required_.begin(), required_.end());
  while (!open.empty()) {
    const std::int32_t id = open.back();
    open.pop_back();
    if (!tokens_.contains(id)) throw_invalid(fmt::format("there is no token {}", id), "tokenizer");
    if (!kept.insert(id).second) continue;
    const auto [first, last] = parts_.equal_range(id);
    for (auto part = first; part != last; ++part) {
      open.push_back(part->second.first);
      open.push_back(part->second.second);
    }
  }
  return {kept.begin(), kept.end()};
}

std::string VocabularyCut::json(const std::vector<std::int32_t>& kept) const {
  const std::string where = "tokenizer.json";
  std::map<std::int32_t, std::int32_t> numbers;
  for (const std::int32_t id : kept) numbers.emplace(id, static_cast<std::int32_t>(numbers.size()));
  Json out = json_;
  Json& model = out["model"];
  if (model_ == "Unigram") {
    Json vocabulary = Json::array();
    std::size_t id = 0;
    for (Json& entry : model["vocab"])
      if (numbers.contains(static_cast<std::int32_t>(id++))) vocabulary.push_back(std::move(entry));
    model["vocab"] = std::move(vocabulary);
    if (model.contains("unk_id") && !model["unk_id"].is_null()) renumber(model["unk_id"], numbers, where + ", model.unk_id");
  } else {
    Json vocabulary = Json::object();
    for (const auto& [token, id] : json_["model"]["vocab"].items())
      if (const auto found = numbers.find(id.get<std::int32_t>()); found != numbers.end()) vocabulary[token] = found->second;
    model["vocab"] = std::move(vocabulary);
  }
  if (model_ == "BPE") {
    Json merges = Json::array();
    for (Json& merge : model["merges"]) {
      const auto [left, right] = halves(merge, where);
      const bool stays =
          numbers.contains(ids_.at(left)) && numbers.contains(ids_.at(right)) && numbers.contains(ids_.at(left + right));
      if (stays) merges.push_back(std::move(merge));
    }
    model["merges"] = std::move(merges);
  }
  if (out.contains("added_tokens"))
    for (Json& added : out["added_tokens"]) renumber(added["id"], numbers, where + ", added_tokens");
  // The frame around a text names tokens by number, too.
  const auto frame = [&](Json& part) {
    if (!part.is_object()) return;
    for (const char* end : {"sep", "cls"})
      if (part.contains(end) && part[end].is_array() && part[end].size() == 2)
        renumber(part[end][1], numbers, where + ", post_processor");
    if (part.contains("special_tokens") && part["special_tokens"].is_object())
      for (Json& special : part["special_tokens"])
        if (special.is_object() && special.contains("ids") && special["ids"].is_array())
          for (Json& id : special["ids"]) renumber(id, numbers, where + ", post_processor");
  };
  if (out.contains("post_processor") && out["post_processor"].is_object()) {
    frame(out["post_processor"]);
    if (out["post_processor"].contains("processors") && out["post_processor"]["processors"].is_array())
      for (Json& part : out["post_processor"]["processors"]) frame(part);
  }
  if (out.contains("padding") && out["padding"].is_object() && out["padding"].contains("pad_id"))
    renumber(out["padding"]["pad_id"], numbers, where + ", padding");
  return out.dump();
}

}  // namespace espalier
