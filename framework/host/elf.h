#pragma once
#include <filesystem>
#include <string>

namespace espalier {

/// What was found of one section of an ELF file. `problem` is empty when `bytes` are the section's bytes.
struct ElfSection {
  std::string bytes;
  std::string problem;  ///< "is not an ELF file", "has no section .espalier", …: follows the file's name in a message
  bool absent = false;  ///< a sound ELF file without that section
};

/// Reads one section of a little-endian ELF64 shared object of this machine's processor (System V gABI, chapter 4), with read()
/// only: nothing is mapped or loaded. Every offset and size is checked against the file before it is used; sections past 4 MiB,
/// compressed ones and ones without bytes in the file are problems.
ElfSection read_elf_section(const std::filesystem::path& file, const std::string& name);

}  // namespace espalier
