#include "abuse.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>

namespace abuse {
namespace fs = std::filesystem;

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Bytes read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return bytes_of(text);
}

void write_file(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

Folder::Folder(const fs::path& parent) {
  std::string name = (parent / "espalier-formats-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
  path_ = name;
}

Folder::~Folder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

namespace {

struct Shared {
  std::uint64_t accepted, refused;
  char failure[400];
};

[[maybe_unused]] std::uint64_t address_space() {
  std::ifstream in("/proc/self/statm");
  std::uint64_t pages = 0;
  in >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

void note(Shared& shared, const std::string& text) { std::strncpy(shared.failure, text.c_str(), sizeof shared.failure - 1); }

int try_all(const Bytes& good, const std::function<void(const Bytes&)>& read, const Limits& limits, Shared& shared) {
  const auto one = [&](const Bytes& variant, const std::string& what) {
    note(shared, what + ": crashed");
    try {
      read(variant);
      ++shared.accepted;
    } catch (const espalier::Error& error) {
      if (error.code() == espalier::ErrorCode::internal) {
        note(shared, what + ": " + error.what());
        return false;
      }
      ++shared.refused;
    } catch (const std::exception& error) {
      note(shared, what + ": threw " + error.what());
      return false;
    }
    return true;
  };
  for (std::size_t i = 0; i < 64 + limits.truncations; ++i) {
    const std::size_t length = i < 64 ? i : good.size() * (i - 64) / limits.truncations;
    if (length >= good.size()) continue;
    if (!one(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)), fmt::format("cut to {} bytes", length)))
      return 1;
  }
  std::mt19937_64 random(20240229);
  for (std::size_t i = 0; i < limits.flips; ++i) {
    Bytes variant = good;
    std::string what = "flipped bits";
    // Headers lie in front: half of the flips go there.
    const std::size_t reach = i % 2 ? good.size() : std::min<std::size_t>(good.size(), 1024);
    for (std::uint64_t n = 1 + random() % 4; n-- > 0;) {
      const std::size_t bit = random() % (8 * reach);
      variant[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      what += fmt::format(" {}", bit);
    }
    if (!one(variant, what)) return 1;
  }
  note(shared, "");
  return 0;
}

}  // namespace

Outcome mistreat(const Bytes& good, const std::function<void(const Bytes&)>& read, const Limits& limits) {
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("mmap");
  auto& shared = *new (memory) Shared{};
  const pid_t child = ::fork();
  if (child == 0) {
#ifndef __SANITIZE_ADDRESS__  // whose shadow memory needs all of the address space
    rlimit limit{};
    limit.rlim_cur = limit.rlim_max = address_space() + limits.memory;
    ::setrlimit(RLIMIT_AS, &limit);
#endif
    ::alarm(120);
    ::_exit(try_all(good, read, limits, shared));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  Outcome outcome{WIFEXITED(status) && WEXITSTATUS(status) == 0, shared.accepted, shared.refused, shared.failure};
  ::munmap(memory, sizeof(Shared));
  return outcome;
}

espalier::Error error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const espalier::Error& error) {
    return error;
  }
  throw std::runtime_error("nothing was refused");
}

fs::path dependencies() {
  const char* python = std::getenv("ESPALIER_TEST_PYTHON");
  if (!python || !fs::exists(python)) return {};
  return fs::path(python).parent_path().parent_path().parent_path();
}

bool python(const std::string& script, const std::vector<std::string>& arguments, std::string& log) {
  const char* interpreter = std::getenv("ESPALIER_TEST_PYTHON");
  const char* source = std::getenv("ESPALIER_SOURCE");
  if (!interpreter || !source)
    throw std::runtime_error("run this through ctest: ESPALIER_TEST_PYTHON and ESPALIER_SOURCE are not set");
  std::string command = fmt::format("PYTHONDONTWRITEBYTECODE=1 '{}' '{}/tests/formats/{}'", interpreter, source, script);
  for (const auto& argument : arguments) command += " '" + argument + "'";
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return false;
  char piece[512];
  while (std::fgets(piece, sizeof piece, pipe)) log += piece;
  return ::pclose(pipe) == 0;
}

}  // namespace abuse
