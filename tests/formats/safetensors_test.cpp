#include "formats/safetensors.h"

#include <catch2/catch_test_macros.hpp>
#include <cstring>

#include "abuse.h"

using namespace espalier;
using abuse::Bytes;

namespace {

std::map<std::string, Tensor> sample() {
  return {{"flag", Tensor::of<std::uint8_t>(DType::boolean, {3}, {1, 0, 1})},
          {"bytes", Tensor::of<std::int8_t>(DType::i8, {5}, {-1, 2, -3, 4, -5})},
          {"wide", Tensor::of<double>(DType::f64, {2, 1}, {0.5, -2})},
          {"x", Tensor::of<float>(DType::f32, {2, 2}, {1, 2, 3, 4})},
          {"none", Tensor::of<float>(DType::f32, {0, 7}, {})},
          {"one", Tensor::of<std::int64_t>(DType::i64, {}, {1LL << 40})}};
}

auto parse(const Bytes& bytes) {
  const auto owner = std::make_shared<Bytes>(bytes);
  return parse_safetensors(*owner, owner, "test.safetensors");
}

/// A file with this header, then `data` zero bytes.
Bytes file_of(const std::string& header, std::size_t data) {
  Bytes out(8 + header.size() + data);
  const std::uint64_t length = header.size();
  std::memcpy(out.data(), &length, 8);
  std::memcpy(out.data() + 8, header.data(), header.size());
  return out;
}

}  // namespace

TEST_CASE("safetensors come back as they were written") {
  const Bytes bytes = write_safetensors(sample(), {{"format", "pt"}});
  const auto owner = std::make_shared<Bytes>(bytes);
  std::map<std::string, std::string> metadata;
  const auto read = parse_safetensors(*owner, owner, "test.safetensors", &metadata);
  CHECK(metadata == std::map<std::string, std::string>{{"format", "pt"}});
  REQUIRE(read.size() == sample().size());
  for (const auto& [name, tensor] : sample()) {
    INFO(name);
    CHECK(read.at(name).dtype == tensor.dtype);
    CHECK(read.at(name).shape == tensor.shape);
    CHECK(std::ranges::equal(read.at(name).bytes, tensor.bytes));
  }
  CHECK(read.at("x").as<float>()[3] == 4.0F);
  CHECK(read.at("wide").bytes.data() >= owner->data());  // shared, not copied
  CHECK(read.at("wide").bytes.data() < owner->data() + owner->size());
  CHECK(write_safetensors(sample(), {{"format", "pt"}}) == bytes);
}

TEST_CASE("safetensors that lie are refused with the tensor's name") {
  const auto refusal = [](const std::string& header, std::size_t data) {
    return std::string(abuse::error_of([&] { parse(file_of(header, data)); }).what());
  };
  const auto says = [](const std::string& text, const char* part) {
    INFO(text);
    return text.find(part) != std::string::npos;
  };
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4), "'a' lies at 0…8"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "'a' holds 8 bytes"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "natural number"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8), "overflows"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "'a'"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", 8), "natural number"));
  CHECK(says(refusal(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", 8), "'Q4'"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "lacks"));
  CHECK(says(refusal(R"({"a":[]})", 0), "lacks"));
  CHECK(says(
      refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8),
      "overlap"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "hole"));
  CHECK(says(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8), "belong to no tensor"));
  CHECK(says(
      refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
      "twice"));
  CHECK(says(refusal("[]", 0), "no JSON object"));
  CHECK(says(refusal(std::string(100'000, '['), 0), "JSON"));
  Bytes huge = file_of("{}", 0);
  huge[7] = std::byte{0x7f};  // a header of 2^62 bytes
  CHECK(says(abuse::error_of([&] { parse(huge); }).what(), "the header claims"));
}

TEST_CASE("damaged safetensors are refused or read, never more") {
  const auto outcome = abuse::mistreat(write_safetensors(sample(), {{"k", "v"}}), [](const Bytes& bytes) { parse(bytes); });
  INFO(outcome.failure);
  CHECK(outcome.survived);
  CHECK(outcome.refused > 200);
  CHECK(outcome.accepted > 0);
}
