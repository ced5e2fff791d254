#include <catch2/catch_test_macros.hpp>

#include "abuse.h"
#include "formats/onnx.h"
#include "small_graph.h"

using namespace espalier;
namespace fs = std::filesystem;

TEST_CASE("ONNX files that lie are refused with file and tensor, and nothing outside their folder is read") {
  const abuse::Folder folder;
  std::string log;
  const bool made = abuse::python("onnx_oracle.py", {"hostile", folder.path().string()}, log);
  INFO(log);
  REQUIRE(made);
  std::size_t cases = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const fs::path file = entry.path() / "model.onnx";
    if (!entry.is_directory()) continue;
    INFO(file.string());
    const Error error = abuse::error_of([&] { read_onnx(file); });
    INFO(error.what());
    CHECK((error.code() == ErrorCode::invalid_input || error.code() == ErrorCode::unsupported));
    // The graph's own checks know no file; the reader's all do.
    const std::string name = entry.path().filename().string();
    const bool structure = name == "cycle" || name == "undefined" || name == "redefined";
    if (!structure) CHECK(error.where().find("model.onnx") != std::string::npos);
    if (name != "opset" && name != "no-graph" && name != "deep" && name != "cycle")
      CHECK(std::string(error.what()).find('W') != std::string::npos);
    ++cases;
  }
  CHECK(cases == 33);
}

TEST_CASE("damaged ONNX files are refused or read, never more") {
  const Graph graph = tests::small_graph();
  const std::string inside = serialize_onnx(graph, ~std::uint64_t{0}, [](const std::string& name) { return name; });
  const std::string outside = serialize_onnx(graph, 4, [](const std::string&) { return std::string("data"); });
  for (const std::string& text : {inside, outside}) {
    const abuse::Bytes data(4096);
    const auto outcome = abuse::mistreat(abuse::bytes_of(text), [&](const abuse::Bytes& bytes) {
      const Graph read = parse_onnx(
          bytes, nullptr,
          [&](const std::string&, std::uint64_t offset, std::uint64_t length, const std::string&) -> ExternalBytes {
            if (offset > data.size() || length > data.size() - offset) throw_invalid("outside");
            return {std::span(data).subspan(offset, length), nullptr};
          },
          "damaged.onnx");
      read.validate();  // what is accepted is a valid graph
    });
    INFO(outcome.failure);
    CHECK(outcome.survived);
    CHECK(outcome.refused > 200);
    CHECK(outcome.accepted > 0);
  }
}
