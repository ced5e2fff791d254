#pragma once
/// JSON Lines (jsonlines.org) with training data: texts, conversations, prompts with completions.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "formats/chat_format.h"
#include "sdk/artifact.h"

namespace espalier {

/// The lines of files that hold more than white space, in order; the files are mapped, nothing is copied.
class JsonLines {
 public:
  /// Throws Error(resource) with the path of a file that cannot be read. `files` must outlive the object.
  explicit JsonLines(const std::vector<std::filesystem::path>& files);
  /// Moves on to the next line; false behind the last one.
  bool next();

  std::string_view line() const { return line_; }  ///< without its end, and without a byte order mark
  std::size_t file() const { return file_; }       ///< number of its file
  std::string where() const;                       ///< "path/file.jsonl:17"
  std::uint64_t done() const { return done_; }     ///< bytes, up to the line's end
  std::uint64_t total() const { return total_; }   ///< bytes of all files

 private:
  const std::vector<std::filesystem::path>& files_;
  std::vector<MappedFile> maps_;
  std::size_t file_ = 0, at_ = 0, number_ = 0;
  std::uint64_t done_ = 0, total_ = 0;
  std::string_view line_;
};

enum class RecordForm { text, messages, pair };

/// What the fields of a line are called, and what goes for all lines.
struct RecordFields {
  std::string text = "text", messages = "messages", prompt = "prompt", completion = "completion";
  std::string role = "role", content = "content";  ///< of a message
  std::string system = {};                         ///< message for conversations that begin without one; empty: none
  std::size_t longest = std::size_t{16} << 20;     ///< bytes of a line
};

/// Reads single lines. What it throws is Error(invalid_input) with the cause; the place is the caller's to add.
class RecordReader {
 public:
  explicit RecordReader(RecordFields fields) : fields_(std::move(fields)) {}

  /// The JSON object of a line; throws for a line that is too long, no UTF-8, no JSON, no object.
  Json object(std::string_view line) const;
  /// By the fields that are there: messages before prompt and completion, these before text. Throws where there are none.
  RecordForm form_of(const Json& object) const;

  std::string text(const Json& object) const { return string(object, fields_.text); }
  std::string prompt(const Json& object) const { return string(object, fields_.prompt); }
  std::string completion(const Json& object) const { return string(object, fields_.completion); }
  /// The messages, or a prompt and its completion as messages. Roles are system, user and assistant; ShareGPT's human and gpt are
  /// understood. Throws for an empty list, a missing field, a wrong type, another role.
  std::vector<ChatMessage> conversation(const Json& object, RecordForm form) const;

 private:
  static std::string string(const Json& object, const std::string& name);
  RecordFields fields_;
};

}  // namespace espalier
