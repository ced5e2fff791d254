#pragma once
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "store/store.h"

struct sqlite3;
struct sqlite3_stmt;

namespace espalier {

/// What a file looked like when it was hashed. A byte edited under a restored mtime shows in ctime.
struct FileStamp {
  std::int64_t device = 0, inode = 0, size = 0, mtime_ns = 0, ctime_ns = 0;
  bool operator==(const FileStamp&) const = default;
  /// Throws Error(resource) when the file cannot be looked at, Error(invalid_input) when it is no regular file.
  static FileStamp of(const std::filesystem::path& file);
  /// Changed less than two seconds ago (or in the future): a second change might leave the same stamp.
  bool fresh() const;
};

/// `index.sqlite`: memoised digests and past runs; never the truth. Opened at first use. A damaged file is made anew with a note;
/// any other trouble (busy, read-only, full) makes a lookup miss and a write go by, with a note.
class Index {
 public:
  Index(std::filesystem::path file, bool read_only);
  ~Index();
  Index(const Index&) = delete;

  std::optional<Digest> digest_of(const FileStamp& stamp);
  void remember(const FileStamp& stamp, const Digest& digest);
  std::optional<std::string> derived(std::string_view what, const Digest& of);
  void remember_derived(std::string_view what, const Digest& of, std::string_view text);
  void record(const Store::RunRecord& run);
  std::vector<Store::RunRecord> runs(const std::string& recipe_file, int limit);
  std::vector<std::string> notes() const;

 private:
  class Statement;
  void open();
  void close();
  void rebuild(const std::string& cause);
  void check(int code) const;
  template <class Function>
  void attempt(const Function& function);

  std::filesystem::path file_;
  bool read_only_;
  bool unusable_ = false;
  sqlite3* database_ = nullptr;
  mutable std::mutex mutex_;
  std::vector<std::string> notes_;
};

}  // namespace espalier
