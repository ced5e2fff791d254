#include <fcntl.h>
#include <sys/stat.h>
#include <catch2/catch_test_macros.hpp>

#include "folder.h"
#include "sdk/error.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

void age(const fs::path& file, time_t seconds) {
  const timespec then{::time(nullptr) - seconds, 0};
  const timespec times[2] = {then, then};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
}

fs::path entry_path(const Store& store, const Digest& key) {
  return store.root() / "ac" / key.hex().substr(0, 2) / key.hex().substr(2);
}

}  // namespace

TEST_CASE("verify finds a flipped bit; repair removes it with the entry that stands on it") {
  const Folder folder;
  const Digest good = sha256("good"), bad = sha256("bad");
  fs::path damaged;
  {
    Store store = Store::open(folder / "store");
    store.publish(good, entry_of(store, "untouched"));
    store.publish(bad, entry_of(store, "to be damaged"));
    const auto report = store.verify(false, {});
    CHECK(report.problems.empty());
    CHECK(report.blobs == 4);
    CHECK(report.entries == 2);
    damaged = store.blob_path(sha256("to be damaged"));
  }
  write_file(damaged, "to be Damaged");
  Store store = Store::open(folder / "store");
  CHECK(store.verify(false, {}).problems.size() == 2);
  CHECK(store.verify(true, {}).problems.size() == 2);
  CHECK(store.verify(false, {}).problems.empty());
  CHECK_FALSE(fs::exists(damaged));
  CHECK_FALSE(store.find(bad));
  CHECK(store.find(good));
  store.publish(bad, entry_of(store, "to be damaged"));  // made again
  CHECK(store.find(bad));
}

TEST_CASE("gc takes what no entry names once it is old, and leaves what is young") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  const Digest key = sha256("key");
  store.publish(key, entry_of(store, "kept"));
  const BlobRef old = store.put(bytes_of("old")), young = store.put(bytes_of("young"));
  age(store.blob_path(old.digest), 3600);
  age(store.blob_path(sha256("kept")), 3600);
  const auto dry = store.gc({{}, {}, true});
  CHECK(dry.blobs_removed == 1);
  CHECK(store.has_blob(old.digest));
  const auto report = store.gc({});
  CHECK(report.entries_removed == 0);
  CHECK(report.blobs_removed == 1);
  CHECK(report.bytes_removed == 3);
  CHECK_FALSE(store.has_blob(old.digest));
  CHECK(store.has_blob(young.digest));
  CHECK(store.find(key));
}

TEST_CASE("gc by age and by size drops the entries used longest ago, with their blobs") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  const Digest first = sha256("first"), second = sha256("second");
  store.publish(first, entry_of(store, std::string(1000, 'a')));
  store.publish(second, entry_of(store, std::string(1000, 'b')));
  age(entry_path(store, first), 10 * 86400);
  SECTION("age") {
    const auto report = store.gc({{}, 5.0, false});
    CHECK(report.entries_removed == 1);
    CHECK(report.blobs_removed == 2);
  }
  SECTION("size") {
    const auto report = store.gc({2000, {}, false});
    CHECK(report.entries_removed == 1);
    CHECK(report.bytes_left < 2000);
  }
  CHECK_FALSE(store.find(first));
  CHECK(store.find(second));
  CHECK(store.verify(false, {}).problems.empty());
}

TEST_CASE("a use sets an entry's age back") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  const Digest key = sha256("key");
  store.publish(key, entry_of(store, "text"));
  age(entry_path(store, key), 10 * 86400);
  REQUIRE(store.find(key));
  CHECK(store.gc({{}, 5.0, false}).entries_removed == 0);
}

TEST_CASE("gc keeps away from a store that a run works with") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  {
    const auto use = store.in_use({});
    REQUIRE(use);
    CHECK_THROWS_AS(store.gc({}), Error);
    CHECK_THROWS_AS(store.verify(true, {}), Error);
  }
  CHECK_NOTHROW(store.gc({}));
}

TEST_CASE("gc sweeps what dead processes left, but not what a living one holds") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  const Digest dead = sha256("dead"), living = sha256("living");
  fs::path left, used;
  { left = store.job_folder(dead); }
  const auto lock = store.try_lock(living);
  used = store.job_folder(living);
  write_file(left / "blob", "half");
  store.gc({});
  CHECK_FALSE(fs::exists(left));
  CHECK(fs::exists(used));
}
