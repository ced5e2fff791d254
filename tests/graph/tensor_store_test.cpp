#include "graph/tensor_store.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "graph/passes.h"
#include "graph/surgery.h"
#include "sdk/error.h"
#include "single_node.h"

using namespace espalier;

namespace {

/// A feed-forward pair: 256 in, 512 hidden, 256 out; both weights are large enough to have no values.
Graph pair(bool values) {
  Graph graph;
  graph.name = "pair";
  graph.opsets[""] = 21;
  graph.inputs = {{"x", DType::f32, {sym("n"), 256}}};
  graph.outputs = {{"y", DType::f32, {sym("n"), 256}}};
  const auto weight = [&](std::int64_t rows, std::int64_t columns) {
    if (!values) return zeros_without_memory(DType::f32, {rows, columns});
    std::vector<float> numbers(static_cast<std::size_t>(rows * columns));
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i % 97) - 48;
    return Tensor::of(DType::f32, {rows, columns}, numbers);
  };
  graph.initializers["up"] = weight(256, 512);
  graph.initializers["down"] = weight(512, 256);
  graph.nodes = {{"MatMul", "", "up", {"x", "up"}, {"h"}, {}},
                 {"Relu", "", "act", {"h"}, {"r"}, {}},
                 {"MatMul", "", "down", {"r", "down"}, {"y"}, {}}};
  return graph;
}

}  // namespace

TEST_CASE("a graph without values has the same groups, and a cut of it the same shapes") {
  Graph whole = pair(true), hollow = pair(false);
  normal_form(whole);
  normal_form(hollow);
  const auto groups = coupled_groups(whole, infer(whole)), bare = coupled_groups(hollow, infer(hollow));
  REQUIRE(groups.size() == 1);
  REQUIRE(bare.size() == 1);
  CHECK(bare[0].id == groups[0].id);
  CHECK(bare[0].units.size() == 512);
  CHECK(bare[0].parameters_per_unit == groups[0].parameters_per_unit);
  const Removal removal{{groups[0].id, {0, 3, 511}}};
  const Graph small = cut(whole, groups, removal), outline = cut(whole, groups, removal, false, nullptr, shapes_only());
  for (const auto& [name, tensor] : small.initializers) {
    CAPTURE(name);
    CHECK(outline.initializers.at(name).shape == tensor.shape);
    CHECK(outline.initializers.at(name).bytes.size() == tensor.bytes.size());
    CHECK(std::all_of(outline.initializers.at(name).bytes.begin(), outline.initializers.at(name).bytes.end(),
                      [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST_CASE("a cut gives each sliced tensor away, and takes what comes back") {
  const Graph graph = pair(true);
  const auto groups = coupled_groups(graph, infer(graph));
  std::size_t given = 0;
  const Graph small = cut(graph, groups, {{groups.at(0).id, {1, 2}}}, false, nullptr, [&](Tensor tensor) {
    ++given;
    return Tensor::own(tensor.dtype, tensor.shape, std::vector<std::byte>(tensor.bytes.size(), std::byte{1}));
  });
  CHECK(given == 2);
  CHECK(small.initializers.at("up").bytes[0] == std::byte{1});
  CHECK(small.initializers.at("down").shape == std::vector<std::int64_t>{510, 256});
}

TEST_CASE("shapes beyond the address space are an error") {
  CHECK_THROWS_AS(zeros_without_memory(DType::f32, {std::int64_t{1} << 50}), Error);
  CHECK(zeros_without_memory(DType::f32, {0, 7}).bytes.empty());
  CHECK(!is_shapes_only({}));
  CHECK(!is_shapes_only([](Tensor tensor) { return tensor; }));
  CHECK(is_shapes_only(shapes_only()));
}
