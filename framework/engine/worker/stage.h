#pragma once

namespace espalier {

/// Runs one stage in this (forked) process: reads the request from a memory file, speaks to the host over `channel`. Returns the
/// exit code: 0 when "done" was sent, 1 when "error" was.
int run_stage(int request, int channel);

}  // namespace espalier
