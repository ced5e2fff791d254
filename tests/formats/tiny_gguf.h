#pragma once
/// Writes small GGUF files for the tests: whatever is asked for, right or wrong.
#include <cstdint>
#include <string>
#include <vector>

#include "abuse.h"

namespace tests {

class GgufWriter {
 public:
  void text(const std::string& key, const std::string& value);
  void u32(const std::string& key, std::uint32_t value);
  void f32(const std::string& key, float value);
  void flag(const std::string& key, bool value);
  void texts(const std::string& key, const std::vector<std::string>& values);
  void integers(const std::string& key, const std::vector<std::int32_t>& values);
  /// A value's bytes as they are, after its type.
  void raw(const std::string& key, std::uint32_t type, const std::string& bytes);
  /// `shape` innermost first, as the file has it.
  void tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type, const std::string& bytes);
  /// The same with an offset of its own.
  void tensor_at(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type, std::uint64_t offset);

  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  abuse::Bytes bytes() const;

 private:
  void key(const std::string& name, std::uint32_t type);
  std::string metadata_, headers_, data_;
  std::uint64_t keys_ = 0, tensors_ = 0;
};

template <class T>
std::string packed(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
std::string floats(const std::vector<float>& values);

/// A LLaMA-shaped model: 2 layers, hidden 8, 4 heads over 2 key/value heads of 4, FFN 12, 300 tokens (bytes, a few merges,
/// specials), weights from a fixed sequence, F32. `change` may spoil it before it is written.
struct TinyLlama {
  std::string architecture = "llama", tokenizer = "gpt2", pre = "smollm";
  bool tied = true, extra_tensor = false, rope_scaling = false;
  std::uint32_t layers = 2, context = 16;
  abuse::Bytes bytes() const;
  /// The value at (row, column) of a weight as the file has it, before any permutation.
  static float weight(const std::string& name, std::uint64_t row, std::uint64_t column);
};

}  // namespace tests
