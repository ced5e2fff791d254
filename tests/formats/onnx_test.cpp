#include "formats/onnx.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <fstream>

#include "abuse.h"
#include "formats/onnx_tensor.h"
#include "small_graph.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

void check_same(const Tensor& a, const Tensor& b) {
  CHECK(a.dtype == b.dtype);
  CHECK(a.shape == b.shape);
  CHECK(a.strings == b.strings);
  CHECK(std::ranges::equal(a.bytes, b.bytes));
}

void check_same(const Graph& a, const Graph& b);

void check_same(const Attribute& a, const Attribute& b) {
  REQUIRE(a.index() == b.index());
  if (const auto* tensor = std::get_if<Tensor>(&a)) {
    check_same(*tensor, std::get<Tensor>(b));
  } else if (const auto* graph = std::get_if<std::shared_ptr<Graph>>(&a)) {
    check_same(**graph, *std::get<std::shared_ptr<Graph>>(b));
  } else if (const auto* graphs = std::get_if<std::vector<std::shared_ptr<Graph>>>(&a)) {
    const auto& other = std::get<std::vector<std::shared_ptr<Graph>>>(b);
    REQUIRE(graphs->size() == other.size());
    for (std::size_t i = 0; i < other.size(); ++i) check_same(*(*graphs)[i], *other[i]);
  } else {
    std::visit(
        [&](const auto& value) {
          using T = std::decay_t<decltype(value)>;
          if constexpr (!std::is_same_v<T, Tensor> && !std::is_same_v<T, std::shared_ptr<Graph>> &&
                        !std::is_same_v<T, std::vector<std::shared_ptr<Graph>>>) {
            CHECK(value == std::get<T>(b));
          }
        },
        a);
  }
}

void check_same(const Graph& a, const Graph& b) {
  CHECK(a.name == b.name);
  CHECK(a.opsets == b.opsets);
  CHECK(a.metadata == b.metadata);
  CHECK(a.doc == b.doc);
  const auto border = [](const std::vector<Value>& x, const std::vector<Value>& y) {
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(x[i].name == y[i].name);
      CHECK(x[i].dtype == y[i].dtype);
      CHECK(x[i].shape == y[i].shape);
    }
  };
  border(a.inputs, b.inputs);
  border(a.outputs, b.outputs);
  REQUIRE(a.initializers.size() == b.initializers.size());
  for (const auto& [name, tensor] : a.initializers) check_same(tensor, b.initializers.at(name));
  REQUIRE(a.nodes.size() == b.nodes.size());
  for (std::size_t i = 0; i < a.nodes.size(); ++i) {
    const Node &x = a.nodes[i], &y = b.nodes[i];
    CHECK(x.op == y.op);
    CHECK(x.domain == y.domain);
    CHECK(x.name == y.name);
    CHECK(x.inputs == y.inputs);
    CHECK(x.outputs == y.outputs);
    REQUIRE(x.attributes.size() == y.attributes.size());
    for (const auto& [name, value] : x.attributes) check_same(value, y.attributes.at(name));
  }
}

}  // namespace

TEST_CASE("a graph with every kind of attribute and type survives its file") {
  const abuse::Folder folder;
  const Graph graph = tests::small_graph();
  for (const std::uint64_t inline_below : {std::uint64_t{0}, std::uint64_t{16}, std::uint64_t{1} << 40}) {
    INFO(inline_below);
    const fs::path file = folder / "model.onnx";
    write_onnx(graph, file, {.inline_below = inline_below, .data_name = "model.data"});
    check_same(graph, read_onnx(file));
  }
  CHECK(fs::exists(folder / "model.data"));
  for (const auto& entry : fs::directory_iterator(folder.path()))
    CHECK(entry.path().filename().string().find("part") == std::string::npos);
}

TEST_CASE("the same graph gives the same bytes, its data on pages of their own") {
  const abuse::Folder folder;
  const Graph graph = tests::small_graph();
  const OnnxWriteOptions options{.inline_below = 8, .data_name = "w.data"};
  write_onnx(graph, folder / "a.onnx", options);
  const auto first = abuse::read_file(folder / "a.onnx"), data = abuse::read_file(folder / "w.data");
  Graph again = read_onnx(folder / "a.onnx");
  for (const auto& [name, tensor] : again.initializers) {
    if (tensor.bytes.size() >= 8) CHECK(reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % 4096 == 0);
  }
  // Over the very file that its tensors are mapped from.
  write_onnx(again, folder / "a.onnx", options);
  CHECK(abuse::read_file(folder / "a.onnx") == first);
  CHECK(abuse::read_file(folder / "w.data") == data);
}

TEST_CASE("what cannot be written leaves nothing behind") {
  const abuse::Folder folder;
  const Graph graph = tests::small_graph();
  CHECK(abuse::error_of([&] { write_onnx(graph, folder / "no/such/model.onnx"); }).code() == ErrorCode::resource);
  fs::create_directory(folder / "model.onnx");
  CHECK(abuse::error_of([&] { write_onnx(graph, folder / "model.onnx", {.inline_below = 0, .data_name = "d"}); }).code() ==
        ErrorCode::resource);
  std::size_t parts = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) parts += entry.path().string().find("part") != std::string::npos;
  CHECK(parts == 0);
}

TEST_CASE("dimensions are linear forms, or symbols") {
  const Dim past = Dim::symbol("past"), sequence = Dim::symbol("sequence");
  for (const Dim& dim :
       {past, past + sequence, sequence * Dim(2) + Dim(3), past - sequence, sequence - Dim(1), past * Dim(-1) + Dim(7)}) {
    INFO(dim.text());
    CHECK(parse_dim(dim.text()) == dim);
  }
  for (const char* text : {"a/b", "floor(n / 2)", "n*m", "2 +", "+ a", "a b", "9999999999999999999*a", "17", "-", "ä"}) {
    INFO(text);
    CHECK(parse_dim(text) == Dim::symbol(text));
  }
}

TEST_CASE("onnx itself reads what we write, and we read what it writes") {
  const abuse::Folder folder;
  std::string log;
  SECTION("every field that a tensor's elements may lie in") {
    const bool made = abuse::python("onnx_oracle.py", {"fields", folder.path().string()}, log);
    INFO(log);
    REQUIRE(made);
    const Graph graph = read_onnx(folder / "fields.onnx");
    std::size_t compared = 0;
    for (const auto& [name, tensor] : graph.initializers) {
      const fs::path expected = folder / (name + ".bin");
      if (!fs::exists(expected)) continue;
      INFO(name);
      CHECK(std::ranges::equal(tensor.bytes, abuse::read_file(expected)));
      ++compared;
    }
    CHECK(compared >= 35);
    CHECK(graph.initializers.at("text.typed").strings == std::vector<std::string>{"a", "", "ü"});
    // Constant nodes have become initializers, and inputs that are initializers (IR version 3) are no inputs.
    CHECK(graph.nodes.size() == 1);
    CHECK(graph.initializers.at("constant").numbers() == std::vector<double>{2.5});
    CHECK(graph.initializers.at("constants").integers() == std::vector<std::int64_t>{4, 5, 6});
    REQUIRE(graph.inputs.size() == 1);
    CHECK(graph.inputs[0].shape == Shape{Dim::symbol("n"), Dim::symbol("x.dim1"), 3});
    CHECK(!graph.nodes[0].name.empty());
  }
  SECTION("our files pass the checker and keep their values") {
    Graph graph = tests::checkable_graph();
    write_onnx(graph, folder / "model.onnx", {.inline_below = 16, .data_name = "model.data"});
    const bool passed = abuse::python("onnx_oracle.py", {"check", (folder / "model.onnx").string()}, log);
    INFO(log);
    CHECK(passed);
    CHECK(log.find("W float32 [4, 3] 66.0") != std::string::npos);
  }
}

TEST_CASE("models past 2 GB are written and read", "[large]") {
  // In memory where there is plenty: disks take their time over 2 GB.
  const auto room = [](const fs::path& path, std::uint64_t gigabytes) {
    std::error_code error;
    const auto space = fs::space(path, error);
    return !error && space.available >= gigabytes << 30;
  };
  const abuse::Folder folder(room("/dev/shm", 8) ? "/dev/shm" : fs::temp_directory_path());
  if (!room(folder.path(), 5)) SKIP("less than 5 GB free");
  // One buffer under many names: memory stays small, the file does not.
  const std::size_t count = 72U << 20;
  const auto buffer = std::make_shared<std::vector<float>>(count, 1.0F);
  Graph graph = tests::checkable_graph();
  for (int i = 0; i < 8; ++i) {
    Tensor tensor;
    tensor.dtype = DType::f32;
    tensor.shape = {static_cast<std::int64_t>(count)};
    tensor.bytes = std::as_bytes(std::span(*buffer));
    tensor.owner = buffer;
    graph.initializers["big." + std::to_string(i)] = tensor;
  }
  (*buffer)[count - 1] = 42;
  write_onnx(graph, folder / "big.onnx");
  CHECK(fs::file_size(folder / "model.data") > (std::uint64_t{1} << 31));
  const Graph read = read_onnx(folder / "big.onnx");
  CHECK(read.initializers.at("big.7").as<float>()[count - 1] == 42.0F);
  // The same without external data is refused by name, not cut short.
  CHECK(abuse::error_of([&] {
          write_onnx(graph, folder / "inline.onnx", {.inline_below = ~std::uint64_t{0}, .data_name = "d"});
        }).code() == ErrorCode::unsupported);
  CHECK(!fs::exists(folder / "inline.onnx"));
}
