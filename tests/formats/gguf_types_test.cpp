#include "formats/gguf_types.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "abuse.h"

using namespace espalier;

namespace {

const GgmlType& type_named(std::string_view name) {
  for (std::uint32_t id = 0; id < 64; ++id)
    if (const GgmlType* type = ggml_type(id); type && type->name == name) return *type;
  throw std::runtime_error("no type " + std::string(name));
}

std::vector<float> dequantized(const GgmlType& type, std::span<const std::byte> blocks) {
  std::vector<float> values(blocks.size() / type.bytes * type.block);
  type.dequantize(blocks.data(), values.size(), values.data());
  return values;
}

}  // namespace

TEST_CASE("blocks of every quantized type have the values that llama.cpp's package gives them, to the bit") {
  const abuse::Folder folder;
  std::string log;
  const bool made = abuse::python("gguf_oracle.py", {"3", folder.path().string()}, log);
  INFO(log);
  REQUIRE(made);
  std::set<std::string> compared;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().extension() != ".blocks") continue;
    const std::string name = entry.path().stem().string();
    const std::vector<float> values = dequantized(type_named(name), abuse::read_file(entry.path()));
    const abuse::Bytes raw = abuse::read_file(folder.path() / (name + ".f32"));
    REQUIRE(raw.size() == values.size() * sizeof(float));
    std::vector<float> expected(values.size());
    std::memcpy(expected.data(), raw.data(), raw.size());
    INFO(name);
    CHECK(values == expected);
    compared.insert(name);
  }
  CHECK(compared.size() == 10);
}

TEST_CASE("types that the package does not dequantize: sums are passed over, integers are numbers") {
  std::vector<std::byte> block(36, std::byte{0});  // Q8_1: scale 1, a sum that does not count, bytes
  block[1] = std::byte{0x3c};
  block[2] = block[3] = std::byte{0x7b};
  block[4] = std::byte{0xfe};
  block[35] = std::byte{127};
  const std::vector<float> q8_1 = dequantized(type_named("Q8_1"), block);
  CHECK(q8_1.front() == -2.0F);
  CHECK(q8_1.back() == 127.0F);

  std::vector<std::byte> wide(292, std::byte{0});
  const float scale = 0.5F;
  std::memcpy(wide.data(), &scale, sizeof scale);
  wide[4] = std::byte{0x80};
  wide[259] = std::byte{3};
  wide[260] = std::byte{77};  // the first sum
  const std::vector<float> q8_k = dequantized(type_named("Q8_K"), wide);
  CHECK(q8_k.front() == -64.0F);
  CHECK(q8_k.back() == 1.5F);

  const std::int16_t shorts[] = {-3, 32767};
  CHECK(dequantized(type_named("I16"), std::as_bytes(std::span(shorts))) == std::vector<float>{-3.0F, 32767.0F});
  const double doubles[] = {0.1, -1e30};
  CHECK(dequantized(type_named("F64"), std::as_bytes(std::span(doubles))) == std::vector<float>{0.1F, -1e30F});
}

TEST_CASE("what cannot be read is named, with what can") {
  CHECK(type_named("IQ2_XS").dequantize == nullptr);
  CHECK(ggml_type(4) == nullptr);
  CHECK(readable_ggml_types().starts_with("F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K"));
}
