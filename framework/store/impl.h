#pragma once
#include <mutex>
#include <set>
#include <unordered_map>

#include "sdk/error.h"
#include "store/files.h"
#include "store/index.h"
#include "store/store.h"

namespace espalier {

/// What the store's source files share. Methods may be called from any thread.
struct Store::Impl {
  Impl(std::filesystem::path folder, bool no_writes)
      : root(std::move(folder)), prefix(root.string() + "/"), read_only(no_writes), index(root / "index.sqlite", no_writes) {}

  std::filesystem::path object(const char* kind, const Digest& digest) const;
  /// A blob is there (with that size). Remembered for the life of the process: gc() keeps away while it runs.
  bool present(const Digest& digest, std::optional<std::uint64_t> size);
  /// Every manifest and every blob of the entry's outputs is there.
  bool complete(const Store& store, const ActionEntry& entry);
  /// The entry if its seal holds and it parses.
  std::optional<ActionEntry> entry_at(const Digest& key) const;
  /// The lock that shuts out all runs; nothing while one is at work.
  std::optional<Lock> alone() const;
  /// Removes what dead processes left in tmp/ and locks/: folders older than the given times whose key nobody holds.
  void sweep(Store& store, time_t temporary_before, time_t scratch_before);
  /// Hashes a file in pieces; Error(cancelled) once interrupted.
  Digest hash(const std::filesystem::path& file) const;

  std::filesystem::path root;
  std::string prefix;
  bool read_only;
  const std::atomic<int>* interrupted = nullptr;
  std::mutex mutex;  // guards the two maps
  std::unordered_map<Digest, std::uint64_t> sizes;
  std::unordered_map<Digest, Artifact> manifests;
  Index index;
};

}  // namespace espalier
