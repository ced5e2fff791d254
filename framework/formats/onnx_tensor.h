#pragma once
#include <string>

#include "formats/onnx.h"

namespace onnx {
class TensorProto;
}

namespace espalier {

/// A TensorProto's elements as a Tensor, whatever field they lie in. Takes the raw bytes out of `proto`.
Tensor read_tensor(onnx::TensorProto& proto, const ExternalResolver& external, const std::string& what, const std::string& where);
/// Everything but the elements, and the elements too unless `header_only`.
void write_tensor(const Tensor& tensor, const std::string& name, onnx::TensorProto& proto, bool header_only = false);

/// "FLOAT6E2M3", or the number where onnx knows none either; for types that Tensor does not have.
std::string onnx_type_name(std::int32_t type);

/// A file offset or length as the format's decimal text; throws Error(invalid_input).
std::uint64_t parse_extent(const std::string& text, const std::string& what, const std::string& where);

/// "past + sequence", "2*batch - 1" → the linear form; any other text is one symbol of that name.
Dim parse_dim(const std::string& text);

}  // namespace espalier
