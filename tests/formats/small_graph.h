#pragma once
#include "graph/graph.h"

namespace tests {

/// y = Relu(x · W + b), as ONNX's checker and any runtime take it. W counts 0…11 in rows of three.
inline espalier::Graph checkable_graph() {
  using namespace espalier;
  Graph graph;
  graph.name = "small";
  graph.ir_version = 10;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("batch"), 4}}};
  graph.outputs = {{"y", DType::f32, {Dim::symbol("batch"), 3}}};
  std::vector<float> weights(12);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i);
  graph.initializers["W"] = Tensor::of<float>(DType::f32, {4, 3}, weights);
  graph.initializers["b"] = Tensor::of<float>(DType::f32, {3}, {0.5F, -0.5F, 0.25F});
  graph.nodes.push_back({"MatMul", "", "/layer/MatMul", {"x", "W"}, {"product"}, {}});
  graph.nodes.push_back({"Add", "", "/layer/Add", {"product", "b"}, {"sum"}, {}});
  graph.nodes.push_back({"Relu", "", "/Relu", {"sum"}, {"y"}, {}});
  return graph;
}

/// The same with every kind of attribute, tensors of all widths, a subgraph, strings, documentation and metadata.
inline espalier::Graph small_graph() {
  using namespace espalier;
  Graph graph = checkable_graph();
  graph.opsets["com.example"] = 1;
  graph.metadata = {{"espalier.task", "test"}, {"licence", "CC0-1.0"}};
  graph.doc = {{"", "about the model"}, {"x", "about the input"}};
  graph.inputs.push_back({"mask", DType::boolean, {Dim::symbol("batch"), Dim::symbol("past") + Dim::symbol("sequence")}});
  graph.initializers["halves"] = Tensor::of<std::uint16_t>(DType::f16, {2}, {0x3c00, 0xbc00});
  graph.initializers["brains"] = Tensor::of<std::uint16_t>(DType::bf16, {1, 2}, {0x3f80, 0xbf80});
  graph.initializers["nibbles"] = Tensor::of<std::uint8_t>(DType::i4, {5}, {0x21, 0x43, 0x05});
  graph.initializers["empty"] = Tensor::of<float>(DType::f32, {0, 3}, {});
  graph.initializers["scalar"] = Tensor::of<std::int64_t>(DType::i64, {}, {-7});
  Tensor words;
  words.dtype = DType::string;
  words.shape = {2};
  words.strings = {"one", std::string("t\0o", 3)};
  graph.initializers["words"] = words;

  auto branch = std::make_shared<Graph>();
  branch->name = "branch";
  branch->opsets = graph.opsets;
  branch->initializers["inner"] = Tensor::of<float>(DType::f32, {1}, {3});
  branch->nodes.push_back({"Add", "", "inside", {"y", "inner"}, {"branch_out"}, {}});
  branch->outputs = {{"branch_out", DType::undefined, {}}};
  Node all{"Everything", "com.example", "all", {"y", "", "halves", "words"}, {"z", ""}, {}};
  all.attributes = {{"i", std::int64_t{-3}},
                    {"f", 0.25},
                    {"s", std::string("bytes\xff", 6)},
                    {"is", std::vector<std::int64_t>{1, -2}},
                    {"fs", std::vector<double>{0.5, -1}},
                    {"ss", std::vector<std::string>{"a", ""}},
                    {"t", Tensor::of<std::int32_t>(DType::i32, {2}, {9, 10})},
                    {"g", branch},
                    {"gs", std::vector<std::shared_ptr<Graph>>{branch, branch}}};
  graph.nodes.push_back(all);
  return graph;
}

}  // namespace tests
