// Hugging Face directories that are written, against transformers: every family, whole and cut.
#include "formats/huggingface_write.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <fstream>
#include <set>

#include "formats/huggingface.h"
#include "graph/experts.h"
#include "graph/groups.h"
#include "graph/surgery.h"
#include "run/session.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

namespace {

/// Folders of one test, removed with it.
class Bench {
 public:
  Bench() : folder_(fs::temp_directory_path() / fmt::format("espalier-written-{}", ::getpid())) {
    fs::create_directories(models());
    fs::create_directories(written());
    python(fmt::format("huggingface_oracle.py {}", models().string()));
  }
  ~Bench() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  fs::path models() const { return folder_ / "models"; }
  fs::path written() const { return folder_ / "written"; }
  void answer() const { python(fmt::format("huggingface_write_oracle.py {} {}", models().string(), written().string())); }

 private:
  static void python(const std::string& call) {
    const char *program = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
    if (!program || !source) throw std::runtime_error("ESPALIER_TEST_PYTHON and ESPALIER_SOURCE are not set (run through ctest)");
    const std::string command = fmt::format("{} {}/tests/run/{}", program, source, call);
    if (std::system(command.c_str()) != 0) throw std::runtime_error("the oracle failed: " + command);
  }
  fs::path folder_;
};

template <class T>
std::vector<T> numbers(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::vector<char> raw{std::istreambuf_iterator<char>(stream), {}};
  std::vector<T> out(raw.size() / sizeof(T));
  std::copy_n(raw.data(), out.size() * sizeof(T), reinterpret_cast<char*>(out.data()));
  return out;
}

at::Tensor integers(const fs::path& file) {
  auto values = numbers<std::int64_t>(file);
  return at::from_blob(values.data(), {3, static_cast<std::int64_t>(values.size()) / 3}, at::kLong).clone();
}

/// The same number of units out of every group of one kind: feed-forward channels, or heads.
Graph cut_alike(const Graph& graph, CoupledGroup::Kind kind, std::size_t count) {
  const auto groups = coupled_groups(graph, infer(graph));
  Removal removal;
  for (const CoupledGroup& group : groups) {
    const bool inside = std::any_of(group.members.begin(), group.members.end(), [](const Member& member) {
      return member.tensor.find("down_proj") != std::string::npos || member.tensor.find("c_proj") != std::string::npos ||
             member.tensor.find(".w2.") != std::string::npos;
    });
    const bool residual = std::any_of(group.members.begin(), group.members.end(),
                                      [](const Member& member) { return member.tensor == "model.embed_tokens.weight"; });
    if (group.kind != kind || group.pinned || residual || (kind == CoupledGroup::Kind::channels && !inside)) continue;
    for (std::size_t i = 0; i < count; ++i) removal[group.id].push_back(static_cast<std::int64_t>(2 * i));
  }
  REQUIRE(removal.size() >= 3);
  return cut(graph, groups, removal);
}

/// Weights and tables; a cut may have made several constants of one.
void same_weights(const Graph& given, const Graph& expected) {
  CHECK(given.parameter_count() == expected.parameter_count());
  for (const auto& [name, tensor] : expected.initializers) {
    if (!is_floating(tensor.dtype)) continue;
    INFO(name);
    const Tensor* found = given.initializer(name);
    REQUIRE(found);
    CHECK(found->shape == tensor.shape);
    CHECK(std::ranges::equal(found->bytes, tensor.bytes));
  }
}

}  // namespace

TEST_CASE("directories of every family, whole and cut, answer in transformers as the graphs do here") {
  const Bench bench;
  std::map<std::string, Graph> graphs;
  const auto write = [&](const std::string& name, const Graph& graph) {
    INFO(name);
    fs::create_directories(bench.written() / name);
    write_huggingface(graph, nullptr, bench.written() / name);
    const Graph read = import_huggingface(bench.written() / name).graph;
    // A norm over fewer heads has another epsilon, which these projections take. Experts that stay are counted anew.
    const bool renamed = name.ends_with(".experts") || name.ends_with(".single");
    if (renamed) CHECK(read.parameter_count() == graph.parameter_count());
    if (!renamed && name != "olmo2.heads") same_weights(read, graph);
    graphs[name] = graph;
  };
  // Those that have a draft; the others are read only.
  const std::set<std::string> written{"gemma", "gemma2", "gemma3_text", "llama", "mistral",   "mixtral",
                                      "olmo2", "phi3",   "qwen2",       "qwen3", "starcoder2"};
  std::set<std::string> families;
  for (const auto& entry : fs::directory_iterator(bench.models())) {
    const std::string name = entry.path().filename().string();
    INFO(name);
    const Graph graph = import_huggingface(entry.path()).graph;
    if (!written.contains(graph.metadata.at("source.family"))) continue;
    families.insert(graph.metadata.at("source.family"));
    write(name + ".whole", graph);
    write(name + ".narrow", cut_alike(graph, CoupledGroup::Kind::channels, 5));
    write(name + ".heads", cut_alike(graph, CoupledGroup::Kind::heads, 1));
    if (const auto mixtures = find_mixtures(graph); !mixtures.empty()) {
      ExpertRemoval removal, uneven;
      for (std::size_t m = 0; m < mixtures.size(); ++m) removal[m] = {m % mixtures[m].experts.size()};
      uneven[1] = {0};
      const Graph fewer = without_experts(graph, mixtures, removal);
      write(name + ".experts", fewer);
      CHECK(find_mixtures(import_huggingface(bench.written() / (name + ".experts")).graph).front().experts.size() == 3);
      for (std::size_t m = 0; m < mixtures.size(); ++m) removal[m] = {0, 1, 3};
      write(name + ".single", without_experts(graph, mixtures, removal));
      CHECK_THROWS_WITH(
          write_huggingface(without_experts(graph, mixtures, uneven), nullptr, bench.written()),
          ContainsSubstring("numbers of experts differ: 3 in layer 1; 4 in layers 0, 2") && ContainsSubstring("num_local_experts"));
    }
    Graph bare = graph;  // as if it came from elsewhere: the graph alone says what it is
    bare.metadata.erase("source.config");
    if (name == "llama_llama3" || name == "llama_yarn")
      CHECK_THROWS_WITH(write_huggingface(bare, nullptr, bench.written()), ContainsSubstring("rotary frequencies"));
    else
      write(name + ".bare", bare);
  }
  CHECK(families == written);
  bench.answer();
  for (const auto& [name, graph] : graphs) {
    INFO(name);
    const fs::path source = bench.models() / name.substr(0, name.rfind('.'));
    const TensorMap feeds{{"input_ids", integers(source / "in.input_ids.i64")},
                          {"attention_mask", integers(source / "in.attention_mask.i64")},
                          {"position_ids", integers(source / "in.position_ids.i64")}};
    const at::Tensor logits = Session(graph).run(feeds).at("logits");
    auto raw = numbers<float>(bench.written() / name / "logits.f32");
    REQUIRE(raw.size() == static_cast<std::size_t>(logits.numel()));
    const at::Tensor expected = at::from_blob(raw.data(), logits.sizes(), at::kFloat);
    const at::Tensor difference =
        ((logits - expected).abs() * feeds.at("attention_mask").unsqueeze(2)).max() / expected.abs().max();
    CHECK(difference.item<double>() < 2e-5);
  }
}
