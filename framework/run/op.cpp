#include "run/op.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "run/tensor.h"
#include "sdk/error.h"

namespace espalier {
namespace {

using Table = std::map<std::pair<std::string, std::string>, RunFunction, std::less<>>;
Table& table() {
  static Table entries;
  return entries;
}

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

void RunView::fail(std::string message) const {
  throw_invalid(std::move(message), fmt::format("node {} ({})", node.name, node.op));
}

RegisterRun::RegisterRun(const char* domain, const char* op, RunFunction run) { table()[{domain, op}] = run; }

RunFunction find_run(std::string_view domain, std::string_view op) {
  if (domain == "ai.onnx") domain = "";
  const auto found = table().find(std::pair<std::string, std::string>(domain, op));
  return found == table().end() ? nullptr : found->second;
}

}  // namespace espalier
