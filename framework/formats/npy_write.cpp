#include <fmt/format.h>

#include "formats/npy.h"
#include "sdk/error.h"

namespace espalier {
namespace {

std::string_view described(DType type) {
  switch (type) {
    case DType::f64:
      return "<f8";
    case DType::f32:
      return "<f4";
    case DType::f16:
      return "<f2";
    case DType::i64:
      return "<i8";
    case DType::i32:
      return "<i4";
    case DType::i16:
      return "<i2";
    case DType::i8:
      return "|i1";
    case DType::u64:
      return "<u8";
    case DType::u32:
      return "<u4";
    case DType::u16:
      return "<u2";
    case DType::u8:
      return "|u1";
    case DType::boolean:
      return "|b1";
    case DType::c64:
      return "<c8";
    case DType::c128:
      return "<c16";
    default:
      throw_unsupported(fmt::format("NumPy has no arrays of {}", to_string(type)));
  }
}

}  // namespace

std::string npy_header(DType type, const std::vector<std::int64_t>& shape) {
  std::string lengths;
  for (const std::int64_t length : shape) lengths += fmt::format("{},{}", length, shape.size() > 1 ? " " : "");
  if (shape.size() > 1) lengths.resize(lengths.size() - 2);  // only a single length keeps its comma
  std::string dict = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", described(type), lengths);
  // Magic, version and length take ten bytes; the data begins at a multiple of 64.
  const std::size_t all = (10 + dict.size() + 1 + 63) / 64 * 64;
  dict.resize(all - 11, ' ');
  const std::size_t size = dict.size() + 1;
  std::string header = "\x93NUMPY";
  header += '\x01';
  header += '\0';
  header += static_cast<char>(size & 255);
  header += static_cast<char>(size >> 8);
  return header + dict + '\n';
}

}  // namespace espalier
