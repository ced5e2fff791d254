#include "formats/stored_weights.h"

#include <catch2/catch_test_macros.hpp>

#include "abuse.h"
#include "formats/float_values.h"
#include "small_graph.h"

using namespace espalier;

TEST_CASE("weights change their type behind a Cast and come back") {
  const abuse::Folder folder;
  const Graph before = tests::checkable_graph();
  Graph graph = before;
  store_weights(graph, {"W"}, DType::bf16, folder.path());
  const Tensor& held = graph.initializers.at("W.bf16");
  CHECK(held.dtype == DType::bf16);
  CHECK(held.shape == std::vector<std::int64_t>{4, 3});
  CHECK(held.as<std::uint16_t>()[5] == to_bf16(5));
  CHECK(graph.initializer("W") == nullptr);
  CHECK(graph.nodes.front().op == "Cast");
  CHECK(graph.nodes.size() == before.nodes.size() + 1);
  CHECK(std::filesystem::is_empty(folder.path()));  // the file behind it has no name

  store_weights(graph, {}, DType::f16, folder.path());  // found behind its Cast
  CHECK(graph.initializers.at("W.f16").as<std::uint16_t>()[1] == 0x3c00);
  CHECK(graph.initializer("W.bf16") == nullptr);
  CHECK(graph.nodes.size() == before.nodes.size() + 1);

  store_weights(graph, {"b"}, DType::f32, folder.path());
  CHECK(graph.nodes.size() == before.nodes.size());
  CHECK(std::ranges::equal(graph.initializers.at("W").bytes, before.initializers.at("W").bytes));
  CHECK(graph.initializers.size() == before.initializers.size());
}

TEST_CASE("what cannot be stored so is refused, and the graph stays") {
  const abuse::Folder folder;
  Graph old = tests::checkable_graph();
  old.opsets[""] = 12;
  CHECK(abuse::error_of([&] { store_weights(old, {"W"}, DType::bf16, folder.path()); }).code() == ErrorCode::unsupported);
  Graph large = tests::checkable_graph();
  large.initializers["b"] = Tensor::of<float>(DType::f32, {3}, {1, 1e6F, 1});
  const Error error = abuse::error_of([&] { store_weights(large, {"W", "b"}, DType::f16, folder.path()); });
  CHECK(error.where() == "b");
  CHECK(large.nodes.size() == 3);
  CHECK(std::filesystem::is_empty(folder.path()));
}
