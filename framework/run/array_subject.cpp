#include "run/array_subject.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "formats/model_artifact.h"
#include "formats/package.h"
#include "sdk/error.h"

namespace espalier {

ArraySubject::ArraySubject(Context& context, const Artifact& artifact, std::string port) : port_(std::move(port)) {
  const OpenOptions options{context.threads(), false};
  if (artifact.type == ArtifactType::model) {
    model_ = deployed_model(load_model(context, artifact), options);
  } else {
    backend_ = context.component_for(artifact);
    model_ = backend_.as<Runtime>().open_model(unpack(context, artifact), options);
  }
  if (model_->outputs().empty()) throw_invalid("the model has no output", "port " + port_);
}

at::Tensor ArraySubject::answer(const TensorMap& batch) {
  const std::vector<std::string> wanted = model_->inputs();
  std::vector<std::string> found;
  for (const auto& [name, tensor] : batch)
    if (name != "labels") found.push_back(name);
  TensorMap inputs;
  for (const std::string& name : wanted) {
    const auto at = batch.find(wanted.size() == 1 && found.size() == 1 ? found.front() : name);
    if (at == batch.end())
      throw_invalid(fmt::format("the model wants an input \"{}\", which the data does not have", name), "port " + port_,
                    fmt::format("the data has: {}", fmt::join(found, ", ")));
    inputs[name] = at->second;
  }
  at::Tensor answer = model_->run(inputs).at(model_->outputs().front());
  if (answer.is_floating_point() && !answer.isfinite().all().item<bool>())
    throw Error(ErrorCode::failed, "an answer is not a finite number", "port " + port_, "the model's weights are broken");
  return answer;
}

const Artifact* one_of_ports(Context& context, const std::string& model, const std::string& package, bool needed,
                             const std::string& who) {
  const bool one = context.has_input(model), other = context.has_input(package);
  if (one && other) throw_invalid(fmt::format("give one of {} and {}, not both", model, package), who);
  if (needed && !one && !other)
    throw_invalid(fmt::format("give exactly one of {} and {}", model, package), who,
                  fmt::format("{} = \"@stage\" or {} = \"@stage\"", model, package));
  return one ? &context.input(model) : other ? &context.input(package) : nullptr;
}

std::int64_t walked(const Context& context, const ArrayDataset& data) {
  const std::int64_t limit = context.params().integer("limit");
  return limit > 0 ? std::min(limit, data.count()) : data.count();
}

void each_batch(Context& context, const ArrayDataset& data,
                const std::function<void(const TensorMap& batch, std::int64_t held)>& each) {
  const std::int64_t count = walked(context, data), size = context.params().integer("batch");
  if (count == 0) throw_invalid("the data set is empty", "port data");
  for (std::int64_t first = 0; first < count; first += size) {
    context.check_cancelled();
    std::vector<std::int64_t> examples;
    for (std::int64_t i = 0; i < size; ++i) examples.push_back(std::min(first + i, count - 1));
    each(data.batch(examples), std::min(size, count - first));
  }
}

}  // namespace espalier
