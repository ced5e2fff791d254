#include <catch2/catch_test_macros.hpp>

#include "single_node.h"

using namespace espalier;

namespace {

Tensor floats(const std::vector<float>& values) {
  return Tensor::of(DType::f32, {static_cast<std::int64_t>(values.size())}, values);
}
std::int64_t whole(std::int64_t n) { return n; }
std::string words(const char* text) { return text; }

SingleNode resize(Shape shape, const std::vector<float>& scales, std::int64_t opset = 23) {
  SingleNode n("Resize", opset);
  n.input(std::move(shape)).absent().constant(floats(scales));
  return n;
}
SingleNode resize_to(Shape shape, std::vector<std::int64_t> sizes) {
  SingleNode n("Resize");
  n.input(std::move(shape)).absent().absent().list(std::move(sizes));
  return n;
}

}  // namespace

TEST_CASE("Resize makes lengths of scales or sizes and leaves the other axes alone") {
  auto n = resize({sym("batch"), 8, sym("h"), 7}, {1, 1, 2, 1.5F});
  CHECK(n.shape() == "[batch, 8, 2*h, 10]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=o0.1"});
  CHECK(resize({1, 8, sym("h")}, {1, 1, 0.5F}).shape() == "[1, 8, " + floor_div(sym("h"), 2).text() + "]");
  // ⌊7 · 1.1⌋ = 7, and yet every sample moves.
  auto moved = resize({1, 7}, {1, 1.1F});
  CHECK(moved.shape() == "[1, 7]");
  CHECK(moved.marks() == Texts{"pin i0.1", "pin i2.0", "pin o0.1"});
  // 0.7 · 10 is 7 in f32, and less in f64.
  CHECK(resize({1, 10}, {1, 0.7F}).shape() == "[1, 7]");
  CHECK(resize_to({1, 8, 4, 4}, {1, 8, 9, 3}).shape() == "[1, 8, 9, 3]");
  auto some = resize_to({1, 8, 4, 4}, {9, 3});
  some.ints("axes", {3, 1});
  CHECK(some.shape() == "[1, 3, 4, 9]");
  auto kept = resize_to({1, 8, 4, 8}, {6, 6});
  kept.ints("axes", {2, 3}).set("keep_aspect_ratio_policy", words("not_larger"));
  CHECK(kept.shape() == "[1, 8, 3, 6]");
  kept.set("keep_aspect_ratio_policy", words("not_smaller"));
  CHECK(kept.shape() == "[1, 8, 6, 12]");
  CHECK(SingleNode("Upsample", 9).input({1, 2, 3, 3}).constant(floats({1, 1, 2, 2})).shape() == "[1, 2, 6, 6]");
  CHECK(SingleNode("Upsample", 7).input({1, 2, 3, 3}).set("scales", std::vector<double>{1, 1, 2, 3}).shape() == "[1, 2, 6, 9]");
  CHECK(SingleNode("Upsample", 1).input({1, 2, 3, 3}).set("height_scale", 2.0).set("width_scale", 3.0).shape() == "[1, 2, 6, 9]");
}

TEST_CASE("the sizes of a Resize follow the channels") {
  auto n = resize_to({1, 8, 4, 4}, {1, 8, 9, 9});
  n.cut({{{"x0", 1}, {0, 3, 4}}, {{"y", 1}, {0, 3, 4}}});
  CHECK(n.constant_ints(3) == std::vector<std::int64_t>{1, 3, 9, 9});
}

TEST_CASE("a bad Resize is refused by name") {
  CHECK(resize({1, 8, 4, 4}, {1, 1, 2}).refusal() == "3 scales for 4 axes");
  CHECK(resize({1, 4}, {1, 0}).refusal() != "");
  CHECK(resize({1, 4}, {1, -2}).refusal() != "");
  CHECK(resize({1, 4}, {1, 1e30F}).refusal() != "");
  CHECK(resize_to({1, 4}, {1, 0}).refusal() != "");
  CHECK(resize_to({1, 4}, {1}).refusal() != "");
  CHECK(SingleNode("Resize").input({1, 4}).refusal() == "there are neither scales nor sizes");
  CHECK(SingleNode("Resize").input({1, 4}).absent().constant(floats({1, 2})).list({1, 8}).refusal() ==
        "there are scales and sizes");
  CHECK(resize_to({1, 4}, {8}).ints("axes", {2}).refusal() != "");
  CHECK(resize_to({1, 4}, {8, 8}).ints("axes", {1, 1}).refusal() != "");
  CHECK(resize_to({1, 4}, {1, 8}).set("keep_aspect_ratio_policy", words("crop")).refusal() != "");
  CHECK(SingleNode("Upsample", 7).input({1, 2, 3, 3}).refusal() == "scales are missing");
}

TEST_CASE("GridSample, AffineGrid and RoiAlign keep channels and check their places") {
  SingleNode grid("GridSample");
  grid.input({sym("b"), 8, 4, 4}).input({sym("b"), 3, 5, 2});
  CHECK(grid.shape() == "[b, 8, 3, 5]");
  CHECK(grid.links() == Texts{"i0.0=o0.0", "i0.1=o0.1", "i1.0=o0.0"});
  CHECK(SingleNode("GridSample").input({1, 8, 4, 4}).input({1, 3, 5, 3}).refusal() == "coordinates of the grid: 3 does not fit 2");
  CHECK(SingleNode("GridSample").input({1, 8, 4, 4}).input({1, 3, 2}).refusal() != "");
  CHECK(SingleNode("GridSample").input({1, 8}).input({1, 3}).refusal() != "");
  CHECK(SingleNode("AffineGrid").input({sym("b"), 2, 3}).list({4, 1, 5, 6}).shape() == "[b, 5, 6, 2]");
  CHECK(SingleNode("AffineGrid").input({4, 2, 3}).list({4, 1, 5, 6, 7}).refusal() != "");
  CHECK(SingleNode("AffineGrid").input({4, 4, 5}).list({4, 1, 5, 6, 7, 8}).refusal() != "");
  SingleNode roi("RoiAlign");
  roi.input({1, 8, 6, 6}).input({sym("n"), 4}).input({sym("n")}, DType::i64).set("output_height", whole(3));
  CHECK(roi.shape() == "[n, 8, 3, 1]");
  CHECK(roi.links() == Texts{"i0.1=o0.1"});
  CHECK(SingleNode("RoiAlign").input({1, 8, 6, 6}).input({2, 5}).input({2}, DType::i64).refusal() != "");
  CHECK(SingleNode("RoiAlign").input({1, 8, 6, 6}).input({2, 4}).input({3}, DType::i64).refusal() != "");
  CHECK(roi.set("output_height", whole(0)).refusal() != "");
}

TEST_CASE("ConvTranspose has its weights the other way round") {
  SingleNode n("ConvTranspose");
  n.input({sym("b"), 6, 5, sym("w")}).weight({6, 4, 3, 3}).weight({4}).ints("strides", {2, 2}).ints("pads", {1, 1, 1, 1});
  CHECK(n.shape() == "[b, 4, 9, 2*w - 1]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=i1.0", "i1.1=o0.1", "i2.0=o0.1"});
  CHECK(n.macs({{"b", 2}, {"w", 7}}) == 2.0 * 6 * 5 * 7 * 4 * 9);
  n.ints("output_padding", {1, 1});
  CHECK(n.shape() == "[b, 4, 10, 2*w]");
  n.ints("output_shape", {11, 12});
  CHECK(n.shape() == "[b, 4, 11, 12]");
  SingleNode same("ConvTranspose");
  same.input({1, 6, 5, 5}).weight({6, 4, 3, 3}).ints("strides", {2, 3}).set("auto_pad", words("SAME_UPPER"));
  CHECK(same.shape() == "[1, 4, 10, 15]");
  CHECK(SingleNode("ConvTranspose").input({1, 6, 5}).weight({5, 4, 3}).refusal() == "channels against weight: 6 does not fit 5");
  CHECK(SingleNode("ConvTranspose").input({1, 6, 5}).weight({6, 4, 3}).set("group", whole(4)).refusal() != "");
  CHECK(SingleNode("ConvTranspose").input({1, 6, 5}).weight({6, 4, 3}).weight({5}).refusal() != "");
  CHECK(SingleNode("ConvTranspose").input({1, 6, 5}).weight({6, 4, 3}).ints("output_padding", {-1}).refusal() != "");
  CHECK(SingleNode("ConvTranspose").input({1, 6, 5}).weight({6, 4, 3}).ints("pads", {9, 9}).refusal() != "");
  CHECK(SingleNode("ConvTranspose").input({1, 6, 5}).weight({6, 4, 3, 3}).refusal() != "");
}

TEST_CASE("the groups of a ConvTranspose are cut as those of a Conv") {
  SingleNode n("ConvTranspose");
  n.input({1, 4, 5}).weight({4, 2, 3}).set("group", whole(2));
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=i1.0", "i1.0[2]=i1.0[0]x2", "o0.1[0]=i1.1[0]x2", "o0.1[2]=i1.1[0]x2"});
  SingleNode depthwise("ConvTranspose");
  depthwise.input({1, 4, 5}).weight({4, 1, 3}).set("group", whole(4));
  CHECK(depthwise.links() == Texts{"i0.0=o0.0", "i0.1=i1.0", "i0.1=o0.1"});
  depthwise.cut({{{"x0", 1}, {0, 3}}});
  CHECK(depthwise.node.integer("group", 1) == 2);
}

TEST_CASE("DeformConv checks its offsets and masks") {
  SingleNode n("DeformConv");
  n.input({sym("b"), 6, 5, 5}).weight({4, 6, 3, 3}).input({sym("b"), 18, 3, 3}).weight({4}).input({sym("b"), 9, 3, 3});
  CHECK(n.shape() == "[b, 4, 3, 3]");
  CHECK(n.links() == Texts{"i0.0=o0.0", "i0.1=i1.1", "i1.0=o0.1", "i2.0=o0.0", "i3.0=i1.0", "i4.0=o0.0"});
  n.set("offset_group", whole(2));
  CHECK(n.refusal() != "");
  CHECK(SingleNode("DeformConv").input({1, 6, 5, 5}).weight({4, 6, 3, 3}).input({1, 17, 3, 3}).refusal() != "");
  CHECK(SingleNode("DeformConv").input({1, 6, 5, 5}).weight({4, 6, 3, 3}).input({1, 18, 3, 2}).refusal() != "");
}

TEST_CASE("MaxUnpool goes back to what was pooled") {
  SingleNode n("MaxUnpool");
  n.input({1, 8, 3, sym("w")}).input({1, 8, 3, sym("w")}, DType::i64).ints("kernel_shape", {2, 2}).ints("strides", {2, 2});
  CHECK(n.shape() == "[1, 8, 6, 2*w]");
  n.list({1, 8, 7, 9});
  CHECK(n.shape() == "[1, 8, 7, 9]");
  CHECK(SingleNode("MaxUnpool").input({1, 8, 3}).input({1, 8, 4}, DType::i64).ints("kernel_shape", {2}).refusal() != "");
  CHECK(SingleNode("MaxUnpool").input({1, 8, 3}).input({1, 8, 3}, DType::i64).refusal() == "kernel_shape is missing");
  CHECK(SingleNode("LpPool").input({1, 8, 7}).ints("kernel_shape", {3}).ints("dilations", {2}).shape() == "[1, 8, 3]");
  CHECK(SingleNode("GlobalLpPool").input({1, 8, 7}).shape() == "[1, 8, 1]");
  CHECK(SingleNode("GlobalMaxPool").input({1, 8}).refusal() != "");
}
