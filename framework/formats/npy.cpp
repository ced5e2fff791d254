#include "formats/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "formats/bounds.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kLongestHeader = 1 << 20, kMostAxes = 32;

constexpr std::array<std::pair<std::string_view, DType>, 13> kTypes{{{"f8", DType::f64},
                                                                     {"f4", DType::f32},
                                                                     {"f2", DType::f16},
                                                                     {"i8", DType::i64},
                                                                     {"i4", DType::i32},
                                                                     {"i2", DType::i16},
                                                                     {"i1", DType::i8},
                                                                     {"u8", DType::u64},
                                                                     {"u4", DType::u32},
                                                                     {"u2", DType::u16},
                                                                     {"u1", DType::u8},
                                                                     {"b1", DType::boolean},
                                                                     {"?", DType::boolean}}};

struct Header {
  DType dtype = DType::undefined;
  bool swapped = false, columns_first = false;
  std::vector<std::int64_t> shape;
};

/// The header is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class Literal {
 public:
  Literal(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Header header() {
    Header header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !descr) {
        descr = true;
        skip();
        if (!text_.empty() && text_.front() == '[')
          throw_unsupported("the array holds records of several fields", where_, "save each field as an array of its own");
        type(quoted(), header);
      } else if (key == "fortran_order" && !order) {
        order = true;
        header.columns_first = truth();
      } else if (key == "shape" && !shape) {
        shape = true;
        header.shape = lengths();
      } else {
        damaged(fmt::format("an unexpected key \"{}\"", key));
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip();
    if (!text_.empty()) damaged("something behind the dictionary");
    if (!descr || !order || !shape) damaged("no descr, fortran_order or shape");
    return header;
  }

 private:
  [[noreturn]] void damaged(const std::string& what) const {
    throw_invalid("the array's header has " + what, where_, "the file is damaged, or no .npy file");
  }
  void skip() { text_.remove_prefix(std::min(text_.find_first_not_of(" \t\n"), text_.size())); }
  bool take(char c) {
    skip();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) damaged(fmt::format("no '{}' where one must be", c));
  }
  std::string quoted() {
    skip();
    if (text_.empty() || (text_.front() != '\'' && text_.front() != '"')) damaged("no quoted text where one must be");
    const std::size_t end = text_.find(text_.front(), 1);
    if (end == std::string_view::npos) damaged("a quotation without an end");
    std::string inside(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return inside;
  }
  bool truth() {
    skip();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}}) {
      if (!text_.starts_with(word)) continue;
      text_.remove_prefix(word.size());
      return value;
    }
    damaged("neither True nor False under fortran_order");
  }
  std::vector<std::int64_t> lengths() {
    std::vector<std::int64_t> shape;
    expect('(');
    while (!take(')')) {
      skip();
      std::int64_t length = 0;
      const auto [end, problem] = std::from_chars(text_.data(), text_.data() + text_.size(), length);
      if (problem != std::errc() || length < 0) damaged("a length that is no natural number");
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      if (shape.size() == kMostAxes) damaged(fmt::format("more than {} axes", kMostAxes));
      shape.push_back(length);
      if (take(')')) break;
      expect(',');
    }
    return shape;
  }
  void type(const std::string& descr, Header& header) const {
    const char order = descr.empty() ? '?' : descr.front();
    const std::string_view name = std::string_view(descr).substr(order == '<' || order == '>' || order == '|' || order == '=');
    const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& known) { return known.first == name; });
    if (found == kTypes.end())
      throw_unsupported(fmt::format("the array has elements of type \"{}\"", descr.substr(0, 40)), where_,
                        "booleans, integers and floats of 16, 32 and 64 bits are read: save it as one of them");
    header.dtype = found->second;
    header.swapped = order == '>' && bits(header.dtype) > 8;
  }

  std::string_view text_;
  const std::string& where_;
};

void swap_bytes(std::vector<std::byte>& bytes, std::size_t width) {
  for (std::size_t at = 0; at + width <= bytes.size(); at += width)
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + width));
}

/// Columns first → rows first: element by element, the source's index counted along.
std::vector<std::byte> rows_first(std::span<const std::byte> bytes, const std::vector<std::int64_t>& shape, std::size_t width) {
  std::vector<std::byte> out(bytes.size());
  std::vector<std::size_t> step(shape.size()), at(shape.size(), 0);
  std::size_t stride = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    step[d] = stride;
    stride *= static_cast<std::size_t>(shape[d]);
  }
  std::size_t from = 0;
  for (std::size_t to = 0; to < out.size(); to += width) {
    std::memcpy(out.data() + to, bytes.data() + from * width, width);
    for (std::size_t d = shape.size(); d-- > 0;) {
      from += step[d];
      if (++at[d] < static_cast<std::size_t>(shape[d])) break;
      from -= step[d] * at[d];
      at[d] = 0;
    }
  }
  return out;
}

}  // namespace

Tensor parse_npy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic) || bytes.size() < 10)
    throw_invalid("this is no array of NumPy's .npy format", where, "write it with numpy.save");
  const auto byte = [&](std::size_t i) { return static_cast<std::uint64_t>(bytes[i]); };
  const std::uint64_t version = byte(6);
  if (version < 1 || version > 3)
    throw_unsupported(fmt::format("version {} of the .npy format", version), where, "1 to 3 are read");
  const std::size_t lead = version == 1 ? 10 : 12;
  if (bytes.size() < lead) throw_invalid("the header is cut short", where, "the file is damaged");
  const std::uint64_t length = byte(8) | byte(9) << 8 | (version == 1 ? 0 : byte(10) << 16 | byte(11) << 24);
  if (length > kLongestHeader || !within(lead, length, bytes.size()))
    throw_invalid(fmt::format("the header claims {} bytes, the file has {}", length, bytes.size()), where,
                  "the file is damaged or was cut short");
  Header header = Literal(text.substr(lead, length), where).header();
  const auto data = bytes.subspan(lead + length);
  if (!header.swapped && (!header.columns_first || header.shape.size() < 2))
    return checked_tensor(header.dtype, std::move(header.shape), data, std::move(owner), "the array", where);
  // Checked before anything is allocated.
  checked_tensor(header.dtype, header.shape, data, std::move(owner), "the array", where);
  const auto width = static_cast<std::size_t>(bits(header.dtype) / 8);
  std::vector<std::byte> own =
      header.columns_first ? rows_first(data, header.shape, width) : std::vector<std::byte>(data.begin(), data.end());
  if (header.swapped) swap_bytes(own, width);
  return Tensor::own(header.dtype, std::move(header.shape), std::move(own));
}

}  // namespace espalier
