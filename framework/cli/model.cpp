#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/App.hpp>
#include <CLI/Formatter.hpp>

#include <fstream>
#include <memory>

#include "cli/command.h"
#include "cli/groups_svg.h"
#include "cli/model_convert.h"
#include "cli/table.h"
#include "engine/tool.h"
#include "sdk/error.h"

namespace espalier {
namespace {

struct Arguments {
  std::string file, out, svg;
  std::vector<std::string> inputs;
  std::int64_t threads = 2;
  bool pinned = false;
};

/// The program's answer: models are graphs of tensors, which this program knows nothing of.
Json ask(ToolProgram program, const std::string& tool, const Json& request) {
  std::string text;
  try {
    text = request.dump();
  } catch (const Json::exception&) {
    throw_invalid("a path is not UTF-8", "model");
  }
  return Json::parse(run_tool(program, tool, text));
}

std::string shape_text(const Json& shape) {
  std::vector<std::string> words;
  for (const Json& length : shape) words.push_back(length.is_string() ? length.get<std::string>() : length.dump());
  return fmt::format("[{}]", fmt::join(words, ", "));
}

int finish(const CommonOptions& common, Json answer) {
  answer["schema"] = 1;
  answer["ok"] = true;
  if (common.json) print_json(answer);
  return 0;
}

int info(const Arguments& arguments, const CommonOptions& common) {
  const Json answer = ask(ToolProgram::worker, "model-info", {{"file", arguments.file}});
  if (common.json) return finish(common, answer);
  std::string text = fmt::format(
      "{}\n  {} nodes, {} in normal form; {} parameters, {}, {} MACs where unknown lengths are 1\n", printable(arguments.file),
      answer["nodes"].get<std::int64_t>(), answer["nodes_normal"].get<std::int64_t>(), answer["parameters"].get<std::int64_t>(),
      human_bytes(answer["weight_bytes"].get<std::uint64_t>()), significant(answer["macs"].get<double>(), 4));
  for (const char* side : {"inputs", "outputs"}) {
    text += fmt::format("  {}\n", side);
    for (const Json& value : answer[side])
      text += fmt::format("    {} {} {}\n", printable(value["name"].get<std::string>()), value["dtype"].get<std::string>(),
                          printable(shape_text(value["shape"])));
  }
  Table operators({{"operator", Table::Align::left}, {"nodes", Table::Align::right}, {"", Table::Align::left}});
  for (const auto& [name, count] : answer["operators"].items()) {
    const auto& unknown = answer["unknown"];
    const bool absent = std::find(unknown.begin(), unknown.end(), name) != unknown.end();
    operators.row({printable(name), count.dump(), absent ? "not in the runner" : ""});
  }
  print(text + operators.text(common.colour_out));
  return 0;
}

int groups(const Arguments& arguments, const CommonOptions& common) {
  const Json answer = ask(ToolProgram::graph, "model-groups", {{"file", arguments.file}, {"pinned", arguments.pinned}});
  if (!arguments.svg.empty()) {
    std::ofstream picture(arguments.svg, std::ios::binary | std::ios::trunc);
    picture << groups_svg(answer["groups"], arguments.file);
    picture.close();
    if (!picture)
      throw Error(ErrorCode::resource, "the picture cannot be written", arguments.svg, "is the folder writable, the disk full?");
  }
  if (common.json) return finish(common, answer);
  Table table({{"group", Table::Align::left},
               {"kind", Table::Align::left},
               {"units", Table::Align::right},
               {"parameters a unit", Table::Align::right},
               {"MACs a unit", Table::Align::right},
               {"members", Table::Align::right},
               {"", Table::Align::left}});
  for (const Json& group : answer["groups"]) {
    std::string remark = group["pinned"].get<bool>()   ? "pinned: " + group["reason"].get<std::string>()
                         : !group["exact"].get<bool>() ? "inexact: " + group["reason"].get<std::string>()
                                                       : "";
    if (const auto multiple = group["multiple"].get<std::int64_t>(); multiple > 1)
      remark += fmt::format("{}multiples of {}", remark.empty() ? "" : "; ", multiple);
    table.row({printable(group["id"].get<std::string>()), group["kind"].get<std::string>(), group["units"].dump(),
               group["parameters_per_unit"].dump(),
               group["macs_per_unit"].is_null() ? "" : significant(group["macs_per_unit"].get<double>(), 4),
               std::to_string(group["members"].size()), printable(remark)});
  }
  const double all = answer["parameters"].get<double>();
  print(table.text(common.colour_out) + fmt::format("{} groups; {:.1f} % of {} parameters can be cut\n", answer["groups"].size(),
                                                    all > 0 ? 100 * answer["parameters_free"].get<double>() / all : 0.0, all));
  return 0;
}

int run(const Arguments& arguments, const CommonOptions& common) {
  Json inputs = Json::object();
  for (const std::string& pair : arguments.inputs) {
    const auto equals = pair.rfind('=');  // names of values may hold one
    if (equals == std::string::npos || equals == 0) throw_invalid(fmt::format("\"{}\" is not NAME=FILE.npy", pair), "--input");
    if (!inputs.emplace(pair.substr(0, equals), pair.substr(equals + 1)).second)
      throw_invalid(fmt::format("input \"{}\" is given twice", pair.substr(0, equals)), "--input");
  }
  const Json answer = ask(ToolProgram::worker, "model-run",
                          {{"file", arguments.file}, {"inputs", inputs}, {"out", arguments.out}, {"threads", arguments.threads}});
  if (common.json) {
    print_json(answer);
    return 0;
  }
  Table table(
      {{"output", Table::Align::left}, {"type", Table::Align::left}, {"shape", Table::Align::left}, {"file", Table::Align::left}});
  for (const auto& [name, made] : answer.items())
    table.row(
        {printable(name), made["dtype"].get<std::string>(), shape_text(made["shape"]), printable(made["file"].get<std::string>())});
  print(table.text(common.colour_out));
  return 0;
}

CommandAction set_up(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  using Part = int (*)(const Arguments&, const CommonOptions&);
  auto chosen = std::make_shared<Part>(nullptr);
  app.require_subcommand(1);
  const auto part = [&](const char* name, const char* help, Part action) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->add_option("FILE", arguments->file,
                    "a model: .onnx, .gguf, .pt (TorchScript), an exported folder, or a Hugging Face directory")
        ->required();
    sub->callback([chosen, action] { *chosen = action; });
    sub->fallthrough();
    return sub;
  };
  part("info", "inputs, outputs, operators, parameters of a model", info);
  CLI::App* listing = part("groups", "channels and heads that can be cut together, and what a unit frees", groups);
  listing->add_flag("--pinned", arguments->pinned, "list groups that cannot be cut, too, with the reason");
  listing->add_option("--svg", arguments->svg, "draw which axes move together")->type_name("FILE");
  CLI::App* running = part("run", "run a model once in the project's own runner", run);
  running->add_option("--input", arguments->inputs, "an array for each input; several times")->type_name("NAME=FILE.npy");
  running->add_option("--out", arguments->out, "the folder that gets an array NAME.npy for each output")
      ->required()
      ->type_name("DIR");
  running->add_option("--threads", arguments->threads, "threads (2)")->type_name("N")->check(CLI::Range(1, 1024));
  struct Writer {
    CLI::App* app;
    CommandAction action;
  };
  std::vector<Writer> writers;
  const auto writer = [&](const char* name, const char* help, CommandAction (*set_up_writer)(CLI::App&)) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->set_help_flag("-h,--help", "this text");
    sub->fallthrough();
    writers.push_back({sub, set_up_writer(*sub)});
  };
  writer("convert", "write a model in another format", set_up_convert);
  writer("cut", "write a smaller model: without the channels and heads whose weights are smallest", set_up_cut);
  return [=](const CommonOptions& common) {
    for (const Writer& one : writers)
      if (one.app->parsed()) return one.action(common);
    return (*chosen)(*arguments, common);
  };
}

const RegisterCommand registered{
    {"model",
     "look at a model file, list what can be cut, run it, write it smaller or in another format",
     {"espalier model info model.onnx", "espalier model groups model.gguf --svg groups.svg",
      "espalier model run model.onnx --input x=x.npy --out out/", "espalier model convert model.gguf model/",
      "espalier model cut model.onnx small.onnx --sparsity 0.3"},
     set_up}};

}  // namespace
}  // namespace espalier
