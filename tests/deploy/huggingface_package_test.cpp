// A recipe's way from a GGUF file through a cut to a Hugging Face directory.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "deploy/test_context.h"
#include "formats/huggingface.h"
#include "formats/model_artifact.h"
#include "formats/package.h"
#include "formats/tiny_gguf.h"
#include "graph/groups.h"
#include "graph/surgery.h"
#include "run/runtime.h"
#include "sdk/error.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Made {
  test::Workshop workshop;
  Artifact model, pruned;
  Made() {
    abuse::write_file(workshop.folder() / "m.gguf", tests::TinyLlama{}.bytes());
    model = workshop.run("source/gguf", {}, {{"path", (workshop.folder() / "m.gguf").string()}}).outputs.at("model");
    pruned = narrowed({4, 4});
  }
  /// Without so many of the feed-forward channels, layer by layer.
  Artifact narrowed(const std::vector<std::int64_t>& counts) {
    const Graph graph = load_model(workshop.context(), model);
    const auto groups = coupled_groups(graph, infer(graph));
    Removal removal;
    for (const CoupledGroup& group : groups)
      for (std::size_t layer = 0; layer < counts.size(); ++layer)
        for (const Member& member : group.members)
          if (member.tensor == "model.layers." + std::to_string(layer) + ".mlp.gate_proj.weight" && member.axis == 1)
            for (std::int64_t i = 0; i < counts[layer]; ++i) removal[group.id].push_back(i);
    return save_model(workshop.context(), cut(graph, groups, removal));
  }
};

}  // namespace

TEST_CASE("a cut model is packaged as a Hugging Face directory and measured") {
  Made made;
  const test::Outcome packaged = made.workshop.run("backend/huggingface", {{"model", made.pruned}});
  const Artifact& package = packaged.outputs.at("package");
  CHECK(package.meta.at("backend") == "backend/huggingface");
  const auto folder = made.workshop.lay_out(package);
  const Json description = read_package(folder, true);
  CHECK(description["options"]["model_type"] == "llama");
  CHECK(description["licence"] == "cc0-1.0");
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
    CHECK(description["files"].contains(name));

  const Graph graph = load_model(made.workshop.context(), made.pruned), read = import_huggingface(folder).graph;
  REQUIRE(graph.initializers.at("model.layers.1.mlp.up_proj.weight").shape == std::vector<std::int64_t>{8, 8});  // of 12
  for (const auto& [name, tensor] : graph.initializers) {
    INFO(name);
    CHECK(std::ranges::equal(read.initializers.at(name).bytes, tensor.bytes));
  }

  const auto size = made.workshop.run("evaluator/size", {{"package", package}}).figures;
  CHECK(size.at("size_bytes") == packaged.figures.at("size_bytes"));
  CHECK(size.at("parameters") == static_cast<double>(graph.parameter_count()));
  CHECK(size.at("weight_bytes") == 4 * size.at("parameters"));
  CHECK(size.at("macs") > 0);
  const Artifact half =
      made.workshop.run("backend/huggingface", {{"model", made.pruned}}, {{"dtype", "bf16"}}).outputs.at("package");
  CHECK(made.workshop.run("evaluator/size", {{"package", half}}).figures.at("weight_bytes") == 2 * size.at("parameters"));
}

TEST_CASE("such a package is not run, and what cannot be written is refused") {
  Made made;
  const Artifact package = made.workshop.run("backend/huggingface", {{"model", made.model}}).outputs.at("package");
  const ComponentHandle backend = made.workshop.component("backend/huggingface");
  CHECK_THROWS_WITH(backend.as<Runtime>().open_language_model(made.workshop.lay_out(package), {2, true}),
                    ContainsSubstring("backend/huggingface") && ContainsSubstring("backend/libtorch"));
  const Artifact codes = made.workshop.run("quantizer/rtn", {{"model", made.model}}).outputs.at("model");
  CHECK_THROWS_WITH(made.workshop.run("backend/huggingface", {{"model", codes}}), ContainsSubstring("DequantizeLinear"));
  const Artifact apart = made.narrowed({6, 1});
  CHECK_THROWS_WITH(made.workshop.run("backend/huggingface", {{"model", apart}}), ContainsSubstring("6 in layer 0; 11 in layer 1"));
  const Artifact stored = made.workshop.run("quantizer/cast", {{"model", made.model}}, {{"storage", "bf16"}}).outputs.at("model");
  const Artifact half = made.workshop.run("backend/huggingface", {{"model", stored}}).outputs.at("package");
  CHECK(read_package(made.workshop.lay_out(half), true)["options"]["dtype"] == "bfloat16");
}
