// Which rows of a file's matrix become a graph's, what files call them, and how many stand in memory on the way.
#include "formats/weight_source.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>

#include "formats/tensor_names.h"

using namespace espalier;
using Strings = std::vector<std::string>;
using Ints = std::vector<std::int64_t>;

namespace {

Ints rows_of(const Rows& rows, std::int64_t count) {
  Ints out;
  for (std::int64_t r = 0; r < count; ++r) out.push_back(rows.at(r));
  return out;
}

}  // namespace

TEST_CASE("rows lie one after the other, in blocks, or as pairs") {
  CHECK(rows_of({}, 3) == Ints{0, 1, 2});
  CHECK(rows_of({.all = 9, .first = 4}, 3) == Ints{4, 5, 6});
  // Two heads of two rows each, of queries, keys and values side by side: the keys.
  CHECK(rows_of({.all = 12, .first = 2, .block = 2, .stride = 6}, 4) == Ints{2, 3, 8, 9});
  // Heads of six, of which four lie as pairs.
  CHECK(rows_of({.head = 6, .rotated = 4}, 12) == Ints{0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11});
  CHECK(rows_of({.first = 12, .block = 4, .stride = 12, .head = 4, .rotated = 4}, 8) == Ints{12, 14, 13, 15, 24, 26, 25, 27});
}

TEST_CASE("names of a file: layers, parts, spellings, with and without the base") {
  const TensorNames names{.base = "t.",
                          .layers = "t.h.",
                          .parts = {{"self_attn.o_proj", "attn.out"}, {"input_layernorm", "ln|LayerNorm"}},
                          .whole = {{"model.norm", "t.ln_f"}},
                          .unread = {".mask"}};
  CHECK(names.spellings("model.layers.12.self_attn.o_proj.weight") == Strings{"t.h.12.attn.out.weight", "h.12.attn.out.weight"});
  CHECK(names.spellings("model.layers.0.mlp.up_proj.bias") == Strings{"t.h.0.mlp.up_proj.bias", "h.0.mlp.up_proj.bias"});
  CHECK(names.spellings("model.norm.weight") == Strings{"t.ln_f.weight", "ln_f.weight"});
  CHECK(names.spellings("lm_head.weight") == Strings{"lm_head.weight"});
  CHECK(names.spellings("model.layers.0.input_layernorm.bias") == Strings{"t.h.0.ln.bias", "h.0.ln.bias", "t.h.0.LayerNorm.bias",
                                                                          "h.0.LayerNorm.bias", "t.h.0.LayerNorm.beta",
                                                                          "h.0.LayerNorm.beta"});
  CHECK(names.is_unread("h.3.attn.mask"));
  CHECK(!names.is_unread("h.3.attn.mask.weight"));
  const TensorNames grouped{.layers = "groups.{}.inner.0."};
  CHECK(grouped.spellings("encoder.layers.7.mlp.up_proj.weight") == Strings{"groups.7.inner.0.mlp.up_proj.weight"});
}

TEST_CASE("weights are made one ahead of the store, each once") {
  WeightJobs jobs;
  std::atomic<int> standing{0}, made{0}, most{0};
  for (int i = 0; i < 8; ++i) {
    for (int twice = 0; twice < 2; ++twice) {
      jobs.add("w" + std::to_string(i), {2, 3}, [&, i](float* to) {
        most = std::max<int>(most, ++standing);
        ++made;
        for (int k = 0; k < 6; ++k) to[k] = static_cast<float>(10 * i + k);
      });
    }
  }
  Graph graph;
  jobs.run(graph, [&](Tensor tensor) {
    --standing;
    return tensor;
  });
  CHECK(made == 8);
  CHECK(most <= 2);
  REQUIRE(graph.initializers.size() == 8);
  for (int i = 0; i < 8; ++i) {
    const Tensor& tensor = graph.initializers.at("w" + std::to_string(i));
    CHECK(tensor.shape == Ints{2, 3});
    CHECK(tensor.as<float>()[5] == static_cast<float>(10 * i + 5));
  }
}

TEST_CASE("what a conversion throws ends the run, with a store and without") {
  for (const bool stored : {false, true}) {
    WeightJobs jobs;
    for (int i = 0; i < 4; ++i)
      jobs.add("w" + std::to_string(i), {1}, [i](float*) {
        if (i == 2) throw std::runtime_error("the file is gone");
      });
    Graph graph;
    CHECK_THROWS_AS(jobs.run(graph, stored ? TensorStore([](Tensor t) { return t; }) : TensorStore()), std::runtime_error);
  }
}
