#include "formats/spilled_tensors.h"

#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "sdk/error.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

Tensor megabytes(std::int64_t count, float value) {
  return Tensor::of(DType::f32, {count, 256, 1024}, std::vector<float>(static_cast<std::size_t>(count) << 18, value));
}

}  // namespace

TEST_CASE("tensors beyond what memory may hold lie in files without names") {
  const fs::path folder = fs::temp_directory_path() / "espalier-spill-test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const TensorStore store = spill_into(folder, 5 << 20);
  const Tensor kept = megabytes(4, 1), small = Tensor::of(DType::f32, {1}, std::vector<float>{3});
  CHECK(store(kept).bytes.data() == kept.bytes.data());
  const Tensor large = megabytes(2, 2);  // no room is left for it
  Tensor spilled = store(large);
  CHECK(spilled.bytes.data() != large.bytes.data());
  CHECK(spilled.owner != large.owner);
  CHECK(spilled.shape == large.shape);
  CHECK(spilled.dtype == large.dtype);
  CHECK(spilled.digest() == large.digest());
  CHECK(store(small).bytes.data() == small.bytes.data());
  const Tensor last = megabytes(1, 4);  // for which there is
  CHECK(store(last).bytes.data() == last.bytes.data());
  CHECK(fs::is_empty(folder));
  fs::remove_all(folder);
  CHECK_THROWS_AS(store(megabytes(2, 5)), Error);  // nowhere to put it
  CHECK(spilled.as<float>()[0] == 2);              // what was put away stays readable
}
