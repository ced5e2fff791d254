#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>

#include "cli/command.h"
#include "cli/table.h"
#include "sdk/error.h"
#include "sdk/fingerprint.h"

namespace espalier {
namespace {

constexpr int call_is_wrong = 2;

void add_common(CLI::App& app, CommonOptions& common) {
  const char* group = "Common options";
  app.add_option("--store", common.store, "the store's folder (default: $ESPALIER_STORE, else ~/.cache/espalier)")
      ->type_name("DIR")
      ->group(group);
  app.add_flag("--json", common.json, "the result as one line of JSON, last on stdout")->group(group);
  app.add_flag("-q,--quiet", common.quiet, "only errors on stderr")->group(group);
  app.add_flag("-v,--verbose", common.verbose, "more on stderr; twice for even more")->group(group);
}

std::string examples_text(const std::vector<std::string>& examples) {
  if (examples.empty()) return {};
  std::string text = "Examples:\n";
  for (const auto& example : examples) text += "  " + example + "\n";
  return text;
}

void decide_colours(CommonOptions& common) {
  const char* no_colour = std::getenv("NO_COLOR");  // https://no-color.org
  const char* terminal = std::getenv("TERM");
  const bool allowed = !(no_colour && *no_colour) && !(terminal && std::string_view(terminal) == "dumb");
  common.terminal_err = isatty(STDERR_FILENO) == 1;
  common.colour_err = allowed && common.terminal_err;
  common.colour_out = allowed && !common.json && isatty(STDOUT_FILENO) == 1;
}

/// CLI11 alone would only say that an argument was not expected.
int unknown_command(const std::string& word) {
  std::vector<std::string> names;
  for (const auto& command : commands()) names.push_back(command.name);
  const auto near = nearest(word, names);
  fmt::print(stderr, "espalier: there is no command \"{}\"{}\n", printable(word),
             near ? fmt::format("; did you mean \"{}\"?", *near) : "; `espalier --help` lists them");
  return call_is_wrong;
}

int report(const Error& error, const CommonOptions& common) {
  if (common.json) {
    Json body{{"code", to_string(error.code())}, {"message", error.message()}};
    if (!error.where().empty()) body["where"] = error.where();
    if (!error.hint().empty()) body["hint"] = error.hint();
    print_json({{"schema", 1}, {"ok", false}, {"error", body}});
  }
  fmt::print(stderr, "espalier: {}: {}\n",
             coloured(error.code() == ErrorCode::internal ? "internal error" : "error", "red", common.colour_err),
             printable(error.what()));
  return exit_code(error.code());
}

int run_program(int argc, char** argv, CommonOptions& common) {
  CLI::App app("Espalier: compress models by recipe (finetune, prune, distill, quantize, optimize, deploy).", "espalier");
  app.set_version_flag("--version", std::string("espalier ") + ESPALIER_VERSION + " (" + ESPALIER_FINGERPRINT + ")");
  app.footer("\n" + examples_text({"espalier run pipelines/quickstart.toml", "espalier plan recipe.toml --set sparsity=0.3",
                                   "espalier plugins pruner/channels", "espalier COMMAND --help"}));
  app.set_help_flag("-h,--help", "this text");
  add_common(app, common);
  app.require_subcommand(0, 1);  // a second command's name is a stage's: `espalier plan recipe.toml test`
  std::vector<std::pair<CLI::App*, CommandAction>> actions;
  for (const auto& command : commands()) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->set_help_flag("-h,--help", "this text");
    sub->footer("\n" + examples_text(command.examples));
    actions.emplace_back(sub, command.set_up(*sub));
    add_common(*sub, common);
  }
  // A first word that is no command is looked at before CLI11 sees it; "--store DIR" is the one common option with a value.
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--store") ++i;
    if (word.starts_with("-")) continue;
    const auto& all = commands();
    if (std::none_of(all.begin(), all.end(), [&](const Command& c) { return c.name == word; }))
      return unknown_command(std::string(word));
    break;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);  // --help, --version
    std::string where = "espalier";
    for (const auto& [sub, action] : actions)
      if (sub->parsed()) where += " " + sub->get_name();
    fmt::print(stderr, "espalier: {}\nsee: {} --help\n", printable(error.what()), where);
    return call_is_wrong;
  }
  decide_colours(common);
  for (const auto& [sub, action] : actions)
    if (sub->parsed()) return action(common);
  std::fputs(app.help().c_str(), stderr);
  return call_is_wrong;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error code of write(), not a death in the middle of something
  espalier::CommonOptions common;
  try {
    return espalier::run_program(argc, argv, common);
  } catch (const espalier::Error& error) {
    return espalier::report(error, common);
  } catch (const std::bad_alloc&) {
    return espalier::report(espalier::Error(espalier::ErrorCode::resource, "out of memory"), common);
  } catch (const std::exception& error) {
    return espalier::report(
        espalier::Error(espalier::ErrorCode::internal, error.what(), {}, "please report it with the command line"), common);
  } catch (...) {
    return espalier::report(espalier::Error(espalier::ErrorCode::internal, "an exception of unknown type"), common);
  }
}
