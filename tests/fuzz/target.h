#pragma once
/// A parser under foreign bytes. A target is one file: ESPALIER_FUZZ(name, bytes) { … }. It may throw Error for what it refuses and
/// nothing else: any other exception, a crash, or an Error that calls itself a defect is a finding. Built with clang and
/// ESPALIER_FUZZ on, each is a program of libFuzzer's; otherwise test_fuzz replays the seeds, whole and damaged.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sdk/error.h"

namespace espalier::fuzz {

using Bytes = std::span<const std::byte>;

struct Target {
  const char* name;
  void (*run)(Bytes bytes);
};
std::vector<Target>& targets();
struct RegisterTarget {
  RegisterTarget(const char* name, void (*run)(Bytes)) { targets().push_back({name, run}); }
};

/// Runs a target; anything but a refusal leaves it.
inline void attempt(void (*run)(Bytes), Bytes bytes) {
  try {
    run(bytes);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) throw;
  }
}

/// The bytes with an owner, as readers take them.
struct Owned {
  explicit Owned(Bytes from) : bytes(std::make_shared<std::vector<std::byte>>(from.begin(), from.end())) {}
  Bytes view() const { return *bytes; }
  std::shared_ptr<std::vector<std::byte>> bytes;
};

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace espalier::fuzz

#ifdef ESPALIER_LIBFUZZER
#define ESPALIER_FUZZ_ENTRY(name)                                                           \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {       \
    espalier::fuzz::attempt(fuzz_##name, {reinterpret_cast<const std::byte*>(data), size}); \
    return 0;                                                                               \
  }
#else
#define ESPALIER_FUZZ_ENTRY(name) static const espalier::fuzz::RegisterTarget registered_##name{#name, fuzz_##name};
#endif
#define ESPALIER_FUZZ(name, bytes)                \
  static void fuzz_##name(espalier::fuzz::Bytes); \
  ESPALIER_FUZZ_ENTRY(name)                       \
  static void fuzz_##name(espalier::fuzz::Bytes bytes)
