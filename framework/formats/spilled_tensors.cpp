#include "formats/spilled_tensors.h"

#include <fmt/format.h>

#include <memory>

#include "formats/file_aside.h"

namespace espalier {
namespace {

constexpr std::size_t kSmall = 1 << 20;  // below it a file of its own costs more than it saves

class Spill {
 public:
  Spill(std::filesystem::path folder, std::uint64_t in_memory) : folder_(std::move(folder)), left_(in_memory) {}

  Tensor put(Tensor tensor) {
    const std::uint64_t size = tensor.bytes.size();
    if (size < kSmall) return tensor;
    if (size <= left_) {
      left_ -= size;
      return tensor;
    }
    FileAside file(folder_ / fmt::format(".tensor-{}", count_++));  // not committed: the name goes, the mapping stays
    file.write(tensor.bytes);
    const MappedFile mapped = file.map();
    MappedFile::release(tensor.owner, tensor.bytes);
    tensor.bytes = mapped.bytes().first(size);
    tensor.owner = mapped.owner();
    return tensor;
  }

 private:
  std::filesystem::path folder_;
  std::uint64_t left_, count_ = 0;
};

}  // namespace

TensorStore spill_into(const std::filesystem::path& folder, std::uint64_t in_memory) {
  return [spill = std::make_shared<Spill>(folder, in_memory)](Tensor tensor) { return spill->put(std::move(tensor)); };
}

}  // namespace espalier
