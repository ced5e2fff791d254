#include "../taint_cases.h"

namespace espalier::test {
namespace {

Operand floats(const std::vector<float>& values) {
  return {{}, Tensor::of<float>(DType::f32, {static_cast<std::int64_t>(values.size())}, values)};
}
std::int64_t whole(std::int64_t n) { return n; }

std::vector<SingleNode> sampled() {
  std::vector<SingleNode> cases;
  const auto image = data({2, 6, 4, 4});
  cases.push_back(single_node("Resize", {image, absent(), floats({1, 1, 2, 1.5F})}));
  cases.push_back(single_node("Resize", {image, absent(), absent(), ints({2, 6, 7, 3})}, {{"mode", std::string("cubic")}}));
  cases.push_back(
      single_node("Resize", {image, absent(), absent(), ints({3, 4})}, {{"mode", std::string("linear")}, {"axes", Ints{2, 3}}}));
  cases.push_back(single_node("Upsample", {image, floats({1, 1, 2, 2})}, {}, 1, 9));
  cases.push_back(single_node("GridSample", {image, data({2, 3, 5, 2})}));
  cases.push_back(single_node("AffineGrid", {data({2, 2, 3}), ints({2, 1, 3, 4})}));
  cases.push_back(
      single_node("RoiAlign", {image, data({3, 4}), ints({0, 1, 1})}, {{"output_height", whole(2)}, {"sampling_ratio", whole(2)}}));
  return cases;
}

std::vector<SingleNode> convolved() {
  std::vector<SingleNode> cases;
  const auto image = data({2, 6, 4, 4});
  cases.push_back(single_node("ConvTranspose", {image, data({6, 4, 3, 3}), data({4})}));
  cases.push_back(
      single_node("ConvTranspose", {image, data({6, 4, 2, 2}), data({12})}, {{"group", whole(3)}, {"strides", Ints{2, 2}}}));
  cases.push_back(single_node("ConvTranspose", {image, data({6, 2, 3, 3}), data({12})}, {{"group", whole(6)}}));
  cases.push_back(single_node("ConvTranspose", {image, data({6, 1, 3, 3}), absent()}, {{"group", whole(6)}}));
  cases.push_back(single_node("DeformConv", {image, data({4, 6, 3, 3}), data({2, 18, 2, 2}), data({4}), data({2, 9, 2, 2})}));
  cases.push_back(single_node("DeformConv", {image, data({4, 6, 3, 3}), data({2, 36, 2, 2})}, {{"offset_group", whole(2)}}));
  return cases;
}

std::vector<SingleNode> pooled() {
  std::vector<SingleNode> cases;
  const auto image = data({2, 6, 7, 7});
  const std::map<std::string, Attribute> dilated{{"kernel_shape", Ints{2, 2}}, {"dilations", Ints{2, 3}}};
  cases.push_back(single_node("AveragePool", {image}, dilated));
  cases.push_back(single_node("LpPool", {image}, dilated));
  for (const auto* op : {"GlobalMaxPool", "GlobalLpPool"}) cases.push_back(single_node(op, {image}));
  return cases;
}

std::vector<SingleNode> normalized() {
  std::vector<SingleNode> cases;
  const auto x = data({2, 6, 5});
  cases.push_back(single_node("InstanceNormalization", {x, data({6}), data({6})}));
  cases.push_back(single_node("GroupNormalization", {x, data({6}), data({6})}, {{"num_groups", whole(1)}}));
  cases.push_back(single_node("GroupNormalization", {x, data({6}), data({6})}, {{"num_groups", whole(3)}}));
  cases.push_back(single_node("GroupNormalization", {x, data({3}), data({3})}, {{"num_groups", whole(3)}}, 1, 18));
  cases.push_back(single_node("MeanVarianceNormalization", {data({2, 6, 5, 3})}));
  cases.push_back(single_node("MeanVarianceNormalization", {x}, {{"axes", Ints{1}}}));
  cases.push_back(single_node("LRN", {x}, {{"size", whole(3)}}));
  cases.push_back(single_node("LayerNormalization", {x, data({2, 1, 5}), data({6, 5})}));
  return cases;
}

/// Complex signals: of real ones, some imaginary parts are zero whatever comes in.
std::vector<SingleNode> signals() {
  std::vector<SingleNode> cases;
  cases.push_back(single_node("DFT", {data({2, 5, 6, 2})}));
  cases.push_back(single_node("DFT", {data({2, 5, 6, 2})}, {{"axis", one()}, {"inverse", one()}}, 1, 17));
  cases.push_back(single_node("STFT", {data({2, 9, 2}), ints({3}), data({4})}, {{"onesided", whole(0)}}));
  return cases;
}

const RegisterTaint registered[] = {RegisterTaint(sampled), RegisterTaint(convolved), RegisterTaint(pooled),
                                    RegisterTaint(normalized), RegisterTaint(signals)};
/// Integers in and out, settings, or every axis pinned.
const WithoutNan silent{"MaxUnpool",   "HannWindow",    "HammingWindow", "BlackmanWindow", "MelWeightMatrix",
                        "ConvInteger", "MatMulInteger", "QLinearConv",   "QLinearMatMul"};

}  // namespace
}  // namespace espalier::test
