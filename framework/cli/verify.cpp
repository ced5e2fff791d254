#include <fmt/format.h>
#include <CLI/App.hpp>

#include "cli/command.h"
#include "cli/table.h"

namespace espalier {
namespace {

int verify(bool repair, const CommonOptions& common) {
  Store store = open_store(common, !repair);
  const bool live = common.terminal_err && !common.quiet;
  const auto progress = [&](std::uint64_t done, std::uint64_t total) {
    if (live) fmt::print(stderr, "\rhashing {} of {}\033[K", human_bytes(done), human_bytes(total));
  };
  const Store::VerifyReport report = store.verify(repair, progress);
  if (live) fmt::print(stderr, "\r\033[K");
  if (common.json) {
    print_json({{"schema", 1},
                {"ok", report.problems.empty()},
                {"blobs", report.blobs},
                {"entries", report.entries},
                {"bytes", report.bytes},
                {"problems", report.problems},
                {"repaired", repair && !report.problems.empty()}});
  } else {
    for (const std::string& problem : report.problems) print(printable(problem) + "\n");
    print(fmt::format("{} blobs ({}), {} entries: {}\n", report.blobs, human_bytes(report.bytes), report.entries,
                      report.problems.empty() ? "all as they should be"
                      : repair ? fmt::format("{} damaged, removed; run again to make them anew", report.problems.size())
                               : fmt::format("{} damaged; --repair removes them", report.problems.size())));
  }
  return report.problems.empty() ? 0 : 1;
}

CommandAction set_up(CLI::App& app) {
  auto repair = std::make_shared<bool>(false);
  app.add_flag("--repair", *repair, "remove what is damaged, so that it is made again");
  return [repair](const CommonOptions& common) { return verify(*repair, common); };
}

const RegisterCommand registered{
    {"verify", "check every blob and entry of the store", {"espalier verify", "espalier verify --repair"}, set_up}};

}  // namespace
}  // namespace espalier
