#include <catch2/catch_test_macros.hpp>

#include "single_node.h"

using namespace espalier;

TEST_CASE("Conv infers spatial lengths and counts its work") {
  SingleNode n("Conv");
  n.input({sym("batch"), 3, 32, 32}).weight({16, 3, 3, 3}).weight({16}).ints("pads", {1, 1, 1, 1}).ints("strides", {2, 2});
  CHECK(n.shape() == "[batch, 16, 16, 16]");
  CHECK(n.macs({{"batch", 2}}) == 2.0 * 16 * 16 * 16 * 3 * 3 * 3);
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=i1.1", "i1.0=o0.1", "i2.0=i1.0"});
  CHECK(n.marks() == Texts{"pin i0.2", "pin i0.3", "pin i1.2", "pin i1.3", "pin o0.2", "pin o0.3"});
  CHECK(SingleNode("Conv").input({1, 3, sym("h"), 9}).weight({4, 3, 3, 3}).shape() == "[1, 4, h - 2, 7]");
  CHECK(SingleNode("Conv").input({1, 3, sym("h"), 9}).weight({4, 3, 3, 3}).set("auto_pad", std::string("SAME_UPPER")).shape() ==
        "[1, 4, h, 9]");
  CHECK(SingleNode("Conv").input({1, 3, 9}).weight({4, 3, 3}).ints("dilations", {2}).shape() == "[1, 4, 5]");
  CHECK(SingleNode("Conv").input({1, 4, 9, 9}).weight({4, 3, 3, 3}).refusal() ==
        "channels against weight and group: 4 does not fit 3");
  CHECK(SingleNode("Conv").input({1, 3, 2, 2}).weight({4, 3, 3, 3}).refusal() != "");
  CHECK(SingleNode("Conv").input({1, 3, 9, 9}).weight({4, 3, 3, 3}).ints("strides", {0, 1}).refusal() != "");
  CHECK(SingleNode("Conv").input({1, 3, 9, 9}).weight({4, 3, 3, 3}).ints("pads", {1, 1}).refusal() != "");
  CHECK(SingleNode("Conv").input({1, 3, 9, 9}).weight({4, 3, 3}).refusal() != "");
  CHECK(SingleNode("Conv").input({1, 3, 9, 9}).weight({5, 1, 3, 3}).set("group", std::int64_t{3}).refusal() != "");
}

TEST_CASE("a depthwise Conv's channel is one with its filter") {
  SingleNode n("Conv");
  n.input({1, 8, 9, 9}).weight({8, 1, 3, 3}).weight({8}).set("group", std::int64_t{8});
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=i1.0", "i1.0=o0.1", "i2.0=i1.0"});
  n.cut({{{"x0", 1}, {0, 3, 4}}, {{"x1", 0}, {0, 3, 4}}});
  CHECK(n.node.integer("group", 1) == 3);
  CHECK(SingleNode("Conv").input({1, 4, 9, 9}).weight({8, 1, 3, 3}).set("group", std::int64_t{4}).links() ==
        Texts{"i0.0=o0.0", "i0.1*1=i1.0*2", "i1.0=o0.1"});
}

TEST_CASE("a grouped Conv loses the same position in every group") {
  SingleNode n("Conv");
  n.input({1, 4, 9, 9}).weight({6, 2, 3, 3}).set("group", std::int64_t{2});
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1[0]=i1.1[0]x2", "i0.1[2]=i1.1[0]x2", "i1.0=o0.1", "i1.0[3]=i1.0[0]x3"});
  n.cut({{{"x0", 1}, {0, 2}}});
  CHECK(n.node.integer("group", 1) == 2);
}

TEST_CASE("BatchNormalization links its four vectors with the channels") {
  SingleNode n("BatchNormalization");
  n.input({sym("b"), 8, 4, 4}).weight({8}).weight({8}).weight({8}).weight({8});
  CHECK(n.shape() == "[b, 8, 4, 4]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i0.2=o0.2", "i0.3=o0.3", "i1.0=o0.1", "i2.0=o0.1", "i3.0=o0.1", "i4.0=o0.1"});
  n.set("training_mode", std::int64_t{1}).outputs(3);
  CHECK(n.shape(1) == "[8]");
  CHECK(n.marks() == Texts{"inexact i0.0", "inexact i0.2", "inexact i0.3"});
  n.set("training_mode", std::int64_t{0});
  CHECK(n.refusal() != "");
  CHECK(SingleNode("BatchNormalization", 9).input({2, 8}).weight({8}).weight({7}).weight({8}).weight({8}).refusal() != "");
}

TEST_CASE("pools keep channels and pin space") {
  SingleNode n("MaxPool");
  n.input({sym("b"), 8, 9, 9}).ints("kernel_shape", {2, 2}).ints("strides", {2, 2});
  CHECK(n.shape() == "[b, 8, 4, 4]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  n.set("ceil_mode", std::int64_t{1});
  CHECK(n.shape() == "[b, 8, 5, 5]");
  CHECK(SingleNode("AveragePool").input({1, 8, 4}).ints("kernel_shape", {3}).ints("pads", {1, 1}).shape() == "[1, 8, 4]");
  CHECK(SingleNode("MaxPool").input({1, 8, 4}).refusal() == "kernel_shape is missing");
  CHECK(SingleNode("MaxPool").input({1, 8, 4}).ints("kernel_shape", {0}).refusal() != "");
  SingleNode global("GlobalAveragePool");
  global.input({sym("b"), 8, sym("h"), 9});
  CHECK(global.shape() == "[b, 8, 1, 1]");
  CHECK(global.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
}

TEST_CASE("the last window does not start in the padding") {
  // Rounding up would give a third window at 6, past the 1 + 4 that come before the padding at the end.
  SingleNode n("MaxPool");
  n.input({1, 1, 4}).ints("kernel_shape", {2}).ints("strides", {3}).ints("pads", {1, 1}).set("ceil_mode", std::int64_t{1});
  CHECK(n.shape() == "[1, 1, 2]");
}

TEST_CASE("quantization links scales per tensor, per channel and per block") {
  auto int8 = [](std::vector<std::int64_t> shape) {
    std::int64_t n = 1;
    for (auto d : shape) n *= d;
    return Tensor::own(DType::i8, std::move(shape), std::vector<std::byte>(static_cast<std::size_t>(n)));
  };
  SingleNode channel("DequantizeLinear");
  channel.constant(int8({64, 32})).weight({32}).constant(int8({32})).set("axis", std::int64_t{1});
  CHECK(channel.out().dtype == DType::f32);
  CHECK(channel.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i1.0=o0.1", "i2.0=o0.1"});
  CHECK(SingleNode("DequantizeLinear").constant(int8({64, 32})).weight({}).links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  SingleNode block("DequantizeLinear");
  block.constant(int8({64, 32})).weight({4, 32}).set("axis", std::int64_t{0}).set("block_size", std::int64_t{16});
  CHECK(block.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i1.0*1=o0.0*16", "i1.1=o0.1"});
  CHECK(SingleNode("DequantizeLinear").constant(int8({64, 32})).weight({31}).refusal() != "");
  CHECK(SingleNode("DequantizeLinear").constant(int8({64, 32})).weight({32}).constant(int8({31})).refusal() != "");
  CHECK(SingleNode("QuantizeLinear").input({4, 32}).weight({}).out().dtype == DType::u8);
  CHECK(SingleNode("QuantizeLinear").input({4, 32}).weight({}).constant(int8({})).out().dtype == DType::i8);
}
