#include "run/rounding_table.h"

#include <cctype>

namespace espalier {
namespace {

/// "model.layers.3.mlp.down_proj.weight" → "model.layers.*.mlp.down_proj.weight".
std::string kind_of(const std::string& name) {
  std::string out;
  for (std::size_t i = 0; i < name.size();) {
    const bool starts = i == 0 || name[i - 1] == '.';
    std::size_t end = i;
    while (starts && end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end > i && (end == name.size() || name[end] == '.')) {
      out += '*';
      i = end;
    } else {
      out += name[i++];
    }
  }
  return out;
}

void accumulate(RoundingTable::Entry& sum, const RoundingTable::Entry& entry) {
  sum.elements += entry.elements;
  sum.bytes += entry.bytes;
  sum.squared_error += entry.squared_error;
  sum.squared += entry.squared;
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

}  // namespace

void RoundingTable::add(const std::string& name, const Entry& entry) {
  Row& row = rows_[{kind_of(name), entry.bits, entry.group}];
  row.tensors += 1;
  accumulate(row.sum, entry);
}

Json RoundingTable::json() const {
  Json rows = Json::array();
  for (const auto& [key, row] : rows_) {
    const auto& [kind, bits, group] = key;
    rows.push_back({kind, row.tensors, row.sum.elements, ratio(row.sum.squared_error, static_cast<double>(row.sum.elements)),
                    ratio(row.sum.squared_error, row.sum.squared), bits, group});
  }
  return {{"columns", {"tensors", "count", "elements", "mean squared error", "relative to the mean square", "bits", "group"}},
          {"rows", std::move(rows)}};
}

RoundingTable::Entry RoundingTable::total() const {
  Entry sum;
  for (const auto& [key, row] : rows_) accumulate(sum, row.sum);
  return sum;
}

double RoundingTable::bits() const {
  const Entry sum = total();
  return ratio(8 * static_cast<double>(sum.bytes), static_cast<double>(sum.elements));
}

double RoundingTable::squared_error() const {
  const Entry sum = total();
  return ratio(sum.squared_error, static_cast<double>(sum.elements));
}

}  // namespace espalier
