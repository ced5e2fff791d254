#pragma once
/// Files and folders that are written under another name and appear under their own only when they are whole.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "sdk/artifact.h"

namespace espalier {

/// A file that appears under its name when commit() says so. One that is not committed is removed. Throws Error(resource) naming
/// the file.
class FileAside {
 public:
  explicit FileAside(std::filesystem::path target);
  FileAside(const FileAside&) = delete;
  ~FileAside();

  void write(std::span<const std::byte> bytes);
  void pad_to(std::uint64_t offset);
  void finish();  ///< to the disk; nothing is written after it
  void commit();
  std::uint64_t size() const { return at_; }
  /// What was written, mapped; it stays readable when the file, never committed, is gone.
  MappedFile map();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::filesystem::path target_, aside_;
  int fd_ = -1;
  std::uint64_t at_ = 0;
  bool committed_ = false;
};

/// The same for a folder: filled at path(), beside its target. commit() takes the place of a folder that is there already; callers
/// decide before whether it may.
class FolderAside {
 public:
  explicit FolderAside(const std::filesystem::path& target);
  FolderAside(const FolderAside&) = delete;
  ~FolderAside();

  const std::filesystem::path& path() const { return path_; }
  void commit();

 private:
  std::filesystem::path target_, path_;
};

}  // namespace espalier
