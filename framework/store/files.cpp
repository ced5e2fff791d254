#include "store/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "sdk/error.h"

namespace espalier {
namespace fs = std::filesystem;

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

int FileDescriptor::release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

void throw_resource(const fs::path& path, const std::string& doing, int error) {
  std::string hint;
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      hint = "free some space there (espalier gc), or use another store: --store DIR, ESPALIER_STORE";
      break;
    case EROFS:
    case EACCES:
    case EPERM:
      hint = "give write permission, or use another store: --store DIR, ESPALIER_STORE";
      break;
    case EFBIG:
      hint = "raise the file size limit (ulimit -f)";
      break;
    case EMFILE:
    case ENFILE:
      hint = "raise the limit of open files (ulimit -n)";
      break;
    default:
      break;
  }
  throw Error(ErrorCode::resource, "cannot " + doing + ": " + std::strerror(error), path.string(), hint);
}

AsideFile::AsideFile(const fs::path& folder) {
  std::string name = (folder / "new-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) throw_resource(folder, "create a file in the folder", errno);
  fd_ = FileDescriptor(fd);
  path_ = name;
}

AsideFile::~AsideFile() {
  if (!committed_ && !path_.empty()) ::unlink(path_.c_str());
}

void AsideFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw_resource(path_, "write", n < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void AsideFile::commit(const fs::path& target, Durability durability) {
  if (::fsync(fd_.get()) != 0) throw_resource(path_, "write to the disk", errno);
  if (::fchmod(fd_.get(), 0644) != 0) throw_resource(path_, "set the mode of", errno);
  rename_into(path_, target);
  committed_ = true;
  if (durability == Durability::name) sync_folder(target.parent_path());
}

void rename_into(const fs::path& file, const fs::path& target) {
  if (::rename(file.c_str(), target.c_str()) == 0) return;
  if (errno == ENOENT) {
    make_folders(target.parent_path());
    if (::rename(file.c_str(), target.c_str()) == 0) return;
  }
  throw_resource(target, "move a finished file into place", errno);
}

void sync_file(const fs::path& file) {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) throw_resource(file, "write to the disk", errno);
}

void sync_folder(const fs::path& folder) {
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // EINVAL: a file system without folder syncs; its renames are as durable as they get.
  if (!fd || (::fsync(fd.get()) != 0 && errno != EINVAL)) throw_resource(folder, "write the folder to the disk", errno);
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw_resource(folder, "make the folder", error.value());
}

std::optional<std::string> read_small_file(const fs::path& file, std::size_t limit) {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw_resource(file, "read", errno);
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) throw_resource(file, "read", errno);
  if (!S_ISREG(status.st_mode)) throw_resource(file, "read", EISDIR);
  if (static_cast<std::uint64_t>(status.st_size) > limit) throw_resource(file, "read", EFBIG);
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_resource(file, "read", errno);
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  text.resize(done);
  return text;
}

}  // namespace espalier
