#include <ATen/ops/abs.h>
#include <ATen/ops/add.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/max.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sub.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "deploy/tiny.h"
#include "formats/onnx.h"
#include "formats/package.h"
#include "sdk/error.h"

namespace fs = std::filesystem;
using namespace espalier;
using namespace espalier::test;

namespace {

double distance(const at::Tensor& a, const at::Tensor& b) { return at::max(at::abs(at::sub(a, b))).item<double>(); }

at::Tensor in_pieces(LanguageModel& model, const std::vector<std::int64_t>& tokens, const std::vector<std::size_t>& pieces) {
  model.reset();
  std::vector<at::Tensor> rows;
  std::size_t at = 0;
  for (const std::size_t piece : pieces) {
    rows.push_back(model.feed(std::span(tokens).subspan(at, piece), true));
    at += piece;
  }
  REQUIRE(at == tokens.size());
  REQUIRE(model.position() == static_cast<std::int64_t>(at));
  return at::cat(rows, 0);
}

ErrorCode code_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    INFO(error.what());
    CHECK_FALSE(error.message().empty());
    return error.code();
  }
  FAIL("nothing was thrown");
  return ErrorCode::internal;
}

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}
void overwrite(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary | std::ios::trunc) << text; }

}  // namespace

TEST_CASE("a package computes what the model computes in the project's runner") {
  Tiny& tiny = Tiny::get();
  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  const auto tokens = some_tokens(40);
  const auto own = language_model(tiny.graph(tiny.model), {2, false});
  const at::Tensor expected = own->feed(tokens, true);
  REQUIRE(expected.sizes() == at::IntArrayRef({40, 257}));

  const auto model = tiny.open(backend, tiny.workshop.lay_out(tiny.package(backend, tiny.model)));
  const at::Tensor logits = model->feed(tokens, true);
  REQUIRE(logits.sizes() == expected.sizes());
  INFO(backend);
  CHECK(distance(logits, expected) < 1e-4);
}

TEST_CASE("decoding with a cache equals recomputing everything") {
  Tiny& tiny = Tiny::get();
  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  const auto tokens = some_tokens(24);
  const fs::path folder = tiny.workshop.lay_out(tiny.package(backend, tiny.model));
  const auto model = tiny.open(backend, folder);
  const at::Tensor whole = model->feed(tokens, true);
  std::vector<std::vector<std::size_t>> ways{std::vector<std::size_t>(24, 1), {10, 14}, {8, 8, 8}, {10}};
  ways.back().insert(ways.back().end(), 14, 1);
  for (const auto& pieces : ways) {
    INFO(backend << ", first piece " << pieces[0]);
    CHECK(distance(in_pieces(*model, tokens, pieces), whole) < 1e-4);
  }

  const auto last = tiny.open(backend, folder, true);
  const at::Tensor row = last->feed(tokens, false);
  REQUIRE(row.sizes() == at::IntArrayRef({1, 257}));
  CHECK(distance(row, whole.narrow(0, 23, 1)) < 1e-4);
}

TEST_CASE("a package of a quantized model is small, and close to the quantized model") {
  Tiny& tiny = Tiny::get();
  const Artifact int8 = tiny.quantized();
  const auto tokens = some_tokens(40);
  const auto own = language_model(tiny.graph(int8), {2, false});
  const at::Tensor expected = own->feed(tokens, true);

  const Artifact exact = tiny.package("backend/openvino", int8, {{"dynamic_quantization", false}});
  const auto model = tiny.open("backend/openvino", tiny.workshop.lay_out(exact));
  CHECK(distance(model->feed(tokens, true), expected) < 1e-3);

  const Artifact fast = tiny.package("backend/openvino", int8);
  const auto approximate = tiny.open("backend/openvino", tiny.workshop.lay_out(fast));
  const at::Tensor near = approximate->feed(tokens, true);
  const double error = at::mean(at::abs(at::sub(near, expected))).item<double>();
  CHECK(error < 0.03 * at::mean(at::abs(expected)).item<double>());

  const auto bytes = [&](const Artifact& package) { return package.meta.at("size_bytes").get<double>(); };
  CHECK(bytes(fast) < 0.7 * bytes(tiny.package("backend/openvino", tiny.model)));
}

TEST_CASE("an 8-bit package for ONNX Runtime computes with its 8-bit kernels") {
  Tiny& tiny = Tiny::get();
  const Artifact int8 = tiny.quantized();
  const auto tokens = some_tokens(40);
  const at::Tensor expected = language_model(tiny.graph(int8), {2, false})->feed(tokens, true);
  const Outcome made = tiny.workshop.run("backend/onnxruntime", {{"model", int8}}, {{"dynamic_quantization", false}});
  const fs::path folder = tiny.workshop.lay_out(made.outputs.at("package"));
  CHECK(distance(tiny.open("backend/onnxruntime", folder)->feed(tokens, true), expected) < 1e-3);
  std::map<std::string, int> kinds;
  const Graph packaged = read_onnx(folder / "model.onnx");
  for (const Node& node : packaged.nodes) ++kinds[node.op];
  CHECK(kinds["MatMulNBits"] == 2 * 7 + 1);
  CHECK(kinds["GroupQueryAttention"] == 2);
  CHECK(kinds["DequantizeLinear"] + kinds["MatMul"] + kinds["Attention"] <= 1);  // a table narrower than a block keeps its own
  CHECK(made.figures.at("fused_kernels") > 20);

  const auto fast = tiny.open("backend/onnxruntime", tiny.workshop.lay_out(tiny.package("backend/onnxruntime", int8)));
  const double error = at::mean(at::abs(at::sub(fast->feed(tokens, true), expected))).item<double>();
  CHECK(error < 0.03 * at::mean(at::abs(expected)).item<double>());
}

TEST_CASE("without its own kernels a package for ONNX Runtime is standard ONNX and computes the same") {
  Tiny& tiny = Tiny::get();
  const auto tokens = some_tokens(24);
  const at::Tensor expected = language_model(tiny.graph(tiny.model), {2, false})->feed(tokens, true);
  const fs::path folder = tiny.workshop.lay_out(tiny.package("backend/onnxruntime", tiny.model, {{"kernels", false}}));
  for (const Node& node : read_onnx(folder / "model.onnx").nodes) CHECK(node.domain.empty());
  const auto model = tiny.open("backend/onnxruntime", folder);
  CHECK(distance(model->feed(tokens, true), expected) < 1e-4);
  CHECK(distance(in_pieces(*model, tokens, {5, 1, 1, 17}), expected) < 1e-4);
}

TEST_CASE("a package of any task runs by names, in every runtime alike") {
  Tiny& tiny = Tiny::get();
  Graph graph;
  graph.inputs = {{"image", DType::f32, {Dim::symbol("batch"), 6}}, {"shift", DType::f32, {2}}};
  graph.outputs = {{"classes", DType::f32, {Dim::symbol("batch"), 2}}, {"best", DType::i64, {Dim::symbol("batch"), 1}}};
  graph.initializers["head.weight"] = Tensor::of<float>(DType::f32, {6, 2}, {1, -2, 3, 4, -5, 6, 7, 8, 9, -1, 2, 3});
  graph.nodes = {{"MatMul", "", "/head/MatMul", {"image", "head.weight"}, {"scores"}, {}},
                 {"Add", "", "/head/Add", {"scores", "shift"}, {"classes"}, {}},
                 {"ArgMax", "", "/head/ArgMax", {"classes"}, {"best"}, {{"axis", std::int64_t{1}}}}};
  const std::string backend = GENERATE("backend/openvino", "backend/onnxruntime");
  INFO(backend);
  const fs::path folder = tiny.workshop.lay_out(tiny.package(backend, save_model(tiny.workshop.context(), graph)));
  ComponentHandle handle = tiny.workshop.component(backend);
  const auto model = handle.as<Runtime>().open_model(folder, {2, false});
  CHECK(model->inputs() == std::vector<std::string>{"image", "shift"});
  CHECK(model->outputs() == std::vector<std::string>{"classes", "best"});
  const at::Tensor image = at::randn({3, 6}), shift = at::randn({2});
  const at::Tensor weight = to_aten(graph.initializers["head.weight"]);
  const at::Tensor expected = at::add(at::matmul(image, weight), shift);
  const TensorMap made = model->run({{"image", image}, {"shift", shift}});
  CHECK(distance(made.at("classes"), expected) < 1e-4);
  CHECK(at::equal(made.at("best"), at::argmax(expected, 1, true)));

  // Other strides, another type; then what does not fit, by name.
  CHECK(distance(model->run({{"image", image.t().contiguous().t()}, {"shift", shift.to(at::kDouble)}}).at("classes"), expected) <
        1e-4);
  CHECK(code_of([&] { model->run({{"image", image}}); }) == ErrorCode::invalid_input);
  CHECK(code_of([&] { model->run({{"image", at::randn({3, 7})}, {"shift", shift}}); }) == ErrorCode::invalid_input);
  CHECK(code_of([&] { model->run({{"image", at::randn({6})}, {"shift", shift}}); }) == ErrorCode::invalid_input);
}

TEST_CASE("a package describes itself") {
  Tiny& tiny = Tiny::get();
  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  const Artifact package = tiny.package(backend, tiny.model);
  CHECK(package.type == ArtifactType::package);
  CHECK(package.meta.at("backend") == backend);
  CHECK(package.meta.at("tokenizer") == tiny.tokenizer.digest().hex());
  const fs::path folder = tiny.workshop.lay_out(package);
  const Json description = read_package(folder, true);
  CHECK(description.at("backend") == backend);
  CHECK(fs::exists(folder / "tokenizer.json"));
  std::uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) bytes += entry.file_size();
  CHECK(package.meta.at("size_bytes").get<std::uint64_t>() == bytes);

  const Graph graph = read_onnx(folder / "model.onnx");
  std::size_t pasts = 0;
  for (const Value& input : graph.inputs) pasts += input.name.starts_with("past_key_values.");
  CHECK(pasts == 4);
  CHECK(package.manifest() == tiny.package(backend, tiny.model).manifest());
}

TEST_CASE("another runtime reads the packaged graph, and agrees") {
  const char* python = std::getenv("ESPALIER_TEST_PYTHON");
  const char* source = std::getenv("ESPALIER_SOURCE");
  REQUIRE(python);
  REQUIRE(source);
  if (!fs::exists(python)) SKIP("no test environment at " << python);
  Tiny& tiny = Tiny::get();
  const auto tokens = some_tokens(24);
  const fs::path folder = tiny.workshop.lay_out(tiny.package("backend/openvino", tiny.model));
  const auto model = tiny.open("backend/openvino", folder);
  const at::Tensor logits = model->feed(tokens, true).contiguous();
  std::ofstream(folder / "logits.bin", std::ios::binary).write(static_cast<const char*>(logits.const_data_ptr()), 24 * 257 * 4);
  std::string call = std::string("'") + python + "' '" + source + "/tests/deploy/package_oracle.py' '" + folder.string() + "'";
  for (const auto token : tokens) call += " " + std::to_string(token);
  CHECK(std::system(call.c_str()) == 0);
}

TEST_CASE("the optimizer's rewrites keep what the model computes") {
  Tiny& tiny = Tiny::get();
  const Outcome made = tiny.workshop.run("backend/optimize", {{"model", tiny.quantized()}});
  const auto tokens = some_tokens(20);
  const auto before = language_model(tiny.graph(tiny.quantized()), {2, false}),
             after = language_model(tiny.graph(made.outputs.at("model")), {2, false});
  CHECK(distance(after->feed(tokens, true), before->feed(tokens, true)) < 1e-4);
  CHECK(made.figures.at("nodes_after") <= made.figures.at("nodes_before"));
  CHECK(made.details.at("passes").at("rows").size() > 0);
  CHECK(made.figures.at("peak_bytes_after") > 0);
  CHECK(made.figures.at("peak_bytes_after") < made.figures.at("peak_bytes_before"));
  const Json& plot = made.details.at("plot.live_bytes").at("series");
  REQUIRE(plot.size() == 2);
  CHECK(plot[1].at("values").size() == static_cast<std::size_t>(made.figures.at("nodes_after")));
  CHECK(code_of([&] {
          tiny.workshop.run("backend/optimize", {{"model", tiny.model}}, {{"lengths", {{"sequence", 1.5}}}});
        }) == ErrorCode::invalid_input);
  CHECK(code_of([&] {
          tiny.workshop.run("backend/optimize", {{"model", tiny.model}}, {{"passes", {"no-such-pass"}}});
        }) == ErrorCode::invalid_input);
}

TEST_CASE("a model that is no language model is packaged as it is") {
  Tiny& tiny = Tiny::get();
  Graph graph;
  graph.inputs = {{"image", DType::f32, {Dim::symbol("batch"), 6}}};
  graph.outputs = {{"classes", DType::f32, {Dim::symbol("batch"), 2}}};
  graph.initializers["head.weight"] = Tensor::of<float>(DType::f32, {6, 2}, std::vector<float>(12, 0.5f));
  graph.nodes = {{"MatMul", "", "/head/MatMul", {"image", "head.weight"}, {"scores"}, {}},
                 {"Relu", "", "/head/Relu", {"scores"}, {"classes"}, {}}};
  graph.metadata["espalier.task"] = "image-classification";
  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  INFO(backend);
  const Artifact package = tiny.package(backend, save_model(tiny.workshop.context(), graph));
  const fs::path folder = tiny.workshop.lay_out(package);
  CHECK(read_onnx(folder / "model.onnx").inputs.size() == 1);
  CHECK(exit_code(code_of([&] { tiny.open(backend, folder); })) == 2);
  CHECK(exit_code(code_of([&] {
          tiny.workshop.run("evaluator/perplexity", {{"package", package}, {"data", tiny.heldout}});
        })) == 2);
  const ComponentHandle handle = tiny.workshop.component(backend);
  const auto model = handle.as<Runtime>().open_model(folder, {2, false});
  CHECK(model->run({{"image", at::ones({1, 6})}}).at("classes").allclose(at::full({1, 2}, 3.0)));
}

TEST_CASE("what a runtime cannot load is refused when it is packaged") {
  Tiny& tiny = Tiny::get();
  const std::string backend = GENERATE("backend/openvino", "backend/onnxruntime");
  Graph graph;
  graph.inputs = {{"x", DType::f32, {4}}};
  graph.outputs = {{"y", DType::f32, {4}}};
  graph.nodes = {{"Unheard", "org.example", "/unheard", {"x"}, {"y"}, {}}};
  graph.opsets["org.example"] = 1;
  const Artifact model = save_model(tiny.workshop.context(), graph);
  try {
    tiny.package(backend, model);
    FAIL("it was packaged");
  } catch (const Error& error) {
    CHECK(exit_code(error.code()) == 1);
    CHECK(std::string(error.what()).find("Unheard") != std::string::npos);
  }
}

TEST_CASE("packages from outside are not trusted") {
  Tiny& tiny = Tiny::get();
  const std::string backend = GENERATE("backend/openvino", "backend/libtorch", "backend/onnxruntime");
  INFO(backend);
  const Artifact package = tiny.package(backend, tiny.model);
  const fs::path folder = tiny.workshop.lay_out(package);

  SECTION("no folder, no description, or one that is none") {
    CHECK(exit_code(code_of([&] { read_package(folder / "absent", true); })) == 2);
    overwrite(folder / "package.json", "{\"schema\": ");
    CHECK(exit_code(code_of([&] { read_package(folder, true); })) == 2);
    overwrite(folder / "package.json", "[1, 2]");
    CHECK(exit_code(code_of([&] { read_package(folder, true); })) == 2);
    CHECK(exit_code(code_of([&] { tiny.open(backend, folder); })) == 2);
    fs::remove(folder / "package.json");
    CHECK(exit_code(code_of([&] { read_package(folder, true); })) == 2);
  }
  SECTION("a flipped byte is found") {
    std::string bytes = text_of(folder / "model.onnx");
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
    overwrite(folder / "model.onnx", bytes);
    CHECK(code_of([&] { read_package(folder, true); }) == ErrorCode::corrupt);
  }
  SECTION("a truncated model is an error, not a crash") {
    for (const char* name : {"model.onnx", "model.data"}) {
      if (!fs::exists(folder / name)) continue;
      fs::resize_file(folder / name, fs::file_size(folder / name) / 3);
      code_of([&] { tiny.open(backend, folder); });
    }
  }
  SECTION("a file outside the folder is refused") {
    Json description = Json::parse(text_of(folder / "package.json"));
    std::string text = description.dump();
    for (std::size_t at; (at = text.find("model.onnx")) != std::string::npos;) text.replace(at, 10, "../etc/hosts");
    overwrite(folder / "package.json", text);
    CHECK(exit_code(code_of([&] { read_package(folder, true); })) == 2);
  }
  SECTION("options that no backend wrote") {
    if (backend == "backend/onnxruntime") {
      for (const Json& options : {Json("f32"), Json::object(), Json{{"shared_cache", 3}}}) {
        Json description = Json::parse(text_of(folder / "package.json"));
        description["options"] = options;
        overwrite(folder / "package.json", description.dump());
        CHECK(exit_code(code_of([&] { tiny.open(backend, folder); })) == 2);
      }
    }
    if (backend == "backend/openvino") {
      for (const Json& options : {Json("f32"), Json::object(), Json{{"precision_hint", "f99"}, {"dynamic_quantization", true}},
                                  Json{{"precision_hint", 32}, {"dynamic_quantization", true}}}) {
        Json description = Json::parse(text_of(folder / "package.json"));
        description["options"] = options;
        overwrite(folder / "package.json", description.dump());
        CHECK(exit_code(code_of([&] { tiny.open(backend, folder); })) == 2);
      }
    }
  }
  SECTION("tokens that do not exist, or do not fit") {
    const auto model = tiny.open(backend, folder);
    for (const std::int64_t token : {std::int64_t{-1}, std::int64_t{257}, std::int64_t{1} << 40})
      CHECK(code_of([&] { model->feed({&token, 1}, true); }) == ErrorCode::invalid_input);
    CHECK(code_of([&] { model->feed({}, true); }) == ErrorCode::invalid_input);
    CHECK(code_of([&] { model->feed(some_tokens(65), true); }) == ErrorCode::invalid_input);
    model->reset();
    model->feed(some_tokens(64), true);
    const std::int64_t next = 1;
    CHECK(code_of([&] { model->feed({&next, 1}, true); }) == ErrorCode::invalid_input);
  }
}
