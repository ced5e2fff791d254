#include "run/arrays.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cstring>

#include "formats/bounds.h"
#include "sdk/error.h"

namespace espalier {
namespace {

const RegisterDataset kind{"arrays", [](const Context& context, const Artifact& artifact) -> std::unique_ptr<Dataset> {
                             return std::make_unique<ArrayDataset>(context, artifact);
                           }};

Tensor array_of(const Context& context, const Artifact& artifact, const std::string& name, const Json& entry,
                const std::string& where) {
  const auto dtype = dtype_from(entry.at("dtype").get<std::string>());
  const auto blob = artifact.blobs.find(entry.at("blob").get<std::string>());
  if (!dtype || bits(*dtype) < 8) throw_invalid(fmt::format("array \"{}\" is of no type that is known", name), where);
  if (blob == artifact.blobs.end()) throw_invalid(fmt::format("array \"{}\" has no bytes", name), where);
  const MappedFile file = context.map(blob->second);
  return checked_tensor(*dtype, entry.at("shape").get<std::vector<std::int64_t>>(), file.bytes(), file.owner(),
                        fmt::format("array \"{}\"", name), where);
}

}  // namespace

ArrayDataset::ArrayDataset(const Context& context, const Artifact& artifact) {
  const std::string where = "data set " + artifact.digest().hex();
  if (artifact.type != ArtifactType::dataset || artifact.meta.value("kind", "") != "arrays")
    throw_invalid("expected a data set of arrays", where, "make one with source/arrays");
  try {
    count_ = artifact.meta.at("count").get<std::int64_t>();
    for (const auto& [name, entry] : artifact.meta.at("arrays").items()) {
      Tensor tensor = array_of(context, artifact, name, entry, where);
      if (tensor.shape.empty() || tensor.shape[0] != count_)
        throw_invalid(fmt::format("array \"{}\" does not hold {} examples", name, count_), where);
      arrays_.emplace(name, std::move(tensor));
    }
    if (artifact.meta.contains("classes")) classes_ = artifact.meta.at("classes").get<std::vector<std::string>>();
  } catch (const Json::exception& error) {
    throw_invalid(std::string("the data set's description is damaged: ") + error.what(), where);
  }
}

TensorMap ArrayDataset::batch(const std::vector<std::int64_t>& examples) const {
  for (const std::int64_t example : examples)
    if (example < 0 || example >= count_) throw_invalid(fmt::format("example {} of a data set with {}", example, count_));
  TensorMap batch;
  for (const auto& [name, array] : arrays_) {
    std::vector<std::int64_t> shape = array.shape;
    shape[0] = static_cast<std::int64_t>(examples.size());
    at::Tensor rows = at::empty(shape, at::TensorOptions().dtype(scalar_type(array.dtype)));
    const std::size_t size = count_ == 0 ? 0 : array.bytes.size() / static_cast<std::size_t>(count_);
    auto* to = static_cast<std::byte*>(rows.mutable_data_ptr());
    for (const std::int64_t example : examples) {
      if (size > 0) std::memcpy(to, array.bytes.data() + static_cast<std::size_t>(example) * size, size);
      to += size;
    }
    const bool classes = name == "labels" && !is_floating(array.dtype);
    batch[name] = classes ? rows.to(at::kLong) : rows;
  }
  return batch;
}

Artifact save_arrays(Context& context, const std::map<std::string, Tensor>& arrays, const std::vector<std::string>& classes) {
  Artifact data;
  data.type = ArtifactType::dataset;
  std::int64_t count = -1;
  Json description = Json::object();
  for (const auto& [name, tensor] : arrays) {
    if (tensor.shape.empty()) throw_invalid(fmt::format("array \"{}\" has no axis of examples", name));
    if (count >= 0 && tensor.shape[0] != count)
      throw_invalid(fmt::format("array \"{}\" holds {} examples, \"{}\" {}", arrays.begin()->first, count, name, tensor.shape[0]),
                    {}, "every array needs one row an example, labels too");
    count = tensor.shape[0];
    const std::string blob = "arrays/" + escaped_name(name);
    description[name] = {{"dtype", to_string(tensor.dtype)}, {"shape", tensor.shape}, {"blob", blob}};
    data.blobs[blob] = context.put(tensor.bytes);
  }
  data.meta = {{"kind", "arrays"}, {"count", std::max<std::int64_t>(count, 0)}, {"arrays", description}};
  if (!classes.empty()) data.meta["classes"] = classes;
  return data;
}

}  // namespace espalier
