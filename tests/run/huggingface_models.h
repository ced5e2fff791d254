#pragma once
#include <filesystem>

namespace espalier::test {

/// A folder of the directories that huggingface_oracle.py writes, made once a process and removed at its end.
const std::filesystem::path& models();

}  // namespace espalier::test
