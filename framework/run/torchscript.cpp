#include "run/torchscript.h"

#include <algorithm>
#include <string_view>

#include "formats/file_writer.h"
#include "formats/model_reader.h"
#include "formats/torchscript/lowering.h"
#include "run/torchscript_module.h"
#include "run/torchscript_program.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using namespace torchscript;

constexpr const char* kSave = "save the model, not its weights: torch.jit.trace(model.eval(), example).save(\"model.pt\")";

/// The names of an archive's members stand in its directory, at its end, unpacked.
bool names(std::string_view bytes, std::string_view member) { return bytes.find(member) != std::string_view::npos; }

/// A name alone does not tell a model from a checkpoint: both are archives that end in .pt.
void check_archive(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  const std::string_view bytes(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  if (!bytes.starts_with("PK\x03\x04")) {
    const bool pickle = bytes.starts_with("\x80");
    throw_invalid(pickle ? "this is a pickled checkpoint, not TorchScript" : "this is no TorchScript archive", file.string(),
                  kSave);
  }
  constexpr std::size_t longest = 8 << 20;
  const std::string_view tail = bytes.substr(bytes.size() - std::min(bytes.size(), longest));
  if (!names(tail, "PK\x05\x06"))
    throw_invalid("the archive was cut short: its directory is missing", file.string(), "copy or write it again");
  if (!names(tail, "constants.pkl") || !names(tail, "code/"))
    throw_invalid("this is a pickled checkpoint, not TorchScript", file.string(), kSave);
}

InputTypes declared(const Program& program, const std::vector<std::string>& inputs, const std::string& where) {
  if (!inputs.empty()) return parse_inputs(inputs, "inputs");
  std::vector<std::string> lines;
  std::string_view text = program.declared;
  while (!text.empty()) {
    const auto end = std::min(text.find_first_of("\n;"), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parse_inputs(lines, where);
}

/// The lengths of an example are free where the model takes them as such; the fewest that it insists on are fixed.
Graph lowered(const Program& program, const InputTypes& said, const std::string& where) {
  const auto with = [&](Free free) {
    InputTypes types = types_of_examples(program, free);
    for (const auto& [name, type] : said) types[name] = type;
    return lower(program, types, where);
  };
  for (const Free free : {Free::batch_and_sequence, Free::batch}) {
    try {
      return with(free);
    } catch (const Error&) {
      if (free == Free::batch) break;
    }
  }
  return with(Free::none);
}

Graph read(const std::filesystem::path& file) { return read_torchscript(file); }

void write(const Graph& graph, const std::filesystem::path& file,
           const std::function<void(std::uint64_t done, std::uint64_t all)>& progress) {
  write_torchscript(graph, file, {progress});
}

const RegisterModelReader reader{
    {"torchscript", {kTorchScriptEndings.begin(), kTorchScriptEndings.end()}, "TorchScript (.pt)", read}};
const RegisterFileWriter writer{{"torchscript", "TorchScript", write}};

}  // namespace

Graph read_torchscript(const std::filesystem::path& file, const std::vector<std::string>& inputs) {
  check_archive(file);
  const Program program = parse_torchscript(file.string());
  return lowered(program, declared(program, inputs, file.string()), file.string());
}

}  // namespace espalier
