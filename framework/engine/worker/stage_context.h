#pragma once
#include <atomic>
#include <chrono>
#include <mutex>

#include "sdk/context.h"
#include "sdk/error.h"
#include "store/store.h"

namespace espalier {

/// The Context of a stage: inputs are mapped from the store, outputs are written into the job's folder on the same file system (the
/// host takes them over), everything said goes to the host as JSON lines.
///
/// The request (made by engine/request.cpp): "stage", "use", "params", "seed", "threads", "device", "store", "job", "scratch",
/// "inputs": {port: {"many", "artifacts": [manifest…]}}, "outputs": {port: type},
/// "plugins": {component: {"file", "size", "mtime", "ctime", "defaults"}}.
class StageContext final : public Context {
 public:
  /// `channel`: the socket to the host, or -1 for tools that only read.
  StageContext(Json request, int channel);
  ~StageContext() override;

  const Params& params() const override { return params_; }
  const Artifact& input(std::string_view port) const override;
  bool has_input(std::string_view port) const override;
  std::vector<Artifact> inputs(std::string_view port) const override;
  MappedFile map(const BlobRef& blob) const override;
  std::filesystem::path path(const BlobRef& blob) const override;
  std::uint64_t seed() const override { return seed_; }
  int threads() const override { return threads_; }
  const std::string& device() const override { return device_; }
  BlobRef put(std::span<const std::byte> bytes) override;
  BlobRef put(std::span<const std::byte> bytes, const Digest& known) override;
  BlobRef put_file(const std::filesystem::path& file) override;
  void output(std::string_view port, Artifact artifact) override;
  void figure(std::string_view name, double value) override;
  void detail(std::string_view name, Json value) override;
  void log(LogLevel level, std::string_view message) override;
  void progress(const Progress& p) override;
  void check_cancelled() const override;
  std::filesystem::path scratch() override;
  ComponentHandle component(std::string_view name) override;
  ComponentHandle component_for(const Artifact& artifact) override;
  std::vector<ComponentHandle> components(const Params& params, std::string_view name) override;

  std::string use() const { return request_.at("use").get<std::string>(); }
  /// The component's plugin, unless its file changed since the plan was made.
  std::filesystem::path plugin_of(const std::string& component) const;
  /// Sends the result. Throws Error(failed) when a declared output is missing.
  void finish();
  void fail(const Error& error);

 private:
  struct Port {
    bool many = false;
    std::vector<Artifact> artifacts;
  };
  const Port& port(std::string_view name) const;
  bool stored(const BlobRef& blob) const;
  ComponentHandle open(Json value) const;
  void send(const Json& message);

  Json request_;
  int channel_;
  Store store_;
  Params params_;
  std::uint64_t seed_ = 0;
  int threads_ = 1;
  std::string device_;
  std::filesystem::path job_;
  std::map<std::string, Port, std::less<>> inputs_;
  Json outputs_ = Json::object(), figures_ = Json::object(), details_ = Json::object();
  std::map<Digest, std::uint64_t> written_;  // blobs in the job's folder
  mutable std::mutex mutex_;                 // guards written_ and the results
  std::mutex channel_mutex_;
  std::chrono::steady_clock::time_point last_progress_{};
  mutable std::atomic<bool> cancelled_ = false;
};

}  // namespace espalier
