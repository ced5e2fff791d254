#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// The "post_processor" of a tokenizer.json: what a model sees around a text ([CLS] … [SEP], a BOS). Immutable.
class PostProcessor {
 public:
  using Ids = std::span<const std::int32_t>;

  /// Null puts nothing around. Throws Error(unsupported) naming a type that is not read, Error(invalid_input) for a damaged one.
  PostProcessor(const Json& json, const std::string& where);

  /// Ids of one text, and of a text and its pair, with the tokens around them; `segments` gets the segment of each (token type, 0
  /// or 1).
  std::vector<std::int32_t> frame(Ids text, std::vector<std::int32_t>* segments = nullptr) const;
  std::vector<std::int32_t> frame(Ids text, Ids pair, std::vector<std::int32_t>* segments = nullptr) const;

  /// The one token that goes before a text; -1 when there is none, or several.
  std::int32_t leading() const;

 private:
  struct Piece {
    enum class Source { special, text, pair } source = Source::text;
    std::vector<std::int32_t> ids;  // of a special token
    std::int32_t segment = 0;
  };
  using Template = std::vector<Piece>;

  void add(const Json& json, const std::string& where);
  static Template read_template(const Json& pieces, const Json& specials, bool pair, const std::string& where);
  static std::vector<std::int32_t> fill(const Template& pieces, Ids text, Ids pair, std::vector<std::int32_t>* segments);

  Template single_{Piece{}}, pair_{Piece{}, Piece{Piece::Source::pair, {}, 1}};
  bool framed_ = false;
};

}  // namespace espalier
