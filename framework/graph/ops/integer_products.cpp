/// Products of integer codes: ConvInteger and MatMulInteger give 32-bit sums, QLinearConv and QLinearMatMul round them to codes
/// again. A code stands for (code - zero point) · scale.
#include "graph/ops/convolved.h"

namespace espalier {
namespace {

using namespace ops;

void check_codes(const NodeView& view, std::size_t slot) {
  const DType type = view.in(slot).dtype;
  if (is_floating(type) && bits(type) == 8) view.refuse("codes of type " + std::string(to_string(type)) + " are not supported");
  if (type != DType::undefined && type != DType::u8 && type != DType::i8)
    view.fail("input " + std::to_string(slot) + " is of type " + std::string(to_string(type)) + ", 8-bit codes are needed");
}

/// One number for all.
void check_single(const NodeView& view, std::size_t slot, const char* what) {
  const auto count = element_count(view.in(slot).shape);
  if (view.in(slot).shape.size() > 1 || (count && *count != 1))
    view.fail(std::string(what) + " of shape " + text(view.in(slot).shape) + " is no single number");
}

/// One number for all, or one for each filter.
void check_filters(const NodeView& view, std::size_t slot, const Dim& filters) {
  const Shape& shape = view.in(slot).shape;
  if (shape.empty() || (shape.size() == 1 && shape[0] == Dim(1))) return;
  check_rank(view, slot, 1);
  check_equal(view, shape[0], filters, "input " + std::to_string(slot) + " against the filters");
}

/// One number for all, one for each row of a (column of b): [rows], or with the matrices' rank and 1 where it does not change.
void check_lines(const NodeView& view, std::size_t slot, std::size_t matrix, bool rows) {
  const Shape &shape = view.in(slot).shape, &m = view.in(matrix).shape;
  if (shape.empty() || (shape.size() == 1 && shape[0] == Dim(1))) return;
  const std::string what = "input " + std::to_string(slot) + " of shape " + text(shape) + " against " + text(m);
  if (m.size() < 2) view.refuse("numbers for each row of a vector are not supported");
  const std::size_t varies = rows ? m.size() - 2 : m.size() - 1, fixed = rows ? m.size() - 1 : m.size() - 2;
  if (shape.size() == 1) {
    check_equal(view, shape[0], m[varies], what);
    return;
  }
  if (shape.size() != m.size()) view.fail(what);
  for (std::size_t i = 0; i < m.size(); ++i)
    if (shape[i] != Dim(1)) check_equal(view, shape[i], i == fixed ? Dim(1) : m[i], what);
}

/// Shape of the product of inputs a and b as NumPy's matmul makes it.
Shape multiplied(const NodeView& view, std::size_t left, std::size_t right) {
  Shape a = view.in(left).shape, b = view.in(right).shape;
  if (a.empty() || b.empty()) view.fail("a factor is a single number");
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), Dim(1));
  if (column) b.emplace_back(1);
  check_equal(view, a.back(), b[b.size() - 2], "inner lengths");
  Shape out = broadcast(view, Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
  if (!row) out.push_back(a[a.size() - 2]);
  if (!column) out.push_back(b.back());
  return out;
}

std::vector<ValueInfo> infer_conv_integer(const NodeView& view) {
  for (std::size_t slot : {0u, 1u}) check_codes(view, slot);
  same_types(view, {0, 2});
  same_types(view, {1, 3});
  Shape out = convolved(view, 1, 4);
  if (view.has(2)) check_single(view, 2, "the zero point");
  if (view.has(3)) check_filters(view, 3, view.in(1).shape[0]);
  return {value(DType::i32, std::move(out))};
}

std::vector<ValueInfo> infer_matmul_integer(const NodeView& view) {
  for (std::size_t slot : {0u, 1u}) check_codes(view, slot);
  same_types(view, {0, 2});
  same_types(view, {1, 3});
  if (view.has(2)) check_lines(view, 2, 0, true);
  if (view.has(3)) check_lines(view, 3, 1, false);
  return {value(DType::i32, multiplied(view, 0, 1))};
}

/// x, its scale and zero point; w, its scales and zero points; the output's scale and zero point; a bias of sums.
std::vector<ValueInfo> infer_qlinear_conv(const NodeView& view) {
  for (std::size_t slot : {0u, 3u, 7u}) check_codes(view, slot);
  same_types(view, {0, 2});
  same_types(view, {3, 5});
  Shape out = convolved(view, 3, 8);
  for (std::size_t slot : {1u, 2u, 6u, 7u}) check_single(view, slot, "a scale or zero point");
  for (std::size_t slot : {4u, 5u}) check_filters(view, slot, view.in(3).shape[0]);
  return {value(view.in(7).dtype, std::move(out))};
}

std::vector<ValueInfo> infer_qlinear_matmul(const NodeView& view) {
  for (std::size_t slot : {0u, 3u, 7u}) check_codes(view, slot);
  same_types(view, {0, 2});
  same_types(view, {3, 5});
  for (std::size_t slot : {1u, 2u}) check_lines(view, slot, 0, true);
  for (std::size_t slot : {4u, 5u}) check_lines(view, slot, 3, false);
  for (std::size_t slot : {6u, 7u}) check_single(view, slot, "the output's scale or zero point");
  return {value(view.in(7).dtype, multiplied(view, 0, 3))};
}

double macs_conv(const NodeView& view, const Bindings& bindings) {
  const Shape& w = view.in(view.node.op == "QLinearConv" ? 3 : 1).shape;
  return elements(view.out(0).shape, bindings) * elements(Shape(w.begin() + 1, w.end()), bindings);
}

double macs_matmul(const NodeView& view, const Bindings& bindings) {
  return elements(view.out(0).shape, bindings) * static_cast<double>(evaluate(view.in(0).shape.back(), bindings));
}

void axes_codes(const NodeView& view, AxisMaps& maps) {
  const std::string reason = "a code of zero is no weight of zero";
  for (std::size_t slot = 0; slot < view.node.inputs.size(); ++slot) pin_input(view, maps, slot, reason);
  pin_output(view, maps, 0, reason);
}

const bool registered = [] {
  RegisterOperator({"ConvInteger", "", 10, infer_conv_integer, axes_codes, macs_conv, nullptr});
  RegisterOperator({"MatMulInteger", "", 10, infer_matmul_integer, axes_codes, macs_matmul, nullptr});
  RegisterOperator({"QLinearConv", "", 10, infer_qlinear_conv, axes_codes, macs_conv, nullptr, false, {1, 4, 6}});
  for (int since : {10, 21})
    RegisterOperator({"QLinearMatMul", "", since, infer_qlinear_matmul, axes_codes, macs_matmul, nullptr, false, {1, 4, 6}});
  return true;
}();

}  // namespace
}  // namespace espalier
