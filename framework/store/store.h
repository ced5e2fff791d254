#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sdk/artifact.h"

namespace espalier {

/// An action entry: what one action key gave. Written last, atomically.
struct ActionEntry {
  std::string stage, use;  ///< for people; not part of the key
  std::map<std::string, std::pair<ArtifactType, Digest>> outputs;
  std::map<std::string, double> figures;
  Json details = Json::object();
  double seconds = 0;
  std::uint64_t peak_rss = 0;
  std::optional<Digest> log;       ///< blob
  std::optional<Digest> preimage;  ///< blob: the key's fields as JSON, for people and `why`
  std::string text() const;
  static ActionEntry parse(std::string_view text);
};

/// The content-addressed store: `format` (1), `cas/`, `ac/` by SHA-256, `tmp/`, `locks/`, `index.sqlite` (rebuildable).
class Store {
 public:
  /// Opens or makes a store. Throws Error(resource) for a folder that cannot be written, Error(unsupported) for another format
  /// version.
  static Store open(const std::filesystem::path& root, bool read_only = false);
  /// $ESPALIER_STORE, $XDG_CACHE_HOME/espalier, ~/.cache/espalier.
  static std::filesystem::path default_root();
  Store(Store&&) noexcept;
  ~Store();

  const std::filesystem::path& root() const;
  std::filesystem::path blob_path(const Digest& digest) const;
  bool has_blob(const Digest& digest) const;
  /// Publishes bytes: written aside, fsynced, renamed.
  BlobRef put(std::span<const std::byte> bytes);
  /// Publishes a finished file of this file system under a digest the caller computed; fsyncs, renames.
  void adopt(const std::filesystem::path& file, const Digest& digest);
  Artifact artifact(const Digest& digest) const;  ///< Error(corrupt) when absent or not a manifest
  Digest put_artifact(const Artifact& artifact);

  /// The entry of a key if it is there and every blob that its outputs name is there with its size; a damaged entry is a miss.
  std::optional<ActionEntry> find(const Digest& key) const;
  void publish(const Digest& key, const ActionEntry& entry);
  void forget(const Digest& key);

  /// Exclusive flock on a key's file in locks/; dies with its holder. Blocks in small steps, calling `waiting` (return false to
  /// give up).
  class Lock {
   public:
    ~Lock();
    Lock(Lock&&) noexcept;

   private:
    friend class Store;
    explicit Lock(int fd);
    int fd_;
  };
  std::optional<Lock> lock(const Digest& key, const std::function<bool()>& waiting);
  std::filesystem::path scratch(const Digest& key) const;  ///< tmp/scratch-KEY, survives a crash
  std::filesystem::path new_temporary() const;             ///< a fresh folder in tmp/

  /// Digest of a source file, memoised by (device, inode, size, mtime_ns, ctime_ns), not when changed less than 2 s before.
  Digest file_digest(const std::filesystem::path& file);

  struct RunRecord {
    std::string id, recipe, file;
    bool ok = false;
    double started = 0, seconds = 0;
    Json summary;
  };
  void record_run(const RunRecord& run);
  std::vector<RunRecord> runs(const std::filesystem::path& recipe_file, int limit) const;

  struct VerifyReport {
    std::uint64_t blobs = 0, entries = 0, bytes = 0;
    std::vector<std::string> problems;
  };
  /// Hashes every blob and reads every entry. `repair` removes what is damaged, so that it is made again.
  VerifyReport verify(bool repair, const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);
  struct GcOptions {
    std::optional<std::uint64_t> keep_bytes;
    std::optional<double> keep_days;
    bool dry_run = false;
  };
  struct GcReport {
    std::uint64_t entries_removed = 0, blobs_removed = 0, bytes_removed = 0, bytes_left = 0;
  };
  GcReport gc(const GcOptions& options);

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace espalier
