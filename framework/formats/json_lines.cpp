#include "formats/json_lines.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/bounds.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

const Json& field(const Json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end()) throw_invalid(fmt::format("there is no field \"{}\"", name));
  return *found;
}

std::string role_of(const std::string& role) {
  if (role == "human") return "user";
  if (role == "gpt") return "assistant";
  if (role == "system" || role == "user" || role == "assistant") return role;
  throw_invalid(fmt::format("the role \"{}\" is not known", role), {}, "there are system, user (human) and assistant (gpt)");
}

}  // namespace

JsonLines::JsonLines(const std::vector<std::filesystem::path>& files) : files_(files) {
  for (const auto& path : files) total_ += maps_.emplace_back(path).bytes().size();
}

bool JsonLines::next() {
  while (file_ < maps_.size()) {
    const auto bytes = maps_[file_].bytes();
    const std::string_view rest = std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()).substr(at_);
    if (rest.empty()) {
      ++file_;
      at_ = number_ = 0;
      continue;
    }
    line_ = rest.substr(0, rest.find('\n'));
    const std::size_t whole = std::min(line_.size() + 1, rest.size());
    at_ += whole;
    done_ += whole;
    if (number_++ == 0 && line_.starts_with("\xef\xbb\xbf")) line_.remove_prefix(3);
    if (line_.find_first_not_of(" \t\r") != std::string_view::npos) return true;
  }
  return false;
}

std::string JsonLines::where() const { return fmt::format("{}:{}", files_[file_].string(), number_); }

Json RecordReader::object(std::string_view line) const {
  if (line.size() > fields_.longest)
    throw_invalid(fmt::format("the line has {} bytes, more than max_line = {}", line.size(), fields_.longest), {},
                  "raise max_line");
  if (!valid_utf8(line)) throw_invalid("the line is not UTF-8", {}, "convert the file to UTF-8");
  Json object = parse_json(line, {});
  if (!object.is_object()) throw_invalid(fmt::format("the line is a JSON {}, not an object", object.type_name()));
  return object;
}

RecordForm RecordReader::form_of(const Json& object) const {
  if (object.contains(fields_.messages)) return RecordForm::messages;
  if (object.contains(fields_.prompt) && object.contains(fields_.completion)) return RecordForm::pair;
  if (object.contains(fields_.text)) return RecordForm::text;
  throw_invalid(fmt::format("there is no field \"{}\", no \"{}\", and no \"{}\" with a \"{}\"", fields_.messages, fields_.text,
                            fields_.prompt, fields_.completion),
                {}, "name the fields: messages, field, prompt and completion");
}

std::string RecordReader::string(const Json& object, const std::string& name) {
  const Json& value = field(object, name);
  if (!value.is_string()) throw_invalid(fmt::format("\"{}\" is a JSON {}, expected a string", name, value.type_name()));
  return value.get<std::string>();
}

std::vector<ChatMessage> RecordReader::conversation(const Json& object, RecordForm form) const {
  std::vector<ChatMessage> messages;
  if (form == RecordForm::pair) {
    messages = {{"user", prompt(object)}, {"assistant", completion(object)}};
  } else {
    const Json& list = field(object, fields_.messages);
    if (!list.is_array()) throw_invalid(fmt::format("\"{}\" is a JSON {}, expected a list", fields_.messages, list.type_name()));
    if (list.empty()) throw_invalid(fmt::format("\"{}\" is empty", fields_.messages));
    for (const Json& message : list) {
      if (!message.is_object())
        throw_invalid(fmt::format("message {} is a JSON {}, not an object", messages.size() + 1, message.type_name()));
      messages.push_back({role_of(string(message, fields_.role)), string(message, fields_.content)});
    }
  }
  if (!fields_.system.empty() && messages.front().role != "system") messages.insert(messages.begin(), {"system", fields_.system});
  return messages;
}

}  // namespace espalier
