// A model from an ONNX file of any exporter. Whatever bytes the model has beside the file must be declared, or they would not count
// in the stage's key: a changed weight file would give a stale hit.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "formats/model_artifact.h"
#include "formats/onnx.h"
#include "formats/source_outputs.h"
#include "sdk/plugin.h"

namespace fs = std::filesystem;
using namespace espalier;

namespace {

/// Maps external tensor data that lies in the model's folder, and remembers which files were used.
class FolderData {
 public:
  explicit FolderData(fs::path folder) : folder_(std::move(folder)) {}

  ExternalBytes operator()(const std::string& location, std::uint64_t offset, std::uint64_t length, const std::string& tensor) {
    const fs::path relative = fs::path(location).lexically_normal();
    if (location.empty() || location.find('\0') != std::string::npos || relative.is_absolute() ||
        relative.begin()->string() == "..") {
      throw_invalid(fmt::format("external data of tensor \"{}\" lies at \"{}\", outside the model's folder", tensor, location),
                    folder_.string(), "external data must be a relative path below the folder of the model");
    }
    const fs::path file = folder_ / relative;
    const auto real = fs::weakly_canonical(file);
    const auto inside = real.lexically_relative(fs::weakly_canonical(folder_));
    if (inside.empty() || inside.begin()->string() == "..") {
      throw_invalid(fmt::format("external data of tensor \"{}\" is a link out of the model's folder: \"{}\"", tensor, location),
                    folder_.string(), "put the file itself beside the model");
    }
    auto [at, fresh] = files_.try_emplace(real);
    if (fresh) {
      if (!fs::is_regular_file(real)) {
        throw_invalid(fmt::format("external data of tensor \"{}\" is missing: no file \"{}\"", tensor, location), folder_.string());
      }
      at->second = MappedFile(real);
      names_[real] = relative.string();
    }
    const auto bytes = at->second.bytes();
    if (offset > bytes.size() || length > bytes.size() - offset) {
      throw_invalid(fmt::format("tensor \"{}\" wants bytes {} to {} of \"{}\", which has {}", tensor, offset, offset + length,
                                location, bytes.size()),
                    folder_.string(), "the file is truncated, or belongs to another model");
    }
    return {bytes.subspan(offset, length), at->second.owner()};
  }

  /// Real path → the name by which the model calls it.
  const std::map<fs::path, std::string>& used() const { return names_; }

 private:
  fs::path folder_;
  std::map<fs::path, MappedFile> files_;
  std::map<fs::path, std::string> names_;
};

void check_declared(Context& context, const FolderData& data, const std::vector<fs::path>& declared) {
  std::set<fs::path> known;
  for (const auto& path : declared) known.insert(fs::weakly_canonical(path));
  std::vector<std::string> missing;
  for (const auto& [file, name] : data.used()) {
    if (!known.erase(file)) missing.push_back("\"" + name + "\"");
  }
  if (!missing.empty()) {
    throw_invalid(
        fmt::format("the model keeps weights in {} that the stage does not name", missing.size() == 1 ? "a file" : "files"),
        "parameter data", fmt::format("add: data = [{}], as paths relative to the recipe", fmt::join(missing, ", ")));
  }
  for (const auto& file : known) context.log(LogLevel::warning, fmt::format("data: the model does not use {}", file.string()));
}

class OnnxSource final : public Component {
 public:
  void run(Context& context) override {
    const auto& params = context.params();
    const fs::path path = params.path("path");
    const MappedFile file(path);
    FolderData data(path.parent_path());
    Graph graph = parse_onnx(file.bytes(), file.owner(), std::ref(data), path.string());
    check_declared(context, data, params.paths("data"));
    context.check_cancelled();
    if (params.flag("normal_form")) bring_to_normal_form(context, graph);
    if (params.has("task")) graph.metadata["espalier.task"] = params.text("task");
    put_named_tokenizer(context, graph);
    context.output("model", save_model(context, graph));
    context.figure("parameters", static_cast<double>(graph.parameter_count()));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "onnx", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Reads ONNX models",
  "components": [{
    "name": "source/onnx", "version": "0.1.0",
    "summary": "A model from an ONNX file, with the external data beside it",
    "inputs": [],
    "outputs": [
      {"name": "model", "type": "model", "help": "the model as a graph"},
      {"name": "tokenizer", "type": "tokenizer", "help": "from tokenizer_file; empty when that is not given"}
    ],
    "parameters": [
      {"name": "path", "type": "path", "required": true, "help": "the .onnx file"},
      {"name": "data", "type": "list<path>", "default": [], "help": "files of external data that the model refers to, all of them; they lie beside it"},
      {"name": "task", "type": "string", "help": "what the model does, for later stages: causal-lm, image-classification, …"},
      {"name": "tokenizer_file", "type": "path", "help": "the model's tokenizer.json"},
      {"name": "normal_form", "type": "boolean", "default": true, "help": "write what exporters spell out (norms, attention, rotary embeddings) as the operators it stands for, in opset 23, so that heads and widths can be cut; false keeps the file's own nodes"}
    ],
    "depends": {"seed": false, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "7.5e7 + 1.9 * path.bytes + 1.02 * data.bytes",
                 "seconds": "0.02 + (path.bytes + data.bytes) / 9e8",
                 "memory_base": 1e8, "memory_per_byte": 1.5, "output_per_byte": 1.05}
  }]
})json",
                ESPALIER_COMPONENT("source/onnx", OnnxSource));
