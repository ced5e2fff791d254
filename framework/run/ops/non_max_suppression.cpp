#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "run/op.h"

namespace espalier {
namespace {

struct Box {
  float x_low, x_high, y_low, y_high;
  float area() const { return (x_high - x_low) * (y_high - y_low); }
};

/// Two corners in any order, [y, x, y, x]; or [x, y, width, height] around the centre.
Box box_of(const float* at, bool around_centre) {
  if (around_centre) {
    const float width = at[2] / 2, height = at[3] / 2;
    return {at[0] - width, at[0] + width, at[1] - height, at[1] + height};
  }
  return {std::min(at[1], at[3]), std::max(at[1], at[3]), std::min(at[0], at[2]), std::max(at[0], at[2])};
}

/// Intersection over union; 0 where there is none.
float overlap(const Box& a, const Box& b) {
  const float width = std::min(a.x_high, b.x_high) - std::max(a.x_low, b.x_low);
  const float height = std::min(a.y_high, b.y_high) - std::max(a.y_low, b.y_low);
  if (!(width > 0 && height > 0 && a.area() > 0 && b.area() > 0)) return 0;
  return width * height / (a.area() + b.area() - width * height);
}

/// Indices of the boxes whose score passes, the highest first, of equal ones the first. A score that is no number never passes.
std::vector<std::int64_t> candidates(const float* scores, std::int64_t count, std::optional<float> threshold) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count; ++i)
    if (!std::isnan(scores[i]) && (!threshold || scores[i] > *threshold)) out.push_back(i);
  std::stable_sort(out.begin(), out.end(), [scores](std::int64_t a, std::int64_t b) { return scores[a] > scores[b]; });
  return out;
}

std::optional<float> limit(const RunView& v, std::size_t slot) {
  if (!v.has(slot) || v.in(slot).numel() == 0) return std::nullopt;
  if (v.in(slot).numel() != 1) v.fail("a threshold is not one number");
  return v.in(slot).to(at::kFloat).item<float>();
}

/// Greedy: a box is taken unless it overlaps one that was taken before by more than the threshold.
std::vector<at::Tensor> non_max_suppression(const RunView& v) {
  const at::Tensor boxes = v.in(0).to(at::kFloat).contiguous(), scores = v.in(1).to(at::kFloat).contiguous();
  if (boxes.dim() != 3 || scores.dim() != 3 || boxes.size(2) != 4 || boxes.size(0) != scores.size(0) ||
      boxes.size(1) != scores.size(2))
    v.fail("boxes [batch, boxes, 4] and scores [batch, classes, boxes] do not fit");
  const std::int64_t batches = scores.size(0), classes = scores.size(1), count = scores.size(2);
  const std::vector<std::int64_t> most = v.has(2) ? v.integers(2) : std::vector<std::int64_t>{};
  if (most.size() > 1) v.fail("max_output_boxes_per_class is not one number");
  const std::int64_t room = most.empty() ? 0 : std::max<std::int64_t>(most[0], 0);
  const float threshold = limit(v, 3).value_or(0);
  const auto least = limit(v, 4);
  const bool around_centre = v.node.integer("center_point_box", 0) != 0;
  std::vector<std::int64_t> found;
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    std::vector<Box> all;
    for (std::int64_t i = 0; i < count; ++i)
      all.push_back(box_of(boxes.const_data_ptr<float>() + (batch * count + i) * 4, around_centre));
    for (std::int64_t one = 0; one < classes; ++one) {
      std::vector<Box> taken;
      for (std::int64_t i : candidates(scores.const_data_ptr<float>() + (batch * classes + one) * count, count, least)) {
        if (static_cast<std::int64_t>(taken.size()) >= room) break;
        const Box& box = all[static_cast<std::size_t>(i)];
        if (std::any_of(taken.begin(), taken.end(), [&](const Box& other) { return overlap(box, other) > threshold; })) continue;
        taken.push_back(box);
        found.insert(found.end(), {batch, one, i});
      }
    }
  }
  at::Tensor rows = at::empty({static_cast<std::int64_t>(found.size() / 3), 3}, at::kLong);
  std::copy(found.begin(), found.end(), rows.mutable_data_ptr<std::int64_t>());
  return {rows};
}

const RegisterRun entry{"", "NonMaxSuppression", non_max_suppression};

}  // namespace
}  // namespace espalier
