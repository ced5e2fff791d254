#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "formats/tokenizer.h"

namespace espalier {

/// The tokenizer of a Hugging Face directory: tokenizer.json, else a BERT model's vocab.txt with the settings of
/// tokenizer_config.json; null when it has neither.
std::shared_ptr<Tokenizer> folder_tokenizer(const std::filesystem::path& folder);

/// The tokenizer.json that a BERT model's vocab.txt stands for: one token a line, its id the number of the line from zero. `config`
/// is what tokenizer_config.json holds, null without one: do_lower_case, strip_accents, tokenize_chinese_chars and the names of the
/// special tokens. Throws Error(invalid_input) when the vocabulary lacks one of [UNK], [CLS] and [SEP], or is no UTF-8.
std::string word_piece_json(std::string_view vocabulary, const Json& config, const std::string& where);

}  // namespace espalier
