#include "formats/gguf.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "formats/bounds.h"
#include "formats/gguf_types.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint32_t kDefaultAlignment = 32;
constexpr std::uint32_t kMaxDims = 4;
// One element of an array costs 40 bytes in memory and as little as one in the file.
constexpr std::uint64_t kMaxArray = 4'000'000;

enum ValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// Reads one after the other, never past the end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  template <class T>
  T number(const char* what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string string(const char* what) {
    const auto length = number<std::uint64_t>(what);
    need(length, what);
    std::string value(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return value;
  }
  /// A count of things of at least `smallest` bytes each.
  std::uint64_t count(std::uint64_t smallest, const char* what) {
    const auto n = number<std::uint64_t>(what);
    return check_count(n, smallest, what);
  }
  std::uint64_t check_count(std::uint64_t n, std::uint64_t smallest, const char* what) {
    if (n > (bytes_.size() - at_) / smallest) fail(fmt::format("{} claims {} entries, more than the file has room for", what, n));
    return n;
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw_invalid(message, fmt::format("{}: byte {}", where_, at_), "the file is damaged or was cut short");
  }
  std::size_t at() const { return at_; }

 private:
  void need(std::uint64_t length, const char* what) const {
    if (!within(at_, length, bytes_.size())) fail(fmt::format("the file ends inside {}", what));
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  std::size_t at_ = 0;
};

GgufFile::Scalar read_scalar(Cursor& in, std::uint32_t type) {
  const char* what = "a metadata value";
  switch (type) {
    case u8:
      return std::uint64_t{in.number<std::uint8_t>(what)};
    case i8:
      return std::int64_t{in.number<std::int8_t>(what)};
    case u16:
      return std::uint64_t{in.number<std::uint16_t>(what)};
    case i16:
      return std::int64_t{in.number<std::int16_t>(what)};
    case u32:
      return std::uint64_t{in.number<std::uint32_t>(what)};
    case i32:
      return std::int64_t{in.number<std::int32_t>(what)};
    case u64:
      return in.number<std::uint64_t>(what);
    case i64:
      return in.number<std::int64_t>(what);
    case f32:
      return double{in.number<float>(what)};
    case f64:
      return in.number<double>(what);
    case boolean:
      return in.number<std::uint8_t>(what) != 0;
    case text:
      return in.string(what);
    default:
      in.fail(fmt::format("a metadata value has the unknown type {}", type));
  }
}

std::uint64_t smallest_size(std::uint32_t type) {
  switch (type) {
    case u16:
    case i16:
      return 2;
    case u32:
    case i32:
    case f32:
      return 4;
    case u64:
    case i64:
    case f64:
    case text:
      return 8;
    default:
      return 1;
  }
}

GgufFile::Value read_value(Cursor& in, const std::string& key, const std::string& where) {
  const auto type = in.number<std::uint32_t>("a metadata type");
  if (type != array) return read_scalar(in, type);
  const auto element = in.number<std::uint32_t>("an array's type");
  if (element == array) throw_unsupported("metadata '" + key + "' is an array of arrays", where);
  const std::uint64_t count = in.count(smallest_size(element), "an array");
  if (count > kMaxArray)
    throw_unsupported(fmt::format("metadata '{}' is an array of {} entries", key, count), where, "at most 4,000,000 are read");
  GgufFile::Array values;
  values.items.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) values.items.push_back(read_scalar(in, element));
  return values;
}

std::uint64_t alignment_of(const std::map<std::string, GgufFile::Value>& metadata, const std::string& where) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return kDefaultAlignment;
  const auto* scalar = std::get_if<GgufFile::Scalar>(&found->second);
  const auto* number = scalar ? std::get_if<std::uint64_t>(scalar) : nullptr;
  if (!number || !std::has_single_bit(*number) || *number > (1U << 20)) {
    throw_invalid("general.alignment is no power of two up to 1 MiB", where, "the file is damaged");
  }
  return *number;
}

struct Header {
  GgufFile::Entry entry;
  std::uint64_t offset = 0, size = 0;
};

Header read_tensor_header(Cursor& in, const std::string& where) {
  Header header;
  GgufFile::Entry& entry = header.entry;
  entry.name = in.string("a tensor's name");
  const auto dims = in.number<std::uint32_t>("a tensor's rank");
  if (dims > kMaxDims) in.fail(fmt::format("tensor '{}' claims {} dimensions", entry.name, dims));
  entry.shape.resize(dims);
  // GGUF counts from the innermost dimension.
  for (std::uint32_t i = dims; i-- > 0;) entry.shape[i] = in.number<std::int64_t>("a tensor's shape");
  entry.type = in.number<std::uint32_t>("a tensor's type");
  header.offset = in.number<std::uint64_t>("a tensor's offset");
  const std::string what = "tensor '" + entry.name + "'";
  const GgmlType* type = ggml_type(entry.type);
  if (!type) throw_unsupported(fmt::format("{} has the unknown type {}", what, entry.type), where);
  const std::int64_t count = checked_count(entry.shape, what, where);
  if (!entry.shape.empty() && entry.shape.back() % type->block != 0) {
    throw_invalid(
        fmt::format("{}: rows of {} elements are not whole blocks of {} ({})", what, entry.shape.back(), type->block, type->name),
        where, "the file is damaged");
  }
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(count) / type->block, std::uint64_t{type->bytes}, &header.size)) {
    throw_invalid(what + " has a size that overflows", where, "the file is damaged");
  }
  return header;
}

}  // namespace

GgufFile GgufFile::open(const std::filesystem::path& path) {
  const MappedFile mapped(path);
  const std::span<const std::byte> bytes = mapped.bytes();
  GgufFile file;
  file.where_ = path.string();
  file.owner_ = mapped.owner();
  Cursor in(bytes, file.where_);
  if (in.number<std::uint32_t>("the magic number") != kMagic) throw_invalid("this is no GGUF file", file.where_);
  const auto version = in.number<std::uint32_t>("the version");
  if (version != 2 && version != 3) {
    const bool swapped = (version & 0xffff) == 0 && version != 0;
    throw_unsupported(swapped ? std::string("GGUF in big-endian byte order") : fmt::format("GGUF version {}", version), file.where_,
                      "versions 2 and 3 in little-endian order are read");
  }
  const std::uint64_t tensors = in.count(24, "the tensor list");
  const std::uint64_t keys = in.count(13, "the metadata");
  for (std::uint64_t i = 0; i < keys; ++i) {
    std::string key = in.string("a metadata key");
    Value value = read_value(in, key, file.where_);
    if (!file.metadata_.emplace(key, std::move(value)).second) in.fail("metadata '" + key + "' appears twice");
  }
  const std::uint64_t alignment = alignment_of(file.metadata_, file.where_);
  std::vector<Header> headers;
  headers.reserve(in.check_count(tensors, 24, "the tensor list"));
  for (std::uint64_t i = 0; i < tensors; ++i) headers.push_back(read_tensor_header(in, file.where_));

  const std::uint64_t begin = (in.at() + alignment - 1) / alignment * alignment;
  const std::span<const std::byte> data = begin <= bytes.size() ? bytes.subspan(begin) : std::span<const std::byte>{};
  std::map<std::string, int> seen;
  std::uint64_t claimed = 0;  // tensors that share bytes would let a small file ask for any amount of memory
  for (Header& header : headers) {
    Entry& entry = header.entry;
    if (seen[entry.name]++) throw_invalid("tensor '" + entry.name + "' appears twice", file.where_, "the file is damaged");
    if (header.offset % alignment != 0 || !within(header.offset, header.size, data.size())) {
      throw_invalid(fmt::format("tensor '{}' claims {} bytes at byte {}, outside the file's {} bytes of data or not aligned to {}",
                                entry.name, header.size, header.offset, data.size(), alignment),
                    file.where_, "the file is damaged or was cut short");
    }
    claimed += header.size;
    if (claimed > data.size())
      throw_invalid("tensor '" + entry.name + "' overlaps another one", file.where_, "the file is damaged");
    entry.bytes = data.subspan(header.offset, header.size);
    file.tensors_.push_back(std::move(entry));
  }
  return file;
}

const GgufFile::Entry* GgufFile::tensor(const std::string& name) const {
  for (const Entry& entry : tensors_) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

Tensor GgufFile::dequantize(const Entry& entry) const {
  const GgmlType* type = ggml_type(entry.type);
  if (!type || !type->dequantize) {
    throw_unsupported(
        fmt::format("tensor '{}' has the type {}", entry.name, type ? std::string(type->name) : std::to_string(entry.type)), where_,
        "read are " + readable_ggml_types());
  }
  const std::size_t count = entry.bytes.size() / type->bytes * type->block;
  std::vector<std::byte> values(count * sizeof(float));
  type->dequantize(entry.bytes.data(), count, reinterpret_cast<float*>(values.data()));
  return Tensor::own(DType::f32, entry.shape, std::move(values));
}

}  // namespace espalier
