#include "formats/bounds.h"

#include <fmt/format.h>

#include "sdk/error.h"

namespace espalier {

std::int64_t checked_count(std::span<const std::int64_t> shape, const std::string& what, const std::string& where) {
  std::int64_t count = 1;
  bool empty = false;
  for (const std::int64_t length : shape) {
    if (length < 0)
      throw_invalid(fmt::format("{} has a negative length {} in its shape", what, length), where, "the file is damaged");
    if (length == 0) empty = true;
  }
  if (empty) return 0;
  for (const std::int64_t length : shape) {
    if (__builtin_mul_overflow(count, length, &count))
      throw_invalid(what + " has a shape whose size overflows", where, "the file is damaged");
  }
  return count;
}

Tensor checked_tensor(DType dtype, std::vector<std::int64_t> shape, std::span<const std::byte> bytes,
                      std::shared_ptr<const void> owner, const std::string& what, const std::string& where) {
  const std::uint64_t expected = byte_size(dtype, checked_count(shape, what, where));
  if (expected != bytes.size()) {
    throw_invalid(
        fmt::format("{} holds {} bytes, but its type {} and shape need {}", what, bytes.size(), to_string(dtype), expected), where,
        "the file is damaged or was cut short");
  }
  const auto align = static_cast<std::uintptr_t>(std::max(1, std::min(8, bits(dtype) / 8)));
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % align != 0) {
    return Tensor::own(dtype, std::move(shape), std::vector<std::byte>(bytes.begin(), bytes.end()));
  }
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.bytes = bytes;
  tensor.owner = std::move(owner);
  return tensor;
}

Json parse_json(std::string_view text, const std::string& where) {
  constexpr int kDeepest = 64;
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') ++i;
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth > kDeepest) throw_invalid(fmt::format("JSON nested deeper than {} levels", kDeepest), where, "the file is damaged");
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    throw_invalid(fmt::format("this is no JSON: {}", e.what()), where, "the file is damaged or was cut short");
  }
}

std::string escaped_name(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    if (plain && !(out.empty() && c == '.')) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace espalier
