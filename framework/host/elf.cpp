#include "host/elf.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

namespace espalier {
namespace {

constexpr std::uint64_t largest_section = 4u << 20;  // a manifest or a table of section names is kilobytes
constexpr std::uint64_t most_sections = 1u << 16;

#if defined(__x86_64__)
constexpr std::uint16_t this_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr std::uint16_t this_machine = EM_AARCH64;
#else
#error "add the ELF number of this processor"
#endif

class File {
 public:
  explicit File(const std::filesystem::path& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor_ < 0) {
      problem_ = std::string("cannot be read: ") + std::strerror(errno);
      return;
    }
    struct stat state {};
    if (::fstat(descriptor_, &state) != 0 || !S_ISREG(state.st_mode))
      problem_ = "is not a regular file";
    else
      size_ = static_cast<std::uint64_t>(state.st_size);
  }
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& problem() const { return problem_; }
  bool holds(std::uint64_t offset, std::uint64_t length) const { return offset <= size_ && length <= size_ - offset; }
  /// False when the range leaves the file, or the file became shorter meanwhile.
  bool read(std::uint64_t offset, void* target, std::uint64_t length) const {
    if (!holds(offset, length)) return false;
    auto* out = static_cast<char*>(target);
    while (length) {
      const ssize_t done = ::pread(descriptor_, out, length, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return false;
      out += done;
      offset += static_cast<std::uint64_t>(done);
      length -= static_cast<std::uint64_t>(done);
    }
    return true;
  }

 private:
  int descriptor_;
  std::uint64_t size_ = 0;
  std::string problem_;
};

std::string header_problem(const Elf64_Ehdr& header) {
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return "is not an ELF file";
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_ident[EI_VERSION] != EV_CURRENT)
    return "is not a 64-bit little-endian ELF file";
  if (header.e_machine != this_machine) return "was built for another processor";
  if (header.e_type != ET_DYN) return "is an ELF file, but not a shared library";
  if (header.e_shoff == 0) return "has no section table";
  if (header.e_shentsize != sizeof(Elf64_Shdr)) return "has a section table with entries of an unknown size";
  return {};
}

}  // namespace

ElfSection read_elf_section(const std::filesystem::path& path, const std::string& name) {
  const auto wrong = [](std::string problem) { return ElfSection{{}, std::move(problem), false}; };
  const File file(path);
  if (!file.problem().empty()) return wrong(file.problem());

  Elf64_Ehdr header;
  if (!file.read(0, &header, sizeof header)) return wrong("is not an ELF file (too short)");
  if (auto problem = header_problem(header); !problem.empty()) return wrong(std::move(problem));

  // Counts that do not fit 16 bits stand in the first, otherwise unused, section header.
  Elf64_Shdr first;
  if (!file.read(header.e_shoff, &first, sizeof first)) return wrong("is truncated: its section table lies outside the file");
  const std::uint64_t count = header.e_shnum ? header.e_shnum : first.sh_size;
  const std::uint64_t names_index = header.e_shstrndx == SHN_XINDEX ? first.sh_link : header.e_shstrndx;
  if (count == 0 || count > most_sections) return wrong("has a damaged section table");
  if (!file.holds(header.e_shoff, count * sizeof(Elf64_Shdr)))
    return wrong("is truncated: its section table lies outside the file");
  if (names_index >= count) return wrong("has a damaged section table: the section of names does not exist");
  std::vector<Elf64_Shdr> sections(count);
  if (!file.read(header.e_shoff, sections.data(), count * sizeof(Elf64_Shdr))) return wrong("is truncated");

  const Elf64_Shdr& strings = sections[names_index];
  if (strings.sh_type != SHT_STRTAB || strings.sh_size > largest_section || !file.holds(strings.sh_offset, strings.sh_size))
    return wrong("has a damaged table of section names");
  std::string names(strings.sh_size, '\0');
  if (!file.read(strings.sh_offset, names.data(), names.size())) return wrong("is truncated");

  const Elf64_Shdr* found = nullptr;
  for (const auto& section : sections) {
    if (section.sh_name >= names.size()) continue;
    const std::size_t left = names.size() - section.sh_name;
    if (left <= name.size() || names.compare(section.sh_name, name.size(), name) != 0 ||
        names[section.sh_name + name.size()] != '\0')
      continue;
    if (found) return wrong("has more than one section " + name);
    found = &section;
  }
  if (!found) return ElfSection{{}, "has no section " + name, true};
  if (found->sh_type != SHT_PROGBITS) return wrong("has a section " + name + " without bytes in the file");
  if (found->sh_flags & SHF_COMPRESSED) return wrong("has a compressed section " + name);
  if (found->sh_size > largest_section) return wrong("has a section " + name + " of more than 4 MiB");
  if (!file.holds(found->sh_offset, found->sh_size)) return wrong("is truncated: its section " + name + " lies outside the file");
  ElfSection result;
  result.bytes.resize(found->sh_size);
  if (!file.read(found->sh_offset, result.bytes.data(), result.bytes.size())) return wrong("is truncated");
  return result;
}

}  // namespace espalier
