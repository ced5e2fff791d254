#pragma once
#include <sys/types.h>

#include <cstdint>

namespace espalier {

/// What passes between host and worker on the control socket (SOCK_SEQPACKET, both on one machine and of one build).
/// Host → worker: one StartMessage with three descriptors: request (memory file with JSON), channel (stream socket), log.
struct StartMessage {
  std::uint64_t id = 0;
};
/// Worker → host: `exited` false right after the fork (pid valid, or error set when fork failed), true when the child is gone.
struct ChildMessage {
  std::uint64_t id = 0;
  std::int32_t pid = 0;
  std::int32_t exited = 0;
  std::int32_t status = 0;  ///< as from wait()
  std::int32_t error = 0;   ///< errno of a fork that failed
  std::int64_t peak_rss = 0;
  double cpu_seconds = 0;
};

/// The worker's life: one thread, LibTorch warm, a forked child per request. Returns when the host's end is closed; all children
/// are killed then.
int serve(int control);

}  // namespace espalier
