#pragma once
#include <filesystem>
#include <optional>

#include "formats/encoder.h"

namespace espalier {

/// A sentence-transformers directory: modules.json names folders of a transformer, a pooling and perhaps a normalization.
struct SentenceModules {
  std::filesystem::path model;  ///< the transformer's folder
  SentencePooling pooling;
};

/// Nothing where the folder has no modules.json. Hostile input: modules may not leave the folder. Throws Error(invalid_input) with
/// file and key, Error(unsupported) for modules and ways of pooling by name.
std::optional<SentenceModules> read_sentence_modules(const std::filesystem::path& folder);

}  // namespace espalier
