#include "../taint_cases.h"

namespace espalier::test {
namespace {

std::vector<SingleNode> shapes() {
  std::vector<SingleNode> cases;
  cases.push_back(single_node("Transpose", {data({2, 6, 5})}, {{"perm", Ints{1, 2, 0}}}));
  cases.push_back(single_node("Reshape", {data({2, 6, 5}), ints({2, 3, 2, 5})}));
  cases.push_back(single_node("Reshape", {data({2, 6, 5}), ints({2, -1})}));
  cases.push_back(single_node("Reshape", {data({4, 6}), ints({6, 4})}));
  cases.push_back(single_node("Reshape", {data({2, 3, 2, 5}), ints({0, 6, 5})}));
  cases.push_back(single_node("Flatten", {data({2, 6, 5})}));
  cases.push_back(single_node("Flatten", {data({2, 6, 5})}, {{"axis", std::int64_t{2}}}));
  cases.push_back(single_node("Squeeze", {data({2, 1, 5}), ints({1})}));
  cases.push_back(single_node("Unsqueeze", {data({2, 5}), ints({1, 3})}));
  cases.push_back(single_node("Expand", {data({6, 1}), ints({2, 6, 5})}));
  cases.push_back(single_node("Slice", {data({2, 6, 5}), ints({1}), ints({5}), ints({1})}));
  cases.push_back(single_node("Slice", {data({2, 6, 5}), ints({-1, 1}), ints({-100, 4}), ints({1, 2}), ints({-2, 1})}));
  cases.push_back(single_node("Concat", {data({2, 3, 5}), data({2, 4, 5})}, {{"axis", one()}}));
  cases.push_back(single_node("Split", {data({2, 6, 5})}, {{"axis", one()}, {"num_outputs", std::int64_t{3}}}, 3));
  cases.push_back(single_node("Split", {data({2, 6, 5}), ints({1, 5})}, {{"axis", one()}}, 2));
  cases.push_back(single_node("Gather", {data({2, 6, 5}), table({2, 2}, {0, 3, 5, 1})}, {{"axis", one()}}));
  cases.push_back(single_node("GatherElements", {data({2, 6}), table({2, 3}, {0, 3, 5, 1, 2, 4})}, {{"axis", one()}}));
  return cases;
}

const RegisterTaint registered{shapes};
const WithoutNan silent{"Shape", "Size", "ConstantOfShape", "Range"};

}  // namespace
}  // namespace espalier::test
