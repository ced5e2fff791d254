#include "run/op.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "run/tensor.h"
#include "sdk/error.h"

namespace espalier {
namespace {

template <class Function>
using Table = std::map<std::pair<std::string, std::string>, Function, std::less<>>;

template <class Function>
Table<Function>& table() {
  static Table<Function> entries;
  return entries;
}

template <class Function>
Function find(std::string_view domain, std::string_view op) {
  if (domain == "ai.onnx") domain = "";
  const auto found = table<Function>().find(std::pair<std::string, std::string>(domain, op));
  return found == table<Function>().end() ? nullptr : found->second;
}

std::string label(const Node& node) { return fmt::format("node {} ({})", node.name, node.op); }

}  // namespace

const at::Tensor& RunView::in(std::size_t i) const {
  if (!has(i)) fail(fmt::format("input {} is missing", i));
  return inputs[i];
}

bool RunView::has(std::size_t i) const { return i < inputs.size() && inputs[i].defined(); }

std::vector<std::int64_t> RunView::integers(std::size_t i) const {
  const at::Tensor& tensor = in(i);
  if (tensor.dim() > 1) fail(fmt::format("input {} has rank {}, but a list of integers has rank 0 or 1", i, tensor.dim()));
  if (!c10::isIntegralType(tensor.scalar_type(), true))
    fail(fmt::format("input {} holds {}, expected integers", i, c10::toString(tensor.scalar_type())));
  const at::Tensor wide = tensor.to(at::kLong).contiguous();
  const auto* data = wide.const_data_ptr<std::int64_t>();
  return {data, data + wide.numel()};
}

std::int64_t RunView::wrap(std::int64_t axis, std::int64_t rank) const {
  if (axis < -rank || axis >= rank) fail(fmt::format("axis {} is outside a tensor of rank {}", axis, rank));
  return axis < 0 ? axis + rank : axis;
}

std::vector<std::int64_t> RunView::wrap(std::vector<std::int64_t> axes, std::int64_t rank) const {
  std::vector<bool> seen(static_cast<std::size_t>(rank), false);
  for (std::int64_t& axis : axes) {
    axis = wrap(axis, rank);
    if (seen[static_cast<std::size_t>(axis)]) fail(fmt::format("axis {} is given twice", axis));
    seen[static_cast<std::size_t>(axis)] = true;
  }
  return axes;
}

std::int64_t RunView::axis(std::string_view attribute, std::int64_t fallback, std::int64_t rank) const {
  return wrap(node.integer(attribute, fallback), rank);
}

c10::ScalarType RunView::computed(DType type) const { return is_floating(type) ? compute : scalar_type(type); }

void RunView::fail(std::string message) const { throw_invalid(std::move(message), label(node)); }
void RunView::refuse(std::string message) const { throw_unsupported(std::move(message), label(node)); }

RegisterRun::RegisterRun(const char* domain, const char* op, RunFunction run) { table<RunFunction>()[{domain, op}] = run; }
RunFunction find_run(std::string_view domain, std::string_view op) { return find<RunFunction>(domain, op); }

const at::Tensor& ValuesView::tensor(std::size_t i) const {
  if (!has(i)) fail(fmt::format("input {} is missing", i));
  if (!inputs[i].tensor.defined()) fail(fmt::format("input {} is a sequence, expected a tensor", i));
  return inputs[i].tensor;
}

const std::vector<at::Tensor>& ValuesView::sequence(std::size_t i) const {
  if (!has(i)) fail(fmt::format("input {} is missing", i));
  if (!inputs[i].sequence) fail(fmt::format("input {} is a tensor, expected a sequence", i));
  return *inputs[i].sequence;
}

std::int64_t ValuesView::integer(std::size_t i) const {
  const at::Tensor& value = tensor(i);
  if (value.numel() != 1 || !c10::isIntegralType(value.scalar_type(), true))
    fail(fmt::format("input {} holds {} elements of {}, expected one integer", i, value.numel(),
                     c10::toString(value.scalar_type())));
  return value.item().toLong();
}

std::vector<RunValue> ValuesView::run(std::string_view body, const std::vector<RunValue>& given) const {
  const auto found = bodies.find(body);
  if (found == bodies.end()) fail(fmt::format("attribute `{}` is missing", body));
  if (given.size() != found->second->inputs())
    fail(fmt::format("`{}` has {} inputs and is given {} values", body, found->second->inputs(), given.size()));
  return found->second->run(given, captured);
}

std::size_t ValuesView::body_inputs(std::string_view body) const {
  const auto found = bodies.find(body);
  if (found == bodies.end()) fail(fmt::format("attribute `{}` is missing", body));
  return found->second->inputs();
}

void ValuesView::fail(std::string message) const { throw_invalid(std::move(message), label(node)); }
void ValuesView::refuse(std::string message) const { throw_unsupported(std::move(message), label(node)); }

RegisterValuesRun::RegisterValuesRun(const char* domain, const char* op, ValuesFunction run) {
  table<ValuesFunction>()[{domain, op}] = run;
}
ValuesFunction find_values_run(std::string_view domain, std::string_view op) { return find<ValuesFunction>(domain, op); }

}  // namespace espalier
