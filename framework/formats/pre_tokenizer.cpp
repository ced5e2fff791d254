#include "formats/pre_tokenizer.h"

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kDamaged = "the tokenizer is damaged";
// GPT-2's pattern (Radford et al., 2019), which ByteLevel applies by itself.
constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Digits goes by its own tables, which are those of Unicode 17.
constexpr const char* kNumeric = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

bool flag(const Json& json, const char* key, bool fallback) {
  const auto found = json.find(key);
  return found == json.end() || !found->is_boolean() ? fallback : found->get<bool>();
}

std::string quoted(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view(R"(\^$.[]|()?*+{}-#)").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) {
  add(json, where);
  if (!byte_level_) throw_unsupported("a tokenizer without the ByteLevel pre-tokenizer", where, "byte-level BPE is read");
}

void PreTokenizer::add(const Json& json, const std::string& where) {
  if (json.is_null()) return;
  if (!json.is_object() || !json.contains("type") || !json["type"].is_string())
    throw_invalid("a pre_tokenizer has no type", where, kDamaged);
  const std::string type = json["type"].get<std::string>();
  if (byte_level_) throw_unsupported("pre_tokenizer '" + type + "' after ByteLevel", where);
  Step step;
  if (type == "Sequence") {
    const auto list = json.find("pretokenizers");
    if (list == json.end() || !list->is_array()) throw_invalid("a Sequence has no pretokenizers", where, kDamaged);
    for (const Json& item : *list) {
      if (item.is_object() && item.value("type", Json()) == "Sequence")
        throw_unsupported("a Sequence within a Sequence of pre-tokenizers", where);
      add(item, where);
    }
    return;
  }
  if (type == "Digits") {
    const std::string numeric = kNumeric;
    step.pattern.emplace_back(flag(json, "individual_digits", false) ? numeric : numeric + "+", where);
  } else if (type == "ByteLevel") {
    byte_level_ = true;
    step.prefix_space = flag(json, "add_prefix_space", true);
    if (flag(json, "use_regex", true)) step.pattern.emplace_back(kGpt2, where);
  } else if (type == "Split") {
    const Json pattern = json.value("pattern", Json());
    const std::string behavior =
        json.contains("behavior") && json["behavior"].is_string() ? json["behavior"].get<std::string>() : "";
    if (pattern.is_object() && pattern.contains("Regex") && pattern["Regex"].is_string()) {
      step.pattern.emplace_back(pattern["Regex"].get<std::string>(), where);
    } else if (pattern.is_object() && pattern.contains("String") && pattern["String"].is_string()) {
      step.pattern.emplace_back(quoted(pattern["String"].get<std::string>()), where);
    } else {
      throw_invalid("a Split has neither a Regex nor a String as pattern", where, kDamaged);
    }
    if (behavior == "Removed") {
      const bool inverted = flag(json, "invert", false);
      step.keep_matches = inverted;
      step.keep_rest = !inverted;
    } else if (behavior != "Isolated") {
      throw_unsupported("the Split behaviour '" + behavior + "'", where, "Isolated and Removed are read");
    }
  } else {
    throw_unsupported("pre_tokenizer '" + type + "'", where, "Digits, Split and ByteLevel are read");
  }
  steps_.push_back(std::move(step));
}

void PreTokenizer::each(std::string_view text, const std::function<void(std::string_view)>& word) const {
  if (!text.empty()) apply(0, text, word);
}

void PreTokenizer::apply(std::size_t number, std::string_view text, const std::function<void(std::string_view)>& word) const {
  if (number == steps_.size()) return word(text);
  const Step& step = steps_[number];
  std::string prefixed;
  if (step.prefix_space && text[0] != ' ') {
    prefixed.append(1, ' ').append(text);
    text = prefixed;
  }
  if (step.pattern.empty()) return apply(number + 1, text, word);
  std::size_t done = 0;
  step.pattern[0].each(text, [&](std::size_t begin, std::size_t end) {
    if (begin > done && step.keep_rest) apply(number + 1, text.substr(done, begin - done), word);
    if (step.keep_matches) apply(number + 1, text.substr(begin, end - begin), word);
    done = end;
  });
  if (done < text.size() && step.keep_rest) apply(number + 1, text.substr(done), word);
}

}  // namespace espalier
