#pragma once
#include <memory>

#include "formats/gguf.h"

namespace espalier {

/// The byte-level BPE tokenizer that a GGUF file's metadata describes; throws Error(unsupported) naming another kind of tokenizer
/// or pre-tokenizer.
std::shared_ptr<Tokenizer> gguf_tokenizer(const GgufFile& file);

/// Metadata entries of one type; absent ones give `fallback`, another type Error(invalid_input) naming the key.
std::int64_t metadata_integer(const GgufFile& file, const std::string& key, std::int64_t fallback);
double metadata_number(const GgufFile& file, const std::string& key, double fallback);
std::string metadata_text(const GgufFile& file, const std::string& key, const std::string& fallback);
bool metadata_flag(const GgufFile& file, const std::string& key, bool fallback);
bool has_metadata(const GgufFile& file, const std::string& key);

}  // namespace espalier
