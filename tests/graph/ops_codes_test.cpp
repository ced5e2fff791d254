#include <catch2/catch_test_macros.hpp>

#include "single_node.h"

using namespace espalier;

namespace {

std::int64_t whole(std::int64_t n) { return n; }
constexpr auto u8 = DType::u8, i8 = DType::i8;

SingleNode quantize() {
  SingleNode n("QuantizeLinear");
  n.input({4, 32}).weight({});
  return n;
}

}  // namespace

TEST_CASE("products of integer codes give 32-bit sums or codes") {
  SingleNode conv("ConvInteger");
  conv.input({sym("b"), 3, 5, 5}, u8).input({4, 3, 3, 3}, i8).input({}, u8).input({4}, i8);
  CHECK(conv.shape() == "[b, 4, 3, 3]");
  CHECK(conv.out().dtype == DType::i32);
  CHECK(conv.macs({{"b", 2}}) == 2.0 * 4 * 9 * 27);
  CHECK(conv.marks().size() == 13);
  CHECK(SingleNode("ConvInteger").input({1, 3, 5}, u8).input({4, 3, 3}, i8).input({}, i8).refusal() != "");
  CHECK(SingleNode("ConvInteger").input({1, 3, 5}, u8).input({4, 3, 3}, i8).input({}, u8).input({3}, i8).refusal() != "");
  CHECK(SingleNode("ConvInteger").input({1, 3, 5}).input({4, 3, 3}, i8).refusal() != "");
  SingleNode product("MatMulInteger");
  product.input({sym("b"), 3, 4}, u8).input({4, 5}, i8).input({sym("b"), 3, 1}, u8).input({5}, i8);
  CHECK(product.shape() == "[b, 3, 5]");
  CHECK(product.macs({{"b", 2}}) == 2.0 * 3 * 5 * 4);
  CHECK(SingleNode("MatMulInteger").input({4}, u8).input({4}, u8).shape() == "[]");
  CHECK(SingleNode("MatMulInteger").input({3, 4}, u8).input({5, 4}, u8).refusal() != "");
  CHECK(SingleNode("MatMulInteger").input({3, 4}, u8).input({4, 5}, u8).input({4}, u8).refusal() != "");
  CHECK(SingleNode("MatMulInteger").input({}, u8).input({4}, u8).refusal() != "");
  SingleNode rounded("QLinearMatMul");
  rounded.input({3, 4}, u8).weight({}).input({}, u8).input({4, 5}, i8).weight({5}).input({5}, i8).weight({}).input({}, i8);
  CHECK(rounded.shape() == "[3, 5]");
  CHECK(rounded.out().dtype == i8);
  SingleNode floating("QLinearMatMul");
  const auto f8 = DType::f8e4m3fn;
  floating.input({3, 4}, f8).weight({}).input({}, f8).input({4, 5}, f8).weight({}).input({}, f8).weight({}).input({}, f8);
  CHECK(floating.refusal() == "codes of type float8e4m3fn are not supported");
  SingleNode sums("QLinearConv");
  sums.input({1, 3, 5}, u8).weight({}).input({}, u8).input({4, 3, 3}, i8).weight({4}).input({4}, i8).weight({}).input({}, u8);
  CHECK(sums.shape() == "[1, 4, 3]");
  sums.input({3}, DType::i32);
  CHECK(sums.refusal() == "bias against filters: 3 does not fit 4");
}

TEST_CASE("QuantizeLinear refuses types and precisions that it does not have") {
  CHECK(quantize().set("output_dtype", whole(17)).out().dtype == DType::f8e4m3fn);
  CHECK(quantize().set("output_dtype", whole(4)).out().dtype == DType::u16);
  CHECK(quantize().set("output_dtype", whole(1)).refusal() == "quantizing to float32 is not supported");
  CHECK(quantize().set("output_dtype", whole(23)).refusal() != "");
  CHECK(quantize().set("output_dtype", whole(-1)).refusal() != "");
  CHECK(quantize().set("precision", whole(7)).refusal() != "");
  CHECK(quantize().input({}, DType::i8).set("output_dtype", whole(2)).refusal() != "");
  CHECK(SingleNode("QuantizeLinear").input({4, 32}).input({}, DType::i64).refusal() != "");
  CHECK(SingleNode("DequantizeLinear").input({4, 32}, i8).weight({}).set("output_dtype", whole(3)).refusal() != "");
  CHECK(SingleNode("DequantizeLinear").input({4, 32}, i8).weight({}).set("output_dtype", whole(10)).out().dtype == DType::f16);
}
