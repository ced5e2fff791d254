#pragma once
/// Malformed input by the hundred: what a reader may do with it is throw Error, or accept it.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "sdk/error.h"

namespace abuse {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(std::string_view text);
Bytes read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// A fresh folder, removed with the object.
class Folder {
 public:
  explicit Folder(const std::filesystem::path& parent = std::filesystem::temp_directory_path());
  ~Folder();
  Folder(const Folder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// What became of a set of variants, read in a child process that may use only `memory` more bytes than it has.
struct Outcome {
  bool survived = false;  ///< no crash, nothing thrown but Error, no allocation past the limit
  std::uint64_t accepted = 0, refused = 0;
  std::string failure;  ///< which variant, and what it did
};
struct Limits {
  std::size_t truncations = 200;
  std::size_t flips = 500;
  std::uint64_t memory = 256ULL << 20;
};
/// Truncations at evenly spread lengths and at every length below 64, then copies with one to four random bits flipped.
Outcome mistreat(const Bytes& good, const std::function<void(const Bytes&)>& read, const Limits& limits = {});

/// Code and what() of the Error that `act` throws; fails the test when it throws none.
espalier::Error error_of(const std::function<void()>& act);

/// deps/…, where the launcher put the tests' Python; empty when the variable is not set.
std::filesystem::path dependencies();
/// Runs the oracles' Python on a script of this folder; true when it ended well. `log` gets what it printed.
bool python(const std::string& script, const std::vector<std::string>& arguments, std::string& log);

}  // namespace abuse
