#include "../taint_cases.h"

namespace espalier::test {
namespace {

/// An update that overwrites leaves nothing of the value beneath, and the other way round: both are the same value here.
SingleNode over_itself(SingleNode single, std::size_t update) {
  single.graph.nodes[0].inputs[update] = "in0";
  return single;
}

std::vector<SingleNode> reductions() {
  std::vector<SingleNode> cases;
  for (const auto* op : {"ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}) {
    cases.push_back(single_node(op, {data({2, 6, 5}), ints({1})}));
    cases.push_back(single_node(op, {data({2, 6, 5}), ints({-1, 0})}, {{"keepdims", std::int64_t{0}}}));
  }
  cases.push_back(single_node("CumSum", {data({2, 6, 5}), table({}, {1})}));
  cases.push_back(single_node("CumProd", {data({2, 6, 5}), table({}, {-1})}, {{"reverse", one()}}, 1, 26));
  cases.push_back(single_node("TopK", {data({2, 6, 5}), ints({2})}, {{"axis", one()}}, 2));
  cases.push_back(single_node("LpNormalization", {data({2, 6, 5})}, {{"axis", one()}}));
  cases.push_back(single_node("LpNormalization", {data({2, 6, 5})}, {{"p", one()}}));
  cases.push_back(single_node("Det", {data({4, 3, 3})}));
  return cases;
}

std::vector<SingleNode> indexing() {
  std::vector<SingleNode> cases;
  const std::map<std::string, Attribute> adds{{"axis", one()}, {"reduction", std::string("add")}};
  cases.push_back(single_node("Compress", {data({4, 6, 5}), flags({6}, 1)}, {{"axis", one()}}));
  cases.push_back(single_node("GatherND", {data({2, 3, 4, 5}), table({2, 2, 1}, {0, 2, 1, 1})}, {{"batch_dims", one()}}));
  cases.push_back(single_node("GatherND", {data({2, 3, 5}), table({3, 2}, {0, 2, 1, 1, 0, 0})}));
  cases.push_back(
      single_node("ScatterElements", {data({4, 3}), table({4, 3}, {0, 2, 1, 2, 1, 0, 0, 1, 2, 1, 0, 2}), data({4, 3})}, adds));
  cases.push_back(over_itself(
      single_node("Scatter", {data({2, 3}), table({2, 3}, {0, 1, 2, 2, 0, 1}), data({2, 3})}, {{"axis", one()}}, 1, 9), 2));
  cases.push_back(
      single_node("ScatterND", {data({3, 4, 2}), table({3, 1}, {2, 0, 1}), data({3, 4, 2})}, {{"reduction", std::string("add")}}));
  cases.push_back(over_itself(single_node("TensorScatter", {data({2, 6, 4, 3}), data({2, 6, 4, 3})}, {}, 1, 24), 1));
  cases.push_back(single_node("ReverseSequence", {data({4, 3, 5}), ints({4, 2, 3})}));
  cases.push_back(single_node("Tile", {data({6, 5}), ints({1, 3})}));
  cases.push_back(single_node("Pad", {data({2, 6, 5}), ints({0, 0, 1, 0, 0, 2})}, {{"mode", std::string("reflect")}}));
  cases.push_back(single_node("Pad", {data({6, 1}), ints({2, 0, 3, 0})}));
  cases.push_back(single_node("Pad", {data({6, 1}), ints({-2, 1}), number(0), ints({0})}));
  cases.push_back(single_node("CenterCropPad", {data({4, 6}), ints({3})}, {{"axes", Ints{1}}}));
  for (const auto* equation : {"bij,bjk->bik", "...ij,...jk->...ik", "bia,bja->bij"})
    cases.push_back(single_node("Einsum", {data({2, 4, 4}), data({2, 4, 4})}, {{"equation", std::string(equation)}}));
  cases.push_back(single_node("Einsum", {data({2, 5, 3, 4}), data({3, 4, 6})}, {{"equation", std::string("bshd,hde->bse")}}));
  cases.push_back(single_node("Einsum", {data({3, 4})}, {{"equation", std::string("ij->i")}}));
  cases.push_back(single_node("Einsum", {data({3, 1}), data({3, 4})}, {{"equation", std::string("ij,ij->ji")}}));
  for (const auto* mode : {"DCR", "CRD"}) {
    const std::map<std::string, Attribute> blocks{{"blocksize", std::int64_t{2}}, {"mode", std::string(mode)}};
    cases.push_back(single_node("DepthToSpace", {data({2, 12, 3, 2})}, blocks));
    cases.push_back(single_node("SpaceToDepth", {data({2, 3, 4, 6})}, blocks, 1, 28));
  }
  cases.push_back(single_node("Col2Im", {data({2, 12, 6}), ints({3, 4}), ints({2, 2})}));
  return cases;
}

const RegisterTaint of_reductions{reductions}, of_indexing{indexing};
const WithoutNan silent{"ArgMax", "ArgMin", "OneHot"};

}  // namespace
}  // namespace espalier::test
