// An .onnx file, its normal form and what is inferred of it.
#include "formats/onnx.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "target.h"

using namespace espalier;

ESPALIER_FUZZ(onnx, bytes) {
  const fuzz::Owned owned(bytes);
  const auto none = [](const std::string&, std::uint64_t, std::uint64_t, const std::string& tensor) -> ExternalBytes {
    throw_invalid("there is no external data here", tensor);
  };
  Graph graph = parse_onnx(owned.view(), owned.bytes, none, "fuzz");
  infer(graph);
  normal_form(graph);
  infer(graph);
  serialize_onnx(graph, ~std::uint64_t{0}, [](const std::string& name) { return name; });
}
