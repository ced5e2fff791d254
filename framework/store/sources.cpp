#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "store/impl.h"

namespace espalier {

Digest Store::Impl::hash(const std::filesystem::path& file) const {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) throw_resource(file, "read", errno);
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  Sha256 sha;
  std::vector<std::byte> buffer(1 << 20);
  for (;;) {
    if (interrupted != nullptr && *interrupted != 0) throw Error(ErrorCode::cancelled, "interrupted while reading", file.string());
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_resource(file, "read", errno);
    if (n == 0) return sha.finish();
    sha.update(std::span<const std::byte>(buffer.data(), static_cast<std::size_t>(n)));
  }
}

Digest Store::file_digest(const std::filesystem::path& file) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    const FileStamp stamp = FileStamp::of(file);
    const bool fresh = stamp.fresh();
    if (!fresh)
      if (const auto known = impl_->index.digest_of(stamp)) return *known;
    const Digest digest = impl_->hash(file);
    if (FileStamp::of(file) != stamp) continue;  // written to while it was read
    if (!fresh) impl_->index.remember(stamp, digest);
    return digest;
  }
  throw Error(ErrorCode::failed, "the file changes while it is read", file.string(), "wait until it is written, then run again");
}

std::optional<std::string> Store::derived(std::string_view what, const Digest& of) { return impl_->index.derived(what, of); }

void Store::remember_derived(std::string_view what, const Digest& of, std::string_view text) {
  impl_->index.remember_derived(what, of, text);
}

void Store::stop_on(const std::atomic<int>* interrupted) { impl_->interrupted = interrupted; }
std::vector<std::string> Store::notes() const { return impl_->index.notes(); }
void Store::record_run(const RunRecord& run) { impl_->index.record(run); }

std::vector<Store::RunRecord> Store::runs(const std::filesystem::path& recipe_file, int limit) const {
  return impl_->index.runs(recipe_file.string(), limit);
}

}  // namespace espalier
