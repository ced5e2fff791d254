#pragma once
#include <atomic>
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
  double cpu_seconds = 0;  ///< processor time of all threads; 0 where it was not kept
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
  /// The same for many files, with each folder synced once.
  void adopt(const std::vector<std::pair<std::filesystem::path, Digest>>& files);
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
    Lock& operator=(Lock&&) noexcept;

   private:
    friend class Store;
    explicit Lock(int fd);
    int fd_;
  };
  std::optional<Lock> lock(const Digest& key, const std::function<bool()>& waiting);
  /// The same without waiting: nothing when another holder has it.
  std::optional<Lock> try_lock(const Digest& key);
  /// Held (shared) as long as a run works with the store; gc() refuses meanwhile. Waits for a gc() that is at work.
  std::optional<Lock> in_use(const std::function<bool()>& waiting);
  /// Running stages hold the machine shared, stages that measure speed alone; among all processes that use this store.
  std::optional<Lock> try_machine(bool alone);
  std::filesystem::path scratch(const Digest& key) const;  ///< tmp/scratch-KEY, survives a crash
  std::filesystem::path new_temporary() const;             ///< a fresh folder in tmp/
  /// A fresh folder tmp/job-KEY-XXXXXX. Call with the key's lock held: what earlier, dead holders left is removed first.
  std::filesystem::path job_folder(const Digest& key) const;

  /// Digest of a source file, memoised by (device, inode, size, mtime_ns, ctime_ns), not when changed less than 2 s before.
  Digest file_digest(const std::filesystem::path& file);
  /// A small text that follows from a digest alone (what a file refers to); kept in the index.
  std::optional<std::string> derived(std::string_view what, const Digest& of);
  void remember_derived(std::string_view what, const Digest& of, std::string_view text);
  /// Hashing of large files gives up with Error(cancelled) once this is not 0.
  void stop_on(const std::atomic<int>* interrupted);
  /// Remarks for people, e.g. that a damaged index was made anew.
  std::vector<std::string> notes() const;
  /// Bytes that files of the store's file system may still take.
  std::uint64_t free_bytes() const;

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
