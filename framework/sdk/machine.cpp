#include "sdk/machine.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

namespace espalier {
namespace {

std::string first_line(const std::filesystem::path& file) {
  std::string line;
  std::ifstream in(file);
  std::getline(in, line);
  return line;
}

/// The value of the first "NAME : value" of /proc/cpuinfo.
std::string cpuinfo(const std::string& name) {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with(name))
      if (const auto colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return {};
}

/// Those of the processor's instruction sets that decide how fast matrix products are.
std::string instruction_sets() {
  constexpr std::array wanted = {"avx2",     "fma",         "f16c",        "avx512f",  "avx512bw", "avx512_vnni",
                                 "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
                                 "asimddp",  "i8mm",        "bf16",        "sve"};
  std::string text = cpuinfo("flags");
  if (text.empty()) text = cpuinfo("Features");
  std::istringstream words(text);
  std::set<std::string> has;
  for (std::string word; words >> word;) has.insert(word);
  std::string out;
  for (const char* name : wanted)
    if (has.contains(name)) out += (out.empty() ? "" : " ") + std::string(name);
  return out;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> describe_machine() {
  std::vector<std::pair<std::string, std::string>> facts;
  const auto add = [&](const char* property, std::string value) {
    if (!value.empty()) facts.emplace_back(property, std::move(value));
  };
  add("processor", cpuinfo("model name"));
  add("instruction sets", instruction_sets());
  add("cores", std::to_string(std::thread::hardware_concurrency()));
  add("governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
  struct sysinfo memory {};
  if (::sysinfo(&memory) == 0)
    add("memory", std::to_string(static_cast<std::uint64_t>(memory.totalram) * memory.mem_unit >> 20) + " MiB");
  struct utsname system {};
  if (::uname(&system) == 0) add("kernel", std::string(system.sysname) + " " + system.release + " " + system.machine);
  return facts;
}

std::optional<ProcessorTime> processor_time() {
  std::istringstream line(first_line("/proc/stat"));
  std::string name;
  line >> name;
  if (name != "cpu") return std::nullopt;
  ProcessorTime time;
  double ticks = 0;
  for (int field = 0; field < 8 && line >> ticks; ++field) {  // user nice system idle iowait irq softirq steal
    time.total += ticks;
    if (field == 7) time.stolen = ticks;
  }
  return time.total > 0 ? std::optional(time) : std::nullopt;
}

std::optional<double> processor_clock() {
  double sum = 0;
  int count = 0;
  for (unsigned core = 0; core < std::thread::hardware_concurrency(); ++core) {
    const std::string text = first_line("/sys/devices/system/cpu/cpu" + std::to_string(core) + "/cpufreq/scaling_cur_freq");
    if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) continue;
    sum += std::stod(text) / 1000;
    ++count;
  }
  return count ? std::optional(sum / count) : std::nullopt;
}

}  // namespace espalier
