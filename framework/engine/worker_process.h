#pragma once
#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "engine/worker/serve.h"
#include "store/files.h"

namespace espalier {

/// The host's end of a running espalier-worker. Used from one thread.
class WorkerProcess {
 public:
  /// Starts the program with a clean numeric environment. Throws Error(resource) when it cannot be started.
  explicit WorkerProcess(const std::filesystem::path& program);
  /// Kills it; its children die with it.
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;

  int control() const { return control_.get(); }  ///< for epoll
  /// Asks for a stage. Throws Error(crashed) when the worker is gone.
  void start(std::uint64_t id, int request, int channel, int log);
  /// The next message, or nothing when there is none now. `closed` becomes true when the worker is gone.
  std::optional<ChildMessage> receive(bool& closed);
  /// After it is gone: why, with the end of what it printed.
  std::string epitaph();

 private:
  pid_t pid_ = -1;
  FileDescriptor control_, output_;
};

/// A file in memory that holds `text`, read from its start by whoever gets the descriptor.
FileDescriptor memory_file(const char* name, const std::string& text);
/// "signal SIGSEGV (Segmentation fault)".
std::string signal_text(int number);

}  // namespace espalier
