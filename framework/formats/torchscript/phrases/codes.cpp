// Weights and activations as 8-bit codes.
#include <fmt/format.h>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

/// Scale or zero point in a shape that broadcasts over input 0.
std::string spread(NodeScript& s, std::size_t slot) {
  if (s.rank(slot) == 0) return s.in(slot);
  if (s.rank(slot) > 1 || s.node.integer("block_size", 0) != 0) s.refuse("scales by block");
  const Dim& count = s.info(slot).shape[0];
  if (count == Dim(1)) return s.let(fmt::format("torch.select({}, 0, 0)", s.in(slot)));
  std::vector<std::int64_t> shape(s.rank(0), 1);
  shape[s.axis("axis", 1, s.rank(0))] = -1;
  return s.let(fmt::format("torch.reshape({}, {})", s.in(slot), list_text(shape)));
}

void dequantize(NodeScript& s) {
  const auto type = type_number(s.info(1).dtype);
  if (!type || s.info_out(0).dtype != s.info(1).dtype) s.refuse("an output_dtype of its own");
  std::string x;
  if (s.has(2)) {
    x = s.let(fmt::format("torch.sub({}.to({}), {}.to({}))", s.in(0), *type, spread(s, 2), *type));
  } else {
    x = s.let(fmt::format("{}.to({})", s.in(0), *type));
  }
  s.give(fmt::format("torch.mul({}, {})", x, spread(s, 1)));
}

void quantize(NodeScript& s) {
  const DType target = s.info_out(0).dtype;
  if (target != DType::u8 && target != DType::i8) s.refuse("codes of another type than uint8 and int8");
  if (s.info(0).dtype != s.info(1).dtype || s.node.integer("precision", 0) != 0) s.refuse("a division in another type");
  std::string x = s.let(fmt::format("torch.round(torch.div({}, {}))", s.in(0), spread(s, 1)));
  if (s.has(2)) x = s.let(fmt::format("torch.add({}, {}.to({}))", x, spread(s, 2), *type_number(s.info(0).dtype)));
  s.give(fmt::format("torch.clamp({}, {}).to({})", x, target == DType::u8 ? "0, 255" : "-128, 127", *type_number(target)));
}

const RegisterPhrase entries[] = {{{"DequantizeLinear"}, dequantize}, {{"QuantizeLinear"}, quantize}};

}  // namespace
}  // namespace espalier::torchscript
