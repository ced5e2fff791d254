#include <CLI/App.hpp>
#include <CLI/Formatter.hpp>

#include <memory>

#include "cli/command.h"
#include "engine/tool.h"
#include "sdk/error.h"

namespace espalier {
namespace {

struct Arguments {
  std::string package, prompt;
  std::int64_t tokens = 128, threads = 2;
  std::uint64_t seed = 0;
  double temperature = 0;
  bool chat = false;
};

/// Files of the plugins that may have made the package. The worker opens packages; this program links no runtime.
Json backends() {
  Json files = Json::object();
  const Catalog catalog = Catalog::scan(Catalog::default_folders());
  for (const std::string& name : catalog.names("backend")) {
    if (const ComponentInfo* component = catalog.find(name)) files[name] = component->file.string();
  }
  return files;
}

/// Becomes the worker: the text then streams straight from the process that makes it.
int start(const Arguments& arguments, const CommonOptions& common) {
  const Json request = {{"package", arguments.package},
                        {"prompt", arguments.prompt},
                        {"tokens", arguments.tokens},
                        {"seed", arguments.seed},
                        {"temperature", arguments.temperature},
                        {"chat", arguments.chat},
                        {"threads", arguments.threads},
                        {"json", common.json},
                        {"quiet", common.quiet},
                        {"backends", backends()}};
  try {
    become_tool(ToolProgram::worker, "generate", request.dump());
  } catch (const Json::exception&) {
    throw_invalid("the prompt or the package's path is not UTF-8", "generate");
  }
}

CommandAction set_up(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("PACKAGE", arguments->package, "a package's folder (espalier export writes one)")->required();
  app.add_option("--prompt", arguments->prompt, "the text to continue")->required()->type_name("TEXT");
  app.add_option("--tokens", arguments->tokens, "tokens to make at most (128)")->type_name("N")->check(CLI::Range(1, 1 << 20));
  app.add_option("--temperature", arguments->temperature, "0 (default): always the likeliest token; else sample")
      ->type_name("T")
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--seed", arguments->seed, "seed of the sampling (0)")->type_name("S");
  app.add_option("--threads", arguments->threads, "threads of the runtime (2)")->type_name("N")->check(CLI::Range(1, 1024));
  app.add_flag("--chat", arguments->chat, "the prompt is a user's message; the model answers (chat marks of its tokenizer)");
  return [arguments](const CommonOptions& common) { return start(*arguments, common); };
}

const RegisterCommand registered{
    {"generate",
     "continue a text with a packaged language model",
     {"espalier generate package/ --prompt \"The frame of an espalier\"",
      "espalier generate package/ --chat --prompt \"Why prune a tree?\" --tokens 200 --temperature 0.7"},
     set_up}};

}  // namespace
}  // namespace espalier
