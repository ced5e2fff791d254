#include "graph/tensor_store.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "sdk/error.h"

namespace espalier {
namespace {

struct ShapesOnly {
  Tensor operator()(Tensor tensor) const { return tensor; }
};

}  // namespace

TensorStore shapes_only() { return ShapesOnly{}; }

bool is_shapes_only(const TensorStore& store) { return store && store.target<ShapesOnly>() != nullptr; }

Tensor zeros_without_memory(DType dtype, std::vector<std::int64_t> shape) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  const std::size_t size = byte_size(dtype, tensor.count());
  if (size == 0) return tensor;
  void* place = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED)
    throw Error(ErrorCode::resource, std::string("a tensor's shape takes more than the address space: ") + std::strerror(errno));
  tensor.owner = std::shared_ptr<const void>(place, [size](const void* at) { ::munmap(const_cast<void*>(at), size); });
  tensor.bytes = {static_cast<const std::byte*>(place), size};
  return tensor;
}

}  // namespace espalier
