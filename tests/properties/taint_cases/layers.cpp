#include "../taint_cases.h"

namespace espalier::test {
namespace {

std::vector<SingleNode> layers() {
  std::vector<SingleNode> cases;
  cases.push_back(single_node("MatMul", {data({2, 3, 4}), data({4, 5})}));
  cases.push_back(single_node("MatMul", {data({2, 3, 4}), data({2, 4, 5})}));
  cases.push_back(single_node("Gemm", {data({3, 4}), data({4, 5}), data({5})}));
  cases.push_back(single_node("Gemm", {data({4, 3}), data({5, 4}), data({3, 1})}, {{"transA", one()}, {"transB", one()}}));
  cases.push_back(single_node("Conv", {data({2, 6, 7, 7}), data({4, 6, 3, 3}), data({4})}));
  cases.push_back(single_node("Conv", {data({2, 6, 7, 7}), data({9, 2, 3, 3}), data({9})}, {{"group", std::int64_t{3}}}));
  cases.push_back(single_node("Conv", {data({2, 6, 7, 7}), data({6, 1, 3, 3}), absent()}, {{"group", std::int64_t{6}}}));
  cases.push_back(single_node("Conv", {data({2, 6, 7}), data({4, 6, 3})}));
  cases.push_back(single_node("BatchNormalization", {data({2, 6, 5}), data({6}), data({6}), data({6}), data({6})}));
  for (const auto* op : {"MaxPool", "AveragePool"})
    cases.push_back(single_node(op, {data({2, 6, 7, 7})}, {{"kernel_shape", Ints{3, 3}}}));
  cases.push_back(single_node("GlobalAveragePool", {data({2, 6, 7, 7})}));
  for (const auto* op : {"Softmax", "LogSoftmax"}) {
    cases.push_back(single_node(op, {data({2, 6, 5})}));
    cases.push_back(single_node(op, {data({2, 6, 5})}, {{"axis", one()}}));
  }
  cases.push_back(single_node("RMSNormalization", {data({2, 6, 5}), data({5})}));
  cases.push_back(single_node("LayerNormalization", {data({2, 6, 5}), data({5}), data({5})}));
  for (const auto* op : {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}) {
    cases.push_back(single_node(op, {data({2, 6, 5}), ints({1})}));
    cases.push_back(single_node(op, {data({2, 6, 5}), ints({-1})}, {{"keepdims", std::int64_t{0}}}));
  }
  const std::map<std::string, Attribute> heads{{"q_num_heads", std::int64_t{6}}, {"kv_num_heads", std::int64_t{2}}};
  cases.push_back(single_node("Attention", {data({2, 5, 24}), data({2, 5, 8}), data({2, 5, 8})}, heads));
  cases.push_back(single_node("Attention", {data({2, 6, 5, 4}), data({2, 3, 5, 4}), data({2, 3, 5, 4})}));
  cases.push_back(single_node(
      "Attention", {data({2, 5, 24}), data({2, 5, 8}), data({2, 5, 8}), absent(), data({2, 2, 3, 4}), data({2, 2, 3, 4})}, heads,
      3));
  cases.push_back(single_node("RotaryEmbedding", {data({2, 5, 24}), data({8, 2}), data({8, 2}), table({2, 5}, Ints(10, 3))},
                              {{"num_heads", std::int64_t{6}}}));
  cases.push_back(single_node("RotaryEmbedding", {data({2, 6, 5, 4}), data({2, 5, 2}), data({2, 5, 2})}));
  cases.push_back(single_node("DequantizeLinear", {bytes({6, 4}), data({4})}, {{"axis", one()}}));
  cases.push_back(
      single_node("DequantizeLinear", {bytes({6, 4}), data({3, 4})}, {{"axis", std::int64_t{0}}, {"block_size", std::int64_t{2}}}));
  return cases;
}

const RegisterTaint registered{layers};
/// The range that DynamicQuantizeLinear finds is everyone's; it holds zero always, so channels of zeros go without a trace.
const WithoutNan silent{"QuantizeLinear", "DynamicQuantizeLinear"};

}  // namespace
}  // namespace espalier::test
