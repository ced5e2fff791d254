#include <fmt/format.h>
#include <CLI/App.hpp>

#include <cmath>

#include "cli/command.h"
#include "cli/table.h"
#include "sdk/error.h"

namespace espalier {
namespace {

/// "500MB", "1.5GiB", "1000000".
std::uint64_t parse_size(const std::string& text) {
  static const std::map<std::string, double> units = {{"", 1},          {"B", 1},
                                                      {"KB", 1e3},      {"MB", 1e6},
                                                      {"GB", 1e9},      {"TB", 1e12},
                                                      {"K", 1024.0},    {"M", 1 << 20},
                                                      {"G", 1 << 30},   {"T", 1024.0 * (1 << 30)},
                                                      {"KIB", 1024},    {"MIB", 1 << 20},
                                                      {"GIB", 1 << 30}, {"TIB", 1024.0 * (1 << 30)}};
  std::size_t end = 0;
  double number = -1;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {}
  std::string unit = text.substr(std::min(end, text.size()));
  unit.erase(0, unit.find_first_not_of(' '));
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  const auto found = units.find(unit);
  if (!(number >= 0) || found == units.end() || number * found->second > 1e18)
    throw_invalid("\"" + printable(text) + "\" is no size", "--keep-size", "for example 20GiB or 500MB");
  return static_cast<std::uint64_t>(number * found->second);
}

int collect(const std::string& keep_size, double keep_days, bool dry_run, const CommonOptions& common) {
  Store::GcOptions options;
  if (!keep_size.empty()) options.keep_bytes = parse_size(keep_size);
  if (!std::isnan(keep_days)) options.keep_days = keep_days;
  options.dry_run = dry_run;
  Store store = open_store(common);
  const Store::GcReport report = store.gc(options);
  if (common.json)
    print_json({{"schema", 1},
                {"ok", true},
                {"dry_run", dry_run},
                {"entries_removed", report.entries_removed},
                {"blobs_removed", report.blobs_removed},
                {"bytes_removed", report.bytes_removed},
                {"bytes_left", report.bytes_left}});
  else
    print(fmt::format("{} {} entries and {} blobs ({}), {} left\n", dry_run ? "would remove" : "removed", report.entries_removed,
                      report.blobs_removed, human_bytes(report.bytes_removed), human_bytes(report.bytes_left)));
  return 0;
}

CommandAction set_up(CLI::App& app) {
  auto keep_size = std::make_shared<std::string>();
  auto keep_days = std::make_shared<double>(std::nan(""));
  auto dry_run = std::make_shared<bool>(false);
  app.add_option("--keep-size", *keep_size, "keep the results used last, up to this size (20GiB)")->type_name("SIZE");
  app.add_option("--keep-days", *keep_days, "keep results used within so many days")
      ->type_name("DAYS")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--dry-run", *dry_run, "only say what would be removed");
  return [=](const CommonOptions& common) { return collect(*keep_size, *keep_days, *dry_run, common); };
}

const RegisterCommand registered{
    {"gc",
     "remove what no result needs, and with limits the results used longest ago",
     {"espalier gc", "espalier gc --keep-size 20GiB --keep-days 30", "espalier gc --keep-days 7 --dry-run"},
     set_up}};

}  // namespace
}  // namespace espalier
