#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "sdk/artifact.h"

namespace espalier {

/// A file descriptor that closes itself.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }
  int release();
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// Throws Error(resource): "cannot DOING: errno's text", the path as the place, and for a full disk or a read-only folder what to
/// do.
[[noreturn]] void throw_resource(const std::filesystem::path& path, const std::string& doing, int error);

/// What a commit waits for: the file's bytes on the disk, or its name in the folder too.
enum class Durability { bytes, name };

/// A file written aside. Without commit() the destructor removes it: nothing half-written is ever seen under a final name.
class AsideFile {
 public:
  /// A fresh file NEW-XXXXXX in `folder`.
  explicit AsideFile(const std::filesystem::path& folder);
  ~AsideFile();
  void write(std::span<const std::byte> bytes);
  /// fsync, mode 0644, rename over `target` (its folder is made when absent), fsync of the folder.
  void commit(const std::filesystem::path& target, Durability durability = Durability::name);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  FileDescriptor fd_;
  bool committed_ = false;
};

/// Renames a finished file over `target`; makes target's folder when absent.
void rename_into(const std::filesystem::path& file, const std::filesystem::path& target);
void sync_file(const std::filesystem::path& file);
void sync_folder(const std::filesystem::path& folder);
/// Creates a folder and its parents. Throws Error(resource).
void make_folders(const std::filesystem::path& folder);
/// The whole file, or nothing when it does not exist. Throws Error(resource) for other failures and for more than `limit` bytes.
std::optional<std::string> read_small_file(const std::filesystem::path& file, std::size_t limit);

}  // namespace espalier
