#include <catch2/catch_test_macros.hpp>

#include "host/catalog.h"

using namespace espalier;

TEST_CASE("slips find the name that was meant") {
  const std::vector<std::string> names = {"pruner/channels",  "pruner/heads", "metric/taylor",
                                          "metric/magnitude", "sparsity",     "steps"};
  CHECK(nearest("pruner/chanels", names) == "pruner/channels");    // a letter missing
  CHECK(nearest("prunner/channels", names) == "pruner/channels");  // one too many
  CHECK(nearest("metric/tayolr", names) == "metric/taylor");       // neighbours swapped
  CHECK(nearest("Pruner/Heads", names) == "pruner/heads");         // case
  CHECK(nearest("sparcity", names) == "sparsity");
  CHECK(nearest("taylor", names) == "metric/taylor");  // the kind left out
  CHECK(nearest("channels", names) == "pruner/channels");
}

TEST_CASE("another word is no slip") {
  const std::vector<std::string> names = {"pruner/channels", "steps", "a"};
  CHECK_FALSE(nearest("quantizer/rtn", names));
  CHECK_FALSE(nearest("temperature", names));
  CHECK_FALSE(nearest("b", names));
  CHECK_FALSE(nearest("", names));
  CHECK_FALSE(nearest("steps", {}));
}

TEST_CASE("very long words cost nothing") {
  const std::string hostile(4 << 20, 'a');
  CHECK_FALSE(nearest(hostile, {std::string(4 << 20, 'b'), "a"}));
}
