#include "run/session.h"
#include "formats/spilled_tensors.h"
#include "graph/learnable.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <fstream>

#include "models.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// y = relu(x · w) · s, and z = -y
Graph chain() {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("n"), 2}}};
  graph.initializers["w"] = Tensor::of<float>(DType::f32, {2, 2}, {1, -1, 2, 1});
  graph.initializers["s"] = Tensor::of<float>(DType::f32, {}, {3});
  graph.nodes = {{"MatMul", "", "mm", {"x", "w"}, {"h"}, {}},
                 {"Relu", "", "relu", {"h"}, {"r"}, {}},
                 {"Mul", "", "mul", {"r", "s"}, {"y"}, {}},
                 {"Neg", "", "neg", {"y"}, {"z"}, {}}};
  graph.outputs = {{"y", DType::f32, {}}, {"z", DType::f32, {}}};
  return graph;
}

/// Bytes of mapped files that count as this process's memory.
std::int64_t resident_of_files() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stoll(line.substr(8)) * 1024;
  return -1;
}

}  // namespace

TEST_CASE("a session runs what is wanted and nothing else") {
  Session session(chain());
  const TensorMap out = session.run({{"x", at::ones({1, 2})}});
  CHECK(out.size() == 2);
  CHECK(out.at("y").equal(at::full({1, 2}, 0.0).index_fill(1, at::zeros({1}, at::kLong), 9.0)));
  CHECK(out.at("z").equal(-out.at("y")));
  int later = 0;
  session.hook("y", [&](const std::string&, const at::Tensor&) {
    ++later;
    return at::Tensor();
  });
  const TensorMap h = session.run({{"x", at::ones({1, 2})}}, {"h"});
  CHECK(h.size() == 1);
  CHECK(later == 0);
}

TEST_CASE("hooks see values and replace them") {
  Session session(chain());
  at::Tensor seen;
  session.hook("r", [&](const std::string& name, const at::Tensor& value) {
    CHECK(name == "r");
    seen = value;
    return value + 1;
  });
  CHECK(session.run({{"x", at::ones({1, 2})}}, {"y"}).at("y")[0][1].item<float>() == 3.0f);
  CHECK(seen[0][0].item<float>() == 3.0f);
  session.hook("r", {});
  CHECK(session.run({{"x", at::ones({1, 2})}}, {"y"}).at("y")[0][1].item<float>() == 0.0f);
  session.hook("w", [](const std::string&, const at::Tensor& value) { return value * 2; });  // an initializer
  CHECK(session.run({{"x", at::ones({1, 2})}}, {"y"}).at("y")[0][0].item<float>() == 18.0f);
  session.hook("x", [](const std::string&, const at::Tensor& value) { return value * 2; });  // an input
  CHECK(session.run({{"x", at::ones({1, 2})}}, {"y"}).at("y")[0][0].item<float>() == 36.0f);
}

TEST_CASE("a value in the middle can be given") {
  Session session(chain());
  CHECK(session.run({{"r", at::ones({1, 2})}}, {"y"}).at("y").equal(at::full({1, 2}, 3.0f)));
}

TEST_CASE("trainable parameters are copies and are written back in the storage type") {
  Graph graph = chain();
  const std::vector<float> original(graph.initializers["w"].as<float>().begin(), graph.initializers["w"].as<float>().end());
  Session session(graph);
  CHECK(session.train() == std::vector<std::string>{"w"});  // s is a single constant
  session.run({{"x", at::ones({1, 2})}}, {"y"}).at("y").sum().backward();
  CHECK(session.parameter("w").grad()[0][0].item<float>() == 3.0f);
  session.set_parameter("w", at::full({2, 2}, 0.5f));
  const auto still = graph.initializers["w"].as<float>();
  CHECK(std::equal(still.begin(), still.end(), original.begin()));
  const Graph trained = session.graph();
  CHECK(trained.initializers.at("w").as<float>()[3] == 0.5f);
  CHECK(trained.initializers.at("s").bytes.data() == graph.initializers.at("s").bytes.data());
  session.set_parameter("w", at::full({2, 2}, 0.75f));
  CHECK(trained.initializers.at("w").as<float>()[3] == 0.5f);  // the graph does not follow the session

  graph.initializers["w"] = from_aten(to_aten(graph.initializers["w"]).to(at::kHalf));
  Session half(graph);
  half.train({"w"});
  CHECK(half.parameter("w").scalar_type() == at::kFloat);
  CHECK(half.graph().initializers.at("w").dtype == DType::f16);
}

TEST_CASE("values of frozen initializers alone are computed once, and follow set_parameter") {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {1}}};
  graph.initializers["q"] = Tensor::of<std::int8_t>(DType::i8, {3}, {1, 2, 3});
  graph.initializers["scale"] = Tensor::of<float>(DType::f32, {3}, {1, 1, 1});
  graph.nodes = {{"DequantizeLinear", "", "d", {"q", "scale"}, {"w"}, {{"axis", std::int64_t{0}}}},
                 {"Mul", "", "m", {"x", "w"}, {"y"}, {}}};
  graph.outputs = {{"y", DType::f32, {}}};
  Session session(graph);
  const TensorMap x{{"x", at::ones({1})}};
  const auto first = session.run(x, {"w"}).at("w");
  CHECK(session.run(x, {"w"}).at("w").const_data_ptr() == first.const_data_ptr());
  session.set_parameter("scale", at::full({3}, 2.0f));
  CHECK(session.run(x).at("y")[2].item<float>() == 6.0f);
  int called = 0;
  session.hook("w", [&](const std::string&, const at::Tensor&) {
    ++called;
    return at::Tensor();
  });
  session.run(x);
  session.run(x);
  CHECK(called == 2);
}

TEST_CASE("errors name the thing") {
  Session session(chain());
  CHECK_THROWS_WITH(session.run({}), ContainsSubstring("\"x\"") && ContainsSubstring("missing"));
  CHECK_THROWS_WITH(session.run({{"x", at::ones({1, 3})}}), ContainsSubstring("[1, 3]"));
  CHECK_THROWS_WITH(session.run({{"x", at::ones({1, 2})}}, {"nothing"}), ContainsSubstring("\"nothing\""));
  CHECK_THROWS_WITH(session.train({"x"}), ContainsSubstring("\"x\""));
  CHECK_THROWS_WITH(session.set_parameter("w", at::ones({3})), ContainsSubstring("\"w\""));
  Graph graph = chain();
  graph.inputs[0].shape = {};
  Session loose(graph);
  CHECK_THROWS_WITH(loose.run({{"x", at::ones({1, 3})}}), ContainsSubstring("mm") && ContainsSubstring("MatMul"));
  graph.nodes[1].op = "NoSuchOperator";
  CHECK_THROWS_WITH(Session(graph), ContainsSubstring("NoSuchOperator") && ContainsSubstring("relu"));
}

TEST_CASE("caches and statistics are no weights") {
  const std::vector<std::string> names = learnable(tiny_language_model());
  CHECK(std::find(names.begin(), names.end(), "rotary.cos") == names.end());
  CHECK(std::find(names.begin(), names.end(), "model.embed_tokens.weight") != names.end());
  CHECK(std::find(names.begin(), names.end(), "model.norm.weight") != names.end());
  const std::vector<std::string> cnn = learnable(residual_network(8));
  CHECK(std::find(cnn.begin(), cnn.end(), "stem.norm.mean") == cnn.end());
  CHECK(std::find(cnn.begin(), cnn.end(), "stem.norm.scale") != cnn.end());
}

TEST_CASE("mapped weights rest in their file after their last reader, and are read again") {
  constexpr std::int64_t side = 2048;  // a weight of 16 MiB
  const std::filesystem::path path = std::filesystem::temp_directory_path() / fmt::format("espalier-weight-{}", ::getpid());
  {
    const std::vector<float> values(side * side, 0.5F);
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(values.data()), side * side * 4);
  }
  const MappedFile mapped(path);
  std::filesystem::remove(path);  // the mapping stays
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim(1), Dim(side)}}};
  Tensor& weight = graph.initializers["w"];
  weight.dtype = DType::f32;
  weight.shape = {side, side};
  weight.bytes = mapped.bytes();
  weight.owner = mapped.owner();
  graph.nodes = {{"MatMul", "", "first", {"x", "w"}, {"h"}, {}}, {"MatMul", "", "second", {"h", "w"}, {"y"}, {}}};
  graph.outputs = {{"y", DType::f32, {}}};
  const at::Tensor x = at::full({1, side}, 1.0 / 1024);

  Session keeping(graph);
  const at::Tensor expected = keeping.run({{"x", x}}).at("y");
  const std::int64_t with_weight = resident_of_files();
  SessionOptions options;
  options.release_weights = true;
  Session releasing(graph, options);
  std::int64_t between = 0;
  releasing.hook("h", [&](const std::string&, const at::Tensor&) {
    between = resident_of_files();
    return at::Tensor();
  });
  for (int round = 0; round < 2; ++round) {
    CHECK(releasing.run({{"x", x}}).at("y").equal(expected));
    CHECK(between > with_weight - (std::int64_t{4} << 20));  // a reader is still to come
    CHECK(resident_of_files() < with_weight - (std::int64_t{12} << 20));
  }

  options.products = DType::bf16;
  const at::Tensor narrow = Session(graph, options).run({{"x", x}}).at("y");
  const std::filesystem::path folder = path.string() + "-narrowed";
  std::filesystem::create_directory(folder);
  options.narrowed = spill_into(folder, 0);
  std::int64_t held = 0;
  {
    SessionOptions still = options;
    still.release_weights = false;
    Session holding(graph, still);
    CHECK(holding.run({{"x", x}}).at("y").equal(narrow));
    held = resident_of_files();
  }
  Session spilling(graph, options);
  for (int round = 0; round < 2; ++round) {
    CHECK(spilling.run({{"x", x}}).at("y").equal(narrow));
    CHECK(resident_of_files() < held - (std::int64_t{6} << 20));
  }
  CHECK(std::filesystem::is_empty(folder));  // the files have lost their names
  std::filesystem::remove(folder);
}
