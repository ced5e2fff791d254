#include <catch2/catch_test_macros.hpp>
#include <fstream>

#include "abuse.h"
#include "folder_context.h"
#include "formats/gguf.h"
#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/package.h"
#include "small_graph.h"
#include "tiny_gguf.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

/// A model with two tensors that are blobs of their own, one with a name that is no file's.
Graph large_graph() {
  Graph graph = tests::checkable_graph();
  const std::vector<float> many(20'000, 0.5F);
  graph.initializers["../big one"] = Tensor::of<float>(DType::f32, {20'000}, many);
  graph.initializers[std::string(600, 'n')] = Tensor::of<float>(DType::f32, {100, 200}, many);
  graph.metadata["espalier.task"] = "test";
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

TEST_CASE("pages of a mapping are given back and read again and other memory stays as it is") {
  const abuse::Folder folder;
  const abuse::Bytes content(std::size_t{16} << 20, std::byte{3});
  abuse::write_file(folder / "large", content);
  const MappedFile mapped(folder / "large");
  const auto sum = [](std::span<const std::byte> bytes) {
    std::size_t total = 0;
    for (std::byte byte : bytes) total += std::to_integer<std::size_t>(byte);
    return total;
  };
  CHECK(sum(mapped.bytes()) == content.size() * 3);
  const std::int64_t before = resident_of_files();
  MappedFile::release(mapped.owner(), mapped.bytes());
  CHECK(resident_of_files() < before - (std::int64_t{12} << 20));
  CHECK(sum(mapped.bytes()) == content.size() * 3);

  const auto owned = std::make_shared<const std::vector<std::byte>>(std::size_t{1} << 20, std::byte{7});
  MappedFile::release(owned, *owned);
  CHECK(sum(*owned) == owned->size() * 7);
  MappedFile::release(nullptr, {});
}

TEST_CASE("a model artifact gives the graph back, and unchanged tensors cost nothing") {
  const abuse::Folder folder;
  tests::FolderContext context(folder.path());
  Graph graph = large_graph();
  graph.initializers.at("../big one").bytes = {};  // distinct bytes for distinct blobs
  graph.initializers["../big one"] = Tensor::of<float>(DType::f32, {20'000}, std::vector<float>(20'000, 0.25F));
  const Artifact artifact = save_model(context, graph);
  CHECK(artifact.blobs.size() == 3);
  CHECK(context.written == 3);
  CHECK(Artifact::parse(artifact.manifest()).blobs.size() == 3);  // every name is a safe one
  CHECK(artifact.meta["task"] == "test");
  CHECK(artifact.meta["parameters"] == graph.parameter_count());
  CHECK(artifact.meta["inputs"] == Json::parse(R"([{"name":"x","dtype":"float32","shape":["batch",4]}])"));

  Graph loaded = load_model(context, artifact);
  for (const auto& [name, tensor] : graph.initializers) {
    INFO(name);
    CHECK(std::ranges::equal(loaded.initializers.at(name).bytes, tensor.bytes));
    CHECK(loaded.initializers.at(name).known.has_value() == (tensor.bytes.size() >= 65536));
  }
  CHECK(save_model(context, loaded).digest() == artifact.digest());
  CHECK(context.written == 3);

  loaded.initializers["../big one"] = Tensor::of<float>(DType::f32, {20'000}, std::vector<float>(20'000, 1.0F));
  const Artifact changed = save_model(context, loaded);
  CHECK(context.written == 4);  // the one tensor: the graph's own blob names no bytes
  CHECK(changed.digest() != artifact.digest());

  Artifact broken = artifact;
  broken.blobs.erase(broken.blobs.find("graph.onnx"));
  CHECK(abuse::error_of([&] { load_model(context, broken); }).code() == ErrorCode::corrupt);
  broken = artifact;
  for (auto& [name, blob] : broken.blobs)
    if (name != "graph.onnx") blob = artifact.blobs.at("graph.onnx");
  CHECK(abuse::error_of([&] { load_model(context, broken); }).code() == ErrorCode::corrupt);
}

TEST_CASE("tensors put away in the store are mapped from it, small ones stay") {
  const abuse::Folder folder;
  tests::FolderContext context(folder / "store");
  const auto store = into_store(context);
  const Tensor large = store(Tensor::of<float>(DType::f32, {128, 128}, std::vector<float>(128 * 128, 0.5F)));
  CHECK(context.written == 1);
  REQUIRE(large.known);
  CHECK(*large.known == sha256(large.bytes));
  CHECK(large.as<float>()[77] == 0.5F);
  const Tensor small = store(Tensor::of<float>(DType::f32, {2}, std::vector<float>{1, 2}));
  CHECK(context.written == 1);
  CHECK(small.as<float>()[1] == 2);
  Graph graph;
  graph.initializers["w"] = large;
  save_model(context, graph);
  CHECK(context.written == 2);  // the graph; the weight is there
}

TEST_CASE("a package holds the model's tokenizer, its files and what they are") {
  const abuse::Folder folder;
  tests::FolderContext context(folder / "store");
  abuse::write_file(folder / "m.gguf", tests::TinyLlama{}.bytes());
  ImportedModel imported = import_gguf(folder / "m.gguf");
  const Artifact tokenizer = save_tokenizer(context, *imported.tokenizer);
  imported.graph.metadata["espalier.tokenizer"] = tokenizer.digest().hex();
  CHECK(load_tokenizer(context, tokenizer)->json() == imported.tokenizer->json());

  const Artifact first = save_model(context, imported.graph);
  // A later stage knows the tokenizer only through the model.
  Graph graph = load_model(context, first);
  const Artifact model = save_model(context, graph);
  CHECK(model.digest() == first.digest());
  CHECK(model.meta["tokenizer"] == tokenizer.digest().hex());

  write_onnx(graph, folder / "model.onnx", {.inline_below = 64, .data_name = "model.data"});
  std::ofstream(folder / "model.data", std::ios::app) << std::string(2 << 20, 'x');  // past what is copied
  const std::uint64_t data_size = fs::file_size(folder / "model.data");
  PackageSpec spec;
  spec.backend = "backend/test";
  spec.runtime = "test 1";
  spec.files = {{"model.onnx", folder / "model.onnx"}, {"weights/model.data", folder / "model.data"}};
  spec.options = {{"hint", "f32"}};
  const Artifact package = save_package(context, graph, model, spec);
  CHECK(package.meta["backend"] == "backend/test");

  const fs::path out = unpack(context, package);
  CHECK(unpack(context, package) == out);
  const Json description = read_package(out, true);
  CHECK(description["schema"] == 1);
  CHECK(description["licence"] == "cc0-1.0");
  CHECK(description["task"] == "causal-lm");
  CHECK(description["options"]["hint"] == "f32");
  CHECK(description["provenance"]["model"] == model.digest().hex());
  CHECK(description["files"].size() == 3);
  CHECK(description["inputs"][0]["shape"] == Json::parse(R"(["batch","sequence"])"));
  std::uint64_t size = 0;
  for (const auto& entry : fs::recursive_directory_iterator(out)) {
    CHECK(!entry.is_symlink());
    if (entry.is_regular_file()) size += entry.file_size();
  }
  CHECK(package.meta["size_bytes"] == size);
  const auto json = abuse::read_file(out / "tokenizer.json");
  CHECK(std::string(reinterpret_cast<const char*>(json.data()), json.size()) == imported.tokenizer->json());
  CHECK(fs::file_size(out / "weights/model.data") == data_size);

  SECTION("a file that changed is found") {
    fs::remove(out / "model.onnx");
    CHECK(abuse::error_of([&] { read_package(out, false); }).code() == ErrorCode::corrupt);
    std::ofstream(out / "model.onnx") << std::string(description["files"]["model.onnx"]["size"].get<std::size_t>(), 'x');
    CHECK_NOTHROW(read_package(out, false));
    CHECK(abuse::error_of([&] { read_package(out, true); }).code() == ErrorCode::corrupt);
    CHECK_NOTHROW(read_package(unpack(context, package), false));
  }
}

TEST_CASE("a package.json that lies is refused") {
  const abuse::Folder folder;
  const auto refusal = [&](const std::string& text) {
    const std::string copy = text;
    abuse::write_file(folder / "package.json", std::as_bytes(std::span(copy)));
    return abuse::error_of([&] { read_package(folder.path(), true); });
  };
  CHECK(abuse::error_of([&] { read_package(folder / "none", true); }).code() == ErrorCode::invalid_input);
  const std::string digest = sha256("x").hex();
  const auto with_file = [&](const std::string& name, const std::string& entry) {
    return refusal(R"({"schema":1,"backend":"b","files":{")" + name + "\":" + entry + "}}");
  };
  const std::string good = R"({"digest":")" + digest + R"(","size":1})";
  for (const char* name : {"../x", "/etc/hostname", "a/../../x", "", ".", "a//b/.."}) {
    INFO(name);
    CHECK(with_file(name, good).message().find("leaves the package") != std::string::npos);
  }
  CHECK(with_file("absent", good).code() == ErrorCode::corrupt);
  CHECK(with_file("x", R"({"digest":"zz","size":1})").message().find("no size or digest") != std::string::npos);
  CHECK(with_file("x", R"({"digest":")" + digest + R"(","size":-1})").message().find("no size or digest") != std::string::npos);
  CHECK(with_file("x", "[]").message().find("no size or digest") != std::string::npos);
  CHECK(refusal(R"({"schema":2,"backend":"b","files":{}})").code() == ErrorCode::unsupported);
  CHECK(refusal(R"({"schema":"1","backend":"b","files":{}})").message().find("schema") != std::string::npos);
  CHECK(refusal(R"({"schema":1,"files":{}})").message() == "package.json has no 'backend'");
  CHECK(refusal(R"({"schema":1,"backend":"b","files":[]})").message() == "package.json has no 'files'");
  CHECK(refusal("[1]").message().find("no object") != std::string::npos);
  CHECK(refusal(std::string(300'000, '[')).message().find("nested") != std::string::npos);
  CHECK(refusal("").code() == ErrorCode::invalid_input);
}
