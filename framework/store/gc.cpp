#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "store/impl.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

constexpr time_t kGrace = 15 * 60;           // seconds that a blob which no entry names is left alone
constexpr time_t kScratchLife = 14 * 86400;  // resume files of stages that nobody came back for
constexpr time_t kTemporaryLife = 86400;

struct Object {
  Digest digest;
  fs::path path;
  std::uint64_t size = 0;
  time_t modified = 0;
};

/// All objects below cas/ or ac/; files with other names are passed over.
std::vector<Object> objects(const fs::path& folder) {
  std::vector<Object> found;
  std::error_code error;
  for (const auto& group : fs::directory_iterator(folder, error)) {
    std::error_code inner;
    for (const auto& item : fs::directory_iterator(group.path(), inner)) {
      const auto digest = Digest::from_hex(group.path().filename().string() + item.path().filename().string());
      struct stat status {};
      if (digest && ::lstat(item.path().c_str(), &status) == 0)
        found.push_back({*digest, item.path(), static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec});
    }
  }
  if (error) throw_resource(folder, "list", error.value());
  std::sort(found.begin(), found.end(), [](const Object& a, const Object& b) { return a.digest < b.digest; });
  return found;
}

/// Digests of all blobs that an entry stands on.
std::set<Digest> named_by(const Store& store, const ActionEntry& entry) {
  std::set<Digest> named;
  if (entry.log) named.insert(*entry.log);
  if (entry.preimage) named.insert(*entry.preimage);
  for (const auto& [port, output] : entry.outputs) {
    named.insert(output.second);
    try {
      for (const auto& [name, blob] : store.artifact(output.second).blobs) named.insert(blob.digest);
    } catch (const Error&) {  // the entry is damaged; what is left of it is no longer named
    }
  }
  return named;
}

void remove_file(const fs::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_resource(path, "remove", errno);
}

}  // namespace

Store::VerifyReport Store::verify(bool repair, const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  const auto lock = repair ? impl_->alone() : std::nullopt;
  if (repair && !lock)
    throw Error(ErrorCode::resource, "a run is at work with this store", root().string(), "repair when it has finished");
  VerifyReport report;
  const auto blobs = objects(impl_->root / "cas");
  const auto entries = objects(impl_->root / "ac");
  std::uint64_t total = 0, done = 0;
  for (const Object& blob : blobs) total += blob.size;
  std::set<Digest> damaged;
  for (const Object& blob : blobs) {
    std::error_code gone;
    if (!fs::exists(blob.path, gone)) continue;  // collected meanwhile
    ++report.blobs;
    report.bytes += blob.size;
    if (impl_->hash(blob.path) != blob.digest) {
      damaged.insert(blob.digest);
      report.problems.push_back("blob " + blob.digest.hex() + ": its bytes do not match its digest (" + blob.path.string() + ")");
    }
    done += blob.size;
    if (progress) progress(done, total);
  }
  for (const Object& item : entries) {
    ++report.entries;
    const auto entry = impl_->entry_at(item.digest);
    std::string problem;
    if (!entry) {
      problem = "damaged";
    } else if (!impl_->complete(*this, *entry)) {
      problem = "an output is missing or has another size (stage " + entry->stage + ")";
    } else {
      for (const Digest& named : named_by(*this, *entry))
        if (damaged.contains(named)) problem = "names the damaged blob " + named.hex() + " (stage " + entry->stage + ")";
    }
    if (problem.empty()) continue;
    report.problems.push_back("entry " + item.digest.hex() + ": " + problem);
    if (repair) remove_file(item.path);
  }
  if (repair) {
    for (const Digest& digest : damaged) remove_file(blob_path(digest));
    const std::lock_guard guard(impl_->mutex);
    impl_->sizes.clear();
    impl_->manifests.clear();
  }
  return report;
}

Store::GcReport Store::gc(const GcOptions& options) {
  const auto lock = impl_->alone();
  if (!lock) throw Error(ErrorCode::resource, "a run is at work with this store", root().string(), "collect when it has finished");
  GcReport report;
  const time_t now = ::time(nullptr);
  auto entries = objects(impl_->root / "ac");
  const auto blobs = objects(impl_->root / "cas");
  std::map<Digest, std::uint64_t> size_of;
  for (const Object& blob : blobs) size_of[blob.digest] = blob.size;

  // Newest use first: what the limits leave is kept, with all that it names.
  std::stable_sort(entries.begin(), entries.end(), [](const Object& a, const Object& b) { return a.modified > b.modified; });
  std::set<Digest> kept, dropped;
  std::uint64_t kept_bytes = 0;
  bool full = false;
  for (const Object& item : entries) {
    const auto entry = impl_->entry_at(item.digest);
    const auto named = entry ? named_by(*this, *entry) : std::set<Digest>();
    bool keep = entry && !full;
    if (keep && options.keep_days && static_cast<double>(now - item.modified) > *options.keep_days * 86400) keep = false;
    if (keep) {
      std::uint64_t more = item.size;
      for (const Digest& digest : named)
        if (!kept.contains(digest)) more += size_of.contains(digest) ? size_of[digest] : 0;
      if (options.keep_bytes && kept_bytes + more > *options.keep_bytes) {
        full = true;
        keep = false;
      } else {
        kept_bytes += more;
        kept.insert(named.begin(), named.end());
      }
    }
    if (keep) continue;
    dropped.insert(named.begin(), named.end());
    ++report.entries_removed;
    report.bytes_removed += item.size;
    if (!options.dry_run) remove_file(item.path);
  }
  // Entries are gone by now: a kill in between leaves blobs that nothing names, never an entry without its blobs.
  std::uint64_t left = 0;
  for (const Object& blob : blobs) {
    // What no entry ever named may be a stage's work of this moment, or the log of a failure that someone wants to read.
    const bool young = now - blob.modified < kGrace && !dropped.contains(blob.digest);
    if (kept.contains(blob.digest) || young) {
      left += blob.size;
      continue;
    }
    ++report.blobs_removed;
    report.bytes_removed += blob.size;
    if (!options.dry_run) remove_file(blob.path);
  }
  report.bytes_left = left;
  if (!options.dry_run) {
    impl_->sweep(*this, now - kTemporaryLife, now - kScratchLife);
    const std::lock_guard guard(impl_->mutex);
    impl_->sizes.clear();
    impl_->manifests.clear();
  }
  return report;
}

void Store::Impl::sweep(Store& store, time_t temporary_before, time_t scratch_before) {
  std::error_code error;
  for (const auto& item : fs::directory_iterator(root / "tmp", error)) {
    const std::string name = item.path().filename().string();
    struct stat status {};
    if (::lstat(item.path().c_str(), &status) != 0) continue;
    const bool job = name.starts_with("job-"), resume = name.starts_with("scratch-");
    if (job || resume) {
      const auto key = Digest::from_hex(std::string_view(name).substr(job ? 4 : 8).substr(0, 64));
      if (!key || (resume && status.st_mtim.tv_sec > scratch_before)) continue;
      const auto lock = store.try_lock(*key);
      std::error_code ignored;
      if (lock) fs::remove_all(item.path(), ignored);
    } else if (status.st_mtim.tv_sec < temporary_before) {
      std::error_code ignored;
      fs::remove_all(item.path(), ignored);
    }
  }
  for (const auto& item : fs::directory_iterator(root / "locks", error)) {
    const auto key = Digest::from_hex(item.path().filename().string());
    if (!key) continue;
    const auto lock = store.try_lock(*key);  // removed while held: whoever waits looks again (lock_file)
    if (lock) ::unlink(item.path().c_str());
  }
}

}  // namespace espalier
