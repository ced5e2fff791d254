#include "store/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "store/impl.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFormat = "1\n";
constexpr std::size_t kEntryLimit = 256u << 20;
constexpr std::size_t kManifestLimit = 64u << 20;
constexpr time_t kTouchAfter = 3600;  // seconds: how coarse "last use" may be

bool same_file(int fd, const fs::path& path) {
  struct stat here {
  }, there{};
  return ::fstat(fd, &here) == 0 && ::stat(path.c_str(), &there) == 0 && here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

/// An flock on a file that gc may remove meanwhile: a lock on a removed file locks nobody out, so look again. -1: held by another.
int lock_file(const fs::path& path, int operation) {
  for (;;) {
    FileDescriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd) throw_resource(path, "open the lock file", errno);
    while (::flock(fd.get(), operation | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return -1;
      if (errno != EINTR) throw_resource(path, "lock", errno);
    }
    if (same_file(fd.get(), path)) return fd.release();
  }
}

std::string sealed(const Digest& key, const std::string& text) {
  return text + "\n" + sha256(key.hex() + "\n" + text).hex() + "\n";
}

/// The entry's text when its seal (over key and text) holds.
std::optional<std::string> unsealed(const Digest& key, std::string file) {
  constexpr std::size_t seal = 64 + 2;
  if (file.size() < seal || file.back() != '\n' || file[file.size() - seal] != '\n') return std::nullopt;
  std::string text = file.substr(0, file.size() - seal);
  if (sha256(key.hex() + "\n" + text).hex() != std::string_view(file).substr(file.size() - 65, 64)) return std::nullopt;
  return text;
}

void touch(const fs::path& file) { ::utimensat(AT_FDCWD, file.c_str(), nullptr, 0); }

}  // namespace

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::Store(Store&&) noexcept = default;
Store::~Store() = default;

fs::path Store::default_root() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (const std::string store = variable("ESPALIER_STORE"); !store.empty()) return fs::absolute(store);
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return fs::path(cache) / "espalier";
  if (const std::string home = variable("HOME"); !home.empty()) return fs::path(home) / ".cache" / "espalier";
  throw_invalid("no place for the store: HOME is not set", {}, "set ESPALIER_STORE, or give --store DIR");
}

Store Store::open(const fs::path& given, bool read_only) {
  const fs::path root = fs::absolute(given);
  std::optional<std::string> format = read_small_file(root / "format", 4096);
  if (!format) {
    if (read_only) throw_invalid("there is no store here", root.string(), "run a recipe first, or name another store: --store DIR");
    std::error_code ignored;
    if (fs::exists(root, ignored) && !fs::is_empty(root, ignored) && !fs::exists(root / "tmp", ignored))
      throw_invalid("the folder is not empty and is no store", root.string(), "give an empty or new folder");
    // tmp first: the check above knows by it a store that another process is making, or did not finish making.
    for (const char* folder : {"tmp", "cas", "ac", "locks"}) make_folders(root / folder);
    AsideFile file(root / "tmp");
    file.write(std::as_bytes(std::span(kFormat)));
    file.commit(root / "format");
    format = std::string(kFormat);
  }
  if (*format != kFormat) {
    const std::string line = format->substr(0, std::min<std::size_t>(format->find('\n'), 40));
    throw_unsupported("the store has format \"" + line + "\", this program reads format 1", root.string(),
                      "use a newer espalier, or another store: --store DIR");
  }
  if (!read_only && ::faccessat(AT_FDCWD, (root / "tmp").c_str(), W_OK, AT_EACCESS) != 0)
    throw_resource(root, "write to the store", errno);
  return Store(std::make_unique<Impl>(root, read_only));
}

const fs::path& Store::root() const { return impl_->root; }

fs::path Store::Impl::object(const char* kind, const Digest& digest) const {
  const std::string hex = digest.hex();
  std::string path;
  path.reserve(prefix.size() + 72);
  path.append(prefix).append(kind).append("/").append(hex, 0, 2).append("/").append(hex, 2);
  return path;
}

fs::path Store::blob_path(const Digest& digest) const { return impl_->object("cas", digest); }

bool Store::Impl::present(const Digest& digest, std::optional<std::uint64_t> size) {
  {
    const std::lock_guard guard(mutex);
    const auto known = sizes.find(digest);
    if (known != sizes.end()) return !size || known->second == *size;
  }
  struct stat status {};
  if (::stat(object("cas", digest).c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  if (size && static_cast<std::uint64_t>(status.st_size) != *size) return false;
  const std::lock_guard guard(mutex);
  sizes[digest] = static_cast<std::uint64_t>(status.st_size);
  return true;
}

bool Store::has_blob(const Digest& digest) const {
  struct stat status {};
  return ::stat(blob_path(digest).c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

BlobRef Store::put(std::span<const std::byte> bytes) {
  const BlobRef blob{sha256(bytes), bytes.size()};
  const fs::path target = blob_path(blob.digest);
  if (impl_->present(blob.digest, blob.size)) {
    touch(target);  // younger than any gc's patience until an entry names it
    return blob;
  }
  AsideFile file(impl_->root / "tmp");
  file.write(bytes);
  file.commit(target);
  return blob;
}

void Store::adopt(const fs::path& file, const Digest& digest) { adopt({{file, digest}}); }

void Store::adopt(const std::vector<std::pair<fs::path, Digest>>& files) {
  std::set<fs::path> folders;
  for (const auto& [file, digest] : files) {
    const fs::path target = blob_path(digest);
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) throw_resource(file, "take over", errno);
    if (impl_->present(digest, static_cast<std::uint64_t>(status.st_size))) {
      touch(target);
      ::unlink(file.c_str());
      continue;
    }
    sync_file(file);
    ::chmod(file.c_str(), 0644);
    touch(file);
    rename_into(file, target);
    folders.insert(target.parent_path());
  }
  for (const fs::path& folder : folders) sync_folder(folder);
}

Artifact Store::artifact(const Digest& digest) const {
  {
    const std::lock_guard guard(impl_->mutex);
    const auto known = impl_->manifests.find(digest);
    if (known != impl_->manifests.end()) return known->second;
  }
  const fs::path path = blob_path(digest);
  const auto text = read_small_file(path, kManifestLimit);
  if (!text)
    throw Error(ErrorCode::corrupt, "an artifact's manifest is missing", path.string(), "espalier verify --repair, then run again");
  if (sha256(*text) != digest)
    throw Error(ErrorCode::corrupt, "an artifact's manifest does not match its digest", path.string(),
                "espalier verify --repair, then run again");
  Artifact artifact = Artifact::parse(*text);
  const std::lock_guard guard(impl_->mutex);
  return impl_->manifests.emplace(digest, std::move(artifact)).first->second;
}

Digest Store::put_artifact(const Artifact& artifact) {
  return put(std::as_bytes(std::span<const char>(artifact.manifest()))).digest;
}

bool Store::Impl::complete(const Store& store, const ActionEntry& entry) {
  try {
    for (const auto& [port, output] : entry.outputs) {
      const Artifact artifact = store.artifact(output.second);
      if (artifact.type != output.first) return false;
      for (const auto& [name, blob] : artifact.blobs)
        if (!present(blob.digest, blob.size)) return false;
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::corrupt || error.code() == ErrorCode::invalid_input) return false;
    throw;
  }
  return true;
}

std::optional<ActionEntry> Store::Impl::entry_at(const Digest& key) const {
  const auto file = read_small_file(object("ac", key), kEntryLimit);
  if (!file) return std::nullopt;
  const auto text = unsealed(key, *file);
  if (!text) return std::nullopt;
  try {
    return ActionEntry::parse(*text);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<ActionEntry> Store::find(const Digest& key) const {
  auto entry = impl_->entry_at(key);
  if (!entry || !impl_->complete(*this, *entry)) return std::nullopt;
  if (!impl_->read_only) {
    const fs::path path = impl_->object("ac", key);
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0 && ::time(nullptr) - status.st_mtim.tv_sec > kTouchAfter) touch(path);
  }
  return entry;
}

void Store::publish(const Digest& key, const ActionEntry& entry) {
  if (!impl_->complete(*this, entry))
    throw Error(ErrorCode::corrupt, "outputs of the stage are missing from the store", root().string(), "run again");
  AsideFile file(impl_->root / "tmp");
  const std::string text = sealed(key, entry.text());
  file.write(std::as_bytes(std::span<const char>(text)));
  file.commit(impl_->object("ac", key));
}

void Store::forget(const Digest& key) {
  const fs::path path = impl_->object("ac", key);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_resource(path, "remove", errno);
}

Store::Lock::Lock(int fd) : fd_(fd) {}
Store::Lock::Lock(Lock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
Store::Lock& Store::Lock::operator=(Lock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
Store::Lock::~Lock() {
  if (fd_ >= 0) ::close(fd_);
}

std::optional<Store::Lock> Store::try_lock(const Digest& key) {
  const int fd = lock_file(impl_->root / "locks" / key.hex(), LOCK_EX);
  if (fd < 0) return std::nullopt;
  return Lock(fd);
}

std::optional<Store::Lock> Store::lock(const Digest& key, const std::function<bool()>& waiting) {
  for (;;) {
    if (auto lock = try_lock(key)) return lock;
    if (waiting && !waiting()) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::optional<Store::Lock> Store::in_use(const std::function<bool()>& waiting) {
  for (;;) {
    const int fd = lock_file(impl_->root / "locks" / "store", LOCK_SH);
    if (fd >= 0) return Lock(fd);
    if (waiting && !waiting()) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::optional<Store::Lock> Store::try_machine(bool alone) {
  const int fd = lock_file(impl_->root / "locks" / "machine", alone ? LOCK_EX : LOCK_SH);
  if (fd < 0) return std::nullopt;
  return Lock(fd);
}

std::optional<Store::Lock> Store::Impl::alone() const {
  const int fd = lock_file(root / "locks" / "store", LOCK_EX);
  if (fd < 0) return std::nullopt;
  return Lock(fd);
}

fs::path Store::scratch(const Digest& key) const { return impl_->root / "tmp" / ("scratch-" + key.hex()); }

fs::path Store::new_temporary() const {
  std::string name = (impl_->root / "tmp" / "new-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw_resource(impl_->root / "tmp", "make a folder", errno);
  return name;
}

fs::path Store::job_folder(const Digest& key) const {
  const std::string start = "job-" + key.hex() + "-";
  std::error_code error;
  for (const auto& item : fs::directory_iterator(impl_->root / "tmp", error)) {
    std::error_code ignored;
    if (item.path().filename().string().starts_with(start)) fs::remove_all(item.path(), ignored);
  }
  std::string name = (impl_->root / "tmp" / (start + "XXXXXX")).string();
  if (::mkdtemp(name.data()) == nullptr) throw_resource(impl_->root / "tmp", "make a folder", errno);
  return name;
}

std::uint64_t Store::free_bytes() const {
  struct statvfs status {};
  if (::statvfs(impl_->root.c_str(), &status) != 0) throw_resource(impl_->root, "look at the file system", errno);
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

}  // namespace espalier
