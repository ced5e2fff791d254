// A tokenizer.json up to the first NUL, then a text for it.
#include <algorithm>

#include "formats/tokenizer.h"
#include "formats/vocabulary_cut.h"
#include "target.h"

using namespace espalier;

ESPALIER_FUZZ(tokenizer, bytes) {
  const auto end = std::find(bytes.begin(), bytes.end(), std::byte{0});
  const auto split = static_cast<std::size_t>(end - bytes.begin());
  const std::string_view json = fuzz::text_of(bytes.first(split));
  const std::string_view text = fuzz::text_of(bytes.subspan(std::min(split + 1, bytes.size())));
  const auto tokenizer = Tokenizer::from_json(json, "fuzz");
  const auto ids = tokenizer->encode(text);
  tokenizer->decode(ids);
  const auto again = Tokenizer::from_json(tokenizer->json(), "again");
  if (again->encode(text) != ids) throw std::logic_error("its own json reads text differently");
  const VocabularyCut cut(tokenizer->json(), "cut");
  cut.json(cut.closed(ids));
}
