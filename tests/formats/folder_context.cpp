#include "folder_context.h"

#include "abuse.h"
#include "sdk/error.h"

namespace tests {
using namespace espalier;
namespace fs = std::filesystem;

FolderContext::FolderContext(fs::path folder) : folder_(std::move(folder)) {
  fs::create_directories(folder_ / "cas");
  fs::create_directories(folder_ / "scratch");
}

const Artifact& FolderContext::input(std::string_view name) const {
  throw Error(ErrorCode::internal, "no input " + std::string(name));
}
ComponentHandle FolderContext::component(std::string_view name) {
  throw Error(ErrorCode::internal, "no component " + std::string(name));
}
ComponentHandle FolderContext::component_for(const Artifact&) { throw Error(ErrorCode::internal, "no components"); }

fs::path FolderContext::path(const BlobRef& blob) const { return folder_ / "cas" / blob.digest.hex(); }

MappedFile FolderContext::map(const BlobRef& blob) const {
  if (!fs::exists(path(blob)) || fs::file_size(path(blob)) != blob.size)
    throw Error(ErrorCode::corrupt, "blob " + blob.digest.hex() + " is damaged");
  return MappedFile(path(blob));
}

BlobRef FolderContext::put(std::span<const std::byte> bytes) { return put(bytes, sha256(bytes)); }

BlobRef FolderContext::put(std::span<const std::byte> bytes, const Digest& known) {
  const BlobRef blob{known, bytes.size()};
  if (!fs::exists(path(blob))) {
    abuse::write_file(path(blob), bytes);
    ++written;
  }
  return blob;
}

BlobRef FolderContext::put_file(const fs::path& file) {
  const BlobRef blob{sha256_file(file), fs::file_size(file)};
  fs::rename(file, path(blob));
  ++written;
  return blob;
}

}  // namespace tests
