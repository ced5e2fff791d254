#include "sdk/artifact.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::array<std::string_view, 8> type_names{"model", "dataset",    "tokenizer", "scores",
                                                     "masks", "statistics", "figures",   "package"};

[[noreturn]] void corrupt(const std::string& why) {
  throw Error(ErrorCode::corrupt, "not an artifact manifest: " + why, {}, "run `espalier verify --repair`");
}

/// Logical names become paths when an artifact is unpacked: relative, no empty, "." or ".." part, no control characters.
bool safe_name(std::string_view name) {
  if (name.empty() || name.size() > 1024 || name.front() == '/') return false;
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    for (char c : part)
      if (static_cast<unsigned char>(c) < 0x20 || c == '\\' || c == 0x7f) return false;
    begin = end + 1;
  }
  return true;
}

}  // namespace

std::string_view to_string(ArtifactType type) { return type_names[static_cast<std::size_t>(type)]; }

ArtifactType artifact_type_from(std::string_view name) {
  for (std::size_t i = 0; i < type_names.size(); ++i)
    if (type_names[i] == name) return static_cast<ArtifactType>(i);
  throw_invalid("'" + std::string(name) + "' is not an artifact type", {},
                "model, dataset, tokenizer, scores, masks, statistics, figures or package");
}

std::string Artifact::manifest() const {
  Json out;
  out["schema"] = 1;
  out["type"] = to_string(type);
  out["meta"] = meta;
  Json& list = out["blobs"] = Json::object();
  for (const auto& [name, blob] : blobs) list[name] = {{"digest", blob.digest.hex()}, {"size", blob.size}};
  return out.dump(-1, ' ', true, Json::error_handler_t::replace);
}

Digest Artifact::digest() const { return sha256(manifest()); }

Artifact Artifact::parse(std::string_view manifest) {
  const Json in = Json::parse(manifest, nullptr, false);
  if (!in.is_object()) corrupt("not JSON");
  const auto member = [&](const char* name, Json::value_t type) -> const Json& {
    const auto found = in.find(name);
    if (found == in.end() || (found->type() != type && !(type == Json::value_t::number_unsigned && found->is_number_integer())))
      corrupt(std::string("no \"") + name + "\"");
    return *found;
  };
  if (member("schema", Json::value_t::number_unsigned) != 1) corrupt("its schema is newer than this program");
  Artifact artifact;
  try {
    artifact.type = artifact_type_from(member("type", Json::value_t::string).get_ref<const std::string&>());
  } catch (const Error& error) {
    corrupt(error.message());
  }
  artifact.meta = member("meta", Json::value_t::object);
  for (const auto& [name, blob] : member("blobs", Json::value_t::object).items()) {
    if (!safe_name(name)) corrupt("blob name '" + name + "'");
    const auto digest = blob.find("digest"), size = blob.find("size");
    if (!blob.is_object() || digest == blob.end() || !digest->is_string() || size == blob.end() || !size->is_number_unsigned())
      corrupt("blob '" + name + "'");
    const auto parsed = Digest::from_hex(digest->get_ref<const std::string&>());
    if (!parsed) corrupt("digest of blob '" + name + "'");
    artifact.blobs[name] = {*parsed, size->get<std::uint64_t>()};
  }
  return artifact;
}

namespace {

struct Unmap {
  std::size_t size;
  void operator()(const void* address) const { ::munmap(const_cast<void*>(address), size); }
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto fail = [&](const char* what, int error) {
    throw Error(ErrorCode::resource, std::string(what) + ": " + std::strerror(error), path.string());
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot be opened", errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    const int error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    ::close(fd);
    fail("is no regular file", error);
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  if (size == 0) {
    ::close(fd);
    return;
  }
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);
  if (address == MAP_FAILED) fail("cannot be mapped", error);
  owner_ = std::shared_ptr<const void>(address, Unmap{size});
  bytes_ = {static_cast<const std::byte*>(address), size};
}

void MappedFile::release(const std::shared_ptr<const void>& owner, std::span<const std::byte> bytes) {
  // The deleter tells a mapping from memory that would be lost.
  if (!owner || !std::get_deleter<Unmap>(owner)) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t begin = (first + page - 1) / page * page, end = (first + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace espalier
