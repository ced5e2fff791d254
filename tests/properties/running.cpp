#include "running.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <limits>
#include <random>
#include <stdexcept>

#include "formats/onnx.h"

namespace espalier::test {
namespace {

// Models this small only lose by sharing their work out.
const bool one_thread = [] {
  at::set_num_threads(1);
  return true;
}();

}  // namespace

TensorMap language_inputs(std::int64_t batch, std::int64_t sequence, std::int64_t vocabulary, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::int64_t> token(0, vocabulary - 1);
  auto ids = at::empty({batch, sequence}, at::kLong);
  for (std::int64_t i = 0; i < batch * sequence; ++i) ids.data_ptr<std::int64_t>()[i] = token(random);
  return {{"input_ids", ids},
          {"attention_mask", at::ones({batch, sequence}, at::kLong)},
          {"position_ids", at::arange(sequence, at::kLong).unsqueeze(0).expand({batch, sequence}).contiguous()}};
}

TensorMap image_inputs(std::int64_t batch, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  auto image = at::empty({batch, 3, 16, 16});
  for (std::int64_t i = 0; i < image.numel(); ++i) image.data_ptr<float>()[i] = normal(random);
  return {{"image", image}};
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (!at::isfinite(a).all().item<bool>() || !at::isfinite(b).all().item<bool>()) return std::numeric_limits<double>::infinity();
  return (a - b).abs().max().item<double>() / std::max(a.abs().max().item<double>(), 1e-12);
}

double difference(const Graph& a, const Graph& b, const TensorMap& inputs) {
  const auto x = Session(a).run(inputs), y = Session(b).run(inputs);
  if (x.size() != y.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (const auto& [name, tensor] : x) {
    const auto other = y.find(name);
    if (other == y.end()) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference(tensor, other->second));
  }
  return worst;
}

void write_npy(const std::filesystem::path& file, const at::Tensor& tensor) {
  const auto plain = tensor.contiguous();
  const char* type = plain.scalar_type() == at::kFloat ? "<f4" : plain.scalar_type() == at::kLong ? "<i8" : "|b1";
  std::string shape;
  for (auto length : plain.sizes()) shape += fmt::format("{}, ", length);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, shape);
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::ofstream out(file, std::ios::binary);
  out << "\x93NUMPY" << '\x01' << '\0' << static_cast<char>(header.size() & 255) << static_cast<char>(header.size() >> 8) << header;
  out.write(static_cast<const char*>(plain.const_data_ptr()), static_cast<std::streamsize>(plain.nbytes()));
  if (!out.flush()) throw std::runtime_error("cannot write " + file.string());
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "espalier-properties-XXXXXX").string();
  if (!mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

int check_with_runtimes(const std::filesystem::path& folder) {
  const char* python = std::getenv("ESPALIER_TEST_PYTHON");
  const char* source = std::getenv("ESPALIER_SOURCE");
  if (!python || !*python || !std::filesystem::exists(python))
    throw std::runtime_error("ESPALIER_TEST_PYTHON names no Python with onnx, onnxruntime and openvino; run this through ctest");
  if (!source) throw std::runtime_error("ESPALIER_SOURCE is not set; run this through ctest");
  const auto script = std::filesystem::path(source) / "tests/properties/check_cut.py";
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child == 0) {
    unsetenv("LD_LIBRARY_PATH");
    execl(python, python, script.c_str(), folder.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void write_case(const std::filesystem::path& folder, const Graph& graph, const TensorMap& inputs) {
  for (const auto* part : {"inputs", "expected"}) std::filesystem::create_directories(folder / part);
  write_onnx(graph, folder / "model.onnx");
  for (const auto& [name, tensor] : inputs) write_npy(folder / "inputs" / (name + ".npy"), tensor);
  for (const auto& [name, tensor] : Session(graph).run(inputs)) write_npy(folder / "expected" / (name + ".npy"), tensor);
}

}  // namespace espalier::test
