/// Cast, CastLike and BitCast.
#include "graph/ops/rules.h"

namespace espalier {
namespace {

using namespace ops;

// FLOAT6E3M2; the types behind kLastType are ONNX's, and none of ours.
constexpr std::int64_t kLastOfOnnx = 28;

DType stated_target(const NodeView& view) {
  const std::int64_t to = view.node.integer("to", 0);
  if (to < 1 || to > kLastOfOnnx) view.fail("cannot cast to element type " + std::to_string(to));
  if (to > kLastType) view.refuse("a cast to element type " + std::to_string(to));
  return static_cast<DType>(to);
}

void refuse_strings_and_complex(const NodeView& view, DType target) {
  for (const DType type : {view.in(0).dtype, target})
    if (type == DType::string || type == DType::c64 || type == DType::c128)
      view.refuse("a cast from " + std::string(to_string(view.in(0).dtype)) + " to " + std::string(to_string(target)));
}

std::vector<ValueInfo> cast_to(const NodeView& view, DType type) {
  const ValueInfo& x = view.in(0);
  refuse_strings_and_complex(view, type);
  const std::string mode = view.node.text("round_mode", "up");
  if (mode != "up" && mode != "down" && mode != "nearest") view.fail("round_mode is '" + mode + "'");
  Content content;
  if (type == DType::i64 || type == DType::i32) content = x.content;
  if (type == DType::boolean && x.content) {
    if (auto known = view.integers(0)) {
      content.emplace();
      for (auto v : *known) content->push_back(v != 0 ? 1 : 0);
    }
  }
  return {value(type, x.shape, std::move(content))};
}

std::vector<ValueInfo> infer_cast(const NodeView& view) { return cast_to(view, stated_target(view)); }
std::vector<ValueInfo> infer_cast_like(const NodeView& view) { return cast_to(view, view.in(1).dtype); }

std::vector<ValueInfo> infer_bit_cast(const NodeView& view) {
  const DType from = view.in(0).dtype, to = stated_target(view);
  refuse_strings_and_complex(view, to);
  if (from != DType::undefined && bits(from) != bits(to))
    view.fail("the bits of " + std::string(to_string(from)) + " are no " + std::string(to_string(to)));
  if (to == DType::boolean && from != to) view.refuse("bits that are read as bool");  // other bytes than 0 and 1 are none
  return {value(to, view.in(0).shape)};
}

/// Of the other input of a CastLike only the type is read.
void axes_cast(const NodeView& view, AxisMaps& maps) { link_all(view, maps, 0); }

const RegisterOperator cast{{"Cast", "", 6, infer_cast, axes_cast, nullptr, nullptr, true}};
const RegisterOperator cast_like{{"CastLike", "", 15, infer_cast_like, axes_cast, nullptr, nullptr, true, {1}}};
const RegisterOperator bit_cast{{"BitCast", "", 26, infer_bit_cast, axes_cast, nullptr, nullptr, false}};

}  // namespace
}  // namespace espalier
