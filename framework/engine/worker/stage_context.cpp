#include "engine/worker/stage_context.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>

#include "engine/worker/loader.h"
#include "sdk/error.h"
#include "store/files.h"
#include "store/index.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(100);

std::string in_quotes(std::string_view name) { return "\"" + std::string(name) + "\""; }

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
  }
  return "info";
}

}  // namespace

StageContext::StageContext(Json request, int channel)
    : request_(std::move(request)),
      channel_(channel),
      store_(Store::open(request_.at("store").get<std::string>(), true)),
      params_(request_.value("params", Json::object())),
      seed_(request_.value("seed", std::uint64_t{0})),
      threads_(request_.value("threads", 1)),
      device_(request_.value("device", "cpu")),
      job_(request_.value("job", "")) {
  const Json inputs = request_.value("inputs", Json::object());
  for (const auto& [name, value] : inputs.items()) {
    Port& port = inputs_[name];
    port.many = value.at("many").get<bool>();
    for (const Json& manifest : value.at("artifacts")) port.artifacts.push_back(Artifact::parse(manifest.get<std::string>()));
  }
}

StageContext::~StageContext() = default;

const StageContext::Port& StageContext::port(std::string_view name) const {
  const auto found = inputs_.find(name);
  if (found == inputs_.end()) throw Error(ErrorCode::internal, "the manifest declares no input port " + in_quotes(name));
  return found->second;
}

bool StageContext::has_input(std::string_view name) const { return !port(name).artifacts.empty(); }
std::vector<Artifact> StageContext::inputs(std::string_view name) const { return port(name).artifacts; }

const Artifact& StageContext::input(std::string_view name) const {
  const Port& found = port(name);
  if (found.artifacts.empty()) throw Error(ErrorCode::internal, "the optional input port " + in_quotes(name) + " is not set");
  if (found.artifacts.size() > 1) throw Error(ErrorCode::internal, "the input port " + in_quotes(name) + " has several artifacts");
  return found.artifacts.front();
}

fs::path StageContext::path(const BlobRef& blob) const {
  const std::lock_guard guard(mutex_);
  return written_.contains(blob.digest) ? job_ / blob.digest.hex() : store_.blob_path(blob.digest);
}

MappedFile StageContext::map(const BlobRef& blob) const {
  const fs::path file = path(blob);
  const auto damaged = [&](const std::string& what) {
    return Error(ErrorCode::corrupt, "the blob " + what, file.string(), "espalier verify --repair, then run again");
  };
  std::error_code error;
  if (!fs::is_regular_file(file, error)) throw damaged("is missing");
  MappedFile mapped(file);
  if (mapped.bytes().size() != blob.size)
    throw damaged("has " + std::to_string(mapped.bytes().size()) + " bytes, not " + std::to_string(blob.size));
  return mapped;
}

/// Already in the store: its age is set back, so that no collection takes it before an entry names it.
bool StageContext::stored(const BlobRef& blob) const {
  {
    const std::lock_guard guard(mutex_);
    if (written_.contains(blob.digest)) return true;
  }
  const fs::path file = store_.blob_path(blob.digest);
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0 || static_cast<std::uint64_t>(status.st_size) != blob.size) return false;
  ::utimensat(AT_FDCWD, file.c_str(), nullptr, 0);
  return true;
}

BlobRef StageContext::put(std::span<const std::byte> bytes) { return put(bytes, sha256(bytes)); }

BlobRef StageContext::put(std::span<const std::byte> bytes, const Digest& known) {
  const BlobRef blob{known, bytes.size()};
  if (stored(blob)) return blob;
  AsideFile file(job_);
  file.write(bytes);
  file.commit(job_ / known.hex(), Durability::bytes);
  const std::lock_guard guard(mutex_);
  written_[known] = blob.size;
  return blob;
}

BlobRef StageContext::put_file(const fs::path& file) {
  sync_file(file);
  const BlobRef blob{sha256_file(file), fs::file_size(file)};
  if (stored(blob)) {
    ::unlink(file.c_str());
    return blob;
  }
  const fs::path target = job_ / blob.digest.hex();
  if (::rename(file.c_str(), target.c_str()) != 0) {
    if (errno != EXDEV) throw_resource(file, "move into the store", errno);
    AsideFile copy(job_);
    copy.write(MappedFile(file).bytes());
    copy.commit(target, Durability::bytes);
    ::unlink(file.c_str());
  }
  const std::lock_guard guard(mutex_);
  written_[blob.digest] = blob.size;
  return blob;
}

void StageContext::output(std::string_view name, Artifact artifact) {
  const auto& declared = request_.at("outputs");
  const auto found = declared.find(std::string(name));
  if (found == declared.end()) throw Error(ErrorCode::internal, "the manifest declares no output port " + in_quotes(name));
  const std::string type(to_string(artifact.type));
  if (found->get<std::string>() != type)
    throw Error(ErrorCode::internal,
                "the output port " + in_quotes(name) + " is declared as " + found->get<std::string>() + ", not " + type);
  const std::string manifest = artifact.manifest();
  const BlobRef blob = put(std::as_bytes(std::span<const char>(manifest)));
  const std::lock_guard guard(mutex_);
  outputs_[std::string(name)] = {{"type", type}, {"digest", blob.digest.hex()}};
}

void StageContext::figure(std::string_view name, double value) {
  const std::lock_guard guard(mutex_);
  figures_[std::string(name)] = std::isfinite(value) ? Json(value) : Json(nullptr);
}

void StageContext::detail(std::string_view name, Json value) {
  const std::lock_guard guard(mutex_);
  details_[std::string(name)] = std::move(value);
}

void StageContext::send(const Json& message) {
  if (channel_ < 0) return;
  const std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const std::lock_guard guard(channel_mutex_);
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::send(channel_, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {  // the host is gone, and with it the reason for this process
      cancelled_ = true;
      return;
    }
    done += static_cast<std::size_t>(n);
  }
}

void StageContext::log(LogLevel level, std::string_view message) {
  std::fprintf(stderr, "%s: %.*s\n", level_name(level), static_cast<int>(message.size()), message.data());
  send({{"t", "log"}, {"level", static_cast<int>(level)}, {"text", std::string(message)}});
}

void StageContext::progress(const Progress& p) {
  const auto now = std::chrono::steady_clock::now();
  {
    const std::lock_guard guard(mutex_);
    const bool last = p.total != 0 && p.step >= p.total;
    if (!last && now - last_progress_ < kProgressInterval) return;
    last_progress_ = now;
  }
  Json values = Json::array();
  for (const auto& [name, value] : p.values) values.push_back({name, std::isfinite(value) ? Json(value) : Json(nullptr)});
  send({{"t", "progress"}, {"step", p.step}, {"total", p.total}, {"label", std::string(p.label)}, {"values", std::move(values)}});
}

void StageContext::check_cancelled() const {
  if (channel_ >= 0 && !cancelled_) {
    char byte = 0;
    const ssize_t n = ::recv(channel_, &byte, 1, MSG_DONTWAIT);  // any byte asks to stop; no host, no reason to go on
    if (n >= 0) cancelled_ = true;
  }
  if (cancelled_) throw Error(ErrorCode::cancelled, "interrupted");
}

fs::path StageContext::scratch() {
  const fs::path folder = request_.at("scratch").get<std::string>();
  make_folders(folder);
  return folder;
}

fs::path StageContext::plugin_of(const std::string& name) const {
  const auto& plugins = request_.at("plugins");
  const auto found = plugins.find(name);
  if (found == plugins.end()) throw_invalid("no installed plugin offers the component " + in_quotes(name));
  const fs::path file = found->at("file").get<std::string>();
  const FileStamp stamp = FileStamp::of(file);
  if (stamp.size != found->at("size").get<std::int64_t>() || stamp.mtime_ns != found->at("mtime").get<std::int64_t>() ||
      stamp.ctime_ns != found->at("ctime").get<std::int64_t>())
    throw_invalid("the plugin changed while the recipe ran", file.string(), "run again");
  return file;
}

ComponentHandle StageContext::component(std::string_view name) {
  const Json& values = params_.json();
  const auto found = values.find(std::string(name));
  if (found == values.end() || !found->is_object() || !found->contains("use"))
    throw Error(ErrorCode::internal, "the parameter " + in_quotes(name) + " is no component");
  return open(*found);
}

std::vector<ComponentHandle> StageContext::components(const Params& params, std::string_view name) {
  const auto found = params.json().find(std::string(name));
  if (found == params.json().end()) throw Error(ErrorCode::internal, "there is no parameter " + in_quotes(name));
  std::vector<ComponentHandle> handles;
  if (found->is_null()) return handles;
  if (!found->is_array()) return {open(*found)};
  for (const Json& one : *found) handles.push_back(open(one));
  return handles;
}

ComponentHandle StageContext::open(Json value) const {
  if (!value.is_object() || !value.contains("use")) throw Error(ErrorCode::internal, "a parameter's value is no component");
  const std::string use = value.at("use").get<std::string>();
  value.erase("use");
  return {use, load_component(plugin_of(use), use), Params(std::move(value))};
}

ComponentHandle StageContext::component_for(const Artifact& artifact) {
  const auto backend = artifact.meta.find("backend");
  if (backend == artifact.meta.end() || !backend->is_string())
    throw_invalid("the " + std::string(to_string(artifact.type)) + " artifact names no backend");
  const std::string use = backend->get<std::string>();
  const fs::path file = plugin_of(use);
  return {use, load_component(file, use), Params(request_.at("plugins").at(use).value("defaults", Json::object()))};
}

void StageContext::finish() {
  for (const auto& [name, type] : request_.at("outputs").items())
    if (!outputs_.contains(name)) throw Error(ErrorCode::failed, "finished without its output " + in_quotes(name));
  Json blobs = Json::array();
  for (const auto& [digest, size] : written_) blobs.push_back(digest.hex());
  send({{"t", "done"}, {"outputs", outputs_}, {"figures", figures_}, {"details", details_}, {"blobs", std::move(blobs)}});
}

void StageContext::fail(const Error& error) {
  send({{"t", "error"},
        {"code", std::string(to_string(error.code()))},
        {"message", error.message()},
        {"where", error.where()},
        {"hint", error.hint()}});
}

}  // namespace espalier
