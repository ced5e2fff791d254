#include "../taint_cases.h"

namespace espalier::test {
namespace {

std::vector<SingleNode> element_wise() {
  std::vector<SingleNode> cases;
  for (const auto* op :
       {"Relu", "Sigmoid", "Tanh",        "Neg",       "Abs", "Sqrt",      "Reciprocal", "Exp",   "Log",  "Erf",   "Gelu",
        "Elu",  "Sin",     "HardSigmoid", "HardSwish", "Cos", "LeakyRelu", "Softplus",   "Floor", "Ceil", "Round", "Identity"})
    cases.push_back(single_node(op, {data({2, 6, 5})}));
  cases.push_back(single_node("Swish", {data({2, 6, 5})}, {}, 1, 24));
  cases.push_back(single_node("Cast", {data({2, 6, 5})}, {{"to", one()}}));
  cases.push_back(single_node("Clip", {data({2, 6, 5}), number(0.1F), number(0.8F)}));
  for (const auto* op : {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"}) {
    cases.push_back(single_node(op, {data({2, 6, 5}), data({2, 6, 5})}));
    cases.push_back(single_node(op, {data({2, 6, 5}), data({6, 1})}));
    cases.push_back(single_node(op, {data({5}), data({2, 6, 5})}));
  }
  cases.push_back(single_node("Where", {flags({6, 1}, 1), data({2, 6, 5}), number(0)}));
  return cases;
}

const RegisterTaint registered{element_wise};
const WithoutNan silent{"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not"};

}  // namespace
}  // namespace espalier::test
