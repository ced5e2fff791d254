#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace espalier {

/// What a failure means to the person who caused it; decides the exit code (see exit_code()).
enum class ErrorCode {
  invalid_input,  ///< the call, the recipe or a file handed in is wrong (exit 2)
  unsupported,    ///< understood, but this operator, type or format is refused by name (exit 2)
  failed,         ///< a stage did not do its work (exit 1)
  corrupt,        ///< stored bytes do not match their digest (exit 1)
  requirement,    ///< a `require` was not met (exit 1)
  resource,       ///< disk, memory, permission (exit 1)
  timeout,        ///< a stage ran past its `timeout` (exit 1)
  crashed,        ///< the process of a stage died (exit 1)
  cancelled,      ///< interrupted by the user (exit 130 or 143)
  internal,       ///< a defect of this project (exit 70)
};

/// "invalid-input", … : the names that `--json` prints.
std::string_view to_string(ErrorCode code);
/// The inverse of to_string(); unknown names give `internal`.
ErrorCode error_code_from(std::string_view name);
/// The process's exit code for a failure of this kind.
int exit_code(ErrorCode code);

/// The one exception of the project. `message` names the thing and the cause, `where` the place (file, line, tensor, node),
/// `hint` what to do. what() is "where: message (hint)" with absent parts left out.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message, std::string where = {}, std::string hint = {});
  ~Error() override;  // key function: lives in the SDK library, so that every plugin shares one typeinfo

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorCode code_;
  std::string message_, where_, hint_;
};

/// Shorthands for the two most frequent kinds.
[[noreturn]] void throw_invalid(std::string message, std::string where = {}, std::string hint = {});
[[noreturn]] void throw_unsupported(std::string message, std::string where = {}, std::string hint = {});

}  // namespace espalier
