/// Products of matrices and attention.
#include <algorithm>

#include "formats/torchscript/lowering.h"

namespace espalier::torchscript {
namespace {

std::string scaled(const Call& c, const std::string& x, const char* factor) {
  const double by = c.number_or(factor, 1);
  return by == 1 ? x : c.add("Mul", {x, c.scalar(by, c.dtype(x))});
}

Item linear(Call& c) {
  const std::string y = c.add("MatMul", {c.tensor("input"), c.turned_weight(c.tensor("weight"))});
  return Item::of_tensor(c.given("bias") ? c.add("Add", {y, c.tensor("bias")}) : y);
}

Item matmul(Call& c) {
  return Item::of_tensor(c.add("MatMul", {c.tensor("self"), c.tensor(c.find("mat2")    ? "mat2"
                                                                     : c.find("other") ? "other"
                                                                                       : "vec")}));
}

/// beta · self + alpha · a @ b
Item added(Call& c) {
  const bool batched = c.find("batch1") != nullptr;
  const std::string self = c.tensor("self");
  if (!batched && c.rank(self) <= 1) {
    Attributes attributes{{"alpha", c.number_or("alpha", 1)}, {"beta", c.number_or("beta", 1)}};
    return Item::of_tensor(c.add("Gemm", {c.tensor("mat1"), c.tensor("mat2"), self}, std::move(attributes)));
  }
  const std::string product = c.add("MatMul", {c.tensor(batched ? "batch1" : "mat1"), c.tensor(batched ? "batch2" : "mat2")});
  const std::string y = scaled(c, product, "alpha");
  if (c.number_or("beta", 1) == 0) return Item::of_tensor(y);
  return Item::of_tensor(c.add("Add", {y, scaled(c, self, "beta")}));
}

Item einsum(Call& c) {
  std::string equation = c.text("equation");
  std::erase(equation, ' ');
  const auto tensors = c.tensors("tensors");
  return Item::of_tensor(c.add("Einsum", tensors, {{"equation", equation}}));
}

Item outer(Call& c) {
  return Item::of_tensor(
      c.add("Mul", {c.add("Unsqueeze", {c.tensor("self"), c.list({1})}), c.add("Unsqueeze", {c.tensor("vec2"), c.list({0})})}));
}

/// The mask in the rank that goes with heads, in the type of the queries unless it is boolean.
std::string mask_of(const Call& c, const std::string& query, bool heads) {
  if (!c.given("attn_mask")) return {};
  std::string mask = c.tensor("attn_mask");
  if (c.dtype(mask) != DType::boolean) mask = c.cast(mask, c.dtype(query));
  if (!heads && c.rank(mask) == 3) mask = c.add("Unsqueeze", {mask, c.list({1})});
  return mask;
}

Item attention(Call& c) {
  if (c.number_or("dropout_p", 0) != 0)
    c.refuse("the model was saved in training mode", "call model.eval() before it is traced or scripted");
  std::string q = c.tensor("query"), k = c.tensor("key"), v = c.tensor("value");
  if (c.rank(q) != 4 && c.rank(q) != 3) c.refuse("queries of rank " + std::to_string(c.rank(q)));
  const bool heads = c.rank(q) == 4;
  const std::string mask = mask_of(c, q, heads);
  if (!heads)
    for (std::string* each : {&q, &k, &v}) *each = c.add("Unsqueeze", {*each, c.list({1})});
  Attributes attributes;
  if (c.given("scale")) attributes["scale"] = c.number("scale");
  if (c.flag_or("is_causal", false)) attributes["is_causal"] = std::int64_t{1};
  std::vector<std::string> inputs{q, k, v};
  if (!mask.empty()) inputs.push_back(mask);
  const std::string y = c.add("Attention", std::move(inputs), std::move(attributes));
  return Item::of_tensor(heads ? y : c.add("Squeeze", {y, c.list({1})}));
}

const RegisterRule rules[] = {
    {{"aten::linear"}, linear},
    {{"aten::matmul", "aten::mm", "aten::bmm", "aten::mv"}, matmul},
    {{"aten::addmm", "aten::baddbmm"}, added},
    {{"aten::einsum"}, einsum},
    {{"aten::outer", "aten::ger"}, outer},
    {{"aten::scaled_dot_product_attention"}, attention},
};

}  // namespace
}  // namespace espalier::torchscript
