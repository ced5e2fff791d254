#include "store/index.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <time.h>

#include <cerrno>

#include "sdk/error.h"
#include "store/files.h"

namespace espalier {
namespace {

/// Raised inside this file only: SQLite says that the file is damaged, or no database.
struct Damaged {
  std::string cause;
};
/// Any other trouble of SQLite's.
struct Trouble {
  std::string cause;
};

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr int kIndexVersion = 1;
constexpr const char* kTables =
    "CREATE TABLE IF NOT EXISTS files (device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER, digest TEXT,"
    " PRIMARY KEY (device, inode)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS derived (what TEXT, digest TEXT, text TEXT, PRIMARY KEY (what, digest)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, recipe TEXT, file TEXT, ok INTEGER, started REAL, seconds REAL, summary "
    "TEXT);"
    "CREATE INDEX IF NOT EXISTS runs_by_file ON runs (file, started);"
    "PRAGMA user_version = 1;";

std::int64_t nanoseconds(const timespec& time) { return static_cast<std::int64_t>(time.tv_sec) * kSecond + time.tv_nsec; }

}  // namespace

FileStamp FileStamp::of(const std::filesystem::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) throw_resource(file, "read", errno);
  if (!S_ISREG(status.st_mode)) throw_invalid("is not a regular file", file.string());
  return {static_cast<std::int64_t>(status.st_dev), static_cast<std::int64_t>(status.st_ino), status.st_size,
          nanoseconds(status.st_mtim), nanoseconds(status.st_ctim)};
}

bool FileStamp::fresh() const {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return nanoseconds(now) - std::max(mtime_ns, ctime_ns) < 2 * kSecond;
}

/// A prepared statement, bound in order and stepped.
class Index::Statement {
 public:
  Statement(const Index& index, const char* sql) : index_(index) {
    index_.check(sqlite3_prepare_v2(index.database_, sql, -1, &statement_, nullptr));
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& bind(std::int64_t value) { return checked(sqlite3_bind_int64(statement_, ++bound_, value)); }
  Statement& bind(double value) { return checked(sqlite3_bind_double(statement_, ++bound_, value)); }
  Statement& bind(std::string_view value) {
    return checked(sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()), SQLITE_TRANSIENT));
  }
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) index_.check(code);
    return false;
  }
  std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double number(int column) const { return sqlite3_column_double(statement_, column); }
  std::string text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes == nullptr ? std::string()
                            : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }

 private:
  Statement& checked(int code) {
    index_.check(code);
    return *this;
  }
  const Index& index_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

Index::Index(std::filesystem::path file, bool read_only) : file_(std::move(file)), read_only_(read_only) {}
Index::~Index() { close(); }

void Index::close() {
  if (database_ != nullptr) sqlite3_close_v2(database_);
  database_ = nullptr;
}

void Index::check(int code) const {
  if (code == SQLITE_OK) return;
  const std::string cause = database_ != nullptr ? sqlite3_errmsg(database_) : sqlite3_errstr(code);
  const int kind = code & 0xff;
  // A table that lacks its columns (SQLITE_ERROR while preparing) is damage too: the version check has passed by then.
  if (kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB || kind == SQLITE_ERROR) throw Damaged{cause};
  throw Trouble{cause};
}

void Index::open() {
  if (database_ != nullptr) return;
  const int flags = read_only_ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  check(sqlite3_open_v2(file_.c_str(), &database_, flags | SQLITE_OPEN_NOMUTEX, nullptr));
  sqlite3_busy_timeout(database_, 5000);
  // No checkpoint when the last user leaves: a cached run writes one row and should not wait for the disk.
  sqlite3_db_config(database_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  std::int64_t version = 0;
  {
    Statement statement(*this, "PRAGMA user_version");
    if (statement.step()) version = statement.integer(0);
  }
  if (version != 0 && version != kIndexVersion) throw Damaged{"it is of another version"};
  if (read_only_) return;
  // A write-ahead log survives kill -9; it is never the truth, so a lost last transaction after a power cut is no harm.
  check(sqlite3_exec(database_, "PRAGMA synchronous = NORMAL", nullptr, nullptr, nullptr));
  if (version == 0) {
    check(sqlite3_exec(database_, "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr));
    check(sqlite3_exec(database_, kTables, nullptr, nullptr, nullptr));
  }
}

void Index::rebuild(const std::string& cause) {
  close();
  if (read_only_) {
    unusable_ = true;
    return;
  }
  notes_.push_back("the index " + file_.string() + " was damaged (" + cause + ") and is made anew");
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code ignored;
    std::filesystem::remove(file_.string() + suffix, ignored);
  }
}

template <class Function>
void Index::attempt(const Function& function) {
  const std::lock_guard guard(mutex_);
  for (int round = 0; round < 2 && !unusable_; ++round) {
    try {
      open();
      function();
      return;
    } catch (const Damaged& damaged) {
      if (round == 0) {
        rebuild(damaged.cause);
      } else {
        notes_.push_back("the index " + file_.string() + " cannot be used: " + damaged.cause);
        unusable_ = true;
      }
    } catch (const Trouble& trouble) {
      if (!read_only_) notes_.push_back("the index " + file_.string() + " cannot be used: " + trouble.cause);
      close();
      unusable_ = true;
    }
  }
}

std::optional<Digest> Index::digest_of(const FileStamp& stamp) {
  std::optional<Digest> digest;
  attempt([&] {
    Statement statement(*this, "SELECT digest FROM files WHERE device = ? AND inode = ? AND size = ? AND mtime = ? AND ctime = ?");
    statement.bind(stamp.device).bind(stamp.inode).bind(stamp.size).bind(stamp.mtime_ns).bind(stamp.ctime_ns);
    if (statement.step()) digest = Digest::from_hex(statement.text(0));
  });
  return digest;
}

void Index::remember(const FileStamp& stamp, const Digest& digest) {
  if (read_only_) return;
  attempt([&] {
    Statement statement(*this, "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)");
    statement.bind(stamp.device)
        .bind(stamp.inode)
        .bind(stamp.size)
        .bind(stamp.mtime_ns)
        .bind(stamp.ctime_ns)
        .bind(digest.hex())
        .step();
  });
}

std::optional<std::string> Index::derived(std::string_view what, const Digest& of) {
  std::optional<std::string> text;
  attempt([&] {
    Statement statement(*this, "SELECT text FROM derived WHERE what = ? AND digest = ?");
    if (statement.bind(what).bind(of.hex()).step()) text = statement.text(0);
  });
  return text;
}

void Index::remember_derived(std::string_view what, const Digest& of, std::string_view text) {
  if (read_only_) return;
  attempt([&] { Statement(*this, "INSERT OR REPLACE INTO derived VALUES (?, ?, ?)").bind(what).bind(of.hex()).bind(text).step(); });
}

void Index::record(const Store::RunRecord& run) {
  if (read_only_) return;
  attempt([&] {
    Statement statement(*this, "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)");
    const std::string summary = run.summary.dump(-1, ' ', false, Json::error_handler_t::replace);
    statement.bind(run.id).bind(run.recipe).bind(run.file).bind(static_cast<std::int64_t>(run.ok));
    statement.bind(run.started).bind(run.seconds).bind(summary).step();
  });
}

std::vector<Store::RunRecord> Index::runs(const std::string& recipe_file, int limit) {
  std::vector<Store::RunRecord> found;
  attempt([&] {
    found.clear();
    Statement statement(*this,
                        "SELECT id, recipe, file, ok, started, seconds, summary FROM runs WHERE ?1 = '' OR file = ?1"
                        " ORDER BY started DESC, rowid DESC LIMIT ?2");
    statement.bind(recipe_file).bind(static_cast<std::int64_t>(limit));
    while (statement.step()) {
      Json summary = Json::parse(statement.text(6), nullptr, false);
      if (summary.is_discarded()) continue;
      found.push_back({statement.text(0), statement.text(1), statement.text(2), statement.integer(3) != 0, statement.number(4),
                       statement.number(5), std::move(summary)});
    }
  });
  return found;
}

std::vector<std::string> Index::notes() const {
  const std::lock_guard guard(mutex_);
  return notes_;
}

}  // namespace espalier
