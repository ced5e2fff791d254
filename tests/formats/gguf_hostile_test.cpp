#include <catch2/catch_test_macros.hpp>

#include "abuse.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "tiny_gguf.h"

using namespace espalier;
using tests::GgufWriter;
using tests::packed;

namespace {

Error refusal(const abuse::Bytes& bytes) {
  const abuse::Folder folder;
  abuse::write_file(folder / "m.gguf", bytes);
  const Error error = abuse::error_of([&] { GgufFile::open(folder / "m.gguf"); });
  INFO(error.what());
  CHECK(error.where().find("m.gguf") != std::string::npos);
  return error;
}
Error refusal(const GgufWriter& writer) { return refusal(writer.bytes()); }

constexpr std::uint64_t kHuge = ~std::uint64_t{0};

}  // namespace

TEST_CASE("GGUF files that lie about counts, lengths and offsets are refused at the byte") {
  const std::string front = "GGUF" + packed<std::uint32_t>(3);
  CHECK(refusal(abuse::bytes_of("GGML")).message().find("no GGUF") != std::string::npos);
  CHECK(refusal(abuse::bytes_of("GGUF" + packed<std::uint32_t>(1))).code() == ErrorCode::unsupported);
  CHECK(refusal(abuse::bytes_of("GGUF" + packed<std::uint32_t>(3U << 24))).message().find("big-endian") != std::string::npos);
  CHECK(refusal(abuse::bytes_of(front + packed(kHuge) + packed<std::uint64_t>(0))).message().find("the tensor list claims") !=
        std::string::npos);
  CHECK(refusal(abuse::bytes_of(front + packed<std::uint64_t>(0) + packed(kHuge))).message().find("the metadata claims") !=
        std::string::npos);
  const std::string one_key = front + packed<std::uint64_t>(0) + packed<std::uint64_t>(1);
  const Error long_key = refusal(abuse::bytes_of(one_key + packed(kHuge - 7) + "key and more bytes"));
  CHECK(long_key.message() == "the file ends inside a metadata key");
  CHECK(long_key.where().find("byte 32") != std::string::npos);

  const auto with_value = [](std::uint32_t type, const std::string& bytes) {
    GgufWriter w;
    w.raw("key", type, bytes);
    return refusal(w);
  };
  CHECK(with_value(8, packed(kHuge)).message().find("ends inside") != std::string::npos);
  CHECK(with_value(77, "").message().find("unknown type 77") != std::string::npos);
  CHECK(with_value(9, packed<std::uint32_t>(4) + packed(kHuge / 4)).message().find("an array claims") != std::string::npos);
  CHECK(with_value(9, packed<std::uint32_t>(77) + packed<std::uint64_t>(1) + "x").message().find("unknown type 77") !=
        std::string::npos);
  CHECK(with_value(9, packed<std::uint32_t>(9) + packed<std::uint64_t>(1)).message().find("array of arrays") != std::string::npos);

  const auto with_tensor = [](const std::vector<std::uint64_t>& shape, std::uint32_t type, std::uint64_t offset) {
    GgufWriter w;
    w.tensor("x", {8}, 0, std::string(32, '\0'));
    w.tensor_at("bad", shape, type, offset);
    const Error error = refusal(w);
    CHECK(error.message().find("'bad'") != std::string::npos);
    return error.message();
  };
  CHECK(with_tensor({8}, 0, 32).find("outside") != std::string::npos);
  CHECK(with_tensor({8}, 0, kHuge - 31).find("outside") != std::string::npos);
  CHECK(with_tensor({8}, 0, 4).find("not aligned") != std::string::npos);
  CHECK(with_tensor({8}, 0, 0).find("overlaps") != std::string::npos);
  CHECK(with_tensor({1ULL << 40, 1ULL << 40}, 0, 0).find("overflows") != std::string::npos);
  CHECK(with_tensor({kHuge}, 0, 0).find("negative") != std::string::npos);
  CHECK(with_tensor({(1ULL << 62) - 1 + (1ULL << 62)}, 0, 0).find("overflows") != std::string::npos);
  CHECK(with_tensor({33}, 3, 0).find("whole blocks") != std::string::npos);
  CHECK(with_tensor({8}, 5, 0).find("unknown type 5") != std::string::npos);
  CHECK(with_tensor({1, 1, 1, 1, 1}, 0, 0).find("5 dimensions") != std::string::npos);

  GgufWriter twice;
  twice.tensor("x", {8}, 0, std::string(32, '\0'));
  twice.tensor("x", {8}, 0, std::string(32, '\0'));
  CHECK(refusal(twice).message().find("twice") != std::string::npos);
  for (const std::uint32_t alignment : {0U, 3U, 1U << 30}) {
    GgufWriter w;
    w.u32("general.alignment", alignment);
    CHECK(refusal(w).message().find("general.alignment") != std::string::npos);
  }
}

TEST_CASE("tokenizers in metadata that lie are refused by key") {
  const auto refused = [](const std::vector<std::string>& tokens, const std::vector<std::string>& merges, std::uint32_t bos) {
    const abuse::Folder folder;
    GgufWriter w;
    w.text("tokenizer.ggml.model", "gpt2");
    w.text("tokenizer.ggml.pre", "gpt-2");
    w.texts("tokenizer.ggml.tokens", tokens);
    w.texts("tokenizer.ggml.merges", merges);
    w.u32("tokenizer.ggml.bos_token_id", bos);
    abuse::write_file(folder / "m.gguf", w.bytes());
    const GgufFile file = GgufFile::open(folder / "m.gguf");
    return abuse::error_of([&] { gguf_tokenizer(file); }).message();
  };
  CHECK(refused({"a", "b", "a"}, {}, 0) == "token 'a' appears twice");
  CHECK(refused({"a", "b"}, {"a b"}, 0).find("not in the vocabulary") != std::string::npos);
  CHECK(refused({"a", "b", "ab"}, {"ab"}, 0).find("merge 0") != std::string::npos);
  CHECK(refused({"a", "b"}, {}, 2).find("bos_token_id is 2") != std::string::npos);
  CHECK(refused({"a", "\xff"}, {}, 0).find("no UTF-8") != std::string::npos);
  CHECK(refused({}, {}, 0).find("tokens is missing") != std::string::npos);
}

TEST_CASE("damaged GGUF files are refused or imported, never more") {
  const abuse::Folder folder;
  const auto outcome = abuse::mistreat(tests::TinyLlama{.context = 64}.bytes(), [&](const abuse::Bytes& bytes) {
    abuse::write_file(folder / "m.gguf", bytes);
    import_gguf(folder / "m.gguf").graph.validate();
  });
  INFO(outcome.failure);
  CHECK(outcome.survived);
  CHECK(outcome.refused > 200);
  CHECK(outcome.accepted > 0);
}
