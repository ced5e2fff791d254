// A mask and a cut compute the same where pictures are normalized, sampled anew and convolved backwards.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <random>
#include <set>

#include "graph/op.h"
#include "graph/surgery.h"
#include "running.h"

using namespace espalier;
using namespace espalier::test;

namespace {

using Ints = std::vector<std::int64_t>;
using Attributes = std::map<std::string, Attribute>;

class Builder {
 public:
  Graph graph;

  Builder() {
    graph.name = "upsampling";
    graph.inputs = {{"image", DType::f32, {Dim::symbol("batch"), 3, 16, 16}}};
  }
  std::string weight(const std::string& name, Ints shape) {
    std::int64_t count = 1;
    for (auto length : shape) count *= length;
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i) values.push_back(spread_(random_));
    graph.initializers[name] = Tensor::of<float>(DType::f32, std::move(shape), values);
    return name;
  }
  std::string add(const std::string& name, const std::string& op, std::vector<std::string> inputs, Attributes attributes = {}) {
    graph.nodes.push_back({op, "", name, std::move(inputs), {name + ".out"}, std::move(attributes)});
    return name + ".out";
  }
  /// A convolution or its transpose, biased; weights of this shape make `filters` filters.
  std::string layer(const std::string& name, const std::string& op, const std::string& x, Ints shape, std::int64_t filters,
                    Attributes attributes = {}) {
    return add(name, op, {x, weight(name + ".weight", std::move(shape)), weight(name + ".bias", {filters})}, std::move(attributes));
  }
  std::string norm(const std::string& name, const std::string& op, const std::string& x, std::int64_t channels,
                   Attributes attributes = {}) {
    return add(name, op, {x, weight(name + ".scale", {channels}), weight(name + ".shift", {channels})}, std::move(attributes));
  }

 private:
  std::mt19937_64 random_{3};
  std::uniform_real_distribution<float> spread_{-0.5F, 0.5F};
};

Graph upsampling() {
  Builder b;
  const Attributes padded{{"pads", Ints{1, 1, 1, 1}}}, twice{{"strides", Ints{2, 2}}};
  auto x = b.norm("instance", "InstanceNormalization", b.layer("stem", "Conv", "image", {12, 3, 3, 3}, 12, padded), 12);
  x = b.add("pool", "LpPool", {b.add("relu", "Relu", {x})}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  x = b.layer("wide", "Conv", x, {16, 12, 1, 1}, 16);
  x = b.norm("group", "GroupNormalization", x, 16, {{"num_groups", std::int64_t{8}}});
  x = b.layer("up", "ConvTranspose", x, {16, 12, 2, 2}, 12, twice);
  auto depthwise = twice;
  depthwise["group"] = std::int64_t{12};
  x = b.layer("depthwise", "ConvTranspose", x, {12, 1, 3, 3}, 12, depthwise);
  auto grouped = twice;
  grouped["group"] = std::int64_t{2};
  x = b.layer("grouped", "ConvTranspose", b.layer("narrow", "Conv", x, {8, 12, 1, 1}, 8), {8, 5, 2, 2}, 10, grouped);
  b.graph.initializers["sizes"] = Tensor::of<std::int64_t>(DType::i64, {3}, {10, 9, 11});
  x = b.add("resize", "Resize", {x, "", "", "sizes"}, {{"mode", std::string("linear")}, {"axes", Ints{1, 2, 3}}});
  b.layer("head", "Conv", x, {4, 10, 3, 3}, 4);
  b.graph.outputs = {{"head.out", DType::f32, {Dim::symbol("batch"), 4, 7, 9}}};
  return b.graph;
}

}  // namespace

TEST_CASE("an upsampling network under cuts of each of its groups equals its mask") {
  const auto graph = upsampling();
  const auto groups = coupled_groups(graph, infer(graph));
  const auto inputs = image_inputs(2, 4);
  const auto whole = Session(graph).run(inputs);
  std::set<std::string> scopes;
  for (const auto& group : groups) {
    if (group.pinned || !group.exact) continue;
    scopes.insert(group.scopes.begin(), group.scopes.end());
    Removal removal;
    removal[group.id] = {0, static_cast<std::int64_t>(group.units.size()) / 2};
    const auto small = cut(graph, groups, removal, false);
    INFO(group.id << " with " << group.units.size() << " units");
    CHECK(difference(mask(graph, groups, removal), small, inputs) < 1e-4);
    CHECK(difference(Session(small).run(inputs).begin()->second, whole.begin()->second) > 1e-3);
  }
  for (const auto* scope : {"instance", "pool", "group", "up", "depthwise", "narrow", "grouped", "resize"}) {
    INFO(scope);
    CHECK(scopes.contains(scope));
  }
}
