// Every part of a tokenizer.json beside Hugging Face's tokenizers, which are only here as an oracle.
#include <catch2/catch_test_macros.hpp>
#include <cstring>

#include "abuse.h"
#include "formats/folder_tokenizer.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

using Ids = std::vector<std::int32_t>;

std::string text_of(const fs::path& file) {
  const auto bytes = abuse::read_file(file);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

Ids ids_of(const Json& json) { return json.get<Ids>(); }

void check_same(const Ids& ours, const Ids& theirs) {
  const auto [a, b] = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
  if (a == ours.end() && b == theirs.end()) {
    SUCCEED();
    return;
  }
  const auto at = a - ours.begin();
  std::string context;
  for (auto i = std::max<std::ptrdiff_t>(0, at - 12); i < at + 8; ++i) {
    const auto show = [&](const Ids& ids) {
      return i < static_cast<std::ptrdiff_t>(ids.size()) ? std::to_string(ids[static_cast<std::size_t>(i)]) : std::string("-");
    };
    context += " " + show(ours) + "/" + show(theirs);
  }
  FAIL_CHECK("first difference at id " << at << " of " << ours.size() << ", " << theirs.size() << ":" << context);
}

void check_case(const Tokenizer& tokenizer, const Json& test) {
  Ids framed;
  if (test.contains("text")) {
    const std::string text = from_hex(test["text"]);
    INFO("text '" << text.substr(0, 80) << "' of " << text.size() << " bytes");
    const Ids ids = tokenizer.encode(text);
    check_same(ids, ids_of(test["ids"]));
    Ids segments;
    framed = tokenizer.frame(ids, &segments);
    check_same(framed, ids_of(test["framed"]));
    check_same(segments, ids_of(test["segments"]));
    if (test.contains("pair")) {
      check_same(tokenizer.frame(tokenizer.encode(from_hex(test["before"])), ids, &segments), ids_of(test["pair"]));
      check_same(segments, ids_of(test["pair_segments"]));
    }
  } else {
    framed = ids_of(test["framed"]);
  }
  if (!test.contains("decoded")) return;
  INFO("ids " << test["framed"].dump().substr(0, 200));
  CHECK(tokenizer.decode(framed) == test["decoded"].get<std::string>());
  CHECK(tokenizer.decode(framed, true) == test["skipped"].get<std::string>());
}

/// Makes the tokenizers of one kind and compares them; returns how many there were.
std::size_t compare(const std::string& kind) {
  const abuse::Folder folder;
  std::string log;
  const bool made = abuse::python("tokenizer_parts_oracle.py", {kind, folder.path().string(), "17"}, log);
  INFO(log);
  REQUIRE(made);
  const std::string sweep = fs::exists(folder / "sweep") ? text_of(folder / "sweep") : "";
  std::size_t count = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    if (!entry.is_directory()) continue;
    INFO(entry.path().filename().string());
    const auto tokenizer = folder_tokenizer(entry.path());
    REQUIRE(tokenizer);
    const Json cases = Json::parse(text_of(entry.path() / "cases.json"));
    CHECK(cases.size() >= 20);
    for (const Json& test : cases) check_case(*tokenizer, test);
    if (const fs::path ids = entry.path() / "sweep.ids"; fs::exists(ids)) {
      const auto bytes = abuse::read_file(ids);
      std::vector<std::uint16_t> theirs(bytes.size() / 2);
      std::memcpy(theirs.data(), bytes.data(), bytes.size());
      check_same(tokenizer->encode(sweep), Ids(theirs.begin(), theirs.end()));
    }
    CHECK(Tokenizer::from_json(tokenizer->json(), "again")->json() == tokenizer->json());
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("WordPiece, Unigram and BPE of every kind give the ids and texts of Hugging Face's tokenizers") {
  CHECK(compare("models") == 20);
}

TEST_CASE("normalizers and pre-tokenizers cut as Hugging Face's do, whatever the characters") { CHECK(compare("cuts") == 98); }

TEST_CASE("decoders join tokens as Hugging Face's do") { CHECK(compare("decoders") == 15); }

TEST_CASE("a BERT directory with vocab.txt alone has a tokenizer") {
  CHECK(compare("vocabularies") == 2);
  const abuse::Folder folder;
  CHECK(folder_tokenizer(folder.path()) == nullptr);
  const auto refusal = [&](const std::string& text) {
    abuse::write_file(folder / "vocab.txt", abuse::bytes_of(text));
    return abuse::error_of([&] { folder_tokenizer(folder.path()); });
  };
  CHECK(refusal("[UNK]\n[SEP]\na\n").message() == "the vocabulary lacks the cls_token '[CLS]'");
  CHECK(refusal("").message().find("lacks the unk_token") != std::string::npos);
  CHECK(refusal("[UNK]\n\xff\n").message().find("no UTF-8") != std::string::npos);
  CHECK(refusal("a\n").where().find("vocab.txt") != std::string::npos);
}
