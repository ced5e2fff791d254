// Commands that the interface promises and that do not exist yet: each says so and exits 2.
#include <fmt/format.h>

#include "cli/command.h"

namespace espalier {
namespace {

RegisterCommand absent(const char* name, const char* summary, std::string answer) {
  const auto set_up = [name, answer](CLI::App& app) -> CommandAction {
    app.allow_extras();
    return [name, answer](const CommonOptions&) {
      fmt::print(stderr, "espalier: \"{}\" {}\n", name, answer);
      return 2;
    };
  };
  return RegisterCommand{{name, summary, {}, set_up}};
}

const RegisterCommand fresh =
    absent("new", "(not there yet) begin a recipe or a plugin", "is not there yet; pipelines/ and plugins/ hold examples to copy");
const RegisterCommand test =
    absent("test", "(launcher) set up, build and run the tests", "is done by the launcher: ./espalier test in the source folder");
const RegisterCommand build =
    absent("build", "(launcher) set up and build", "is done by the launcher: ./espalier build in the source folder");

}  // namespace
}  // namespace espalier
