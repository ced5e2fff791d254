#include "formats/weight_source.h"

#include <algorithm>
#include <atomic>
#include <future>

namespace espalier {

std::int64_t Rows::at(std::int64_t row) const {
  if (rotated > 0) {
    const std::int64_t i = row % head, half = rotated / 2;
    if (i < rotated) row += 2 * (i % half) + i / half - i;
  }
  return first + (block > 0 ? row / block * stride + row % block : row);
}

WeightSource::~WeightSource() = default;

void WeightJobs::add(std::string name, std::vector<std::int64_t> shape, Fill fill) {
  if (names_.insert(name).second) jobs_.push_back({std::move(name), std::move(shape), std::move(fill)});
}

Tensor WeightJobs::make(const Job& job) {
  std::size_t count = 1;
  for (const std::int64_t length : job.shape) count *= static_cast<std::size_t>(length);
  std::vector<std::byte> values(count * sizeof(float));
  job.fill(reinterpret_cast<float*>(values.data()));
  return Tensor::own(DType::f32, job.shape, std::move(values));
}

Tensor WeightJobs::outline(const Job& job) {
  Tensor tensor = zeros_without_memory(DType::f32, job.shape);
  return tensor.bytes.size() < kValuesFrom ? make(job) : tensor;
}

void WeightJobs::run(Graph& graph, const TensorStore& store) {
  if (is_shapes_only(store)) {
    for (const Job& job : jobs_) graph.initializers[job.name] = outline(job);
  } else if (store) {
    std::future<Tensor> next;
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      Tensor tensor = next.valid() ? next.get() : make(jobs_[i]);
      if (i + 1 < jobs_.size()) next = std::async(std::launch::async, make, std::cref(jobs_[i + 1]));
      graph.initializers[jobs_[i].name] = store(std::move(tensor));
    }
  } else {
    std::vector<Tensor> made(jobs_.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
      for (std::size_t i; (i = next++) < jobs_.size();) made[i] = make(jobs_[i]);
    };
    std::future<void> second = std::async(std::launch::async, work);
    work();
    second.get();
    for (std::size_t i = 0; i < jobs_.size(); ++i) graph.initializers[jobs_[i].name] = std::move(made[i]);
  }
  jobs_.clear();
  names_.clear();
}

void transpose_rows(std::int64_t in, std::int64_t out, const std::function<void(std::int64_t row, float* to)>& row, float* to) {
  constexpr std::int64_t kRows = 16;  // a strip of rows fits the cache while its columns are spread
  std::vector<float> strip(static_cast<std::size_t>(kRows * in));
  for (std::int64_t first = 0; first < out; first += kRows) {
    const std::int64_t rows = std::min(kRows, out - first);
    for (std::int64_t r = 0; r < rows; ++r) row(first + r, strip.data() + r * in);
    for (std::int64_t k = 0; k < in; ++k)
      for (std::int64_t r = 0; r < rows; ++r) to[k * out + first + r] = strip[static_cast<std::size_t>(r * in + k)];
  }
}

}  // namespace espalier
