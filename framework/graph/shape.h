#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// One dimension: a linear form over symbols, constant + Σ coefficient·symbol. "batch", "past + sequence" and 512 are all Dims;
/// what is no linear form (a product of two symbols, a floor division that leaves a rest) becomes a symbol of its own, named after
/// its expression, so that equal expressions compare equal.
class Dim {
 public:
  Dim() = default;                               // 0
  Dim(std::int64_t value) : constant_(value) {}  // NOLINT: a number is a dimension
  /// A name, or an expression as text() writes it ("past + sequence"). Throws Error(invalid_input) for an empty name.
  static Dim symbol(std::string name);

  bool known() const { return terms_.empty(); }
  /// Throws Error(internal) when not known().
  std::int64_t value() const;
  std::int64_t value_or(std::int64_t fallback) const { return known() ? constant_ : fallback; }
  /// "512", "batch", "past + sequence".
  std::string text() const;
  const std::map<std::string, std::int64_t>& terms() const { return terms_; }
  std::int64_t constant() const { return constant_; }

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  /// Floor division; exact when every coefficient divides, a new symbol otherwise. Throws Error(invalid_input) for division by 0.
  friend Dim floor_div(const Dim& a, const Dim& b);
  bool operator==(const Dim&) const = default;

 private:
  friend class DimReader;
  std::int64_t constant_ = 0;
  std::map<std::string, std::int64_t> terms_;  // no zero coefficients
};

using Shape = std::vector<Dim>;
std::string text(const Shape& shape);
/// All dimensions known: their product (checked against overflow), else nothing.
std::optional<std::int64_t> element_count(const Shape& shape);
/// The value of `dim` with its symbols bound; a symbol without binding counts as 1. Throws Error(invalid_input) on overflow.
std::int64_t evaluate(const Dim& dim, const std::map<std::string, std::int64_t>& bindings);

}  // namespace espalier
