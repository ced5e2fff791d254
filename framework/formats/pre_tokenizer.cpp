#include "formats/pre_tokenizer.h"

#include <fmt/format.h>

#include <map>

#include "formats/byte_level.h"
#include "formats/cutting.h"
#include "formats/tokenizer_part.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Piece = PreTokenizer::Piece;
using Sink = PreTokenizer::Sink;
using Behavior = DelimiterBehavior;

// GPT-2's pattern (Radford et al., 2019), which ByteLevel applies by itself.
constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Cuts at the matches of a pattern; inverted, the rest counts as matched.
class AtPattern final : public PreTokenizer::Step {
 public:
  AtPattern(Pattern pattern, Behavior behavior, bool invert) : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void cut(const Piece& piece, const Sink& next) const override {
    Cutter cutter(piece, behavior_, next);
    std::size_t done = 0;
    pattern_.each(piece.text, [&](std::size_t begin, std::size_t end) {
      if (begin > done) cutter.add(begin, invert_);
      cutter.add(end, !invert_);
      done = end;
    });
    if (done < piece.text.size()) cutter.add(piece.text.size(), invert_);
    cutter.finish();
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

/// Cuts at every character that a test holds for.
template <class Test>
class AtCharacters final : public PreTokenizer::Step {
 public:
  AtCharacters(Test test, Behavior behavior) : test_(test), behavior_(behavior) {}
  void cut(const Piece& piece, const Sink& next) const override {
    Cutter cutter(piece, behavior_, next);
    std::size_t begin = 0;
    for (std::size_t at = 0; at < piece.text.size();) {
      const std::size_t before = at;
      if (!test_(next_code_point(piece.text, at))) continue;
      if (before > begin) cutter.add(before, false);
      cutter.add(begin = at, true);
    }
    if (begin < piece.text.size()) cutter.add(piece.text.size(), false);
    cutter.finish();
  }

 private:
  Test test_;
  Behavior behavior_;
};

/// Runs of word characters and runs of what is neither that nor white space (the pattern `\w+|[^\w\s]+`).
class WordRuns final : public PreTokenizer::Step {
 public:
  void cut(const Piece& piece, const Sink& next) const override {
    Cutter cutter(piece, Behavior::removed, next);
    const auto kind = [](char32_t c) { return is_white_space(c) ? 0 : is_word_character(c) ? 1 : 2; };
    for (std::size_t at = 0; at < piece.text.size();) {
      const int first = kind(next_code_point(piece.text, at));
      for (std::size_t next_at = at; next_at < piece.text.size(); at = next_at) {
        if (kind(next_code_point(piece.text, next_at)) != first) break;
      }
      cutter.add(at, first == 0);
    }
    cutter.finish();
  }
};

/// Bytes as characters, and first GPT-2's cuts.
class ByteLevel final : public PreTokenizer::Step {
 public:
  ByteLevel(bool prefix_space, bool pattern, const std::string& where) : prefix_space_(prefix_space) {
    if (pattern) words_ = std::make_unique<AtPattern>(Pattern(kGpt2, where), Behavior::isolated, false);
  }
  void cut(const Piece& piece, const Sink& next) const override {
    std::string prefixed, characters;
    Piece text = piece;
    if (prefix_space_ && piece.text[0] != ' ') {
      prefixed.append(1, ' ').append(piece.text);
      text = {prefixed, piece.origin > 0 ? piece.origin + 1 : 0};
    }
    const Sink word = [&](const Piece& cut) {
      characters.clear();
      append_byte_characters(characters, cut.text);
      next({characters, cut.origin});
    };
    words_ ? words_->cut(text, word) : word(text);
  }

 private:
  bool prefix_space_;
  std::unique_ptr<AtPattern> words_;
};

/// SentencePiece's way with blanks: each becomes a visible mark, one goes in front, and words begin at marks.
class Metaspace final : public PreTokenizer::Step {
 public:
  explicit Metaspace(const TokenizerPart& part) : split_(part.flag("split", true)) {
    append_utf8(mark_, part.character("replacement"));
    scheme_ = part.text("prepend_scheme", "always");
    if (scheme_ != "always" && scheme_ != "first" && scheme_ != "never")
      part.damaged("the prepend_scheme '" + scheme_ + "' is none of always, first, never");
    if (!part.flag("add_prefix_space", true) && scheme_ != "never")
      part.damaged("add_prefix_space is false, the prepend_scheme \"" + scheme_ + "\"");
    if (split_) words_ = std::make_unique<AtPattern>(Pattern::literal(mark_, part.where()), Behavior::merged_with_next, false);
  }
  void cut(const Piece& piece, const Sink& next) const override {
    std::string marked;
    std::size_t origin = piece.origin;
    if (piece.text[0] == ' ' && origin > 0) origin += mark_.size() - 1;
    for (const char c : piece.text) c == ' ' ? marked += mark_ : marked += c;
    if ((scheme_ == "always" || (scheme_ == "first" && origin > 0)) && marked.compare(0, mark_.size(), mark_) != 0) {
      marked.insert(0, mark_);
      if (origin > 0) origin += mark_.size();
    }
    const Piece text{marked, origin};
    split_ ? words_->cut(text, next) : next(text);
  }
  const std::string& scheme() const { return scheme_; }

 private:
  bool split_;
  std::string mark_, scheme_;
  std::unique_ptr<AtPattern> words_;
};

struct Steps {
  std::vector<std::unique_ptr<PreTokenizer::Step>> list;
  bool newlines = false;  ///< a newline and what follows it are in different words
  bool prefixed = false;  ///< the first word is not what it would be further on
  bool bytes = false;     ///< ByteLevel was there

  template <class Test>
  void characters(Test test, Behavior behavior) {
    list.push_back(std::make_unique<AtCharacters<Test>>(test, behavior));
  }
  void white_space() {
    characters(is_white_space, Behavior::removed);
    newlines = true;
  }
};

void add(const TokenizerPart& part, Steps& steps);

void add_byte_level(const TokenizerPart& part, Steps& steps) {
  if (steps.bytes) throw_unsupported("pre_tokenizer 'ByteLevel' twice", part.where(), "bytes of bytes double with each");
  steps.bytes = true;
  const bool prefix = part.flag("add_prefix_space", true), pattern = part.flag("use_regex", true);
  steps.list.push_back(std::make_unique<ByteLevel>(prefix, pattern, part.where()));
  steps.prefixed |= prefix && !steps.newlines;
  steps.newlines |= pattern;
}

void add_metaspace(const TokenizerPart& part, Steps& steps) {
  auto step = std::make_unique<Metaspace>(part);
  steps.prefixed |= step->scheme() == "first" || (step->scheme() == "always" && !steps.newlines);
  steps.list.push_back(std::move(step));
}

void add_split(const TokenizerPart& part, Steps& steps) {
  const Behavior behavior = delimiter_behavior(part.text("behavior"), "a Split", part.where());
  steps.list.push_back(std::make_unique<AtPattern>(part.pattern(), behavior, part.flag("invert", false)));
  // The patterns of GPT-2's kin, which cut at every end of a line.
  steps.newlines |= json_member(part.at("pattern"), "Regex").is_string() && part.text("behavior") != "Contiguous";
}

const std::map<std::string, void (*)(const TokenizerPart&, Steps&)>& makers() {
  static const std::map<std::string, void (*)(const TokenizerPart&, Steps&)> known = {
      {"BertPreTokenizer",
       [](const TokenizerPart&, Steps& steps) {
         steps.white_space();
         steps.characters(is_punctuation, Behavior::isolated);
       }},
      {"ByteLevel", add_byte_level},
      {"CharDelimiterSplit",
       [](const TokenizerPart& part, Steps& steps) {
         const char32_t delimiter = part.character("delimiter");
         steps.characters([=](char32_t c) { return c == delimiter; }, Behavior::removed);
       }},
      {"Digits",
       [](const TokenizerPart& part, Steps& steps) {
         steps.characters(is_numeric, part.flag("individual_digits", false) ? Behavior::isolated : Behavior::contiguous);
       }},
      {"Metaspace", add_metaspace},
      {"Punctuation",
       [](const TokenizerPart& part, Steps& steps) {
         steps.characters(is_punctuation, delimiter_behavior(part.text("behavior", "Isolated"), "Punctuation", part.where()));
       }},
      {"Sequence",
       [](const TokenizerPart& part, Steps& steps) {
         for (const TokenizerPart& item : part.parts("pretokenizers")) add(item, steps);
       }},
      {"Split", add_split},
      {"Whitespace",
       [](const TokenizerPart&, Steps& steps) {
         steps.list.push_back(std::make_unique<WordRuns>());
         steps.newlines = true;
       }},
      {"WhitespaceSplit", [](const TokenizerPart&, Steps& steps) { steps.white_space(); }},
  };
  return known;
}

void add(const TokenizerPart& part, Steps& steps) { part.chosen(makers())(part, steps); }

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) {
  if (json.is_null()) return;
  Steps steps;
  add(TokenizerPart(json, "pre_tokenizer", where), steps);
  steps_ = std::move(steps.list);
  cuts_at_newlines_ = steps.newlines && !steps.prefixed;
}

void PreTokenizer::each(const Piece& text, const Sink& word) const {
  if (!text.text.empty()) apply(0, text, word);
}

void PreTokenizer::apply(std::size_t step, const Piece& piece, const Sink& word) const {
  if (step == steps_.size()) return word(piece);
  if (step + 1 == steps_.size()) return steps_[step]->cut(piece, word);
  steps_[step]->cut(piece, [&](const Piece& part) { apply(step + 1, part, word); });
}

}  // namespace espalier
