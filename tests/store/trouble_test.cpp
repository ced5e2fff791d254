#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>

#include <functional>

#include "folder.h"
#include "sdk/error.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

/// Runs `body` in a process of its own; what it returns, or an Error's what() after its code, comes back.
std::string in_child(const std::function<std::string()>& body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::string text;
    try {
      text = body();
    } catch (const Error& error) {
      text = std::string(to_string(error.code())) + ": " + error.what();
    } catch (const std::exception& error) {
      text = error.what();
    }
    if (::write(ends[1], text.data(), text.size()) < 0) ::_exit(1);
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status));
  return text;
}

std::size_t files_below(const fs::path& folder) {
  std::size_t count = 0;
  for (const auto& item : fs::recursive_directory_iterator(folder)) count += item.is_regular_file();
  return count;
}

}  // namespace

TEST_CASE("another format, or a folder that is no store, is refused") {
  const Folder folder;
  write_file(folder / "store/format", "2\n");
  try {
    Store::open(folder / "store");
    FAIL("opened");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK(std::string(error.what()).find("\"2\"") != std::string::npos);
  }
  write_file(folder / "photos/one.jpg", "…");
  CHECK_THROWS_AS(Store::open(folder / "photos"), Error);
  CHECK_THROWS_AS(Store::open(folder / "absent", true), Error);
  CHECK_FALSE(fs::exists(folder / "absent"));
}

TEST_CASE("a folder that may not be written gives an error with path and cause") {
  const Folder folder;
  Store::open(folder / "store").put(bytes_of("there"));
  for (const auto& item : fs::recursive_directory_iterator(folder.path()))
    if (item.is_directory()) fs::permissions(item.path(), fs::perms(0555));
  fs::permissions(folder.path(), fs::perms(0555));
  const std::string text = in_child([&]() -> std::string {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return "cannot drop privileges";
    Store store = Store::open(folder / "store");
    store.put(bytes_of("more"));
    return "written";
  });
  INFO(text);
  CHECK(text.starts_with("resource: "));
  CHECK(text.find((folder / "store").string()) != std::string::npos);
  CHECK(text.find("Permission denied") != std::string::npos);
  const std::string made = in_child([&]() -> std::string {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return "cannot drop privileges";
    Store::open(folder / "new");
    return "made";
  });
  INFO(made);
  CHECK(made.starts_with("resource: "));
  for (const auto& item : fs::recursive_directory_iterator(folder.path()))
    if (item.is_directory()) fs::permissions(item.path(), fs::perms(0755));
  fs::permissions(folder.path(), fs::perms(0755));
}

TEST_CASE("a full disk gives an error, and nothing half-written stays") {
  const Folder folder;
  const fs::path root = folder / "disk";
  fs::create_directory(root);
  const bool mounted = ::mount("tmpfs", root.c_str(), "tmpfs", 0, "size=256k") == 0;
  if (!mounted) WARN("a tmpfs cannot be mounted here: a limit of file sizes stands in for the full disk");
  const std::string text = in_child([&]() -> std::string {
    if (!mounted) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{200000, 200000};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    Store store = Store::open(root / "store");
    store.put(bytes_of(std::string(1000, 'a')));
    store.put(bytes_of(std::string(500000, 'b')));
    return "written";
  });
  INFO(text);
  CHECK(text.starts_with("resource: "));
  CHECK(text.find(mounted ? "No space left" : "File too large") != std::string::npos);
  CHECK(text.find(root.string()) != std::string::npos);
  CHECK(files_below(root / "store/tmp") == 0);
  CHECK(files_below(root / "store/cas") == 1);
  {
    Store store = Store::open(root / "store");
    CHECK(store.verify(false, {}).problems.empty());
  }
  if (mounted) ::umount2(root.c_str(), MNT_DETACH);
}

TEST_CASE("kill -9 at any moment of publishing leaves no entry or a whole one") {
  const Folder folder;
  Store::open(folder / "store");
  const Digest key = sha256("key");
  int whole = 0;
  for (int round = 0; round < 40; ++round) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      Store store = Store::open(folder / "store");
      for (int i = 0;; ++i) {
        store.publish(key, entry_of(store, std::to_string(round) + " " + std::to_string(i) + std::string(20000, 'x')));
        store.forget(key);
      }
    }
    ::usleep(static_cast<useconds_t>(2000 + round * 700));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    Store store = Store::open(folder / "store");
    whole += store.find(key).has_value();
    const auto report = store.verify(false, {});
    for (const std::string& problem : report.problems) UNSCOPED_INFO(problem);
    CHECK(report.problems.empty());
  }
  INFO(whole << " of 40 kills left an entry");
  CHECK(whole < 40);
}
