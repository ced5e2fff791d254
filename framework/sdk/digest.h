#pragma once
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

/// A SHA-256 digest (FIPS 180-4).
struct Digest {
  std::array<std::uint8_t, 32> bytes{};

  /// 64 lower-case hexadecimal digits.
  std::string hex() const;
  static std::optional<Digest> from_hex(std::string_view hex);
  auto operator<=>(const Digest&) const = default;
};

Digest sha256(std::span<const std::byte> data);
Digest sha256(std::string_view data);
/// Digest of a whole file, read in 1 MiB pieces. Throws Error(resource) when it cannot be read.
Digest sha256_file(const std::filesystem::path& path);

/// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::span<const std::byte> data);
  void update(std::string_view data);
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// SHA-256 over a length-prefixed, typed encoding: every field is written as a one-byte type mark, its length as 8
/// little-endian bytes, then its bytes; so no two different sequences of fields share an encoding.
class KeyEncoder {
 public:
  void text(std::string_view s);
  void integer(std::int64_t v);
  void digest(const Digest& d);
  /// Opens a named group of fields; close it with end().
  void begin(std::string_view name);
  void end();
  Digest finish() const;
  const std::string& bytes() const { return bytes_; }

 private:
  void field(char mark, std::string_view payload);
  std::string bytes_;
};

}  // namespace espalier

template <>
struct std::hash<espalier::Digest> {
  std::size_t operator()(const espalier::Digest& d) const noexcept {
    std::size_t h = 0;
    for (int i = 0; i < 8; ++i) h = (h << 8) | d.bytes[static_cast<std::size_t>(i)];
    return h;
  }
};
