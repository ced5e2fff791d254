#include "formats/tokenizer.h"

#include <catch2/catch_test_macros.hpp>

#include "abuse.h"
#include "formats/byte_level.h"
#include "formats/utf8.h"

using namespace espalier;

namespace {

/// All bytes and a few merges; `change` edits the document before it is read.
Json document() {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) vocab[to_byte_characters(std::string(1, static_cast<char>(b)))] = b;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["bc"] = 258;
  const auto added = [](int id, const char* content, bool special) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", special}};
  };
  Json tokens = Json::array({added(259, "<s>", true), added(260, "<user>", false)});
  tokens[0]["role"] = "bos eos";
  return {{"version", "1.0"},
          {"added_tokens", tokens},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({"b c", "a b", Json::array({"a", "bc"})})}}}};
}

std::shared_ptr<Tokenizer> make(const Json& json) { return Tokenizer::from_json(json.dump(), "t.json"); }

using Ids = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("pairs are merged by rank, then from the left") {
  const auto tokenizer = make(document());
  CHECK(tokenizer->encode("abc") == Ids{257});  // b c first, then a bc
  CHECK(tokenizer->encode("abab") == Ids{256, 256});
  CHECK(tokenizer->encode("abcbc") == Ids{257, 258});
  CHECK(tokenizer->encode("").empty());
  CHECK(tokenizer->encode(std::string(100'000, 'a')).size() == 100'000);
  CHECK(tokenizer->vocabulary() == 261);
}

TEST_CASE("special tokens are found in the text, or are text when asked") {
  const auto tokenizer = make(document());
  CHECK(tokenizer->encode("a<s>b<user>") == Ids{'a', 259, 'b', 260});
  CHECK(tokenizer->encode("a<s><user>", false) == Ids{'a', '<', 's', '>', 260});
  CHECK(tokenizer->decode(Ids{'a', 259, 'b', 260}) == "a<s>b<user>");
  CHECK(tokenizer->decode(Ids{'a', 259, 'b', 260}, true) == "ab<user>");
  CHECK(tokenizer->decode(Ids{-1, 'a', 100'000}) == "a");
  CHECK(tokenizer->bos() == 259);
  CHECK(tokenizer->eos() == 259);
  Json plain = document();
  plain["added_tokens"][0].erase("role");
  CHECK(make(plain)->bos() == -1);
}

TEST_CASE("invalid bytes become U+FFFD, one for each maximal part") {
  CHECK(repaired_utf8("a\xff\xc3(\xe2\x82") == "a\uFFFD\uFFFD(\uFFFD");
  CHECK(repaired_utf8("\xf0\x9f\x98x\xed\xa0\x80") == "\uFFFDx\uFFFD\uFFFD\uFFFD");
  CHECK(repaired_utf8("\xc0\xaf\xf5\x80") == "\uFFFD\uFFFD\uFFFD\uFFFD");
  CHECK(repaired_utf8("ü\U0001F642") == "ü\U0001F642");
  const auto tokenizer = make(document());
  CHECK(tokenizer->encode("\xff") == tokenizer->encode("\uFFFD"));
  CHECK(tokenizer->decode(Ids{0xff, 'a', 0xe2}) == "\uFFFDa\uFFFD");
  CHECK(tokenizer->bytes(0xe2) == "\xe2");  // raw, for streaming
}

TEST_CASE("what it writes it reads again, byte for byte") {
  const auto tokenizer = make(document());
  const auto again = Tokenizer::from_json(tokenizer->json(), "again");
  CHECK(again->json() == tokenizer->json());
  CHECK(again->bos() == 259);
  CHECK(again->encode("abc <s> ü") == tokenizer->encode("abc <s> ü"));
}

TEST_CASE("a tokenizer.json that is not understood is refused with the part's name") {
  const auto refusal = [](const std::function<void(Json&)>& change) {
    Json json = document();
    change(json);
    return abuse::error_of([&] { make(json); });
  };
  const auto message = [&](const std::function<void(Json&)>& change) { return refusal(change).message(); };
  CHECK(message([](Json& j) { j["model"]["type"] = "WordLevel"; }) == "the tokenizer model 'WordLevel'");
  CHECK(message([](Json& j) { j["model"]["dropout"] = 0.1; }) == "the BPE option 'dropout'");
  CHECK(refusal([](Json& j) { j["model"]["merges"][1] = "a z9"; }).code() == ErrorCode::invalid_input);
  CHECK(refusal([](Json& j) { j["model"]["merges"][1] = 7; }).message() == "merge 1 is no pair of tokens");
  CHECK(message([](Json& j) { j["model"]["vocab"]["ab"] = -1; }).find("token 'ab'") != std::string::npos);
  CHECK(message([](Json& j) { j["model"]["vocab"]["ab"] = 2'000'000'000; }).find("token 'ab'") != std::string::npos);
  CHECK(message([](Json& j) { j["model"]["vocab"]["ab"] = 'a'; }).find("two tokens have the id 97") != std::string::npos);
  CHECK(message([](Json& j) { j["added_tokens"][0]["id"] = 2'000'000'000; }).find("'<s>'") != std::string::npos);
  CHECK(message([](Json& j) { j["added_tokens"][0]["id"] = -3; }).find("added token") != std::string::npos);
  CHECK(message([](Json& j) { j["added_tokens"][0]["content"] = "ab"; }).find("in the vocabulary it has 256") != std::string::npos);
  CHECK(message([](Json& j) { j["model"]["vocab"] = Json::object(); }).find("no vocabulary") != std::string::npos);
  CHECK(message([](Json& j) { j.erase("model"); }).find("no model") != std::string::npos);
  const auto split = [](const char* regex, const char* behavior) {
    return [=](Json& j) {
      const Json byte_level = j["pre_tokenizer"];
      j["pre_tokenizer"] = {
          {"type", "Sequence"},
          {"pretokenizers",
           Json::array(
               {Json{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", false}}, byte_level})}};
    };
  };
  CHECK(message(split("(a", "Isolated")).find("pattern '(a'") != std::string::npos);
  CHECK(message(split("a", "Eaten")) == "the behaviour 'Eaten' of a Split");
  for (const char* text : {"", "[]", "{", "null", "\xff\xfe", R"({"model": [], "x": 1})"}) {
    INFO(text);
    CHECK(abuse::error_of([&] { Tokenizer::from_json(text, "t.json"); }).where() == "t.json");
  }
  CHECK(abuse::error_of([] { Tokenizer::from_json(std::string(1'000'000, '['), "t.json"); }).message().find("nested") !=
        std::string::npos);
  std::string deep = R"({"model":{"type":"BPE","x":)" + std::string(200'000, '[');
  CHECK(abuse::error_of([&] { Tokenizer::from_json(deep, "t.json"); }).message().find("nested") != std::string::npos);

  // A pattern that needs exponential time gives up instead.
  Json slow = document();
  split("(?:a|aa|a+)+$", "Isolated")(slow);
  const auto tokenizer = make(slow);
  CHECK(abuse::error_of([&] { tokenizer->encode(std::string(5000, 'a') + "b"); }).message().find("gave up") != std::string::npos);
}

TEST_CASE("a damaged tokenizer.json is refused or read, never more") {
  const auto outcome = abuse::mistreat(abuse::bytes_of(document().dump()), [](const abuse::Bytes& bytes) {
    const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    Tokenizer::from_json(text, "t.json")->encode("abc <s> 12 \xff");
  });
  INFO(outcome.failure);
  CHECK(outcome.survived);
  CHECK(outcome.refused > 200);
  CHECK(outcome.accepted > 0);
}
