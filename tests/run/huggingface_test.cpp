// Hugging Face directories against transformers: every family, every kind of rotary scaling, windows, caps, experts, shards.
#include "formats/huggingface.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <fstream>
#include <set>

#include "graph/causal.h"
#include "run/session.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

namespace {

/// The oracle's models, made once a process and removed at its end.
const fs::path& models() {
  struct Made {
    fs::path folder = fs::temp_directory_path() / fmt::format("espalier-huggingface-{}", ::getpid());
    Made() {
      fs::create_directories(folder);
      const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
      if (!python || !source) throw std::runtime_error("ESPALIER_TEST_PYTHON and ESPALIER_SOURCE are not set (run through ctest)");
      const std::string command = fmt::format("{} {}/tests/run/huggingface_oracle.py {}", python, source, folder.string());
      if (std::system(command.c_str()) != 0) throw std::runtime_error("the oracle failed: " + command);
    }
    ~Made() {
      std::error_code ignored;
      fs::remove_all(folder, ignored);
    }
  };
  static const Made made;
  return made.folder;
}

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
  return at::from_blob(values.data(), {2, 12}, at::kLong).clone();
}

std::string config_of(const fs::path& folder) {
  std::ifstream stream(folder / "config.json");
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// The directory with a changed config.json.
std::string refusal(const fs::path& folder, const std::string& from, const std::string& to) {
  const std::string before = config_of(folder);
  std::string changed = before;
  const auto at = changed.find(from);
  REQUIRE(at != std::string::npos);
  changed.replace(at, from.size(), to);
  std::ofstream(folder / "config.json") << changed;
  std::string message;
  try {
    import_huggingface(folder);
  } catch (const Error& error) {
    message = error.what();
  }
  std::ofstream(folder / "config.json") << before;
  return message;
}

}  // namespace

TEST_CASE("models of every family answer as transformers does, padding included") {
  std::set<std::string> families;
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(models())) {
    INFO(entry.path().filename().string());
    const Graph graph = import_huggingface(entry.path()).graph;
    families.insert(graph.metadata.at("source.family"));
    const TensorMap feeds{{"input_ids", integers(entry.path() / "ids.i64")},
                          {"attention_mask", integers(entry.path() / "mask.i64")},
                          {"position_ids", integers(entry.path() / "positions.i64")}};
    const at::Tensor logits = Session(graph).run(feeds).at("logits");
    auto raw = numbers<float>(entry.path() / "logits.f32");
    const at::Tensor expected = at::from_blob(raw.data(), {2, 12, 61}, at::kFloat);
    // What a padded position answers is no one's business.
    const at::Tensor difference =
        ((logits - expected).abs() * feeds.at("attention_mask").unsqueeze(2)).max() / expected.abs().max();
    CHECK(difference.item<double>() < 2e-5);
    CHECK(!with_kv_cache(graph).nodes.empty());
    ++compared;
  }
  CHECK(compared == 16);
  CHECK(families.size() == 11);
}

TEST_CASE("a cached step of a model with windows is the whole sequence's") {
  const fs::path folder = models() / "mistral";
  const Graph graph = import_huggingface(folder).graph;
  Session whole(graph), cached(with_kv_cache(graph));
  const at::Tensor ids = integers(folder / "ids.i64"), mask = integers(folder / "mask.i64"),
                   positions = integers(folder / "positions.i64");
  const at::Tensor expected = whole.run({{"input_ids", ids}, {"attention_mask", mask}, {"position_ids", positions}}).at("logits");
  TensorMap state;
  for (const auto& shape : cache_shapes(graph)) {
    const auto n = state.size() / 2;
    for (const char* part : {"key", "value"})
      state[fmt::format("past_key_values.{}.{}", n, part)] = at::empty({2, shape.kv_heads, 0, shape.head_size}, at::kFloat);
  }
  const std::pair<std::int64_t, std::int64_t> steps[] = {{0, 9}, {9, 1}, {10, 2}};
  for (const auto& [first, count] : steps) {
    TensorMap feeds = state;
    feeds["input_ids"] = ids.narrow(1, first, count);
    feeds["attention_mask"] = mask.narrow(1, 0, first + count);
    feeds["position_ids"] = positions.narrow(1, first, count);
    const TensorMap out = cached.run(feeds);
    CHECK(out.at("logits").narrow(0, 0, 1).allclose(expected.narrow(1, first, count).narrow(0, 0, 1), 1e-4, 1e-4));
    for (const auto& [name, value] : out)
      if (name.starts_with("present.")) state["past_key_values" + name.substr(7)] = value;
  }
}

TEST_CASE("what a directory lacks, and what is not read, is named") {
  const fs::path llama = models() / "llama";
  CHECK_THAT(refusal(llama, "\"llama\"", "\"falcon\""), ContainsSubstring("falcon") && ContainsSubstring("qwen3"));
  CHECK_THAT(refusal(llama, "\"silu\"", "\"quick_gelu\""), ContainsSubstring("quick_gelu"));
  CHECK_THAT(refusal(llama, "\"hidden_size\": 32", "\"hidden_size\": 36"), ContainsSubstring("model.") && ContainsSubstring("36"));
  CHECK_THAT(refusal(llama, "\"hidden_size\": 32", "\"hidden_size\": -32"), ContainsSubstring("\"hidden_size\""));
  CHECK_THAT(refusal(llama, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"), ContainsSubstring("layers.3"));
  CHECK_THAT(refusal(llama, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2"), ContainsSubstring("model.layers.2."));
  CHECK_THAT(refusal(models() / "llama_yarn", "\"yarn\"", "\"longrope\""), ContainsSubstring("longrope"));
  CHECK_THAT(refusal(models() / "gemma3", "\"full_attention\",", "\"odd\","), ContainsSubstring("layer_types"));
  const fs::path shards = models() / "qwen2";
  const std::string index = [&] {
    std::ifstream stream(shards / "model.safetensors.index.json");
    return std::string{std::istreambuf_iterator<char>(stream), {}};
  }();
  REQUIRE(index.find("model-00001-of-") != std::string::npos);
  std::string climbing = index;
  climbing.replace(climbing.find("model-00001-of-"), 0, "../");
  std::ofstream(shards / "model.safetensors.index.json") << climbing;
  CHECK_THROWS_WITH(import_huggingface(shards), ContainsSubstring("../model-00001"));
  std::ofstream(shards / "model.safetensors.index.json") << index;
  CHECK_THROWS_WITH(import_huggingface(models()), ContainsSubstring("config.json"));
}
