#include <fmt/format.h>

#include <algorithm>

#include "formats/torchscript/script.h"

namespace espalier::torchscript {
namespace {

bool never_negative(const Tensor* known) {
  if (!known) return false;
  const auto all = known->integers();
  return std::all_of(all.begin(), all.end(), [](std::int64_t each) { return each >= 0; });
}

/// Input i counted from the front of an axis, as i64.
std::string from_front(NodeScript& s, std::size_t i, const std::string& length) {
  const std::string wide = s.info(i).dtype == DType::i64 ? s.in(i) : s.let(fmt::format("{}.to(4)", s.in(i)));
  if (never_negative(s.constant(i))) return wide;
  return s.let(fmt::format("torch.where(torch.lt({0}, 0), torch.add({0}, {1}), {0})", wide, length));
}

/// One index takes its axis away; a table's rows are an embedding; else LibTorch's own indexing counts from both ends.
void gather(NodeScript& s) {
  const std::size_t axis = s.axis("axis", 0, s.rank(0));
  if (s.rank(1) == 0) {
    const auto known = s.known(1);
    return s.give(
        fmt::format("torch.select({}, {}, {})", s.in(0), axis, known ? std::to_string(known->at(0)) : s.integers(1).at(0)));
  }
  const std::string index = s.info(1).dtype == DType::i64 ? s.in(1) : s.let(fmt::format("{}.to(4)", s.in(1)));
  if (axis == 0 && s.rank(0) == 2 && s.constant(0) && s.floating(0) && !s.constant(1))
    return s.give(fmt::format("torch.embedding({}, {})", s.in(0), index));
  if (s.rank(1) == 1 && never_negative(s.constant(1)))
    return s.give(fmt::format("torch.index_select({}, {}, {})", s.in(0), axis, index));
  std::string front;
  for (std::size_t i = 0; i < axis; ++i) front += ":, ";
  s.give(fmt::format("{}[{}{}]", s.in(0), front, index));
}

void gather_elements(NodeScript& s) {
  const std::size_t axis = s.axis("axis", 0, s.rank(0));
  s.give(fmt::format("torch.gather({}, {}, {})", s.in(0), axis, from_front(s, 1, s.length(0, axis))));
}

/// One list of indices for each axis that input `slot` names.
std::vector<std::string> indices_of(NodeScript& s, std::size_t slot) {
  if (s.rank(slot) < 1) s.refuse("indices of rank 0");
  const Dim& depth = s.info(slot).shape.back();
  if (!depth.known() || depth.value() < 1) s.refuse("how many axes the indices name is not known");
  const std::string wide = s.info(slot).dtype == DType::i64 ? s.in(slot) : s.let(fmt::format("{}.to(4)", s.in(slot)));
  std::vector<std::string> indices;
  for (std::int64_t i = 0; i < depth.value(); ++i)
    indices.push_back(s.let(fmt::format("torch.select({}, -1, {})", wide, i), "index"));
  return indices;
}

void gather_nd(NodeScript& s) {
  if (s.node.integer("batch_dims", 0) != 0) s.refuse("batch_dims");
  std::string all;
  for (const std::string& each : indices_of(s, 1)) all += (all.empty() ? "" : ", ") + each;
  s.give(fmt::format("{}[{}]", s.in(0), all));
}

void scatter_nd(NodeScript& s) {
  const std::string how = s.node.text("reduction", "none");
  if (how != "none" && how != "add") s.refuse("reduction " + how);
  const std::string list = s.let_typed("List[Optional[Tensor]]", list_text(indices_of(s, 1)));
  s.give(fmt::format("torch.index_put({}, {}, {}, {})", s.in(0), list, s.in(2), flag_text(how == "add")));
}

void scatter_elements(NodeScript& s) {
  const std::size_t axis = s.axis("axis", 0, s.rank(0));
  const std::string how = s.node.text("reduction", "none"), index = from_front(s, 1, s.length(0, axis));
  if (how == "none") return s.give(fmt::format("torch.scatter({}, {}, {}, {})", s.in(0), axis, index, s.in(2)));
  if (how == "add") return s.give(fmt::format("torch.scatter_add({}, {}, {}, {})", s.in(0), axis, index, s.in(2)));
  const char* name = how == "mul" ? "prod" : how == "max" ? "amax" : how == "min" ? "amin" : nullptr;
  if (!name) s.refuse("reduction " + how);
  s.give(fmt::format("torch.scatter_reduce({}, {}, {}, {}, \"{}\")", s.in(0), axis, index, s.in(2), name));
}

/// Negative indices count from the end; those out of range are nowhere on.
void one_hot(NodeScript& s) {
  const std::size_t axis = s.axis("axis", -1, s.rank(0) + 1);
  std::string depth;
  if (const Tensor* known = s.constant(1); known && is_floating(known->dtype)) {
    depth = std::to_string(static_cast<std::int64_t>(known->numbers().at(0)));
  } else {
    depth = s.rank(1) == 0 || s.known(1) ? s.integers(1).at(0) : fmt::format("int({})", s.in(1));
  }
  const std::string wide = s.let(fmt::format("{}.to(4)", s.in(0)));
  const std::string place =
      s.let(fmt::format("torch.unsqueeze(torch.where(torch.lt({0}, 0), torch.add({0}, {1}), {0}), {2})", wide, depth, axis));
  std::vector<std::int64_t> shape(s.rank(0) + 1, 1);
  shape[axis] = -1;
  const std::string on =
      s.let(fmt::format("torch.eq({}, torch.reshape(torch.arange({}, dtype=4), {}))", place, depth, list_text(shape)));
  s.give(fmt::format("torch.where({}, torch.select({}, 0, 1), torch.select({}, 0, 0))", on, s.in(2), s.in(2)));
}

void non_zero(NodeScript& s) { s.give(fmt::format("torch.t(torch.nonzero({})).contiguous()", s.in(0))); }

const RegisterPhrase entries[] = {{{"Gather"}, gather},
                                  {{"GatherElements"}, gather_elements},
                                  {{"GatherND"}, gather_nd},
                                  {{"ScatterND"}, scatter_nd},
                                  {{"ScatterElements", "Scatter"}, scatter_elements},
                                  {{"OneHot"}, one_hot},
                                  {{"NonZero"}, non_zero}};

}  // namespace
}  // namespace espalier::torchscript
