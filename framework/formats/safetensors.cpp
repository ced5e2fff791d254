#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "formats/bounds.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::uint64_t kHeaderLimit = 100'000'000;  // the format's own limit

constexpr std::array<std::pair<DType, std::string_view>, 15> kNames{{{DType::f64, "F64"},
                                                                     {DType::f32, "F32"},
                                                                     {DType::f16, "F16"},
                                                                     {DType::bf16, "BF16"},
                                                                     {DType::i64, "I64"},
                                                                     {DType::i32, "I32"},
                                                                     {DType::i16, "I16"},
                                                                     {DType::i8, "I8"},
                                                                     {DType::u64, "U64"},
                                                                     {DType::u32, "U32"},
                                                                     {DType::u16, "U16"},
                                                                     {DType::u8, "U8"},
                                                                     {DType::boolean, "BOOL"},
                                                                     {DType::f8e4m3fn, "F8_E4M3"},
                                                                     {DType::f8e5m2, "F8_E5M2"}}};

DType dtype_of(const std::string& name, const std::string& what, const std::string& where) {
  for (const auto& [type, text] : kNames) {
    if (text == name) return type;
  }
  throw_unsupported(what + " has the element type '" + name + "'", where,
                    "safetensors of F64 … BF16, integers, BOOL and F8 are read");
}

std::string_view name_of(DType type, const std::string& tensor) {
  for (const auto& [known, text] : kNames) {
    if (known == type) return text;
  }
  throw_unsupported(fmt::format("tensor '{}' has the type {}, which safetensors cannot hold", tensor, to_string(type)));
}

Json parse_header(std::string_view text, const std::string& where) {
  std::set<std::string> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth == 1 && event == Json::parse_event_t::key && !keys.insert(parsed.get<std::string>()).second) {
      throw_invalid("the header names tensor '" + parsed.get<std::string>() + "' twice", where, "the file is damaged");
    }
    return true;
  };
  try {
    Json header = Json::parse(text, watch);
    if (!header.is_object()) throw_invalid("the header is no JSON object", where, "the file is no safetensors file, or is damaged");
    return header;
  } catch (const Json::exception& e) {
    throw_invalid(fmt::format("the header is no JSON: {}", e.what()), where, "the file is no safetensors file, or is damaged");
  }
}

std::int64_t non_negative(const Json& value, const std::string& what, const std::string& where) {
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= INT64_MAX
                                               : value.is_number_integer() && value.get<std::int64_t>() >= 0;
  if (!fits) throw_invalid(what + " has a length or offset that is no natural number", where, "the file is damaged");
  return value.get<std::int64_t>();
}

}  // namespace

std::map<std::string, Tensor> parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                                const std::string& where, std::map<std::string, std::string>* metadata) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) throw_invalid("the file is shorter than a safetensors header", where, "it was cut short");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kHeaderLimit || !within(sizeof length, length, bytes.size())) {
    throw_invalid(fmt::format("the header claims {} bytes, the file has {}", length, bytes.size()), where,
                  "the file is no safetensors file, or was cut short");
  }
  const Json header = parse_header({reinterpret_cast<const char*>(bytes.data()) + sizeof length, length}, where);
  const std::span<const std::byte> data = bytes.subspan(sizeof length + length);

  std::map<std::string, Tensor> tensors;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) throw_invalid("__metadata__ is no object", where, "the file is damaged");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) throw_invalid("__metadata__ entry '" + key + "' is no string", where, "the file is damaged");
        if (metadata) metadata->insert_or_assign(key, value.get<std::string>());
      }
      continue;
    }
    const std::string what = "tensor '" + name + "'";
    const bool whole = entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() && entry.contains("shape") &&
                       entry["shape"].is_array() && entry.contains("data_offsets") && entry["data_offsets"].is_array() &&
                       entry["data_offsets"].size() == 2;
    if (!whole) throw_invalid(what + " lacks dtype, shape or data_offsets", where, "the file is damaged");
    std::vector<std::int64_t> shape;
    for (const Json& dim : entry["shape"]) shape.push_back(non_negative(dim, what, where));
    const auto begin = static_cast<std::uint64_t>(non_negative(entry["data_offsets"][0], what, where));
    const auto end = static_cast<std::uint64_t>(non_negative(entry["data_offsets"][1], what, where));
    if (begin > end || end > data.size()) {
      throw_invalid(fmt::format("{} lies at {}…{}, outside the {} bytes of data", what, begin, end, data.size()), where,
                    "the file is damaged or was cut short");
    }
    ranges.emplace_back(begin, end);
    const DType dtype = dtype_of(entry["dtype"].get<std::string>(), what, where);
    tensors.emplace(name, checked_tensor(dtype, std::move(shape), data.subspan(begin, end - begin), owner, what, where));
  }
  // The format allows neither holes nor overlaps: what is hidden in one could be anything.
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t at = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != at) throw_invalid(fmt::format("the data has a hole or an overlap at byte {}", at), where, "the file is damaged");
    at = end;
  }
  if (at != data.size())
    throw_invalid(fmt::format("{} bytes of data belong to no tensor", data.size() - at), where, "the file is damaged");
  return tensors;
}

std::vector<std::byte> safetensors_header(const std::vector<SafetensorsEntry>& entries,
                                          const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const auto& [name, dtype, shape] : entries) {
    if (name == "__metadata__") throw_invalid("a tensor may not be named __metadata__ in safetensors");
    const std::uint64_t end = at + byte_size(dtype, checked_count(shape, "tensor '" + name + "'", {}));
    header[name] = {{"dtype", name_of(dtype, name)}, {"shape", shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    throw_invalid("a tensor's name or a metadata text is not UTF-8, which safetensors demands");
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  std::vector<std::byte> out(8 + text.size());
  const std::uint64_t length = text.size();
  std::memcpy(out.data(), &length, 8);
  std::memcpy(out.data() + 8, text.data(), text.size());
  return out;
}

std::vector<std::byte> write_safetensors(const std::map<std::string, Tensor>& tensors,
                                         const std::map<std::string, std::string>& metadata) {
  // Wide elements first keeps every tensor aligned without holes.
  std::vector<const std::pair<const std::string, Tensor>*> order;
  for (const auto& entry : tensors) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) { return bits(a->second.dtype) > bits(b->second.dtype); });
  std::vector<SafetensorsEntry> entries;
  for (const auto* entry : order) entries.push_back({entry->first, entry->second.dtype, entry->second.shape});
  std::vector<std::byte> out = safetensors_header(entries, metadata);
  for (const auto* entry : order) out.insert(out.end(), entry->second.bytes.begin(), entry->second.bytes.end());
  return out;
}

}  // namespace espalier
