#pragma once
#include <memory>
#include <string>

#include "sdk/artifact.h"

namespace espalier {

/// A piece of text on its way through the normalizers; valid UTF-8.
struct NormalizedText {
  std::string text;
  /// How many of its first bytes stand for the first character of the whole text: Metaspace's "first" asks for that.
  std::size_t origin = 0;
  /// How long it may become, in bytes: a foreign file's rules could double it again and again.
  std::size_t most = std::size_t{64} << 20;

  /// Throws Error(invalid_input) for a length beyond `most`.
  void check(std::size_t length) const;
};

/// The "normalizer" of a tokenizer.json: rewrites text before it is cut. Immutable, usable from many threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& text) const = 0;
  /// Whether what it makes of a text is what it makes of two parts of it, cut after a newline.
  virtual bool local() const { return true; }
};

/// Null for null. Throws Error(unsupported) naming a type that is not read, Error(invalid_input) for a damaged one.
std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& where);

}  // namespace espalier
