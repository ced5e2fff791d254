// Hugging Face directories against transformers: every family, every kind of rotary scaling, windows, caps, experts, shards; their
// groups of coupled channels; their caches.
#include "formats/huggingface.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <fstream>
#include <set>

#include "graph/causal.h"
#include "graph/surgery.h"
#include "huggingface_models.h"
#include "run/session.h"

using namespace espalier;
using espalier::test::models;
namespace fs = std::filesystem;

namespace {

template <class T>
at::Tensor read(const fs::path& file, const std::vector<std::int64_t>& shape, at::ScalarType type) {
  std::ifstream stream(file, std::ios::binary);
  std::vector<char> raw{std::istreambuf_iterator<char>(stream), {}};
  std::int64_t count = 1;
  for (const auto length : shape) count *= length;
  REQUIRE(raw.size() == static_cast<std::size_t>(count) * sizeof(T));
  return at::from_blob(raw.data(), shape, type).clone();
}

/// in.NAME.i64 or out.NAME.f32 → NAME.
std::string value_name(const fs::path& file) { return file.stem().extension().string().substr(1); }

/// All of a directory's inputs, [3, length].
TensorMap feeds_of(const fs::path& folder) {
  TensorMap feeds;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".i64")
      feeds[value_name(entry.path())] =
          read<std::int64_t>(entry.path(), {3, static_cast<std::int64_t>(entry.file_size()) / 24}, at::kLong);
  return feeds;
}

/// max |a - b| / max |b| where the mask is 1: what a padded position answers is no one's business.
double difference(const at::Tensor& a, const at::Tensor& b, const at::Tensor& mask) {
  const at::Tensor off = a.dim() == 3 ? (a - b).abs() * mask.unsqueeze(2) : (a - b).abs();
  return (off.max() / b.abs().max()).item<double>();
}

}  // namespace

TEST_CASE("models of every family answer as transformers does, padding included") {
  std::set<std::string> families;
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(models())) {
    INFO(entry.path().filename().string());
    const Graph graph = import_huggingface(entry.path()).graph;
    families.insert(graph.metadata.at("source.family"));
    const TensorMap feeds = feeds_of(entry.path());
    const TensorMap given = Session(graph).run(feeds);
    std::size_t outputs = 0;
    for (const auto& file : fs::directory_iterator(entry.path())) {
      if (file.path().extension() != ".f32") continue;
      INFO(file.path().filename().string());
      const at::Tensor& got = given.at(value_name(file.path()));
      const at::Tensor expected = read<float>(file.path(), got.sizes().vec(), at::kFloat);
      CHECK(difference(got, expected, feeds.at("attention_mask")) < 2e-5);
      ++outputs;
      ++compared;
    }
    CHECK(given.size() == outputs);
    if (graph.metadata.at("espalier.task") == "causal-lm") CHECK(!with_kv_cache(graph).nodes.empty());
  }
  CHECK(compared == 65);
  CHECK(families.size() == 26);
}

TEST_CASE("feed-forward channels and key heads of every family are free, and a cut is its mask") {
  for (const auto& entry : fs::directory_iterator(models())) {
    INFO(entry.path().filename().string());
    const Graph graph = import_huggingface(entry.path()).graph;
    const auto groups = coupled_groups(graph, infer(graph));
    std::set<std::string> inner, heads;  // what groups there should be: one for each matrix, though layers may share it
    for (const Node& node : graph.nodes) {
      const auto is = [&](const char* end) { return node.op == "MatMul" && node.input(1).ends_with(end); };
      if (is("down_proj.weight") || is(".w2.weight")) inner.insert(node.input(1));
      if (node.op == "Attention" && node.integer("kv_num_heads", 0) > 1) heads.insert(node.name);
    }
    const std::string family = graph.metadata.at("source.family");
    const std::size_t head_groups = family == "albert" ? 2 : family == "mpnet" ? 1 : heads.size();  // mpnet: one table of biases
    Removal removal;
    std::size_t free_inner = 0, free_heads = 0;
    for (const auto& group : groups) {
      if (group.pinned || !group.exact) continue;
      const bool is_inner = std::any_of(group.members.begin(), group.members.end(),
                                        [&](const Member& m) { return m.axis == 0 && inner.contains(m.tensor); });
      free_inner += is_inner;
      free_heads += group.kind == CoupledGroup::Kind::heads;
      if (is_inner) removal[group.id] = {0, 7, 20};
      if (group.kind == CoupledGroup::Kind::heads) removal[group.id] = {1};
    }
    CHECK(free_inner == inner.size());
    CHECK(free_heads == head_groups);
    const TensorMap feeds = feeds_of(entry.path());
    const Graph small = cut(graph, groups, removal);
    CHECK(small.parameter_count() < graph.parameter_count());
    const TensorMap cut_values = Session(small).run(feeds), masked = Session(mask(graph, groups, removal)).run(feeds);
    for (const auto& [name, value] : masked) CHECK(difference(cut_values.at(name), value, feeds.at("attention_mask")) < 2e-5);
  }
}

TEST_CASE("cached steps of models with windows, learned positions and ALiBi are the whole sequence's") {
  for (const char* name : {"mistral", "opt", "bloom", "falcon_rw"}) {
    INFO(name);
    const fs::path folder = models() / name;
    const Graph graph = import_huggingface(folder).graph;
    Session whole(graph), cached(with_kv_cache(graph));
    const TensorMap all = feeds_of(folder);
    const at::Tensor expected = whole.run(all).at("logits");
    TensorMap state;
    for (const auto& shape : cache_shapes(graph)) {
      const auto n = state.size() / 2;
      for (const char* part : {"key", "value"})
        state[fmt::format("past_key_values.{}.{}", n, part)] = at::empty({3, shape.kv_heads, 0, shape.head_size}, at::kFloat);
    }
    const std::pair<std::int64_t, std::int64_t> steps[] = {{0, 9}, {9, 1}, {10, 2}};
    for (const auto& [first, count] : steps) {
      TensorMap feeds = state;
      feeds["input_ids"] = all.at("input_ids").narrow(1, first, count);
      feeds["attention_mask"] = all.at("attention_mask").narrow(1, 0, first + count);
      feeds["position_ids"] = all.at("position_ids").narrow(1, first, count);
      const TensorMap out = cached.run(feeds);
      const at::Tensor used = all.at("attention_mask").narrow(1, first, count);
      CHECK(difference(out.at("logits"), expected.narrow(1, first, count), used) < 2e-5);
      for (const auto& [value, tensor] : out)
        if (value.starts_with("present.")) state["past_key_values" + value.substr(7)] = tensor;
    }
  }
}

TEST_CASE("a table of positions ends where it ends, and ALiBi nowhere") {
  const auto limit = [](const char* name) { return position_limit(import_huggingface(models() / name).graph); };
  CHECK(limit("llama") == 64);
  CHECK(limit("gpt2") == 64);
  CHECK(limit("opt") == 64);  // of 66 rows two stand for no position
  CHECK(limit("bloom") == 0);
}
