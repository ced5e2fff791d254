#pragma once
/// The program and an oracle in Python, called in a scratch folder of their own.
#include <filesystem>
#include <set>
#include <string>

namespace espalier::test {

struct Call {
  int code = -1;
  std::string out, err;
};

std::string quoted(const std::filesystem::path& path);

/// Paths in arguments are relative to `folder`, which goes with the object.
class Calls {
 public:
  /// `oracle`: a script in this folder.
  explicit Calls(std::string oracle);
  ~Calls();
  Calls(const Calls&) = delete;

  /// Whether the oracle agrees.
  bool oracle(const std::string& arguments) const;
  Call shell(const std::string& command) const;
  static std::filesystem::path program();
  Call model(const std::string& arguments) const { return shell(quoted(program()) + " model " + arguments); }
  std::string text(const std::filesystem::path& name) const;
  std::set<std::string> names(const std::filesystem::path& in = {}) const;

  std::filesystem::path folder;

 private:
  std::string oracle_;
};

}  // namespace espalier::test
