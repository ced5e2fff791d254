#include "formats/token_decoders.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <numeric>

#include "formats/byte_level.h"
#include "formats/tokenizer_part.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Decoder = std::unique_ptr<TokenDecoder>;
using Tokens = std::vector<std::string>;

constexpr std::size_t kMostText = std::size_t{64} << 20;  // what a foreign file may make of a few tokens

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::size_t at = text.find(from);
  if (at == std::string::npos) return;
  std::string out;
  std::size_t done = 0;
  for (; at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  text = out.append(text, done);
}

std::string joined(const Tokens& tokens) { return std::accumulate(tokens.begin(), tokens.end(), std::string()); }

/// The byte of a token "<0xE4>"; -1 for any other.
int byte_of(const std::string& token) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  return digit(token[3]) < 0 || digit(token[4]) < 0 ? -1 : 16 * digit(token[3]) + digit(token[4]);
}

class ByteLevel final : public TokenDecoder {
 public:
  void apply(Tokens& tokens) const override {
    for (std::string& token : tokens) inside(token);
    tokens = {repaired_utf8(joined(tokens))};
  }
  void inside(std::string& token) const override {
    if (auto bytes = from_byte_characters(token)) token = std::move(*bytes);
  }
};

/// Runs of byte tokens become text, or U+FFFD for each when they are none.
class ByteFallback final : public TokenDecoder {
 public:
  void apply(Tokens& tokens) const override {
    Tokens out;
    std::string run;
    const auto flush = [&] {
      if (run.empty()) return;
      if (valid_utf8(run)) {
        out.push_back(run);
      } else {
        out.insert(out.end(), run.size(), "\uFFFD");
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      if (const int byte = byte_of(token); byte >= 0) {
        run += static_cast<char>(byte);
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  }
  void inside(std::string& token) const override {
    if (const int byte = byte_of(token); byte >= 0) token = std::string(1, static_cast<char>(byte));
  }
};

class Fuse final : public TokenDecoder {
 public:
  void apply(Tokens& tokens) const override { tokens = {joined(tokens)}; }
  void inside(std::string&) const override {}
};

class WordPiece final : public TokenDecoder {
 public:
  WordPiece(std::string prefix, bool clean_up) : prefix_(std::move(prefix)), clean_up_(clean_up) {}
  void apply(Tokens& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) decode(tokens[i], i == 0);
  }
  void inside(std::string& token) const override { decode(token, false); }

 private:
  void decode(std::string& token, bool first) const {
    if (!first) {
      if (token.starts_with(prefix_)) {
        token.erase(0, prefix_.size());
      } else {
        token.insert(token.begin(), ' ');
      }
    }
    if (!clean_up_) return;
    // English punctuation and contractions, one after the other.
    static constexpr std::array<std::pair<const char*, const char*>, 11> rules = {{{" .", "."},
                                                                                   {" ?", "?"},
                                                                                   {" !", "!"},
                                                                                   {" ,", ","},
                                                                                   {" ' ", "'"},
                                                                                   {" n't", "n't"},
                                                                                   {" 'm", "'m"},
                                                                                   {" do not", " don't"},
                                                                                   {" 's", "'s"},
                                                                                   {" 've", "'ve"},
                                                                                   {" 're", "'re"}}};
    for (const auto& [from, to] : rules) replace_all(token, from, to);
  }
  std::string prefix_;
  bool clean_up_;
};

class Metaspace final : public TokenDecoder {
 public:
  explicit Metaspace(const TokenizerPart& part) {
    append_utf8(mark_, part.character("replacement"));
    prefixed_ = part.text("prepend_scheme", "always") != "never";
    if (!part.flag("add_prefix_space", true) && prefixed_) part.damaged("add_prefix_space is false, the prepend_scheme another");
  }
  void apply(Tokens& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], mark_, i == 0 && prefixed_ ? "" : " ");
  }
  void inside(std::string& token) const override { replace_all(token, mark_, " "); }

 private:
  std::string mark_;
  bool prefixed_;
};

/// Takes a character off the ends of each token; within a text nothing, for that is a fused one.
class Strip final : public TokenDecoder {
 public:
  explicit Strip(const TokenizerPart& part) : start_(part.count("start")), stop_(part.count("stop")) {
    append_utf8(content_, part.character("content"));
  }
  void apply(Tokens& tokens) const override {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      for (std::int64_t i = 0; i < start_ && rest.starts_with(content_); ++i) rest.remove_prefix(content_.size());
      for (std::int64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) rest.remove_suffix(content_.size());
      token = std::string(rest);
    }
  }
  void inside(std::string&) const override {}

 private:
  std::string content_;
  std::int64_t start_, stop_;
};

class Replace final : public TokenDecoder {
 public:
  explicit Replace(const TokenizerPart& part) : pattern_(part.pattern()), content_(part.text("content")) {}
  void apply(Tokens& tokens) const override {
    std::size_t room = kMostText;
    for (const std::string& token : tokens) room += 8 * token.size();
    for (std::string& token : tokens) {
      replace(token, room);
      room -= token.size();
    }
  }
  void inside(std::string& token) const override { replace(token, kMostText); }

 private:
  /// Makes at most `room` bytes of the token.
  void replace(std::string& token, std::size_t room) const {
    if (token.empty() || !valid_utf8(token)) return;  // a single byte may have come out of the part before
    std::string out;
    std::size_t done = 0;
    const auto check = [&] {
      if (out.size() > room) throw_invalid("the tokenizer's decoder makes too long a text of its tokens", "", kDamagedTokenizer);
    };
    pattern_.each(token, [&](std::size_t begin, std::size_t end) {
      out.append(token, done, begin - done).append(content_);
      done = end;
      check();
    });
    out.append(token, done);
    check();
    token = std::move(out);
  }

  Pattern pattern_;
  std::string content_;
};

/// Words of BPE that mark their end.
class EndOfWord final : public TokenDecoder {
 public:
  explicit EndOfWord(const TokenizerPart& part) : suffix_(part.text("suffix")) {
    if (suffix_.empty()) part.damaged("\"suffix\" is empty");
  }
  void apply(Tokens& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) replace_all(tokens[i], suffix_, i + 1 == tokens.size() ? "" : " ");
  }
  void inside(std::string& token) const override { replace_all(token, suffix_, " "); }

 private:
  std::string suffix_;
};

class Chain final : public TokenDecoder {
 public:
  explicit Chain(std::vector<Decoder> parts) : parts_(std::move(parts)) {}
  void apply(Tokens& tokens) const override {
    for (const Decoder& part : parts_) part->apply(tokens);
  }
  void inside(std::string& token) const override {
    for (const Decoder& part : parts_) part->inside(token);
  }

 private:
  std::vector<Decoder> parts_;
};

Decoder make(const TokenizerPart& part);

Decoder sequence(const TokenizerPart& part) {
  std::vector<Decoder> parts;
  for (const TokenizerPart& item : part.parts("decoders")) parts.push_back(make(item));
  return std::make_unique<Chain>(std::move(parts));
}

template <class Type>
Decoder plain(const TokenizerPart&) {
  return std::make_unique<Type>();
}

template <class Type>
Decoder described(const TokenizerPart& part) {
  return std::make_unique<Type>(part);
}

const std::map<std::string, Decoder (*)(const TokenizerPart&)>& makers() {
  static const std::map<std::string, Decoder (*)(const TokenizerPart&)> known = {
      {"BPEDecoder", described<EndOfWord>},
      {"ByteFallback", plain<ByteFallback>},
      {"ByteLevel", plain<ByteLevel>},
      {"Fuse", plain<Fuse>},
      {"Metaspace", described<Metaspace>},
      {"Replace", described<Replace>},
      {"Sequence", sequence},
      {"Strip", described<Strip>},
      {"WordPiece",
       [](const TokenizerPart& part) -> Decoder {
         return std::make_unique<WordPiece>(part.text("prefix", "##"), part.flag("cleanup", true));
       }},
  };
  return known;
}

Decoder make(const TokenizerPart& part) { return part.chosen(makers())(part); }

}  // namespace

std::unique_ptr<TokenDecoder> make_token_decoder(const Json& json, const std::string& where) {
  return json.is_null() ? nullptr : make(TokenizerPart(json, "decoder", where));
}

}  // namespace espalier
