#include "sdk/error.h"

#include <array>

namespace espalier {
namespace {

struct CodeRow {
  ErrorCode code;
  std::string_view name;
  int exit;
};
constexpr std::array<CodeRow, 10> rows{{
    {ErrorCode::invalid_input, "invalid-input", 2},
    {ErrorCode::unsupported, "unsupported", 2},
    {ErrorCode::failed, "failed", 1},
    {ErrorCode::corrupt, "corrupt", 1},
    {ErrorCode::requirement, "requirement", 1},
    {ErrorCode::resource, "resource", 1},
    {ErrorCode::timeout, "timeout", 1},
    {ErrorCode::crashed, "crashed", 1},
    {ErrorCode::cancelled, "cancelled", 130},
    {ErrorCode::internal, "internal", 70},
}};

std::string compose(const std::string& message, const std::string& where, const std::string& hint) {
  std::string text = where.empty() ? message : where + ": " + message;
  return hint.empty() ? text : text + " (" + hint + ")";
}

}  // namespace

std::string_view to_string(ErrorCode code) {
  for (const CodeRow& row : rows)
    if (row.code == code) return row.name;
  return "internal";
}

ErrorCode error_code_from(std::string_view name) {
  for (const CodeRow& row : rows)
    if (row.name == name) return row.code;
  return ErrorCode::internal;
}

int exit_code(ErrorCode code) {
  for (const CodeRow& row : rows)
    if (row.code == code) return row.exit;
  return 70;
}

Error::Error(ErrorCode code, std::string message, std::string where, std::string hint)
    : std::runtime_error(compose(message, where, hint)),
      code_(code),
      message_(std::move(message)),
      where_(std::move(where)),
      hint_(std::move(hint)) {}

Error::~Error() = default;

void throw_invalid(std::string message, std::string where, std::string hint) {
  throw Error(ErrorCode::invalid_input, std::move(message), std::move(where), std::move(hint));
}

void throw_unsupported(std::string message, std::string where, std::string hint) {
  throw Error(ErrorCode::unsupported, std::move(message), std::move(where), std::move(hint));
}

}  // namespace espalier
