#include "host/elf.h"

#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "host/catalog.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

fs::path folder() { return fs::path(std::getenv("ESPALIER_BUILD")) / "tests" / "host_plugins"; }

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Scratch {
  fs::path file = fs::temp_directory_path() / ("espalier-elf-test-" + std::to_string(::getpid()) + ".so");
  ~Scratch() { fs::remove(file); }
  const fs::path& write(std::string_view bytes) const {
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file;
  }
};

bool says(const PluginInfo& plugin, std::string_view part) { return plugin.problem.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the manifest of a plugin is read without loading it") {
  const auto plugin = read_plugin(folder() / "sound.so");
  INFO(plugin.problem);
  REQUIRE(plugin.usable);
  CHECK(plugin.problem.empty());
  CHECK(plugin.name == "sound");
  CHECK(plugin.version == "1.2.3");
  CHECK(plugin.licence == "Apache-2.0");
  REQUIRE(plugin.components.size() == 1);
  const auto& component = plugin.components[0];
  CHECK(component.name == "metric/sound");
  CHECK(component.kind() == "metric");
  CHECK(component.file == folder() / "sound.so");
  CHECK(component.uses_seed);
  CHECK(component.runtimes == std::vector<std::string>{"torch"});
  CHECK(component.memory_base == 1e8);
  CHECK(component.memory_per_byte == 3.0);
  REQUIRE(component.inputs.size() == 2);
  CHECK(component.inputs[0].required);
  CHECK((!component.inputs[1].required && component.inputs[1].many));
  REQUIRE(component.parameters.size() == 1);
  CHECK(component.parameters[0].default_value == 16);
}

TEST_CASE("a stripped plugin keeps its manifest") {
  const Scratch scratch;
  REQUIRE(std::system(("strip -s -o '" + scratch.file.string() + "' '" + (folder() / "sound.so").string() + "'").c_str()) == 0);
  CHECK(read_plugin(scratch.file).usable);
}

TEST_CASE("files that are no plugin of this program are refused with a reason") {
  CHECK(says(read_plugin(folder() / "no_manifest.so"), "not a plugin"));
  CHECK(says(read_plugin(folder() / "two_manifests.so"), "more than one manifest"));
  CHECK(says(read_plugin(folder() / "broken_manifest.so"), "not JSON"));
  CHECK(says(read_plugin(folder() / "absent.so"), "cannot be read"));
  CHECK(says(read_plugin(folder()), "not a regular file"));
  const auto other = read_plugin(folder() / "other_fingerprint.so");
  CHECK_FALSE(other.usable);
  CHECK(says(other, "rebuild the plugin"));
  CHECK(says(other, "torch=1.13"));
  CHECK(says(other, "other_fingerprint.so"));
  const Scratch scratch;
  CHECK(says(read_plugin(scratch.write("")), "not an ELF file"));
  CHECK(says(read_plugin(scratch.write("#!/bin/sh\necho this is a script that is a little longer than an ELF header is\n")),
             "not an ELF file"));
}

TEST_CASE("the section of another name is absent, not a fault") {
  const auto section = read_elf_section(folder() / "sound.so", ".espalier.more");
  CHECK(section.absent);
  CHECK_FALSE(read_elf_section(folder() / "sound.so", ".text").bytes.empty());
}

TEST_CASE("every truncation of a plugin is refused") {
  const auto whole = content(folder() / "sound.so");
  const Scratch scratch;
  REQUIRE(read_plugin(scratch.write(whole)).usable);
  // The section table stands at the end: whatever is missing, the plugin is not usable.
  for (std::size_t i = 0; i < 400; ++i) {
    const std::size_t length = i < 100 ? i : i < 200 ? whole.size() - 1 - (i - 100) : whole.size() * (i - 200) / 200;
    const auto plugin = read_plugin(scratch.write(std::string_view(whole).substr(0, length)));
    INFO(length);
    CHECK_FALSE(plugin.usable);
    CHECK_FALSE(plugin.problem.empty());
  }
}

TEST_CASE("flipped bits never crash the reader and never give half a plugin") {
  const auto whole = content(folder() / "sound.so");
  const auto text = whole.find("{\"format\":1");
  REQUIRE(text != std::string::npos);
  std::uint64_t table = 0;
  std::memcpy(&table, whole.data() + 40, sizeof table);  // e_shoff
  std::mt19937 random(7);
  const Scratch scratch;
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    auto bytes = whole;
    // Where a flip can matter: header, section table, manifest.
    const std::size_t place = i % 3 == 0   ? random() % 64
                              : i % 3 == 1 ? table + random() % (whole.size() - table)
                                           : text + random() % 900;
    bytes[place] = static_cast<char>(bytes[place] ^ (1 << random() % 8));
    const auto plugin = read_plugin(scratch.write(bytes));
    INFO("byte " << place);
    CHECK(plugin.usable == plugin.problem.empty());
    if (plugin.usable) CHECK(plugin.components.size() == 1);
    refused += !plugin.usable;
  }
  CHECK(refused > 200);
}
