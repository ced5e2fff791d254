#include "run/op.h"

#include <fmt/format.h>

#include <map>
#include <utility>

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
