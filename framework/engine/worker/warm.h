#pragma once

namespace espalier {

/// Touches what LibTorch sets up at first use, on this thread alone: no pool of threads is started, so that fork() stays safe.
void warm_up();
/// Threads of LibTorch's kernels in this process; call once, before any work.
void set_threads(int count);

}  // namespace espalier
