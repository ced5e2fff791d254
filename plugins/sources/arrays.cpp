// Arrays and images as a data set for models that do not read text.
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/round.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "formats/images.h"
#include "formats/npy.h"
#include "run/arrays.h"
#include "sdk/plugin.h"

namespace fs = std::filesystem;
using namespace espalier;

namespace {

using Arrays = std::vector<std::pair<std::string, Tensor>>;

/// The arrays of one .npy (named by its stem) or .npz file.
Arrays read_arrays(const fs::path& path) {
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (text.starts_with("PK")) return parse_npz(file.bytes(), file.owner(), path.string());
  return {{path.stem().string(), parse_npy(file.bytes(), file.owner(), path.string())}};
}

/// What is inside a folder, by name: hidden files left out.
std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (!entry.path().filename().string().starts_with(".")) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

/// A folder of images: one folder a class, their names in order being classes 0, 1, …
struct Folder {
  std::vector<fs::path> files;
  std::vector<std::int64_t> labels;
  std::vector<std::string> classes;
};

Folder list_images(const fs::path& path) {
  Folder folder;
  for (const fs::path& inner : entries(path)) {
    if (!fs::is_directory(inner))
      throw_invalid(fmt::format("\"{}\" lies beside the classes", inner.filename().string()), path.string(),
                    "an image folder holds one folder a class, and those the images");
    folder.classes.push_back(inner.filename().string());
    for (const fs::path& file : entries(inner)) {
      folder.files.push_back(file);
      folder.labels.push_back(static_cast<std::int64_t>(folder.classes.size()) - 1);
    }
  }
  if (folder.files.empty())
    throw_invalid("the folder holds no images", path.string(), "an image folder holds one folder a class, and those the images");
  return folder;
}

at::Tensor pixels(const Image& image) {
  at::Tensor rows = at::empty({image.height, image.width, image.channels}, at::TensorOptions().dtype(at::kByte));
  std::copy(image.samples.begin(), image.samples.end(), rows.mutable_data_ptr<std::uint8_t>());
  return rows.permute({2, 0, 1}).unsqueeze(0);
}

class ArraySource final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    std::vector<std::string> classes = params.texts("classes");
    std::map<std::string, Tensor> arrays = gather(context, params, classes);
    if (params.has("labels")) {
      if (arrays.contains("labels"))
        throw_invalid("the files hold labels of their own", "parameter labels", "leave the parameter out");
      arrays["labels"] = labels_of(params.path("labels"));
    }
    check_lengths(arrays);
    for (auto& [name, tensor] : arrays)
      if (name != "labels") tensor = prepared(tensor, name, params);
    if (const auto found = arrays.find("labels"); found != arrays.end())
      found->second = targets(found->second, params.text("targets"), classes);
    select(context, params, arrays);
    Artifact data = save_arrays(context, arrays, classes);
    report(context, arrays, classes);
    context.output("data", std::move(data));
  }

 private:
  static std::map<std::string, Tensor> gather(Context& context, const Params& params, std::vector<std::string>& classes) {
    const auto files = params.paths("files");
    if (files.empty()) throw_invalid("no files are given", "parameter files");
    Arrays all;
    for (const fs::path& path : files) {
      context.check_cancelled();
      for (auto& array : fs::is_directory(path) ? images(context, params, path, classes) : read_arrays(path))
        all.push_back(std::move(array));
    }
    rename(params.texts("names"), all);
    std::map<std::string, Tensor> arrays;
    for (auto& [name, tensor] : all)
      if (!arrays.emplace(name, std::move(tensor)).second)
        throw_invalid(fmt::format("two arrays are called \"{}\"", name), "parameter files", "tell them apart with names = […]");
    if (arrays.size() == arrays.count("labels"))
      throw_invalid("there is nothing but labels", "parameter files", "give what the model reads, too");
    return arrays;
  }

  static void rename(const std::vector<std::string>& names, Arrays& arrays) {
    if (names.empty()) return;
    std::vector<std::string> found;
    std::vector<std::string*> inputs;
    for (auto& [name, tensor] : arrays) {
      if (name == "labels") continue;
      found.push_back(name);
      inputs.push_back(&name);
    }
    if (names.size() != found.size())
      throw_invalid(fmt::format("{} names for {} arrays: {}", names.size(), found.size(), fmt::join(found, ", ")),
                    "parameter names", "give one name an array, in this order");
    for (std::size_t i = 0; i < names.size(); ++i) *inputs[i] = names[i];
  }

  static Tensor labels_of(const fs::path& path) {
    Arrays arrays = read_arrays(path);
    const auto named = std::find_if(arrays.begin(), arrays.end(), [](const auto& array) { return array.first == "labels"; });
    if (named != arrays.end()) return named->second;
    if (arrays.size() == 1) return arrays.front().second;
    throw_invalid(fmt::format("the file holds {} arrays, none called labels", arrays.size()), path.string());
  }

  static void check_lengths(const std::map<std::string, Tensor>& arrays) {
    const auto& [first, tensor] = *arrays.begin();
    for (const auto& [name, other] : arrays) {
      if (other.shape.empty())
        throw_invalid(fmt::format("array \"{}\" is a single number", name), "parameter files", "the first axis counts examples");
      if (!tensor.shape.empty() && other.shape[0] != tensor.shape[0])
        throw_invalid(fmt::format("array \"{}\" holds {} examples, \"{}\" {}", first, tensor.shape[0], name, other.shape[0]),
                      "parameter files", "the first axis counts examples; every array needs as many, labels too");
    }
  }

  static Arrays images(Context& context, const Params& params, const fs::path& path, std::vector<std::string>& classes) {
    const Folder folder = list_images(path);
    if (!classes.empty() && classes != folder.classes)
      throw_invalid(fmt::format("the folder's classes are {}", fmt::join(folder.classes, ", ")), "parameter classes",
                    "leave the parameter out: folders name the classes");
    classes = folder.classes;
    const auto size = size_of(params);
    const std::int64_t channels = params.text("colour") == "grey" ? 1 : 3;
    std::vector<std::int64_t> shape;
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < folder.files.size(); ++i) {
      context.check_cancelled();
      const MappedFile file(folder.files[i]);
      const Image image = with_channels(parse_image(file.bytes(), folder.files[i].string()), channels);
      at::Tensor rows = pixels(image);
      if (size.empty() && !shape.empty() && (image.height != shape[2] || image.width != shape[3]))
        throw_invalid(fmt::format("an image of {} × {} after ones of {} × {}", image.height, image.width, shape[2], shape[3]),
                      folder.files[i].string(), "give size = [height, width] to bring all to one");
      if (!size.empty() && (image.height != size[0] || image.width != size[1]))
        rows = at::_upsample_bilinear2d_aa(rows.to(at::kFloat), size, false).round().clamp(0, 255).to(at::kByte);
      rows = rows.contiguous();
      shape = {static_cast<std::int64_t>(folder.files.size()), channels, rows.size(2), rows.size(3)};
      const auto* from = static_cast<const std::byte*>(rows.const_data_ptr());
      bytes.insert(bytes.end(), from, from + rows.numel());
      context.progress({i + 1, folder.files.size(), "reading images", {}});
    }
    const auto count = static_cast<std::int64_t>(folder.labels.size());
    return {{"image", Tensor::own(DType::u8, shape, std::move(bytes))}, {"labels", Tensor::of(DType::i64, {count}, folder.labels)}};
  }

  static std::vector<std::int64_t> size_of(const Params& params) {
    const auto size = params.json().at("size").get<std::vector<std::int64_t>>();
    if (!size.empty() && size.size() != 2)
      throw_invalid(fmt::format("size has {} numbers", size.size()), "parameter size", "size = [height, width]");
    return size;
  }

  /// (x · scale - mean) / std as f32, mean and std for each channel (axis 1); arrays that nothing is said about stay as they are.
  static Tensor prepared(const Tensor& tensor, const std::string& name, const Params& params) {
    const auto mean = params.json().at("mean").get<std::vector<double>>(), std = params.json().at("std").get<std::vector<double>>();
    const bool bytes = tensor.dtype == DType::u8 && tensor.shape.size() == 4;
    const double scale = params.has("scale") ? params.number("scale") : bytes ? 1.0 / 255 : 1.0;
    const bool keep = mean.empty() && std.empty() && scale == 1 && !params.flag("float32");
    if (keep) return tensor;
    at::Tensor values = to_aten(tensor).to(at::kFloat).mul(scale);
    const auto channels = [&](const std::vector<double>& numbers, const char* parameter) {
      const bool fits = numbers.size() == 1 || (values.dim() >= 2 && static_cast<std::int64_t>(numbers.size()) == values.size(1));
      if (!fits)
        throw_invalid(fmt::format("{} numbers for array \"{}\" of shape [{}]", numbers.size(), name, fmt::join(tensor.shape, ", ")),
                      std::string("parameter ") + parameter, "give one for all, or one a channel (axis 1)");
      std::vector<std::int64_t> shape(static_cast<std::size_t>(values.dim()), 1);
      if (numbers.size() > 1) shape[1] = values.size(1);
      at::Tensor each = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
      std::transform(numbers.begin(), numbers.end(), each.mutable_data_ptr<float>(),
                     [](double v) { return static_cast<float>(v); });
      return each;
    };
    if (!mean.empty()) values = values.sub(channels(mean, "mean"));
    if (!std.empty()) {
      if (std::any_of(std.begin(), std.end(), [](double v) { return v == 0; }))
        throw_invalid("a standard deviation of 0", "parameter std", "divide by something else");
      values = values.div(channels(std, "std"));
    }
    return from_aten(values.contiguous());
  }

  static Tensor targets(const Tensor& labels, const std::string& kind, const std::vector<std::string>& classes) {
    const bool floating = is_floating(labels.dtype);
    if (kind == "values" || (kind == "auto" && floating)) {
      if (!classes.empty()) throw_invalid("classes are named, but the labels are values", "parameter targets");
      return from_aten(to_aten(labels).to(at::kFloat).contiguous());
    }
    const at::Tensor wide = to_aten(labels);
    const at::Tensor numbers = wide.to(at::kLong).contiguous();
    if (floating && !numbers.to(at::kDouble).equal(wide.to(at::kDouble)))
      throw_invalid("labels that are no whole numbers cannot be classes", "parameter targets", "targets = \"values\"");
    const bool any = numbers.numel() > 0;
    const std::int64_t low = any ? numbers.min().item<std::int64_t>() : 0, high = any ? numbers.max().item<std::int64_t>() : 0;
    if (low < 0) throw_invalid(fmt::format("a label is {}", low), "parameter labels", "classes count from 0");
    if (!classes.empty() && high >= static_cast<std::int64_t>(classes.size()))
      throw_invalid(fmt::format("a label is {}, but only {} classes are named", high, classes.size()), "parameter classes");
    return from_aten(numbers);
  }

  /// Keeps the examples of the part.
  static void select(Context& context, const Params& params, std::map<std::string, Tensor>& arrays) {
    const std::int64_t count = arrays.begin()->second.shape.at(0);
    const std::string part = params.text("part");
    std::vector<std::int64_t> kept = examples_of_part(count, part, params.number("share"), context.seed());
    if (const auto limit = params.integer("limit"); limit > 0 && limit < static_cast<std::int64_t>(kept.size()))
      kept.resize(static_cast<std::size_t>(limit));
    if (kept.empty())
      throw_invalid(fmt::format("there are {} examples, none of them in part \"{}\"", count, part), "parameter files",
                    "give more examples or another share");
    if (static_cast<std::int64_t>(kept.size()) == count) return;
    for (auto& [name, tensor] : arrays) {
      const std::size_t size = tensor.bytes.size() / static_cast<std::size_t>(count);
      std::vector<std::byte> bytes;
      bytes.reserve(size * kept.size());
      for (const std::int64_t example : kept) {
        const auto row = tensor.bytes.subspan(static_cast<std::size_t>(example) * size, size);
        bytes.insert(bytes.end(), row.begin(), row.end());
      }
      auto shape = tensor.shape;
      shape[0] = static_cast<std::int64_t>(kept.size());
      tensor = Tensor::own(tensor.dtype, std::move(shape), std::move(bytes));
    }
  }

  static void report(Context& context, const std::map<std::string, Tensor>& arrays, const std::vector<std::string>& classes) {
    Json rows = Json::array();
    for (const auto& [name, tensor] : arrays) rows.push_back({name, to_string(tensor.dtype), fmt::format("{}", tensor.shape)});
    context.detail("arrays", {{"columns", {"array", "type", "shape"}}, {"rows", rows}});
    context.figure("examples", static_cast<double>(arrays.begin()->second.shape[0]));
    const auto labels = arrays.find("labels");
    if (labels == arrays.end() || labels->second.dtype != DType::i64) return;
    std::map<std::int64_t, std::int64_t> counts;
    for (const std::int64_t label : labels->second.as<std::int64_t>()) ++counts[label];
    Json table = Json::array();
    std::int64_t most = 0;
    for (const auto& [label, count] : counts) {
      const auto at = static_cast<std::size_t>(label);
      table.push_back({at < classes.size() ? Json(classes[at]) : Json(label), count});
      most = std::max(most, count);
    }
    context.figure("classes", static_cast<double>(std::max<std::size_t>(classes.size(), counts.size())));
    context.figure("largest_class_share", static_cast<double>(most) / static_cast<double>(labels->second.count()));
    context.detail("classes", {{"columns", {"class", "examples"}}, {"rows", table}});
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "arrays", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Makes data sets from arrays and images",
  "components": [{
    "name": "source/arrays", "version": "0.1.0",
    "summary": "Arrays (.npy, .npz) or folders of images as examples with labels, whole or split into two parts",
    "inputs": [],
    "outputs": [
      {"name": "data", "type": "dataset", "help": "examples by input name, and their labels (kind \"arrays\")"}
    ],
    "parameters": [
      {"name": "files", "type": "list<path>", "required": true, "help": ".npy files, .npz files (an array \"labels\" is the labels), or folders with one folder of PNG, PGM or PPM images a class; the first axis counts examples"},
      {"name": "names", "type": "list<string>", "default": [], "help": "the model's inputs that the arrays are for, in their order; left out: file names without ending, names within .npz, \"image\". A model with one input takes the only array whatever it is called"},
      {"name": "labels", "type": "path", "help": "labels as .npy or .npz: whole numbers are classes, others values"},
      {"name": "targets", "type": "string", "default": "auto", "choices": ["auto", "classes", "values"], "help": "what labels are: by their type, or as said here (whole numbers as values for a regression)"},
      {"name": "classes", "type": "list<string>", "default": [], "help": "names of classes 0, 1, …; an image folder has its own"},
      {"name": "size", "type": "list<integer>", "default": [], "min": 1, "max": 16384, "unit": "pixels", "help": "[height, width] that images are resized to (bilinear, antialiased)"},
      {"name": "colour", "type": "string", "default": "rgb", "choices": ["rgb", "grey"], "help": "channels of images: 3 or 1"},
      {"name": "scale", "type": "number", "help": "factor of every element; left out: 1/255 for bytes of shape [examples, channels, height, width], else 1"},
      {"name": "mean", "type": "list<number>", "default": [], "help": "subtracted after scaling: one number, or one a channel"},
      {"name": "std", "type": "list<number>", "default": [], "help": "divided by after that: one number, or one a channel"},
      {"name": "float32", "type": "boolean", "default": false, "help": "store inputs as f32 whatever their type; scaling does so anyway"},
      {"name": "part", "type": "string", "default": "all", "choices": ["all", "train", "heldout"], "help": "which examples: all, or one side of the split that share and seed make"},
      {"name": "share", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of the examples that the split holds out"},
      {"name": "limit", "type": "integer", "default": 0, "min": 0, "unit": "examples", "help": "keep only the first examples of the part; 0: all"}
    ],
    "depends": {"seed": true, "threads": false, "runtimes": ["torch"]},
    "estimate": {"memory": "7.8e7 + files.bytes + 4 * files.elements * (if(mean.count + std.count + scale + float32, 1, min(1, max(0, 4 * files.elements / files.bytes - 1.1))) + max(if(mean.count + std.count + scale + float32, 1, min(1, max(0, 4 * files.elements / files.bytes - 1.1))), if(part == \"all\", 0, 1)))",
                 "seconds": "0.02 + 4 * files.elements / 4e8",
                 "memory_base": 4e8, "memory_per_byte": 10, "output_per_byte": 4}
  }]
})json",
                ESPALIER_COMPONENT("source/arrays", ArraySource));
