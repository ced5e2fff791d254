#include "store/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>

#include <cmath>

#include "folder.h"
#include "sdk/error.h"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

/// Sets a file's times far enough into the past for its digest to be memoised.
void age(const fs::path& file, time_t seconds) {
  const timespec then{::time(nullptr) - seconds, 0};
  const timespec times[2] = {then, then};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
}

}  // namespace

TEST_CASE("a store has the pinned layout, and blobs lie under their digests") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  CHECK(read_file(folder / "store/format") == "1\n");
  for (const char* name : {"cas", "ac", "tmp", "locks"}) CHECK(fs::is_directory(folder / "store" / name));
  const std::string text = "abc";
  const BlobRef blob = store.put(bytes_of(text));
  CHECK(blob.size == 3);
  CHECK(blob.digest.hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const fs::path file = folder / "store/cas/ba/7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  CHECK(store.blob_path(blob.digest) == file);
  CHECK(read_file(file) == text);
  CHECK(fs::is_empty(folder / "store/tmp"));
}

TEST_CASE("an entry comes back as it was published") {
  const Folder folder;
  Store store = Store::open(folder.path() / "store");
  ActionEntry entry = entry_of(store, "some bytes");
  entry.seconds = 1.5;
  entry.peak_rss = 4096;
  entry.details = {{"curve.loss", {{1, 2.5}}}};
  entry.figures["perplexity"] = std::nan("");
  entry.log = store.put(bytes_of("log")).digest;
  const Digest key = sha256("key");
  CHECK_FALSE(store.find(key));
  store.publish(key, entry);
  Store again = Store::open(folder.path() / "store", true);
  const auto found = again.find(key);
  REQUIRE(found);
  CHECK(found->outputs == entry.outputs);
  CHECK(found->figures.at("size_bytes") == 10);
  CHECK(std::isnan(found->figures.at("perplexity")));
  CHECK(found->details == entry.details);
  CHECK(found->seconds == 1.5);
  CHECK(found->peak_rss == 4096);
  CHECK(found->log == entry.log);
  CHECK(again.artifact(entry.outputs["out"].second).blobs.at("data").size == 10);
  store.forget(key);
  CHECK_FALSE(store.find(key));
}

TEST_CASE("a damaged entry, or one whose outputs are not whole, is a miss") {
  const Folder folder;
  const Digest key = sha256("key");
  const fs::path root = folder / "store";
  ActionEntry entry;
  {
    Store store = Store::open(root);
    entry = entry_of(store, "some bytes");
    store.publish(key, entry);
  }
  const std::string hex = key.hex();
  const fs::path file = root / "ac" / hex.substr(0, 2) / hex.substr(2);
  const std::string good = read_file(file);
  REQUIRE(Store::open(root).find(key));

  SECTION("cut short at any place") {
    for (std::size_t length = 0; length < good.size(); length += 7) {
      write_file(file, good.substr(0, length));
      CHECK_FALSE(Store::open(root).find(key));
    }
  }
  SECTION("one bit flipped at any place, figures included") {
    for (std::size_t at = 0; at < good.size(); at += 5) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 1);
      write_file(file, bad);
      CHECK_FALSE(Store::open(root).find(key));
    }
  }
  SECTION("another key's entry under this name") {
    const Digest other = sha256("other");
    const fs::path place = root / "ac" / other.hex().substr(0, 2) / other.hex().substr(2);
    write_file(place, good);
    CHECK_FALSE(Store::open(root).find(other));
  }
  SECTION("a blob that is gone, or has another size") {
    const Store store = Store::open(root);
    const fs::path blob = store.blob_path(sha256("some bytes"));
    write_file(blob, "some");
    CHECK_FALSE(Store::open(root).find(key));
    fs::remove(blob);
    CHECK_FALSE(Store::open(root).find(key));
  }
  SECTION("a manifest with other bytes of the same size") {
    const Store store = Store::open(root);
    const fs::path manifest = store.blob_path(entry.outputs["out"].second);
    std::string text = read_file(manifest);
    text[text.find("dataset")] = 'D';
    write_file(manifest, text);
    CHECK_FALSE(Store::open(root).find(key));
  }
}

TEST_CASE("an entry is not published before its outputs are there") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  ActionEntry entry;
  entry.outputs["out"] = {ArtifactType::dataset, sha256("never stored")};
  CHECK_THROWS_AS(store.publish(sha256("key"), entry), Error);
  CHECK_FALSE(store.find(sha256("key")));
}

TEST_CASE("finished files are taken over; what the store has is not taken twice") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  const fs::path temporary = store.new_temporary();
  write_file(temporary / "one", "first");
  write_file(temporary / "two", "second");
  const BlobRef second = store.put(bytes_of("second"));
  store.adopt({{temporary / "one", sha256("first")}, {temporary / "two", second.digest}});
  CHECK(read_file(store.blob_path(sha256("first"))) == "first");
  CHECK(fs::is_empty(temporary));
}

TEST_CASE("a key's lock has one holder, and the lock file may be removed meanwhile") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  const Digest key = sha256("key");
  {
    const auto held = store.try_lock(key);
    REQUIRE(held);
    CHECK_FALSE(store.try_lock(key));
    int asked = 0;
    CHECK_FALSE(store.lock(key, [&] { return ++asked < 3; }));
    CHECK(asked == 3);
  }
  CHECK(store.try_lock(key));
  const auto stages = store.try_machine(false);
  REQUIRE(stages);
  CHECK(store.try_machine(false));
  CHECK_FALSE(store.try_machine(true));
}

TEST_CASE("source digests are memoised, and a restored mtime deceives nobody") {
  const Folder folder;
  const fs::path file = folder / "source";
  write_file(file, "one");
  Store store = Store::open(folder / "store");
  CHECK(store.file_digest(file) == sha256("one"));
  write_file(file, "two");  // less than two seconds later: same size, maybe the same stamp
  CHECK(store.file_digest(file) == sha256("two"));

  age(file, 100);
  ::sleep(3);  // ctime cannot be set back; it has to grow old
  CHECK(store.file_digest(file) == sha256("two"));
  CHECK(Store::open(folder / "store").file_digest(file) == sha256("two"));
  struct stat before {};
  REQUIRE(::stat(file.c_str(), &before) == 0);
  write_file(file, "six");
  const timespec times[2] = {before.st_atim, before.st_mtim};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
  CHECK(store.file_digest(file) == sha256("six"));
  CHECK_THROWS_AS(store.file_digest(folder / "absent"), Error);
  CHECK_THROWS_AS(store.file_digest(folder.path()), Error);
}

TEST_CASE("an interrupt stops the hashing of files") {
  const Folder folder;
  write_file(folder / "source", "text");
  Store store = Store::open(folder / "store");
  std::atomic<int> interrupted{2};
  store.stop_on(&interrupted);
  try {
    store.file_digest(folder / "source");
    FAIL("hashed on");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::cancelled);
  }
}

TEST_CASE("runs are recorded, newest first, by recipe") {
  const Folder folder;
  Store store = Store::open(folder / "store");
  store.record_run({"1", "a", "/a.toml", true, 10, 1, {{"n", 1}}});
  store.record_run({"2", "a", "/a.toml", false, 20, 2, {{"n", 2}}});
  store.record_run({"3", "b", "/b.toml", true, 30, 3, {{"n", 3}}});
  const auto runs = store.runs("/a.toml", 10);
  REQUIRE(runs.size() == 2);
  CHECK(runs[0].id == "2");
  CHECK_FALSE(runs[0].ok);
  CHECK(runs[0].summary == Json{{"n", 2}});
  CHECK(store.runs("/a.toml", 1).size() == 1);
}

TEST_CASE("a damaged index is made anew, with a note") {
  const Folder folder;
  const fs::path index = folder / "store/index.sqlite";
  {
    Store store = Store::open(folder / "store");
    store.record_run({"1", "a", "/a.toml", true, 10, 1, Json::object()});
    CHECK(store.notes().empty());
  }
  for (const char* suffix : {"-wal", "-shm"}) fs::remove(index.string() + suffix);
  write_file(index, std::string(8192, 'x'));
  Store store = Store::open(folder / "store");
  CHECK(store.runs("/a.toml", 5).empty());
  store.record_run({"2", "a", "/a.toml", true, 10, 1, Json::object()});
  CHECK(store.runs("/a.toml", 5).size() == 1);
  CHECK(store.notes().size() == 1);
}
