#pragma once
#include <memory>
#include <string>
#include <vector>

#include "formats/byte_level.h"
#include "formats/tokenizer.h"

namespace espalier::test {

/// A token for each byte (its own number), one for two newlines (256), and special ones from 257 on; with `roles` the first of
/// these is BOS and the second EOS.
inline std::shared_ptr<Tokenizer> tokenizer_of_bytes(const std::vector<std::string>& special, bool roles = false) {
  Json vocab = Json::object(), added = Json::array();
  for (int b = 0; b < 256; ++b) vocab[to_byte_characters(std::string(1, static_cast<char>(b)))] = b;
  const std::string newline = to_byte_characters("\n");
  vocab[newline + newline] = 256;
  for (const std::string& content : special) {
    added.push_back({{"id", 257 + added.size()},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  if (roles) {
    added[0]["role"] = "bos";
    added[1]["role"] = "eos";
  }
  const Json document{{"version", "1.0"},
                      {"added_tokens", added},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
                      {"post_processor", nullptr},
                      {"decoder", {{"type", "ByteLevel"}}},
                      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({newline + " " + newline})}}}};
  return Tokenizer::from_json(document.dump(), "t.json");
}

}  // namespace espalier::test
