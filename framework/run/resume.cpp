#include "run/resume.h"

#include <c10/core/GradMode.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <span>

#include "sdk/artifact.h"
#include "sdk/digest.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::string_view magic = "espalier training state 1\n";
constexpr std::size_t digest_size = 32;
constexpr std::uint64_t longest_header = 1 << 28;

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  if (!tensor.is_contiguous()) throw Error(ErrorCode::internal, "training state: a tensor is not contiguous");
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

Json shapes_of(const std::vector<at::Tensor>& tensors) {
  Json list = Json::array();
  for (const at::Tensor& each : tensors) list.push_back({c10::toString(each.scalar_type()), each.sizes().vec()});
  return list;
}

/// A file written aside, hashed on the way.
class Writer {
 public:
  explicit Writer(const std::filesystem::path& file) : file_(file), aside_(file.string() + ".new") {
    descriptor_ = ::open(aside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (descriptor_ < 0) fail();
  }
  ~Writer() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    ::unlink(aside_.c_str());
  }
  Writer(const Writer&) = delete;
  void put(std::span<const std::byte> bytes) {
    hash_.update(bytes);
    write(bytes);
  }
  void commit() {
    const Digest digest = hash_.finish();
    write(std::as_bytes(std::span(digest.bytes)));
    if (::close(std::exchange(descriptor_, -1)) != 0 || ::rename(aside_.c_str(), file_.c_str()) != 0) fail();
  }

 private:
  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail();
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }
  [[noreturn]] void fail() const {
    throw Error(ErrorCode::resource, fmt::format("cannot write the state of training: {}", std::strerror(errno)), file_.string(),
                "free some space, or train without resuming: resume_every = -1");
  }
  std::filesystem::path file_;
  std::string aside_;
  int descriptor_ = -1;
  Sha256 hash_;
};

Json header_of(const std::string& key, const TrainingState& state, const std::vector<at::Tensor>& tensors) {
  Json header{{"key", key},
              {"step", state.step},
              {"losses", state.losses},
              {"tokens", state.tokens},
              {"seconds", state.seconds},
              {"heldout", state.heldout},
              {"best_step", state.best_step},
              {"tensors", shapes_of(tensors)}};
  if (state.best_step >= 0) header["best_loss"] = state.best_loss;  // JSON has no infinity
  return header;
}

TrainingState state_of(const Json& header) {
  TrainingState state;
  header.at("step").get_to(state.step);
  header.at("losses").get_to(state.losses);
  header.at("tokens").get_to(state.tokens);
  header.at("seconds").get_to(state.seconds);
  header.at("heldout").get_to(state.heldout);
  header.at("best_step").get_to(state.best_step);
  if (state.best_step >= 0) header.at("best_loss").get_to(state.best_loss);
  return state;
}

/// The file is whole: its last bytes are the digest of all before.
bool whole(const MappedFile& file) {
  const auto bytes = file.bytes();
  if (bytes.size() < magic.size() + 8 + digest_size) return false;
  const Digest digest = sha256(bytes.first(bytes.size() - digest_size));
  return std::memcmp(digest.bytes.data(), bytes.data() + bytes.size() - digest_size, digest_size) == 0;
}

}  // namespace

void write_state(const std::filesystem::path& file, const std::string& key, const TrainingState& state,
                 const std::vector<at::Tensor>& tensors) {
  Writer out(file);
  const std::string header = header_of(key, state, tensors).dump();
  const std::uint64_t length = header.size();
  out.put(std::as_bytes(std::span(magic)));
  out.put(std::as_bytes(std::span(&length, 1)));
  out.put(std::as_bytes(std::span(header)));
  for (const at::Tensor& each : tensors) out.put(bytes_of(each));
  out.commit();
}

std::optional<TrainingState> read_state(const std::filesystem::path& file, const std::string& key,
                                        const std::vector<at::Tensor>& tensors, std::string& why) {
  why.clear();
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  const auto refuse = [&](std::string reason) {
    why = std::move(reason);
    return std::nullopt;
  };
  try {
    const MappedFile mapped(file);
    if (!whole(mapped)) return refuse("it is damaged");
    auto bytes = mapped.bytes();
    bytes = bytes.first(bytes.size() - digest_size);
    if (std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) return refuse("it is of another version");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data() + magic.size(), sizeof length);
    bytes = bytes.subspan(magic.size() + sizeof length);
    if (length > bytes.size() || length > longest_header) return refuse("its header is longer than the file");
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    const Json header = Json::parse(text, text + length);
    bytes = bytes.subspan(length);
    if (header.at("key") != key) return refuse("it belongs to another run");
    if (header.at("tensors") != shapes_of(tensors)) return refuse("its tensors have other shapes");
    std::size_t needed = 0;
    for (const at::Tensor& each : tensors) needed += each.nbytes();
    if (needed != bytes.size()) return refuse("its tensors have another size");
    TrainingState state = state_of(header);
    if (state.step < 0 || state.losses.size() != static_cast<std::size_t>(state.step)) return refuse("its steps do not add up");
    for (const at::Tensor& each : tensors) {
      std::memcpy(bytes_of(each).data(), bytes.data(), each.nbytes());
      bytes = bytes.subspan(each.nbytes());
    }
    return state;
  } catch (const std::exception& problem) {
    return refuse(problem.what());
  }
}

}  // namespace espalier
