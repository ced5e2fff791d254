// Every seed, whole and damaged, through its target.
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>

#include "abuse.h"
#include "target.h"

namespace fs = std::filesystem;

namespace espalier::fuzz {

std::vector<Target>& targets() {
  static std::vector<Target> list;
  return list;
}

}  // namespace espalier::fuzz

using namespace espalier;

TEST_CASE("seeds, whole and damaged, are read or refused") {
  const char* source = std::getenv("ESPALIER_SOURCE");
  REQUIRE(source);
  REQUIRE(fuzz::targets().size() == 8);
  for (const fuzz::Target& target : fuzz::targets()) {
    const fs::path folder = fs::path(source) / "tests/fuzz/seeds" / target.name;
    CAPTURE(target.name);
    int seeds = 0;
    for (const auto& file : fs::directory_iterator(folder)) {
      CAPTURE(file.path().filename());
      ++seeds;
      const abuse::Bytes good = abuse::read_file(file.path());
      if (file.path().filename().string().starts_with("good")) CHECK_NOTHROW(target.run(good));
      const auto outcome = abuse::mistreat(good, [&](const abuse::Bytes& bytes) { fuzz::attempt(target.run, bytes); },
                                           {.truncations = 60, .flips = 250, .memory = 512ULL << 20});
      INFO(outcome.failure);
      CHECK(outcome.survived);
    }
    CHECK(seeds > 0);
  }
}
