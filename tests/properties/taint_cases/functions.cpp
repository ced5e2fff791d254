#include "../taint_cases.h"

namespace espalier::test {
namespace {

/// The slope is read where the data is negative.
SingleNode prelu(const Operand& slope) {
  auto single = single_node("PRelu", {data({2, 6, 5}), slope});
  single.inputs.at("in0") = -single.inputs.at("in0");
  return single;
}

std::vector<SingleNode> functions() {
  std::vector<SingleNode> cases;
  for (const auto* op : {"Acos", "Asin", "Atan", "Asinh", "Atanh", "Sinh", "Cosh", "Tan", "Sign", "Softsign", "Selu", "Celu",
                         "Mish", "ThresholdedRelu", "Dropout"})
    cases.push_back(single_node(op, {data({2, 6, 5})}));
  cases.push_back(single_node("CastLike", {data({2, 6, 5}), number(0)}));
  for (const auto* op : {"Sum", "Mean"}) {
    cases.push_back(single_node(op, {data({2, 6, 5}), data({6, 1}), data({5})}));
    cases.push_back(single_node(op, {data({2, 6, 5})}));
  }
  cases.push_back(single_node("Mod", {data({2, 6, 5}), number(0.3F)}, {{"fmod", one()}}));
  cases.push_back(prelu(data({6, 1})));
  cases.push_back(prelu(data({2, 6, 5})));
  cases.push_back(single_node("SwiGLU", {data({2, 6, 5}), data({2, 6, 5})}, {}, 1, 28));
  // All of the matrices is kept.
  cases.push_back(single_node("Trilu", {data({2, 6, 4, 5}), table({}, {-4})}));
  return cases;
}

const RegisterTaint registered{functions};
/// Shrink makes zeros of what is on neither side of its thresholds, NaN too.
const WithoutNan silent{"Hardmax",   "Shrink",     "IsNaN",      "IsInf",    "Xor",    "BitwiseAnd",
                        "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift", "BitCast"};

}  // namespace
}  // namespace espalier::test
