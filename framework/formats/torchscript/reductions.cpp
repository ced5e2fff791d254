/// Functions over whole axes.
#include <algorithm>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

/// Nothing: all axes.
std::optional<Integers> axes_of(const Call& c, std::size_t rank) {
  if (!c.given("dim")) return std::nullopt;
  Integers axes;
  for (std::int64_t axis : c.integers("dim")) axes.push_back(static_cast<std::int64_t>(c.wrapped(axis, rank)));
  return axes.empty() ? std::nullopt : std::optional(axes);
}

std::string reduced(const Call& c, const char* op, const std::string& x, const std::optional<Integers>& axes, bool keeps) {
  std::vector<std::string> inputs{x};
  if (axes) inputs.push_back(c.list(*axes));
  return c.add(op, std::move(inputs), {{"keepdims", std::int64_t{keeps}}});
}

std::string source(const Call& c, bool widens) {
  const std::string x = c.tensor("self");
  if (const auto type = c.find("dtype") ? c.type("dtype") : std::nullopt) return c.cast(x, *type);
  return widens && !is_floating(c.dtype(x)) ? c.cast(x, DType::i64) : x;
}

template <int which>
Item reduce(Call& c) {
  static constexpr const char* kOps[] = {"ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"};
  const std::string x = source(c, which == 0 || which == 2);
  if (c.rank(x) == 0) return Item::of_tensor(x);
  return Item::of_tensor(reduced(c, kOps[which], x, axes_of(c, c.rank(x)), c.flag_or("keepdim", false)));
}

/// max and min: of all elements, along an axis with places, or of two tensors.
template <int most>
Item extreme(Call& c) {
  static constexpr const char* kValues = most ? "ReduceMax" : "ReduceMin";
  if (c.find("other")) {
    const auto [a, b] = c.promoted(c.item("self"), c.item("other"));
    return Item::of_tensor(c.add(most ? "Max" : "Min", {a, b}));
  }
  const std::string x = c.tensor("self");
  if (!c.given("dim")) return Item::of_tensor(reduced(c, kValues, x, std::nullopt, false));
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  const bool keeps = c.flag("keepdim");
  return Item::of_tensors({reduced(c, kValues, x, Integers{axis}, keeps),
                           c.add(most ? "ArgMax" : "ArgMin", {x}, {{"axis", axis}, {"keepdims", std::int64_t{keeps}}})});
}

template <int most>
Item place(Call& c) {
  std::string x = c.tensor("self");
  if (c.dtype(x) == DType::boolean) x = c.cast(x, DType::i64);
  if (!c.given("dim")) {
    const std::string flat = c.add("Reshape", {x, c.list({-1})});
    return Item::of_tensor(c.add(most ? "ArgMax" : "ArgMin", {flat}, {{"axis", std::int64_t{0}}, {"keepdims", std::int64_t{0}}}));
  }
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  return Item::of_tensor(c.add(most ? "ArgMax" : "ArgMin", {x}, {{"axis", axis}, {"keepdims", std::int64_t{c.flag("keepdim")}}}));
}

/// any and all, by the largest and the smallest of 0 and 1.
template <int any>
Item decided(Call& c) {
  const std::string x = c.cast(c.cast(c.tensor("self"), DType::boolean), DType::i64);
  const std::string y = reduced(c, any ? "ReduceMax" : "ReduceMin", x, axes_of(c, c.rank(x)), c.flag_or("keepdim", false));
  return Item::of_tensor(c.cast(y, DType::boolean));
}

template <int logarithm>
Item softmax(Call& c) {
  std::string x = source(c, false);
  if (c.operation.kind == "aten::_softmax" && c.flag("half_to_float")) x = c.cast(x, DType::f32);
  const auto axis = static_cast<std::int64_t>(c.axis("dim", c.rank(x)));
  return Item::of_tensor(c.add(logarithm ? "LogSoftmax" : "Softmax", {x}, {{"axis", axis}}));
}

/// Mean of squares around the mean; `correction` as in Bessel's.
std::string variance(const Call& c) {
  const std::string x = c.tensor("self");
  const auto axes = axes_of(c, c.rank(x));
  double correction = 1;
  if (c.find("correction")) correction = c.given("correction") ? c.number("correction") : 1;
  if (c.find("unbiased")) correction = c.flag("unbiased") ? 1 : 0;
  const std::string off = c.add("Sub", {x, reduced(c, "ReduceMean", x, axes, true)}), squares = c.add("Mul", {off, off});
  const std::string mean = reduced(c, "ReduceMean", squares, axes, c.flag_or("keepdim", false));
  if (correction == 0) return mean;
  double count = 1;
  for (std::size_t i = 0; i < c.rank(x); ++i) {
    const bool counts = !axes || std::find(axes->begin(), axes->end(), static_cast<std::int64_t>(i)) != axes->end();
    if (!counts) continue;
    if (!c.shape(x)[i].known()) c.refuse("an unbiased variance over an axis of free length");
    count *= static_cast<double>(c.shape(x)[i].constant());
  }
  return c.add("Mul", {mean, c.scalar(count / (count - correction), c.dtype(x))});
}

Item norm(Call& c) {
  const std::string x = c.tensor("self");
  const char* order = c.find("ord") ? "ord" : "p";
  const double p = c.number_or(order, 2);
  if (p != 1 && p != 2) c.refuse("a norm of another order than 1 and 2");
  return Item::of_tensor(reduced(c, p == 1 ? "ReduceL1" : "ReduceL2", x, axes_of(c, c.rank(x)), c.flag_or("keepdim", false)));
}

Item cumsum(Call& c) {
  const std::string x = source(c, true);
  const std::string axis =
      c.constant(Tensor::of<std::int64_t>(DType::i64, {}, {static_cast<std::int64_t>(c.axis("dim", c.rank(x)))}), "number");
  return Item::of_tensor(c.add("CumSum", {x, axis}));
}

Item logsumexp(Call& c) {
  const std::string x = c.tensor("self");
  return Item::of_tensor(reduced(c, "ReduceLogSumExp", x, axes_of(c, c.rank(x)), c.flag_or("keepdim", false)));
}

const RegisterRule rules[] = {
    {{"aten::sum"}, reduce<0>},
    {{"aten::mean"}, reduce<1>},
    {{"aten::prod"}, reduce<2>},
    {{"aten::amax"}, reduce<3>},
    {{"aten::amin"}, reduce<4>},
    {{"aten::max"}, extreme<1>},
    {{"aten::min"}, extreme<0>},
    {{"aten::argmax"}, place<1>},
    {{"aten::argmin"}, place<0>},
    {{"aten::any"}, decided<1>},
    {{"aten::all"}, decided<0>},
    {{"aten::softmax", "aten::_softmax"}, softmax<0>},
    {{"aten::log_softmax", "aten::_log_softmax"}, softmax<1>},
    {{"aten::var"}, [](Call& c) { return Item::of_tensor(variance(c)); }},
    {{"aten::std"}, [](Call& c) { return Item::of_tensor(c.add("Sqrt", {variance(c)})); }},
    {{"aten::norm", "aten::linalg_vector_norm", "aten::linalg_norm", "aten::frobenius_norm"}, norm},
    {{"aten::cumsum"}, cumsum},
    {{"aten::logsumexp"}, logsumexp},
};

}  // namespace
}  // namespace espalier::torchscript
