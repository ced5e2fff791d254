#include "cli/display.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "cli/table.h"

namespace espalier {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(250);
constexpr auto kPlainInterval = std::chrono::seconds(10);

std::size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

/// At most `width` code points.
std::string cut(const std::string& text, std::size_t width) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80 && ++count > width) return text.substr(0, i);
  return text;
}

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string values_text(const Json& values) {
  std::string text;
  for (const Json& pair : values) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string()) continue;
    text += ", " + pair[0].get<std::string>() + " " + (pair[1].is_number() ? fmt::format("{:.4g}", pair[1].get<double>()) : "nan");
  }
  return text;
}

void indented(std::string& out, const std::string& text, const std::string& margin) {
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    out += margin + printable(std::string_view(text).substr(start, end - start)) + "\n";
    start = end + 1;
  }
}

}  // namespace

std::string figures_text(const std::map<std::string, double>& figures) {
  std::string text;
  for (const auto& [name, value] : figures) text += (text.empty() ? "" : ", ") + name + " " + fmt::format("{:.5g}", value);
  return text;
}

std::string error_text(const StageResult::Failure& failure, bool colour) {
  std::string text = coloured("error[" + failure.code + "]", "red", colour) + ": " + printable(failure.message) + "\n";
  if (!failure.where.empty()) text += "  at " + printable(failure.where) + "\n";
  if (!failure.hint.empty()) text += "  hint: " + printable(failure.hint) + "\n";
  if (!failure.tail.empty()) {
    text += "  the end of its log:\n";
    indented(text, failure.tail, "  | ");
  }
  return text;
}

Display::Display(const CommonOptions& common) : common_(common), live_(common.terminal_err && !common.quiet) {
  if (live_) ticker_ = std::thread([this] { tick(); });
}

Display::~Display() {
  {
    const std::lock_guard guard(mutex_);
    stopped_ = true;
    erase();
  }
  stop_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

void Display::tick() {
  std::unique_lock guard(mutex_);
  while (!stop_.wait_for(guard, kRedraw, [this] { return stopped_; })) draw();
}

void Display::erase() {
  if (drawn_ > 0) fmt::print(stderr, "\r\033[{}A\033[J", drawn_);
  drawn_ = 0;
}

void Display::draw() {
  if (!live_ || stopped_) return;
  erase();
  const auto now = Clock::now();
  const std::size_t width = terminal_width() - 1;
  for (const auto& [name, live] : running_) {
    fmt::print(stderr, "{}\n", cut(line(name, live, now), width));
    ++drawn_;
  }
  std::fflush(stderr);
}

/// "tuned  12/100, finetuning, loss 3.214 · 1 min 03 s, about 7 min left".
std::string Display::line(const std::string& name, const Live& live, Clock::time_point now) const {
  const double spent = seconds_between(live.since, now);
  std::string text = name + "  ";
  if (live.total > 0)
    text += fmt::format("{}/{}", live.step, live.total);
  else if (live.step > 0)
    text += fmt::format("{}", live.step);
  else
    text += "running";
  if (!live.label.empty()) text += ", " + live.label;
  text += live.values + ", " + human_seconds(spent);
  if (live.step > live.first && live.step < live.total) {
    const double each = seconds_between(live.first_at, now) / static_cast<double>(live.step - live.first);
    text += ", about " + human_seconds(each * static_cast<double>(live.total - live.step)) + " left";
  }
  return printable(text);
}

void Display::say(const std::string& text) {
  erase();
  std::fputs(text.c_str(), stderr);
  draw();
}

void Display::started(const Stage& stage) {
  const std::lock_guard guard(mutex_);
  const auto now = Clock::now();
  running_[stage.name] = {now, now, {}, 0, 0, 0, {}, {}};
  if (live_)
    draw();
  else if (!common_.quiet)
    say(stage.name + ": started\n");
}

void Display::progress(const Stage& stage, const Json& report) {
  const std::lock_guard guard(mutex_);
  const auto found = running_.find(stage.name);
  if (found == running_.end()) return;
  Live& live = found->second;
  const auto number = [&](const char* name) {
    return report.contains(name) && report[name].is_number_unsigned() ? report[name].get<std::uint64_t>() : 0;
  };
  const auto now = Clock::now();
  if (live.first_at == Clock::time_point{} || number("total") != live.total || number("step") < live.step) {
    live.first_at = now;  // a new count begins
    live.first = number("step");
  }
  live.step = number("step");
  live.total = number("total");
  live.label = report.contains("label") && report["label"].is_string() ? report["label"].get<std::string>() : "";
  live.values = report.contains("values") ? values_text(report["values"]) : "";
  if (live_ || common_.quiet || now - live.said < kPlainInterval) return;
  live.said = now;
  say(line(stage.name + ":", live, now) + "\n");
}

void Display::log(const Stage& stage, int level, const std::string& text) {
  const std::lock_guard guard(mutex_);
  const int wanted = common_.quiet ? 3 : common_.verbose >= 2 ? 0 : common_.verbose == 1 ? 1 : 2;
  if (level < wanted) return;
  const std::string mark = level >= 3   ? coloured("error: ", "red", common_.colour_err)
                           : level == 2 ? coloured("warning: ", "yellow", common_.colour_err)
                                        : "";
  say(stage.name + ": " + mark + printable(text) + "\n");
}

void Display::finished(const Stage& stage, const StageResult& result) {
  const std::lock_guard guard(mutex_);
  running_.erase(stage.name);
  if (result.error) return say(error_text(*result.error, common_.colour_err));
  if (common_.quiet) return;
  std::string text = stage.name + ": " + std::string(to_string(result.status));
  if (result.status == StageStatus::ran) text += " in " + human_seconds(result.seconds);
  if (result.status == StageStatus::ran && result.entry && !result.entry->figures.empty())
    text += ", " + figures_text(result.entry->figures);
  if (result.status != StageStatus::cached || common_.verbose > 0) say(text + "\n");
}

}  // namespace espalier
