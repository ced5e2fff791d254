#include "formats/onnx_tensor.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <type_traits>

#include "formats/bounds.h"
#include "onnx/onnx-ml.pb.h"
#include "sdk/error.h"

namespace espalier {
namespace {

bool known_type(std::int32_t type) { return type >= static_cast<std::int32_t>(DType::f32) && type <= kLastType; }

/// The elements of a typed field, each stored as `Stored`.
template <class Stored, class Field>
Tensor from_field(DType dtype, std::vector<std::int64_t> shape, const Field& field, const std::string& what,
                  const std::string& where) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(field.size()) * sizeof(Stored));
  for (int i = 0; i < field.size(); ++i) {
    const auto value = static_cast<Stored>(field.Get(i));
    std::memcpy(bytes.data() + static_cast<std::size_t>(i) * sizeof value, &value, sizeof value);
  }
  const auto owned = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  return checked_tensor(dtype, std::move(shape), *owned, owned, what, where);
}

Tensor from_typed_fields(const onnx::TensorProto& proto, DType dtype, std::vector<std::int64_t> shape, const std::string& what,
                         const std::string& where) {
  switch (dtype) {
    case DType::f32:
    case DType::c64:
      return from_field<float>(dtype, std::move(shape), proto.float_data(), what, where);
    case DType::f64:
    case DType::c128:
      return from_field<double>(dtype, std::move(shape), proto.double_data(), what, where);
    case DType::i64:
      return from_field<std::int64_t>(dtype, std::move(shape), proto.int64_data(), what, where);
    case DType::u64:
      return from_field<std::uint64_t>(dtype, std::move(shape), proto.uint64_data(), what, where);
    case DType::u32:
      return from_field<std::uint32_t>(dtype, std::move(shape), proto.uint64_data(), what, where);
    case DType::i32:
      return from_field<std::int32_t>(dtype, std::move(shape), proto.int32_data(), what, where);
    case DType::i16:
    case DType::u16:
    case DType::f16:
    case DType::bf16:
      return from_field<std::uint16_t>(dtype, std::move(shape), proto.int32_data(), what, where);
    default:
      return from_field<std::uint8_t>(dtype, std::move(shape), proto.int32_data(), what, where);  // bytes, of packed elements too
  }
}

Tensor from_strings(const onnx::TensorProto& proto, std::vector<std::int64_t> shape, const std::string& what,
                    const std::string& where) {
  if (checked_count(shape, what, where) != proto.string_data_size()) {
    throw_invalid(fmt::format("{} holds {} strings, which do not fill its shape", what, proto.string_data_size()), where,
                  "the file is damaged");
  }
  Tensor tensor;
  tensor.dtype = DType::string;
  tensor.shape = std::move(shape);
  tensor.strings.assign(proto.string_data().begin(), proto.string_data().end());
  return tensor;
}

Tensor from_external(const onnx::TensorProto& proto, DType dtype, std::vector<std::int64_t> shape, const ExternalResolver& external,
                     const std::string& what, const std::string& where) {
  std::string location;
  std::uint64_t offset = 0;
  const std::uint64_t expected = byte_size(dtype, checked_count(shape, what, where));
  std::uint64_t length = expected;
  for (const auto& entry : proto.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = parse_extent(entry.value(), what, where);
    if (entry.key() == "length") length = parse_extent(entry.value(), what, where);
  }
  if (length != expected) {
    throw_invalid(fmt::format("{} claims {} bytes of external data, but its type {} and shape need {}", what, length,
                              to_string(dtype), expected),
                  where, "the file is damaged");
  }
  if (!external) throw_invalid(what + " lies in external data, which this file may not have", where);
  ExternalBytes found = external(location, offset, length, proto.name());
  return checked_tensor(dtype, std::move(shape), found.bytes, std::move(found.owner), what, where);
}

}  // namespace

std::string onnx_type_name(std::int32_t type) {
  if (!onnx::TensorProto::DataType_IsValid(type)) return std::to_string(type);
  return onnx::TensorProto::DataType_Name(static_cast<onnx::TensorProto::DataType>(type));
}

std::uint64_t parse_extent(const std::string& text, const std::string& what, const std::string& where) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw_invalid(what + " has an offset or length '" + text.substr(0, 40) + "' that is no number of bytes", where,
                  "the file is damaged");
  }
  return value;
}

Tensor read_tensor(onnx::TensorProto& proto, const ExternalResolver& external, const std::string& what, const std::string& where) {
  if (!known_type(proto.data_type())) {
    if (proto.data_type() == onnx::TensorProto::UNDEFINED)
      throw_invalid(what + " has no element type", where, "the file is damaged");
    throw_unsupported(what + " has the element type " + onnx_type_name(proto.data_type()), where);
  }
  if (proto.has_segment()) throw_unsupported(what + " is stored in segments", where);
  const auto dtype = static_cast<DType>(proto.data_type());
  std::vector<std::int64_t> shape(proto.dims().begin(), proto.dims().end());
  if (dtype == DType::string) return from_strings(proto, std::move(shape), what, where);
  if (proto.data_location() == onnx::TensorProto::EXTERNAL)
    return from_external(proto, dtype, std::move(shape), external, what, where);
  if (proto.has_raw_data()) {
    const std::shared_ptr<std::string> raw(proto.release_raw_data());
    return checked_tensor(dtype, std::move(shape), std::as_bytes(std::span(*raw)), raw, what, where);
  }
  return from_typed_fields(proto, dtype, std::move(shape), what, where);
}

void write_tensor(const Tensor& tensor, const std::string& name, onnx::TensorProto& proto, bool header_only) {
  if (!name.empty()) proto.set_name(name);
  proto.set_data_type(static_cast<std::int32_t>(tensor.dtype));
  for (const std::int64_t dim : tensor.shape) proto.add_dims(dim);
  if (header_only) return;
  if (tensor.dtype == DType::string) {
    for (const std::string& text : tensor.strings) proto.add_string_data(text);
  } else {
    proto.set_raw_data(tensor.bytes.data(), tensor.bytes.size());
  }
}

Dim parse_dim(const std::string& text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  Dim sum;
  std::size_t at = 0;
  bool first = true;
  const auto blanks = [&] {
    while (at < text.size() && text[at] == ' ') ++at;
  };
  for (blanks(); at < text.size(); blanks(), first = false) {
    std::int64_t factor = 1;
    if (text[at] == '+' || text[at] == '-') {
      if (first && text[at] == '+') return Dim::symbol(text);
      factor = text[at++] == '-' ? -1 : 1;
    } else if (!first) {
      return Dim::symbol(text);
    }
    blanks();
    if (at < text.size() && digit(text[at])) {
      std::int64_t number = 0;
      const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), number);
      if (error != std::errc() || number > (std::int64_t{1} << 40)) return Dim::symbol(text);
      at = static_cast<std::size_t>(end - text.data());
      factor *= number;
      blanks();
      if (at >= text.size() || text[at] != '*') {
        sum = sum + Dim(factor);
        continue;
      }
      ++at;
      blanks();
    }
    if (at >= text.size() || !letter(text[at])) return Dim::symbol(text);
    const std::size_t begin = at;
    while (at < text.size() && (letter(text[at]) || digit(text[at]) || text[at] == '.')) ++at;
    sum = sum + Dim::symbol(text.substr(begin, at - begin)) * Dim(factor);
  }
  return first || sum.known() ? Dim::symbol(text) : sum;
}

}  // namespace espalier
