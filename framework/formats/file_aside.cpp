#include "formats/file_aside.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_at(const fs::path& path, const char* what, int error) {
  throw Error(ErrorCode::resource, fmt::format("{}: {}", what, std::strerror(error)), path.string(),
              "is the folder writable, the disk full?");
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

FileAside::FileAside(fs::path target) : target_(std::move(target)), aside_(target_.string() + fmt::format(".part-{}", ::getpid())) {
  fd_ = ::open(aside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("cannot be written");
}

FileAside::~FileAside() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_) ::unlink(aside_.c_str());
}

void FileAside::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), 1U << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("cannot be written");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at_ += static_cast<std::uint64_t>(n);
  }
}

void FileAside::pad_to(std::uint64_t offset) {
  static const std::array<std::byte, 4096> zeros{};
  while (at_ < offset) write(std::span(zeros).first(std::min<std::uint64_t>(offset - at_, zeros.size())));
}

void FileAside::finish() {
  if (::fsync(fd_) != 0) fail("cannot be written");
  if (::close(std::exchange(fd_, -1)) != 0) fail("cannot be written");
}

void FileAside::commit() {
  if (::rename(aside_.c_str(), target_.c_str()) != 0) fail("cannot be put in place");
  committed_ = true;
}

MappedFile FileAside::map() {
  if (::close(std::exchange(fd_, -1)) != 0) fail("cannot be written");
  return MappedFile(aside_);
}

void FileAside::fail(const char* what) const { fail_at(target_, what, errno); }

FolderAside::FolderAside(const fs::path& target) : target_(fs::absolute(target).lexically_normal()) {
  if (!target_.has_filename()) target_ = target_.parent_path();
  std::error_code error;
  fs::create_directories(target_.parent_path(), error);
  if (error) fail_at(target_.parent_path(), "the folder cannot be made", error.value());
  std::string name = (target_.parent_path() / ("." + target_.filename().string() + ".part-XXXXXX")).string();
  if (::mkdtemp(name.data()) == nullptr) fail_at(target_, "the folder cannot be made", errno);
  path_ = name;
  fs::permissions(path_, fs::perms(0755), error);
}

FolderAside::~FolderAside() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

/// A folder that is there changes places with the new one, so that at no moment there is none; the old one then goes.
void FolderAside::commit() {
  sync_folder(path_);
  std::error_code error;
  if (fs::exists(fs::symlink_status(target_, error))) {
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
      fs::remove_all(path_, error);
      path_.clear();
      sync_folder(target_.parent_path());
      return;
    }
    fs::remove_all(target_, error);  // a file system that cannot exchange
  }
  if (::rename(path_.c_str(), target_.c_str()) != 0) fail_at(target_, "cannot be put in place", errno);
  path_.clear();
  sync_folder(target_.parent_path());
}

}  // namespace espalier
