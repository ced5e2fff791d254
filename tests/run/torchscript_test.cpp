// TorchScript archives against torch, which wrote them; and what is refused, by name.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <filesystem>

#include "formats/model_file.h"
#include "formats/npy.h"
#include "graph/groups.h"
#include "graph/learnable.h"
#include "graph/passes.h"
#include "graph/surgery.h"
#include "run/models.h"
#include "run/session.h"
#include "run/torchscript.h"
#include "run/torchscript_module.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

using namespace espalier;
namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;

namespace {

/// What torchscript_oracle.py writes, made once a process and removed at its end.
class Archives {
 public:
  Archives() : folder_(fs::temp_directory_path() / fmt::format("espalier-torchscript-{}", static_cast<long>(::getpid()))) {
    const char *python = std::getenv("ESPALIER_TEST_PYTHON"), *source = std::getenv("ESPALIER_SOURCE");
    if (!python || !source) throw std::runtime_error("ESPALIER_TEST_PYTHON and ESPALIER_SOURCE are not set (run through ctest)");
    fs::create_directories(folder_);
    const std::string command = fmt::format("'{}' '{}/tests/run/torchscript_oracle.py' '{}'", python, source, folder_.string());
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  }
  ~Archives() {
    std::error_code error;
    fs::remove_all(folder_, error);
  }
  const fs::path& folder() const { return folder_; }

 private:
  fs::path folder_;
};

const fs::path& archives() {
  static const Archives made;
  return made.folder();
}

at::Tensor read(const fs::path& file) {
  const MappedFile mapped(file);
  return to_aten(parse_npy(mapped.bytes(), mapped.owner(), file.string())).clone();
}

TensorMap feeds(const Graph& graph, const fs::path& folder) {
  TensorMap inputs;
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) inputs[graph.inputs[i].name] = read(folder / fmt::format("in.{}.npy", i));
  return inputs;
}

void compare(const Graph& graph, const fs::path& folder) {
  Session session(graph);
  const TensorMap outputs = session.run(feeds(graph, folder));
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    INFO(graph.outputs[i].name);
    const at::Tensor expected = read(folder / fmt::format("out.{}.npy", i)), &given = outputs.at(graph.outputs[i].name);
    REQUIRE(given.sizes() == expected.sizes());
    REQUIRE(given.scalar_type() == expected.scalar_type());
    const double off =
        ((given - expected).abs().max().to(at::kDouble) / expected.abs().max().to(at::kDouble).clamp_min(1e-6)).item<double>();
    CHECK(off < 1e-5);
  }
}

std::string refusal(const char* name) {
  try {
    read_model_file(archives() / "refused" / name);
  } catch (const Error& error) {
    CHECK(error.where().find(name) != std::string::npos);
    return error.what();
  }
  return "read";
}

}  // namespace

TEST_CASE("traced models answer as torch does, on another batch than they were traced with") {
  for (const char* name : {"residual", "pieces", "bert", "llama", "gpt2", "vit"}) {
    INFO(name);
    std::string format;
    Graph graph = read_model_file(archives() / name / "model.pt", &format);
    CHECK(format == "torchscript");
    compare(graph, archives() / name);
    normal_form(graph);
    compare(graph, archives() / name);
  }
}

TEST_CASE("a traced model keeps the names of inputs, outputs and parameters, and its free lengths") {
  const Graph pieces = read_torchscript(archives() / "pieces" / "model.pt");
  REQUIRE(pieces.inputs.size() == 2);
  CHECK(pieces.inputs[0].name == "x");
  CHECK(pieces.inputs[0].shape[0].text() == "batch");
  REQUIRE(pieces.outputs.size() == 4);
  CHECK(pieces.outputs[0].name == "written");
  const Graph llama = read_torchscript(archives() / "llama" / "model.pt");
  CHECK(llama.inputs[0].shape[1].text() == "sequence");
  CHECK(llama.outputs[0].name == "output");
  CHECK(llama.initializers.contains("inner.model.layers.1.mlp.down_proj.weight"));
  const Graph fixed = read_torchscript(archives() / "residual" / "model.pt", {"x: f32[4,3,16,16]"});
  CHECK(text(fixed.outputs[0].shape) == text(Shape{4, 5}));
}

TEST_CASE("what was traced is cut like what was exported") {
  for (const char* name : {"residual", "bert", "llama"}) {
    INFO(name);
    Graph graph = read_torchscript(archives() / name / "model.pt");
    normal_form(graph);
    const auto groups = coupled_groups(graph, infer(graph), true);
    Removal removal;
    for (const CoupledGroup& group : groups)
      if (!group.pinned && group.exact && static_cast<std::int64_t>(group.units.size()) > group.multiple)
        for (std::int64_t unit = 0; unit < group.multiple; ++unit) removal[group.id].push_back(unit);
    REQUIRE(removal.size() >= 2);
    const TensorMap inputs = feeds(graph, archives() / name);
    Session masked(mask(graph, groups, removal)), small(cut(graph, groups, removal));
    const auto expected = masked.run(inputs).begin()->second, given = small.run(inputs).begin()->second;
    CHECK(((given - expected).abs().max() / expected.abs().max()).item<double>() < 1e-4);
  }
}

TEST_CASE("archives that are no models, and models that are not read, are refused by name") {
  CHECK_THAT(refusal("weights.pt"), ContainsSubstring("pickled checkpoint") && ContainsSubstring("torch.jit.trace"));
  CHECK_THAT(refusal("old.pt"), ContainsSubstring("pickled checkpoint"));
  CHECK_THAT(refusal("other.pt"), ContainsSubstring("no TorchScript archive"));
  CHECK_THAT(refusal("short.pt"), ContainsSubstring("cut short"));
  CHECK_THAT(refusal("rare.pt"), ContainsSubstring("aten::linalg_inv"));
  CHECK_THAT(refusal("branch.pt"), ContainsSubstring("prim::If") || ContainsSubstring("decision that depends on the input"));
  CHECK_THAT(refusal("untold.pt"), ContainsSubstring("input 'input'") && ContainsSubstring("f32[batch,3,32,32]"));
  const Graph told = read_torchscript(archives() / "refused" / "untold.pt", {"input: f32[batch,3]"});
  CHECK(text(told.outputs[0].shape) == text(Shape{Dim::symbol("batch"), 3}));
  CHECK_THROWS_AS(read_torchscript(archives() / "refused" / "untold.pt", {"input: f32[batch"}), Error);
  CHECK_THROWS_AS(read_torchscript(archives() / "refused" / "untold.pt", {"y: f32[batch,3]"}), Error);
}

namespace {

std::vector<at::Tensor> in_order(const Graph& graph, const TensorMap& values) {
  std::vector<at::Tensor> out;
  for (const Value& input : graph.inputs) out.push_back(values.at(input.name));
  return out;
}

double apart(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return ((a - b).abs().max().to(at::kDouble) / b.abs().max().to(at::kDouble).clamp_min(1e-6)).item<double>();
}

/// LibTorch's answers from a written archive, and the runner's from what is read of it again, against the runner's own.
void check_written(const Graph& graph, const TensorMap& inputs, const fs::path& file) {
  const TensorMap expected = Session(graph).run(inputs);
  write_torchscript(graph, file);
  TorchScriptModel module(file);
  const std::vector<at::Tensor> given = module.run(in_order(graph, inputs));
  REQUIRE(given.size() == graph.outputs.size());
  REQUIRE(module.outputs().size() == graph.outputs.size());
  const Graph again = read_torchscript(file);
  REQUIRE(again.inputs.size() == graph.inputs.size());
  TensorMap renamed;
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    renamed[again.inputs[i].name] = inputs.at(graph.inputs[i].name);
    CHECK(text(again.inputs[i].shape) == text(graph.inputs[i].shape));
  }
  const TensorMap back = Session(again).run(renamed);
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    INFO(graph.outputs[i].name);
    CHECK(module.outputs()[i] == graph.outputs[i].name);
    CHECK(apart(given[i], expected.at(graph.outputs[i].name)) < 1e-5);
    CHECK(apart(back.at(graph.outputs[i].name), expected.at(graph.outputs[i].name)) < 1e-5);
  }
  CHECK(again.metadata == graph.metadata);
  // Vectors that are equal or constant after folding may be one; what carries a model's size comes back under its own name.
  for (const std::string& name : learnable(graph)) {
    const Tensor& weight = graph.initializers.at(name);
    if (weight.shape.size() < 2) continue;
    INFO(name);
    std::string own = name;  // "self" is a word of the language
    if (const auto at = own.find(".self."); at != std::string::npos) own.insert(at + 5, "_");
    const auto found = again.initializers.find(own);
    REQUIRE(found != again.initializers.end());
    CHECK(found->second.shape == weight.shape);
  }
}

}  // namespace

TEST_CASE("what is written answers as the model does, in LibTorch and in torch, and is read again") {
  for (const char* name : {"residual", "pieces", "bert", "llama", "gpt2", "vit"}) {
    INFO(name);
    const fs::path folder = archives() / name, file = folder / "written.pt";
    Graph graph = read_torchscript(folder / "model.pt");
    normal_form(graph);
    graph.metadata["espalier.task"] = "a \"task\"";
    check_written(graph, feeds(graph, folder), file);
    const std::string command =
        fmt::format("'{}' '{}/tests/run/torchscript_oracle.py' check '{}' '{}'", std::getenv("ESPALIER_TEST_PYTHON"),
                    std::getenv("ESPALIER_SOURCE"), file.string(), folder.string());
    CHECK(std::system(command.c_str()) == 0);
  }
}

TEST_CASE("graphs of the operators that frameworks fuse are written, with lengths that stay free") {
  const Graph language = test::tiny_language_model(), pictures = test::residual_network(8);
  const fs::path file = archives() / "fused.pt";
  for (const std::int64_t length : {5, 9}) {
    const auto options = at::TensorOptions().dtype(at::kLong);
    const at::Tensor ids = at::randint(0, 37, {2, length}, options), mask = at::ones({2, length}, options);
    check_written(language,
                  {{"input_ids", ids}, {"attention_mask", mask}, {"position_ids", at::arange(length, options).expand({2, length})}},
                  file);
  }
  check_written(pictures, {{pictures.inputs[0].name, at::randn({3, 1, 12, 12})}}, file);
}

TEST_CASE("what TorchScript has no phrase for is refused by name, and nothing is written") {
  Graph graph;
  graph.inputs = {{"x", DType::f32, {Dim::symbol("n"), 3}}};
  graph.outputs = {{"y", DType::f32, {Dim::symbol("n"), 3}}};
  Node node;
  node.op = "Hardmax";
  node.name = "/choice";
  node.inputs = {"x"};
  node.outputs = {"y"};
  graph.nodes = {node};
  const fs::path file = archives() / "never.pt";
  try {
    write_torchscript(graph, file);
    FAIL("written");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK(error.where() == "/choice");
    CHECK_THAT(error.message(), ContainsSubstring("Hardmax"));
  }
  CHECK_FALSE(fs::exists(file));
}
