#include "engine/installation.h"

#include <elf.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>

#include "sdk/error.h"
#include "store/files.h"

namespace espalier {
namespace fs = std::filesystem;
namespace {

template <class T>
std::optional<T> read_at(std::span<const std::byte> bytes, std::uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

/// DT_RPATH or DT_RUNPATH of a 64-bit ELF file; empty when there is none.
std::string run_path(std::span<const std::byte> bytes) {
  const auto header = read_at<Elf64_Ehdr>(bytes, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64) return {};
  std::vector<Elf64_Phdr> loads;
  std::optional<Elf64_Phdr> dynamic;
  for (int i = 0; i < header->e_phnum; ++i) {
    const auto program = read_at<Elf64_Phdr>(bytes, header->e_phoff + static_cast<std::uint64_t>(i) * header->e_phentsize);
    if (!program) return {};
    if (program->p_type == PT_LOAD) loads.push_back(*program);
    if (program->p_type == PT_DYNAMIC) dynamic = program;
  }
  if (!dynamic) return {};
  std::uint64_t strings = 0, path = 0;
  bool found = false;
  for (std::uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
    const auto entry = read_at<Elf64_Dyn>(bytes, dynamic->p_offset + at);
    if (!entry || entry->d_tag == DT_NULL) break;
    if (entry->d_tag == DT_STRTAB) strings = entry->d_un.d_ptr;
    if (entry->d_tag == DT_RPATH || entry->d_tag == DT_RUNPATH) path = entry->d_un.d_val, found = true;
  }
  for (const Elf64_Phdr& load : loads) {
    if (!found || strings < load.p_vaddr || strings - load.p_vaddr >= load.p_filesz) continue;
    std::string text;
    for (std::uint64_t at = load.p_offset + (strings - load.p_vaddr) + path;; ++at) {
      const auto c = read_at<char>(bytes, at);
      if (!c || *c == '\0') return text;
      text += *c;
    }
  }
  return {};
}

std::vector<fs::path> run_path_folders(const fs::path& program) {
  const std::string text = run_path(MappedFile(program).bytes());
  std::vector<fs::path> folders;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(':', start), text.size());
    std::string folder = text.substr(start, end - start);
    if (folder.starts_with("$ORIGIN")) folder = program.parent_path().string() + folder.substr(7);
    if (!folder.empty()) folders.emplace_back(folder);
    start = end + 1;
  }
  return folders;
}

/// The first line of a version file; of version.py, what stands between the quotes after __version__.
std::optional<std::string> version_file(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    if (file.extension() != ".py") return line;
    if (!line.starts_with("__version__")) continue;
    const std::size_t open = line.find_first_of("'\""), close = line.find_last_of("'\"");
    if (open != std::string::npos && close > open) return line.substr(open + 1, close - open - 1);
  }
  return std::nullopt;
}

#if defined(__x86_64__)
std::string cpu_text(unsigned first, unsigned last) {
  std::string text;
  for (unsigned leaf = first; leaf <= last; ++leaf) {
    unsigned registers[4] = {};
    if (__get_cpuid(leaf, &registers[0], &registers[1], &registers[2], &registers[3]) == 0) break;
    text.append(reinterpret_cast<const char*>(registers), sizeof registers);
  }
  text.resize(std::strlen(text.c_str()));
  return text;
}
#endif

}  // namespace

Installation Installation::current() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) throw Error(ErrorCode::resource, "cannot tell where this program lies: " + error.message(), "/proc/self/exe");
  return Installation(program.parent_path().parent_path());
}

std::vector<fs::path> Installation::code() const {
  std::vector<fs::path> files;
  for (const char* library : {"sdk", "graph", "formats", "prune", "run", "worker"})
    files.push_back(root_ / "lib" / (std::string("libespalier_") + library + ".so"));
  for (const fs::path& file : files)
    if (!fs::exists(file))
      throw Error(ErrorCode::resource, "a part of the installation is missing", file.string(), "build or install again");
  return files;
}

std::string Installation::runtime_version(const std::string& runtime) const {
  for (const fs::path& folder : run_path_folders(worker())) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& item : fs::directory_iterator(folder, error)) {
      std::string name = item.path().filename().string();
      if (name.starts_with("lib" + runtime + ".so") || name == "lib" + runtime + "_cpu.so") names.push_back(std::move(name));
    }
    if (names.empty()) continue;
    for (const char* file : {"version.py", "build-version"})
      if (const auto version = version_file(folder.parent_path() / file)) return *version;
    const std::string longest = *std::max_element(
        names.begin(), names.end(), [](const auto& a, const auto& b) { return std::pair(a.size(), a) < std::pair(b.size(), b); });
    const std::size_t suffix = longest.find(".so.");
    if (suffix != std::string::npos) return longest.substr(suffix + 4);
    return "size " + std::to_string(fs::file_size(folder / longest));
  }
  return "absent";
}

Json numeric_profile() {
  std::string vendor, features;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) != 0) {
    const unsigned registers[3] = {b, d, c};
    vendor.assign(reinterpret_cast<const char*>(registers), sizeof registers);
  }
  const auto add = [&](bool has, const char* name) {
    if (has) features += (features.empty() ? "" : " ") + std::string(name);
  };
  __builtin_cpu_init();
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512bw"), "avx512bw");
  add(__builtin_cpu_supports("avx512vnni"), "avx512vnni");
  add(__builtin_cpu_supports("avx512bf16"), "avx512bf16");
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) add((d >> 24 & 1) != 0, "amx");
#endif
  utsname system{};
  ::uname(&system);
  return {{"architecture", system.machine}, {"vendor", vendor}, {"features", features}};
}

Json machine_fingerprint() {
  std::string processor;
#if defined(__x86_64__)
  processor = cpu_text(0x80000002, 0x80000004);
#endif
  cpu_set_t set;
  CPU_ZERO(&set);
  const int count = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  const auto bytes = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return {{"processor", processor}, {"processors", count}, {"memory_gib", (bytes + (1u << 29)) >> 30}};
}

}  // namespace espalier
