#include <catch2/catch_test_macros.hpp>
#include <chrono>

#include "abuse.h"
#include "formats/tokenizer.h"
#include "tokenizer_documents.h"

using namespace espalier;
using namespace espalier::tests;

namespace {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<Tokenizer> make(const Json& json) { return Tokenizer::from_json(json.dump(), "t.json"); }

/// The error of a document that `change` has damaged; its place is the file.
Error refusal(Json json, const std::function<void(Json&)>& change, const std::string& text = "") {
  change(json);
  const Error error = abuse::error_of([&] { make(json)->encode(text); });
  INFO(error.what());
  CHECK(error.where() == "t.json");
  return error;
}

void mistreat(const Json& document) {
  const auto outcome = abuse::mistreat(abuse::bytes_of(document.dump()), [](const abuse::Bytes& bytes) {
    const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    const auto tokenizer = Tokenizer::from_json(text, "t.json");
    const Ids ids = tokenizer->encode("The gardener a  ab aaa.\n<s> [CLS] Été 東京 \xff\xe2\x82 e\u0301");
    tokenizer->decode(tokenizer->frame(ids, ids));
    for (const std::int32_t id : ids) tokenizer->bytes(id);
  });
  INFO(outcome.failure);
  CHECK(outcome.survived);
  CHECK(outcome.refused > 200);
  CHECK(outcome.accepted > 0);
}

double seconds_of(const std::function<void()>& act) {
  const auto begin = std::chrono::steady_clock::now();
  act();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

TEST_CASE("a damaged WordPiece, Unigram or SentencePiece-BPE tokenizer is refused or read, never more") {
  mistreat(word_piece_document());
  mistreat(unigram_document());
  mistreat(llama_document());
}

TEST_CASE("parts of a tokenizer.json that lie are refused by name") {
  const auto message = [](const Json& document, const std::function<void(Json&)>& change) {
    return refusal(document, change).message();
  };
  const auto holds = [&](const Json& document, const std::function<void(Json&)>& change, const char* part) {
    return message(document, change).find(part) != std::string::npos;
  };
  const Json bert = word_piece_document(), unigram = unigram_document(), llama = llama_document();
  CHECK(message(bert, [](Json& j) { j["normalizer"] = {{"type", "NFX"}}; }) == "the normalizer 'NFX'");
  CHECK(message(bert, [](Json& j) { j["pre_tokenizer"] = {{"type", "UnicodeScripts"}}; }) == "the pre_tokenizer 'UnicodeScripts'");
  CHECK(message(bert, [](Json& j) { j["decoder"] = {{"type", "CTC"}}; }) == "the decoder 'CTC'");
  CHECK(message(bert, [](Json& j) { j["post_processor"] = {{"type", "X"}}; }) == "the post_processor 'X'");
  CHECK(message(bert, [](Json& j) { j["model"]["type"] = "WordLevel"; }) == "the tokenizer model 'WordLevel'");
  CHECK(refusal(bert, [](Json& j) { j["normalizer"] = Json::array(); }).code() == ErrorCode::invalid_input);
  CHECK(holds(
      bert, [](Json& j) { j["normalizer"]["lowercase"] = 1; }, "\"lowercase\" is neither"));
  CHECK(holds(
      bert,
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Punctuation"}, {"behavior", "Eaten"}};
      },
      "the behaviour 'Eaten'"));
  CHECK(holds(
      bert,
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "CharDelimiterSplit"}, {"delimiter", "ab"}};
      },
      "not one character"));
  CHECK(holds(
      bert,
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", 7}, {"behavior", "Removed"}};
      },
      "neither a Regex"));
  CHECK(holds(
      bert,
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "twice"}};
      },
      "'twice'"));
  CHECK(holds(
      bert,
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}};
      },
      "add_prefix_space"));
  for (const char* pattern : {"[a-z&&[aeiou]]", "[a[bc]]"}) {
    const auto change = [=](Json& j) {
      j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Removed"}};
    };
    CHECK(refusal(bert, change).code() == ErrorCode::unsupported);
  }
  CHECK(holds(
      bert, [](Json& j) { j["model"]["max_input_chars_per_word"] = -1; }, "max_input_chars_per_word"));
  CHECK(holds(
      bert,
      [](Json& j) {
        j["model"]["vocab"] = Json::array({Json::array({"a", 1.0})});
      },
      "no table of tokens"));
  CHECK(holds(
      bert, [](Json& j) { j["decoder"]["prefix"] = 3; }, "\"prefix\" is no text"));
  CHECK(refusal(
            bert, [](Json& j) { j["model"]["unk_token"] = "[NONE]"; }, "zzz")
            .message()
            .find("'[NONE]'") != std::string::npos);

  CHECK(holds(
      bert, [](Json& j) { j["post_processor"]["single"][0]["SpecialToken"]["id"] = "[X]"; }, "\"[X]\""));
  CHECK(holds(
      bert, [](Json& j) { j["post_processor"]["single"][1]["Sequence"]["id"] = "B"; }, "the sequence \"B\""));
  CHECK(holds(
      bert, [](Json& j) { j["post_processor"]["single"] = "[CLS] $A"; }, "is no list"));
  CHECK(holds(
      bert, [](Json& j) { j["post_processor"]["special_tokens"]["[CLS]"]["ids"][0] = -1; }, "31 bits"));
  CHECK(holds(
      unigram, [](Json& j) { j["post_processor"]["sep"] = "<s>"; }, "\"sep\""));
  CHECK(holds(
      bert,
      [](Json& j) {
        const Json p = j["post_processor"];
        j["post_processor"] = {{"type", "Sequence"}, {"processors", {p, p}}};
      },
      "twice"));

  CHECK(holds(
      unigram, [](Json& j) { j["model"]["unk_id"] = 8; }, "unk_id"));
  CHECK(holds(
      unigram, [](Json& j) { j["model"]["vocab"][3] = "X"; }, "entry 3"));
  CHECK(holds(
      unigram,
      [](Json& j) {
        j["model"]["vocab"] = Json::object({{"a", 0}});
      },
      "no list"));
  CHECK(refusal(
            unigram, [](Json& j) { j["model"]["unk_id"] = nullptr; }, "z")
            .message()
            .find("no unk_id") != std::string::npos);

  const auto map = [&](const std::string& base64) {
    return message(unigram, [&](Json& j) { j["normalizer"]["normalizers"][0]["precompiled_charsmap"] = base64; });
  };
  CHECK(map("") == "the precompiled_charsmap claims a trie of 0 bytes in 0 bytes");
  CHECK(map("AAA").find("no base64") != std::string::npos);
  CHECK(map("AA=A").find("no base64") != std::string::npos);
  CHECK(map(base64("\xff\xff\xff\xff")).find("claims a trie of 4294967295 bytes") != std::string::npos);
  CHECK(map(charsmap(0, "\xff")).find("no UTF-8") != std::string::npos);

  CHECK(holds(
      llama, [](Json& j) { j["model"]["byte_fallback"] = "yes"; }, "'byte_fallback'"));
  CHECK(holds(
      llama, [](Json& j) { j["model"]["dropout"] = 0.1; }, "'dropout'"));
}

TEST_CASE("a charsmap whose trie leads outside, or into a character, changes nothing") {
  Json json = unigram_document();
  const auto encode = [&](const std::string& map) {
    json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = map;
    return make(json)->encode("a");
  };
  CHECK(encode(charsmap()) == Ids{4});  // "a" became "X"
  const Ids unchanged{2, 0};
  CHECK(encode(charsmap(1000)) == unchanged);
  CHECK(encode(charsmap(1, std::string("é\0", 3))) == unchanged);
  std::string outside(4, '\0');
  outside[0] = 4;  // one unit, whose children lie far away
  CHECK(encode(base64(outside + "\xff\xff\xff\xff" + std::string("X\0", 2))) == unchanged);
}

TEST_CASE("a normalizer that makes a text longer and longer is stopped") {
  Json json = llama_document();
  Json long_replacement = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1 << 20, 'b')}};
  json["normalizer"] = long_replacement;
  const auto message = [&] { return abuse::error_of([&] { make(json)->encode(std::string(300, 'a')); }).message(); };
  CHECK(message().find("normalizer makes more than") != std::string::npos);
  json["normalizer"] = nullptr;
  json["decoder"] = long_replacement;
  const auto tokenizer = make(json);
  CHECK(tokenizer->decode(Ids(2, 3)).size() == std::size_t{2} << 20);
  CHECK(abuse::error_of([&] { tokenizer->decode(Ids(300, 3)); }).message().find("decoder makes too long a text") !=
        std::string::npos);
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "ByteLevel"}}}}};
  CHECK(message() == "pre_tokenizer 'ByteLevel' twice");
}

TEST_CASE("the tokens of a part are what its model says") {
  const auto bert = make(word_piece_document());
  CHECK(bert->encode("The gardener. été") == Ids{3, 4, 5, 6, 7, 8});
  CHECK(bert->encode("gardenx") == Ids{0});
  CHECK(bert->decode(Ids{1, 3, 4, 5, 6, 7, 2}, true) == "the gardener.");
  CHECK(bert->bytes(5) == "en");
  CHECK(bert->bytes(3) == " the");
  CHECK(bert->special(1));
  CHECK_FALSE(bert->special(3));
  CHECK(bert->bos() == 1);
  CHECK(bert->cuts_at_newlines());
  Ids segments;
  CHECK(bert->frame(Ids{3}, Ids{4, 5}, &segments) == Ids{1, 3, 2, 4, 5, 2});
  CHECK(segments == Ids{0, 0, 0, 1, 1, 1});

  const auto unigram = make(unigram_document());
  CHECK(unigram->encode("a  ab") == Ids{4, 4, 5});  // ▁X, then ▁X b: -7.75 is better than -9
  CHECK(unigram->encode("zz") == Ids{2, 0});
  CHECK(unigram->bytes(4) == " X");
  CHECK_FALSE(unigram->cuts_at_newlines());

  const auto llama = make(llama_document());
  CHECK(llama->encode("ab  a") == Ids{6, 2, 5});
  CHECK(llama->encode("é") == Ids{2, 8 + 0xC3, 8 + 0xA9});
  CHECK(llama->decode(Ids{6, 8 + 0xC3, 8 + 0xA9, 8 + 0xFF}) == "ab\uFFFD\uFFFD\uFFFD");
  CHECK(llama->decode(Ids{6, 8 + 0xC3, 8 + 0xA9}) == "abé");
  CHECK(llama->bytes(8 + 0xC3) == "\xC3");  // raw, for streaming
  CHECK(llama->bytes(6) == " ab");
  CHECK(llama->frame(Ids{6}) == Ids{6});
}

TEST_CASE("long words and long runs of marks take no quadratic time") {
  Json bert = word_piece_document();
  bert["model"]["max_input_chars_per_word"] = 10'000'000;
  std::string marks;
  for (int i = 0; i < 100'000; ++i) marks += "\u0315\u0300";  // in the wrong order
  for (const Json& json : {bert, unigram_document(), llama_document()}) {
    const auto tokenizer = make(json);
    for (const std::string& text :
         {std::string(1'000'000, 'a'), std::string(1'000'000, ' '), "the" + std::string(1'000'000, 'z'), "e" + marks}) {
      CHECK(seconds_of([&] { tokenizer->decode(tokenizer->encode(text)); }) < 30);  // quadratic: hours
    }
  }
}
