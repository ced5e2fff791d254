/// zoo_row MODEL.onnx FOLDER: one model of the zoo through import, normal form, the runner, a training step, and a cut of 30 % of
/// every free group by magnitude. Reads FOLDER/inputs/N/NAME.npy; writes FOLDER/whole/N/K.npy (K: the output's number),
/// FOLDER/normal.onnx, FOLDER/cut.onnx and FOLDER/cut/N/K.npy, and one line of JSON: what was done, and `failed` with the step that
/// was not.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>

#include "formats/model_file.h"
#include "formats/npy.h"
#include "formats/onnx.h"
#include "graph/element_count.h"
#include "graph/passes.h"
#include "graph/surgery.h"
#include "run/session.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::vector<TensorMap> read_inputs(const fs::path& folder) {
  std::vector<TensorMap> all;
  for (int number = 0; fs::exists(folder / std::to_string(number)); ++number) {
    TensorMap inputs;
    for (const auto& file : fs::directory_iterator(folder / std::to_string(number))) {
      const MappedFile mapped(file.path());
      inputs[file.path().stem().string()] = to_aten(parse_npy(mapped.bytes(), mapped.owner(), file.path().string())).clone();
    }
    all.push_back(std::move(inputs));
  }
  if (all.empty()) throw_invalid("there are no inputs", (folder / "0").string());
  return all;
}

void write_npy(const fs::path& file, const at::Tensor& value) {
  const Tensor tensor = from_aten(value);
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << npy_header(tensor.dtype, tensor.shape);
  out.write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
  if (!out.flush()) throw Error(ErrorCode::resource, "the file cannot be written", file.string());
}

using Outputs = std::vector<std::vector<at::Tensor>>;  // by input, by number of the output

Outputs run(const Graph& graph, const std::vector<TensorMap>& inputs, DType compute = DType::f32) {
  SessionOptions options;
  options.compute = compute;
  Session session(graph, options);
  Outputs all;
  for (TensorMap input : inputs) {
    for (auto& [name, value] : input)
      if (value.is_floating_point()) value = value.to(scalar_type(compute));
    const TensorMap outputs = session.run(input);
    all.emplace_back();
    for (const Value& value : graph.outputs) all.back().push_back(outputs.at(value.name));
  }
  return all;
}

void write(const Outputs& outputs, const fs::path& folder) {
  for (std::size_t n = 0; n < outputs.size(); ++n) {
    fs::create_directories(folder / std::to_string(n));
    for (std::size_t k = 0; k < outputs[n].size(); ++k)
      write_npy(folder / std::to_string(n) / (std::to_string(k) + ".npy"), outputs[n][k]);
  }
}

/// Largest difference relative to an output's largest element.
double difference(const Outputs& a, const Outputs& b) {
  double worst = 0;
  for (std::size_t n = 0; n < a.size(); ++n)
    for (std::size_t k = 0; k < a[n].size(); ++k) {
      if (a[n][k].sizes() != b[n][k].sizes()) return std::numeric_limits<double>::infinity();
      const auto x = a[n][k].to(at::kDouble), y = b[n][k].to(at::kDouble);
      if (x.numel() == 0) continue;
      const double off = ((x - y).abs().max() / x.abs().max().clamp_min(1e-12)).item<double>();
      worst = std::max(worst, std::isfinite(off) ? off : std::numeric_limits<double>::infinity());
    }
  return worst;
}

/// One step down the gradient of the mean square of all floating outputs. States how many weights have a finite gradient that is
/// not zero, and the loss before and after.
Json training_step(const Graph& graph, const TensorMap& inputs) {
  Session session(graph);
  const auto names = session.train();
  const auto loss_of = [&] {
    at::Tensor loss;
    const TensorMap outputs = session.run(inputs);
    for (const Value& value : graph.outputs) {
      const at::Tensor& output = outputs.at(value.name);
      if (!output.is_floating_point()) continue;
      const auto square = output.square().mean();
      loss = loss.defined() ? loss + square : square;
    }
    if (!loss.defined()) throw_invalid("the model has no floating output", "outputs");
    return loss;
  };
  const auto before = loss_of();
  before.backward();
  std::int64_t reached = 0, broken = 0;
  double length = 0;
  for (const std::string& name : names) {
    const auto grad = session.parameter(name).grad();
    if (!grad.defined()) continue;
    const double square = grad.square().sum().item<double>();
    if (!std::isfinite(square)) ++broken;
    if (square > 0) ++reached;
    length += square;
  }
  {
    const at::NoGradGuard frozen;
    // As far as takes a hundredth off the loss, were it linear.
    const double rate = length > 0 ? 0.01 * before.item<double>() / length : 0;
    for (const std::string& name : names) {
      auto parameter = session.parameter(name);
      if (parameter.grad().defined()) parameter.sub_(parameter.grad(), rate);
    }
  }
  return {{"weights", names.size()},
          {"reached", reached},
          {"not_finite", broken},
          {"before", before.item<double>()},
          {"after", loss_of().item<double>()}};
}

/// Sum of squares of each unit's slices (its L2 norm, squared).
std::vector<double> magnitudes(const Graph& graph, const CoupledGroup& group) {
  std::vector<std::vector<double>> by_index;
  for (const Member& member : group.members) {
    const Tensor& tensor = graph.initializers.at(member.tensor);
    const auto axis = static_cast<std::int64_t>(member.axis);
    const auto squares = to_aten(tensor).to(at::kDouble).square().movedim(axis, 0).reshape({tensor.shape[member.axis], -1}).sum(1);
    by_index.emplace_back(squares.const_data_ptr<double>(), squares.const_data_ptr<double>() + squares.numel());
  }
  std::vector<double> scores;
  for (const auto& unit : group.units) {
    double sum = 0;
    for (const Slice& slice : unit)
      for (const std::int64_t index : slice.indices) sum += by_index[slice.member][static_cast<std::size_t>(index)];
    scores.push_back(sum);
  }
  return scores;
}

/// 30 % of each free group, rounded down to what its multiple allows, but at least that.
Removal least_of_each(const Graph& graph, const std::vector<CoupledGroup>& free) {
  Removal removal;
  for (const CoupledGroup& group : free) {
    const auto count = static_cast<std::int64_t>(group.units.size());
    const auto gone =
        std::max(static_cast<std::int64_t>(0.3 * static_cast<double>(count)) / group.multiple, std::int64_t{1}) * group.multiple;
    if (gone >= count) continue;
    const auto scores = magnitudes(graph, group);
    std::vector<std::int64_t> units(static_cast<std::size_t>(count));
    std::iota(units.begin(), units.end(), 0);
    std::stable_sort(units.begin(), units.end(),
                     [&](auto a, auto b) { return scores[static_cast<std::size_t>(a)] < scores[static_cast<std::size_t>(b)]; });
    units.resize(static_cast<std::size_t>(gone));
    std::sort(units.begin(), units.end());
    removal[group.id] = std::move(units);
  }
  return removal;
}

/// What groups there are, the reasons of those that are not free, and the free ones.
Json describe(const Graph& graph, const std::vector<CoupledGroup>& groups, std::vector<CoupledGroup>& free) {
  std::map<std::string, std::int64_t> held;
  std::int64_t heads = 0;
  for (const CoupledGroup& group : groups) {
    if (group.pinned || !group.exact) {
      ++held[(group.pinned ? "pinned: " : "inexact: ") + group.reason];
      continue;
    }
    free.push_back(group);
    heads += group.kind == CoupledGroup::Kind::heads;
  }
  const auto reached = free.empty() ? 0 : ElementCount(graph, free).total();
  return {{"free", free.size()}, {"heads", heads}, {"held", held}, {"parameters_free", reached}};
}

void row(const fs::path& model, const fs::path& folder, Json& answer, std::string& step) {
  step = "inputs";
  const auto inputs = read_inputs(folder / "inputs");
  step = "import";
  const Stopwatch importing;
  Graph graph = read_model_file(model);
  answer["nodes"] = graph.nodes.size();
  step = "normal form";
  normal_form(graph);
  answer["nodes_normal"] = graph.nodes.size();
  answer["parameters"] = graph.parameter_count();
  write_onnx(graph, folder / "normal.onnx", {.inline_below = std::uint64_t{1} << 30, .data_name = "normal.data"});
  step = "infer";
  const ValueMap values = infer(graph);
  answer["seconds_import"] = importing.seconds();
  step = "groups";
  const Stopwatch grouping;
  const auto groups = coupled_groups(graph, values, true);
  answer["seconds_groups"] = grouping.seconds();
  std::vector<CoupledGroup> free;
  answer["groups"] = describe(graph, groups, free);
  step = "run";
  const Outputs whole = run(graph, inputs);
  write(whole, folder / "whole");
  answer["ran"] = true;
  answer["rounding"] = difference(run(graph, inputs, DType::f64), whole);  // what f32 alone accounts for
  step = "training";
  answer["training"] = training_step(graph, inputs.front());
  step = "cut";
  if (free.empty()) throw_invalid("no group is free", "groups");
  const Stopwatch cutting;
  const Removal removal = least_of_each(graph, free);
  const Graph small = cut(graph, groups, removal);
  answer["seconds_cut"] = cutting.seconds();
  answer["groups"]["cut"] = removal.size();
  answer["parameters_cut"] = small.parameter_count();
  step = "mask";
  const Outputs masked = run(mask(graph, groups, removal), inputs), cut_outputs = run(small, inputs);
  answer["mask_difference"] = difference(masked, cut_outputs);
  answer["cut_changes"] = difference(whole, cut_outputs);
  write(cut_outputs, folder / "cut");
  step = "write";
  write_onnx(small, folder / "cut.onnx", {.inline_below = std::uint64_t{1} << 30, .data_name = "cut.data"});
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    fmt::print(stderr, "zoo_row MODEL.onnx FOLDER\n");
    return 2;
  }
  at::set_num_threads(1);  // models this small only lose by sharing their work out
  Json answer = Json::object();
  std::string step;
  try {
    row(arguments[1], arguments[2], answer, step);
  } catch (const std::exception& error) {
    answer["failed"] = step;
    const std::string reason = error.what();
    answer["reason"] = reason.substr(0, reason.find('\n'));
  }
  fmt::print("{}\n", answer.dump(-1, ' ', false, Json::error_handler_t::replace));
  return answer.contains("failed") ? 1 : 0;
}
