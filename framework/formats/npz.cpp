// ZIP archives as numpy.savez writes them (APPNOTE.TXT 6.3.10; with its 64-bit fields), read from the central directory.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "formats/bounds.h"
#include "formats/npy.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::uint64_t kDeflateLimit = 1032;  // no deflate stream unpacks to more a byte
constexpr std::uint64_t kSuspicious = std::uint64_t{256} << 20, kSuspiciousRatio = 100;
constexpr std::size_t kMostMembers = 65536;

struct Member {
  std::string name;
  std::uint64_t method = 0, packed = 0, unpacked = 0, offset = 0, checksum = 0;
};

class Archive {
 public:
  Archive(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  std::vector<Member> members() const {
    const std::size_t end = end_record();
    std::uint64_t count = number(end + 10, 2), at = number(end + 16, 4);
    if (count == 0xffff || at == 0xffffffff) {
      if (end < 20 || number(end - 20, 4) != 0x07064b50) damaged("its 64-bit directory is missing");
      const std::uint64_t wide = number(end - 12, 8);
      if (number(wide, 4) != 0x06064b50) damaged("its 64-bit directory is missing");
      count = number(wide + 32, 8);
      at = number(wide + 48, 8);
    }
    if (count > kMostMembers) damaged(fmt::format("it claims {} members", count));
    std::vector<Member> members;
    for (std::uint64_t i = 0; i < count; ++i) at = read_member(at, members.emplace_back());
    return members;
  }

  /// The member's packed bytes, behind its local header.
  std::span<const std::byte> packed(const Member& member) const {
    if (number(member.offset, 4) != 0x04034b50) damaged(fmt::format("member \"{}\" has no header", member.name));
    const std::uint64_t start = member.offset + 30 + number(member.offset + 26, 2) + number(member.offset + 28, 2);
    if (!within(start, member.packed, bytes_.size())) damaged(fmt::format("member \"{}\" reaches past its end", member.name));
    return bytes_.subspan(start, member.packed);
  }

  [[noreturn]] void damaged(const std::string& what) const {
    throw_invalid("the archive is damaged: " + what, where_, "write it again with numpy.savez");
  }

 private:
  std::uint64_t number(std::uint64_t at, std::size_t size) const {
    if (!within(at, size, bytes_.size())) damaged("it was cut short");
    std::uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + at, size);
    return value;
  }

  /// The last record, behind which only a comment may stand.
  std::size_t end_record() const {
    const std::size_t shortest = 22;
    if (bytes_.size() < shortest) damaged("it was cut short");
    for (std::size_t back = shortest; back <= std::min<std::size_t>(bytes_.size(), shortest + 0xffff); ++back) {
      const std::size_t at = bytes_.size() - back;
      if (number(at, 4) == 0x06054b50 && number(at + 20, 2) == back - shortest) return at;
    }
    throw_invalid("this is no .npz archive: it has no directory", where_, "write it with numpy.savez; a cut file has none");
  }

  std::uint64_t read_member(std::uint64_t at, Member& member) const {
    if (number(at, 4) != 0x02014b50) damaged("its directory breaks off");
    if (number(at + 8, 2) & 1) throw_unsupported("the archive is encrypted", where_);
    member.method = number(at + 10, 2);
    member.checksum = number(at + 16, 4);
    member.packed = number(at + 20, 4);
    member.unpacked = number(at + 24, 4);
    member.offset = number(at + 42, 4);
    const std::uint64_t name = number(at + 28, 2), extra = number(at + 30, 2), comment = number(at + 32, 2);
    if (!within(at + 46, name + extra + comment, bytes_.size())) damaged("its directory was cut short");
    member.name.assign(reinterpret_cast<const char*>(bytes_.data()) + at + 46, name);
    wide_fields(at + 46 + name, extra, member);
    return at + 46 + name + extra + comment;
  }

  /// Fields that do not fit into 32 bits stand in the extra field 1, in this order.
  void wide_fields(std::uint64_t at, std::uint64_t length, Member& member) const {
    for (const std::uint64_t end = at + length; at + 4 <= end;) {
      const std::uint64_t id = number(at, 2), size = number(at + 2, 2);
      std::uint64_t field = at + 4;
      at = field + size;
      if (at > end) damaged(fmt::format("member \"{}\" has a broken extra field", member.name));
      if (id != 1) continue;
      for (std::uint64_t* value : {&member.unpacked, &member.packed, &member.offset}) {
        if (*value != 0xffffffff) continue;
        if (field + 8 > at) damaged(fmt::format("member \"{}\" has a broken extra field", member.name));
        *value = number(field, 8);
        field += 8;
      }
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
};

std::vector<std::byte> inflated(const Archive& archive, const Member& member, std::span<const std::byte> packed) {
  if (member.unpacked / kDeflateLimit > member.packed + 1 ||
      (member.unpacked > kSuspicious && member.unpacked / kSuspiciousRatio > member.packed))
    archive.damaged(fmt::format("member \"{}\" claims to unpack {} bytes to {}", member.name, member.packed, member.unpacked));
  std::vector<std::byte> out(member.unpacked);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Error(ErrorCode::resource, "zlib cannot start: not enough memory");
  // zlib counts in 32 bits.
  constexpr std::size_t piece = std::size_t{1} << 30;
  std::size_t read = 0, written = 0;
  int state = Z_OK;
  while (state == Z_OK) {
    const std::size_t give = std::min(piece, packed.size() - read), take = std::min(piece, out.size() - written);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data() + read));
    stream.avail_in = static_cast<uInt>(give);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + written);
    stream.avail_out = static_cast<uInt>(take);
    state = inflate(&stream, Z_NO_FLUSH);
    read += give - stream.avail_in;
    written += take - stream.avail_out;
    if (state == Z_OK && give == stream.avail_in && take == stream.avail_out) break;
  }
  inflateEnd(&stream);
  if (state != Z_STREAM_END || written != out.size())
    archive.damaged(fmt::format("member \"{}\" does not unpack to the {} bytes that it claims", member.name, member.unpacked));
  return out;
}

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
  return crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

}  // namespace

std::vector<std::pair<std::string, Tensor>> parse_npz(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                                      const std::string& where) {
  const Archive archive(bytes, where);
  std::vector<std::pair<std::string, Tensor>> arrays;
  std::set<std::string> names;
  std::uint64_t claimed = 0;
  for (const Member& member : archive.members()) {
    // Members that share bytes would multiply them.
    if (member.packed > bytes.size() - claimed) archive.damaged("its members claim more bytes than it has");
    claimed += member.packed;
    if (!member.name.ends_with(".npy"))
      throw_invalid(fmt::format("the archive holds \"{}\", which is no .npy file", member.name.substr(0, 80)), where,
                    "write it with numpy.savez");
    const std::string name = member.name.substr(0, member.name.size() - 4), place = where + ", array \"" + name + "\"";
    if (!names.insert(name).second) archive.damaged(fmt::format("array \"{}\" stands there twice", name));
    const auto packed = archive.packed(member);
    if (member.method == 0) {
      if (member.packed != member.unpacked) archive.damaged(fmt::format("member \"{}\" has two sizes", member.name));
      if (checksum_of(packed) != member.checksum) archive.damaged(fmt::format("member \"{}\" has another checksum", member.name));
      arrays.emplace_back(name, parse_npy(packed, owner, place));
    } else if (member.method == 8) {
      const auto held = std::make_shared<std::vector<std::byte>>(inflated(archive, member, packed));
      if (checksum_of(*held) != member.checksum) archive.damaged(fmt::format("member \"{}\" has another checksum", member.name));
      arrays.emplace_back(name, parse_npy(*held, held, place));
    } else {
      throw_unsupported(fmt::format("member \"{}\" is compressed by method {}", member.name, member.method), where,
                        "numpy.savez and numpy.savez_compressed write what is read");
    }
  }
  return arrays;
}

}  // namespace espalier
