#include "run/forwarding_context.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <set>
#include <system_error>

#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;

RoundContext::RoundContext(Context& inner, std::int64_t round, std::int64_t rounds)
    : ForwardingContext(inner),
      label_(fmt::format("round {}/{}: ", round, rounds)),
      scratch_(inner.scratch() / fmt::format("round-{}", round)) {
  KeyEncoder key;
  key.text("round");
  key.integer(static_cast<std::int64_t>(inner.seed()));
  key.integer(round);
  const Digest digest = key.finish();
  std::memcpy(&seed_, digest.bytes.data(), sizeof seed_);
  seed_ >>= 1;  // as a recipe's: no negative number where it is taken as signed
}

fs::path RoundContext::scratch() {
  fs::create_directories(scratch_);
  return scratch_;
}

void RoundContext::progress(const Progress& p) {
  const std::string label = label_ + std::string(p.label);
  Progress own = p;
  own.label = label;
  inner_.progress(own);
}

void RoundContext::clean() {
  std::error_code ignored;
  fs::remove_all(scratch_, ignored);
}

bool FolderContext::in_store(const BlobRef& blob) const {
  try {
    std::error_code error;
    return fs::file_size(inner_.path(blob), error) == blob.size && !error;
  } catch (const Error&) {
    return false;
  }
}

fs::path FolderContext::path(const BlobRef& blob) const {
  std::error_code error;
  return fs::exists(file(blob.digest), error) ? file(blob.digest) : inner_.path(blob);
}

MappedFile FolderContext::map(const BlobRef& blob) const {
  std::error_code error;
  if (!fs::exists(file(blob.digest), error)) return inner_.map(blob);
  MappedFile mapped(file(blob.digest));
  if (mapped.bytes().size() != blob.size)
    throw Error(ErrorCode::corrupt, fmt::format("it has {} bytes instead of {}", mapped.bytes().size(), blob.size),
                file(blob.digest).string());
  return mapped;
}

BlobRef FolderContext::put(std::span<const std::byte> bytes, const Digest& known) {
  const BlobRef blob{known, bytes.size()};
  std::error_code error;
  if (in_store(blob) || (fs::file_size(file(known), error) == blob.size && !error)) return blob;
  fs::create_directories(folder_, error);
  const fs::path aside = file(known).string() + ".new";
  std::ofstream out(aside, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (out) fs::rename(aside, file(known), error);
  if (!out || error) {
    fs::remove(aside, error);
    throw Error(ErrorCode::resource, "cannot write the state of this stage", file(known).string(), "free some space");
  }
  return blob;
}

bool FolderContext::whole(const Artifact& artifact) const {
  for (const auto& [name, blob] : artifact.blobs) {
    std::error_code error;
    if (!fs::exists(file(blob.digest), error)) {
      if (!in_store(blob)) return false;
    } else if (fs::file_size(file(blob.digest), error) != blob.size || error || sha256_file(file(blob.digest)) != blob.digest) {
      return false;
    }
  }
  return true;
}

void FolderContext::keep_only(const Artifact& artifact) const {
  std::set<std::string> named;
  for (const auto& [name, blob] : artifact.blobs) named.insert(blob.digest.hex());
  std::error_code error;
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(folder_, error))
    if (!named.contains(entry.path().filename().string())) others.push_back(entry.path());
  for (const fs::path& each : others) fs::remove(each, error);
}

}  // namespace espalier
