#include "formats/npy.h"

#include <zlib.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>

#include "abuse.h"

using namespace espalier;
using abuse::Bytes;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string npy(const std::string& descr, const std::string& shape, const std::string& data, const std::string& order = "False",
                char version = 1) {
  std::string header = "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
  std::string out = "\x93NUMPY";
  out += {version, '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  if (version > 1) out += std::string(2, '\0');
  return out + header + data;
}

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

Tensor read(const std::string& text) {
  const auto held = std::make_shared<Bytes>(abuse::bytes_of(text));
  return parse_npy(*held, held, "x.npy");
}

std::string little(std::uint64_t value, int size) {
  return {reinterpret_cast<const char*>(&value), static_cast<std::size_t>(size)};
}

struct Packed {
  std::string name, bytes;
  std::uint64_t unpacked = 0, checksum = 0, method = 0;
};

Packed stored(const std::string& name, const std::string& text) {
  return {name, text, text.size(), crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())), 0};
}

Packed deflated(const std::string& name, const std::string& text) {
  Packed member = stored(name, text);
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  member.bytes = out;
  member.method = 8;
  return member;
}

std::string zip(const std::vector<Packed>& members) {
  std::string out, directory;
  for (const Packed& m : members) {
    const std::string common = little(m.method, 2) + little(0, 4) + little(m.checksum, 4) + little(m.bytes.size(), 4) +
                               little(m.unpacked, 4) + little(m.name.size(), 2) + little(0, 2);
    directory += little(0x02014b50, 4) + little(20, 2) + little(20, 2) + little(0, 2) + common + little(0, 2) + little(0, 2) +
                 little(0, 2) + little(0, 4) + little(out.size(), 4) + m.name;
    out += little(0x04034b50, 4) + little(20, 2) + little(0, 2) + common + m.name + m.bytes;
  }
  const std::size_t at = out.size();
  return out + directory + little(0x06054b50, 4) + little(0, 4) + little(members.size(), 2) + little(members.size(), 2) +
         little(directory.size(), 4) + little(at, 4) + little(0, 2);
}

std::vector<std::pair<std::string, Tensor>> read_zip(const std::string& text) {
  const auto held = std::make_shared<Bytes>(abuse::bytes_of(text));
  return parse_npz(*held, held, "x.npz");
}

}  // namespace

TEST_CASE("npy: types, byte orders, axis orders and versions") {
  const Tensor floats = read(npy("'<f4'", "(2, 3)", raw<float>({1, 2, 3, 4, 5, 6})));
  CHECK(floats.dtype == DType::f32);
  CHECK(floats.shape == std::vector<std::int64_t>{2, 3});
  CHECK(floats.numbers() == std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK(read(npy("'<f4'", "(2, 3)", raw<float>({1, 4, 2, 5, 3, 6}), "True")).numbers() == floats.numbers());
  CHECK(read(npy("'>i4'", "(1,)", std::string("\0\0\1\2", 4))).integers() == std::vector<std::int64_t>{258});
  CHECK(read(npy("'<i8'", "()", raw<std::int64_t>({7}), "False", 3)).integers() == std::vector<std::int64_t>{7});
  CHECK(read(npy("'|u1'", "(0, 4)", "")).count() == 0);
  // Three axes, columns first: element [i, j, k] lies at i + 2·j + 4·k.
  CHECK(read(npy("'<f4'", "(2, 2, 2)", raw<float>({0, 1, 2, 3, 4, 5, 6, 7}), "True")).numbers() ==
        std::vector<double>{0, 4, 2, 6, 1, 5, 3, 7});
}

TEST_CASE("npy: what is refused says what and where") {
  const auto refused = [](const std::string& text, const std::string& why) {
    CHECK_THAT(abuse::error_of([&] { read(text); }).what(), ContainsSubstring(why) && ContainsSubstring("x.npy"));
  };
  refused("no array", "no array of NumPy");
  refused(npy("'<f4'", "(3,)", raw<float>({1, 2})), "holds 8 bytes");
  refused(npy("'<f4'", "(4611686018427387904, 4611686018427387904)", ""), "overflows");
  refused(npy("'<f4'", "(-1,)", ""), "natural number");
  refused(npy("'|O'", "(1,)", "x"), "type \"|O\"");
  refused(npy("[('a', '<f4')]", "(1,)", "xxxx"), "several fields");
  refused(npy("'>f8'", "(1152921504606846976,)", ""), "holds 0 bytes");
}

TEST_CASE("npz: stored and deflated members") {
  const std::string a = npy("'<f4'", "(2,)", raw<float>({1.5, 2.5})), zeros = npy("'|u1'", "(100000,)", std::string(100000, '\0'));
  const auto arrays = read_zip(zip({stored("a.npy", a), deflated("../zeros.npy", zeros)}));
  REQUIRE(arrays.size() == 2);
  CHECK(arrays[0].first == "a");
  CHECK(arrays[0].second.numbers() == std::vector<double>{1.5, 2.5});
  CHECK(arrays[1].first == "../zeros");  // only a name
  CHECK(arrays[1].second.count() == 100000);
}

TEST_CASE("npz: bombs and broken archives are refused") {
  const std::string a = npy("'|u1'", "(1000,)", std::string(1000, 'x'));
  const auto refused = [](const std::string& text, const std::string& why) {
    CHECK_THAT(abuse::error_of([&] { read_zip(text); }).what(), ContainsSubstring(why) && ContainsSubstring("x.npz"));
  };
  Packed bomb = deflated("a.npy", a);
  bomb.unpacked = 0xf0000000;
  refused(zip({bomb}), "claims to unpack");
  Packed longer = deflated("a.npy", a);
  longer.unpacked += 1;
  refused(zip({longer}), "does not unpack");
  Packed other = deflated("a.npy", a);
  other.checksum ^= 1;
  refused(zip({other}), "checksum");
  refused(zip({stored("a.npy", a), stored("a.npy", a)}), "twice");
  refused(zip({stored("a.txt", a)}), "no .npy file");
  Packed method = stored("a.npy", a);
  method.method = 12;
  refused(zip({method}), "method 12");
  refused("PK nothing of the kind, but long enough", "no directory");
}

TEST_CASE("npy and npz: damaged files never do more than be refused") {
  const auto mistreated = [](const std::string& good, auto parse) {
    const abuse::Outcome outcome = abuse::mistreat(abuse::bytes_of(good), [&](const Bytes& bytes) {
      const auto held = std::make_shared<Bytes>(bytes);
      parse(*held, held, "x");
    });
    INFO(outcome.failure);
    CHECK(outcome.survived);
    CHECK(outcome.refused > 100);
  };
  const std::string a = npy("'<f4'", "(4, 3)", raw<float>(std::vector<float>(12, 1))),
                    b = npy("'>i4'", "(2, 3)", std::string(24, 'x'), "True");
  mistreated(b, [](auto&&... args) { parse_npy(args...); });
  mistreated(zip({stored("a.npy", a), deflated("b.npy", b)}), [](auto&&... args) { parse_npz(args...); });
}
