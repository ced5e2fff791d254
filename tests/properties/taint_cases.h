#pragma once
/// Cases of the taint test, by family: one file in taint_cases/ registers its own.
#include <cstdint>
#include <vector>

#include "taint.h"

namespace espalier::test {

using Ints = std::vector<std::int64_t>;

inline Operand data(Ints shape) { return {std::move(shape)}; }
inline Operand ints(Ints values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {{}, Tensor::of<std::int64_t>(DType::i64, {count}, values)};
}
inline Operand table(Ints shape, Ints values) { return {{}, Tensor::of<std::int64_t>(DType::i64, std::move(shape), values)}; }
inline Operand number(float value) { return {{}, Tensor::of<float>(DType::f32, {}, {value})}; }
inline Operand absent() { return {{}, std::nullopt, true}; }
inline Operand flags(Ints shape, std::uint8_t value) {
  std::int64_t count = 1;
  for (auto length : shape) count *= length;
  return {{},
          Tensor::of<std::uint8_t>(DType::boolean, std::move(shape),
                                   std::vector<std::uint8_t>(static_cast<std::size_t>(count), value))};
}
inline Operand bytes(Ints shape) {
  std::vector<std::int8_t> values;
  std::int64_t count = 1;
  for (auto length : shape) count *= length;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<std::int8_t>(i % 7 + 1));
  return {{}, Tensor::of<std::int8_t>(DType::i8, std::move(shape), values)};
}
inline std::int64_t one() { return 1; }

using TaintCases = std::vector<SingleNode> (*)();
struct RegisterTaint {
  explicit RegisterTaint(TaintCases cases) { all().push_back(cases); }
  static std::vector<TaintCases>& all() {
    static std::vector<TaintCases> list;
    return list;
  }
};

/// Operators through which NaN does not pass: their outputs are integers or flags, or they read no floating data.
struct WithoutNan {
  WithoutNan(std::initializer_list<const char*> names) { all().insert(names.begin(), names.end()); }
  static std::set<std::string, std::less<>>& all() {
    static std::set<std::string, std::less<>> names;
    return names;
  }
};

}  // namespace espalier::test
