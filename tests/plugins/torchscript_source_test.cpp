// source/torchscript as a stage.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>

#include "formats/model_artifact.h"
#include "run/dataset.h"
#include "run/session.h"
#include "run/torchscript_module.h"
#include "toy_model.h"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a stage reads a TorchScript archive, without what an earlier store said of its tokenizer") {
  const TemporaryFolder folder;
  TestContext context(folder);
  const Graph graph = toy_language_model();
  REQUIRE(graph.metadata.contains("espalier.tokenizer"));
  const auto file = context.scratch() / "model.pt";
  write_torchscript(graph, file);
  context.run("source/torchscript", {{"path", file.string()}, {"task", "causal-lm"}});
  CHECK(context.outputs.at("tokenizer").meta.contains("absent"));
  CHECK(context.details.contains("normal_form"));
  const Graph read = load_model(context, context.outputs.at("model"));
  CHECK_FALSE(read.metadata.contains("espalier.tokenizer"));
  CHECK(read.metadata.at("espalier.task") == "causal-lm");

  const TokenDataset windows(context, toy_dataset(context, 1, 12, 5));
  const TensorMap batch = windows.batch({0});
  const at::Tensor expected = Session(graph).run(batch, {"logits"}).at("logits");
  const at::Tensor given = Session(read).run(batch, {"logits"}).at("logits");
  CHECK((given - expected).abs().max().item<double>() < 1e-4 * expected.abs().max().item<double>());

  const auto other = context.scratch() / "other.pt";
  std::ofstream(other) << "no archive";
  CHECK_THROWS_WITH(context.run("source/torchscript", {{"path", other.string()}}), ContainsSubstring("no TorchScript archive"));
}
