#include "formats/normalizers.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <vector>

#include "formats/byte_level.h"
#include "formats/charsmap.h"
#include "formats/tokenizer_part.h"
#include "formats/unicode.h"
#include "formats/unicode_forms.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Part = std::unique_ptr<Normalizer>;

/// `rewrite(out, point)` appends what becomes of one character.
template <class Rewrite>
void each_character(NormalizedText& text, const Rewrite& rewrite) {
  NormalizedText out{{}, 0, text.most};
  out.text.reserve(text.text.size());
  for (std::size_t at = 0; at < text.text.size();) {
    rewrite(out.text, next_code_point(text.text, at));
    if (at <= text.origin) out.origin = out.text.size();
  }
  text = std::move(out);
}

std::size_t first_length(const std::string& text) {
  std::size_t at = 0;
  if (!text.empty()) next_code_point(text, at);
  return at;
}

/// A normalizer that sees one character at a time.
class Characters final : public Normalizer {
 public:
  using Rewrite = void (*)(std::string& out, char32_t point);
  explicit Characters(Rewrite rewrite) : rewrite_(rewrite) {}
  void apply(NormalizedText& text) const override { each_character(text, rewrite_); }

 private:
  Rewrite rewrite_;
};

void lower_case(std::string& out, char32_t c) { append_lower_case(out, c); }

void without_marks(std::string& out, char32_t c) {
  if (!is_mark(c)) append_utf8(out, c);
}

void without_nonspacing_marks(std::string& out, char32_t c) {
  if (!is_nonspacing_mark(c)) append_utf8(out, c);
}

/// BERT's cleaning: no control characters, and every white space a blank.
void clean(std::string& out, char32_t c) {
  const bool blank = c == '\t' || c == '\n' || c == '\r';
  if (c == 0 || c == 0xFFFD || (!blank && is_control(c))) return;
  append_utf8(out, is_white_space(c) ? U' ' : c);
}

/// Blanks around each ideograph, in the blocks that BERT's authors took for that.
void spaced_ideographs(std::string& out, char32_t c) {
  const bool ideograph = (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
                         (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
                         (c >= 0x2F800 && c <= 0x2FA1F);
  if (ideograph) out += ' ';
  append_utf8(out, c);
  if (ideograph) out += ' ';
}

/// SentencePiece's "nmt" rules.
void nmt(std::string& out, char32_t c) {
  if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return;
  const bool blank = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
                     c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
  append_utf8(out, blank ? U' ' : c);
}

void byte_characters(std::string& out, char32_t c) {
  std::string bytes;
  append_utf8(bytes, c);
  append_byte_characters(out, bytes);
}

class Form final : public Normalizer {
 public:
  explicit Form(NormalForm form) : form_(form) {}
  void apply(NormalizedText& text) const override {
    text.text = normal_form(text.text, form_);
    if (text.origin > 0) text.origin = first_length(text.text);
  }

 private:
  NormalForm form_;
};

class Chain final : public Normalizer {
 public:
  explicit Chain(std::vector<Part> parts) : parts_(std::move(parts)) {}
  void apply(NormalizedText& text) const override {
    for (const Part& part : parts_) {
      part->apply(text);
      text.check(text.text.size());
    }
  }
  bool local() const override {
    for (const Part& part : parts_) {
      if (!part->local()) return false;
    }
    return true;
  }

 private:
  std::vector<Part> parts_;
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(NormalizedText& text) const override {
    std::size_t begin = 0, end = 0;
    for (std::size_t at = 0; at < text.text.size();) {
      const bool leading = end == 0;
      const bool blank = is_white_space(next_code_point(text.text, at));
      if (blank && leading) begin = at;
      if (!blank) end = at;
    }
    if (!right_) end = text.text.size();
    if (!left_ || begin > end) begin = left_ ? end : 0;
    text.text = text.text.substr(begin, end - begin);
    text.origin = text.origin > begin ? text.origin - begin : 0;
  }
  bool local() const override { return false; }

 private:
  bool left_, right_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  void apply(NormalizedText& text) const override {
    if (text.text.empty()) return;
    text.text.insert(0, text_);
    if (text.origin > 0) text.origin += text_.size();
  }
  bool local() const override { return false; }

 private:
  std::string text_;
};

class Replace final : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content, bool literal)
      : pattern_(std::move(pattern)), content_(std::move(content)), literal_(literal) {}
  void apply(NormalizedText& text) const override {
    NormalizedText out{{}, 0, text.most};
    std::size_t done = 0;
    const auto keep = [&](std::size_t end) {
      out.text.append(text.text, done, end - done);
      if (done < text.origin) out.origin = out.text.size() - (end > text.origin ? end - text.origin : 0);
      done = end;
    };
    pattern_.each(text.text, [&](std::size_t begin, std::size_t end) {
      keep(begin);
      out.text += content_;
      out.check(out.text.size());
      if (text.origin > 0 && end <= text.origin) out.origin = out.text.size();
      done = end;
    });
    keep(text.text.size());
    text = std::move(out);
  }
  bool local() const override { return literal_; }

 private:
  Pattern pattern_;
  std::string content_;
  bool literal_;
};

class Precompiled final : public Normalizer {
 public:
  Precompiled(const std::string& base64, const std::string& where) : map_(base64, where) {}
  void apply(NormalizedText& text) const override {
    text.text = map_.normalized(text.text, [&](std::size_t length) { text.check(length); });
    if (text.origin > 0) text.origin = first_length(text.text);
  }

 private:
  CharsMap map_;
};

Part make(const TokenizerPart& part);

Part bert(const TokenizerPart& part) {
  std::vector<Part> parts;
  const bool lower = part.flag("lowercase", true);
  if (part.flag("clean_text", true)) parts.push_back(std::make_unique<Characters>(clean));
  if (part.flag("handle_chinese_chars", true)) parts.push_back(std::make_unique<Characters>(spaced_ideographs));
  if (part.flag("strip_accents", lower)) {
    parts.push_back(std::make_unique<Form>(NormalForm::nfd));
    parts.push_back(std::make_unique<Characters>(without_nonspacing_marks));
  }
  if (lower) parts.push_back(std::make_unique<Characters>(lower_case));
  return std::make_unique<Chain>(std::move(parts));
}

Part sequence(const TokenizerPart& part) {
  std::vector<Part> parts;
  for (const TokenizerPart& item : part.parts("normalizers")) parts.push_back(make(item));
  return std::make_unique<Chain>(std::move(parts));
}

template <NormalForm form>
Part to_form(const TokenizerPart&) {
  return std::make_unique<Form>(form);
}

template <Characters::Rewrite rewrite>
Part characters(const TokenizerPart&) {
  return std::make_unique<Characters>(rewrite);
}

const std::map<std::string, Part (*)(const TokenizerPart&)>& makers() {
  static const std::map<std::string, Part (*)(const TokenizerPart&)> known = {
      {"BertNormalizer", bert},
      {"ByteLevel", characters<byte_characters>},
      {"Lowercase", characters<lower_case>},
      {"NFC", to_form<NormalForm::nfc>},
      {"NFD", to_form<NormalForm::nfd>},
      {"NFKC", to_form<NormalForm::nfkc>},
      {"NFKD", to_form<NormalForm::nfkd>},
      {"Nmt", characters<nmt>},
      {"Precompiled",
       [](const TokenizerPart& p) -> Part { return std::make_unique<Precompiled>(p.text("precompiled_charsmap"), p.where()); }},
      {"Prepend", [](const TokenizerPart& p) -> Part { return std::make_unique<Prepend>(p.text("prepend")); }},
      {"Replace",
       [](const TokenizerPart& p) -> Part {
         const bool literal = json_member(p.at("pattern"), "String").is_string();
         return std::make_unique<Replace>(p.pattern(), p.text("content"), literal);
       }},
      {"Sequence", sequence},
      {"Strip",
       [](const TokenizerPart& p) -> Part {
         return std::make_unique<Strip>(p.flag("strip_left", true), p.flag("strip_right", true));
       }},
      {"StripAccents", characters<without_marks>},
  };
  return known;
}

Part make(const TokenizerPart& part) { return part.chosen(makers())(part); }

}  // namespace

void NormalizedText::check(std::size_t length) const {
  if (length > most)
    throw_invalid(fmt::format("the tokenizer's normalizer makes more than {} bytes of a text", most), "", kDamagedTokenizer);
}

std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& where) {
  return json.is_null() ? nullptr : make(TokenizerPart(json, "normalizer", where));
}

}  // namespace espalier
