#include "formats/chat_format.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "formats/unicode.h"
#include "formats/utf8.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

// Laid out as the templates that these models' tokenizers come with; tests compare them.
const std::vector<ChatTemplate>& known() {
  static const std::vector<ChatTemplate> list{
      {.name = "chatml", .turn = "<|im_start|>{role}\n{content}<|im_end|>\n", .special = {"<|im_start|>", "<|im_end|>"}},
      {.name = "llama3",
       .turn = "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>",
       .start = "{bos}",
       .trim = true,
       .special = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
      {.name = "zephyr", .turn = "<|{role}|>\n{content}{eos}\n"},
      {.name = "gemma",
       .turn = "<start_of_turn>{role}\n{content}<end_of_turn>\n",
       .start = "{bos}",
       .trim = true,
       .roles = {{"user", "user"}, {"assistant", "model"}},
       .special = {"<start_of_turn>", "<end_of_turn>"}},
  };
  return list;
}

std::string where_of(const ChatTemplate& of) { return of.name.empty() ? "parameter turn" : "chat format " + of.name; }

/// The placeholder that begins at the front of `text` ("{role}"); empty where there is none. Throws for a name in braces that is
/// none.
std::string_view placeholder(std::string_view text, const ChatTemplate& of) {
  for (const std::string_view name : {"{role}", "{content}", "{bos}", "{eos}"})
    if (text.starts_with(name)) return name;
  const auto end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", 1);
  if (end == std::string_view::npos || end == 1 || text[end] != '}') return {};
  throw_invalid(fmt::format("there is no placeholder {}", text.substr(0, end + 1)), where_of(of),
                "there are {role}, {content}, {bos} and {eos}");
}

void check_placeholders(const ChatTemplate& of) {
  std::array<std::size_t, 2> seen{}, place{};
  const std::array<std::string_view, 2> names{"{role}", "{content}"};
  for (std::size_t at = of.turn.find('{'); at != std::string::npos; at = of.turn.find('{', at + 1)) {
    const auto name = placeholder(std::string_view(of.turn).substr(at), of);
    for (std::size_t i = 0; i < names.size(); ++i)
      if (name == names[i]) ++seen[i], place[i] = at;
  }
  for (std::size_t i = 0; i < names.size(); ++i)
    if (seen[i] != 1)
      throw_invalid(fmt::format("a turn has one {}, this one {}", names[i], seen[i]), where_of(of),
                    "such as: turn = \"<|im_start|>{role}\\n{content}<|im_end|>\\n\"");
  if (place[0] > place[1])
    throw_invalid("{role} stands behind {content}", where_of(of), "a model reads whose turn it is before it answers");
}

/// As Jinja's trim: Python's white space, which has four control characters more than Unicode's.
std::string_view trimmed(std::string_view text) {
  const auto space = [](std::string_view sequence) {
    const char32_t point = code_point(sequence);
    return is_white_space(point) || (point >= 0x1c && point <= 0x1f);
  };
  while (!text.empty()) {
    const std::size_t length = std::max<std::size_t>(utf8_sequence(text), 1);
    if (!space(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!space(text.substr(at))) break;
    text.remove_suffix(text.size() - at);
  }
  return text;
}

/// Text that is encoded at once, though not all of it counts.
class Run {
 public:
  Run(const Tokenizer& tokenizer, MarkedTokens& out) : tokenizer_(tokenizer), out_(out) {}

  void add(std::string_view text, bool counts) {
    if (text.empty()) return;
    text_ += text;
    parts_.push_back({text_.size(), counts});
  }

  void flush() {
    if (text_.empty()) return;
    const bool mixed = std::any_of(parts_.begin(), parts_.end(), [&](const Part& p) { return p.counts != parts_[0].counts; });
    const auto ids = tokenizer_.encode(text_, false);
    if (!mixed) {
      out_.add(ids, parts_[0].counts);
    } else if (const auto counted = marks(ids); counted.size() == ids.size()) {
      for (std::size_t i = 0; i < ids.size(); ++i) out_.add(ids[i], counted[i]);
    } else {  // the tokens are not the text's bytes: where one part ends cannot be told, so that each is encoded by itself
      std::size_t begin = 0;
      for (const Part& part : parts_) {
        out_.add(tokenizer_.encode(std::string_view(text_).substr(begin, part.end - begin), false), part.counts);
        begin = part.end;
      }
    }
    text_.clear();
    parts_.clear();
  }

 private:
  struct Part {
    std::size_t end;
    bool counts;
  };

  /// Whether each token counts, by its first byte; fewer where the tokens do not spell the text.
  std::vector<bool> marks(const std::vector<std::int32_t>& ids) const {
    std::vector<bool> counted;
    std::size_t at = 0, part = 0;
    for (const std::int32_t id : ids) {
      const std::string bytes = tokenizer_.bytes(id);
      if (bytes.empty() || text_.compare(at, bytes.size(), bytes) != 0) return {};
      while (at >= parts_[part].end) ++part;
      counted.push_back(parts_[part].counts);
      at += bytes.size();
    }
    return at == text_.size() ? counted : std::vector<bool>();
  }

  const Tokenizer& tokenizer_;
  MarkedTokens& out_;
  std::string text_;
  std::vector<Part> parts_;
};

}  // namespace

void MarkedTokens::add(std::int32_t id, bool counts) {
  ids.push_back(id);
  counted.push_back(counts);
}

void MarkedTokens::add(const std::vector<std::int32_t>& more, bool counts) {
  ids.insert(ids.end(), more.begin(), more.end());
  counted.resize(ids.size(), counts);
}

std::vector<std::string> ChatTemplate::names() {
  std::vector<std::string> names;
  for (const ChatTemplate& each : known()) names.push_back(each.name);
  return names;
}

ChatTemplate ChatTemplate::named(std::string_view name) {
  for (const ChatTemplate& each : known())
    if (each.name == name) return each;
  throw_invalid(fmt::format("there is no chat format \"{}\"", name), "parameter format",
                fmt::format("there are {}; others are written as a turn", fmt::join(names(), ", ")));
}

ChatFormat::ChatFormat(const ChatTemplate& from, const Tokenizer& tokenizer) : tokenizer_(tokenizer), from_(from) {
  check_placeholders(from_);
  for (const std::string& marker : from_.special) {
    const auto ids = tokenizer_.encode(marker, true);
    if (ids.size() != 1 || !tokenizer_.special(ids[0]))
      throw_invalid(fmt::format("the tokenizer has no special token \"{}\", of which turns are made", marker), where_of(from_),
                    "name the format that the model was trained with, or give a turn of your own");
  }
  start_ = pieces_of(from_.start);
  for (const auto& [role, written] : from_.roles) turns_[role] = turn_of(written);
  for (const auto& [role, turn] : turns_)
    for (const Pieces* pieces : {&turn.head, &turn.tail})
      marked_ = marked_ || std::any_of(pieces->begin(), pieces->end(), [](const Piece& piece) { return piece.id >= 0; });
}

ChatFormat::Turn ChatFormat::turn_of(const std::string& role) const {
  std::string text = from_.turn;
  text.replace(text.find("{role}"), 6, role);
  const std::size_t content = text.find("{content}");
  std::string_view behind = std::string_view(text).substr(content + 9), space;
  if (const auto last = behind.find_last_not_of(kSpace); last != std::string_view::npos) {
    space = behind.substr(last + 1);
    behind = behind.substr(0, last + 1);
  }
  return {pieces_of(std::string_view(text).substr(0, content)), pieces_of(behind), pieces_of(space)};
}

/// Literal text and {bos}, {eos}; roles are in already.
ChatFormat::Pieces ChatFormat::pieces_of(std::string_view text) const {
  Pieces pieces;
  std::string literal;
  while (!text.empty()) {
    const std::string_view name = text[0] == '{' ? placeholder(text, from_) : std::string_view();
    if (name.empty()) {
      literal += text[0];
      text.remove_prefix(1);
      continue;
    }
    split(literal, pieces);
    literal.clear();
    const std::int32_t id = name == "{bos}" ? tokenizer_.bos() : tokenizer_.eos();
    if (id < 0)
      throw_invalid(fmt::format("the tokenizer names no token for {}", name), where_of(from_),
                    "give a turn of your own with the token written out");
    pieces.push_back({id, {}});
    text.remove_prefix(name.size());
  }
  split(literal, pieces);
  return pieces;
}

/// Special tokens and the text between them.
void ChatFormat::split(const std::string& literal, Pieces& pieces) const {
  if (literal.empty()) return;
  const auto ids = tokenizer_.encode(literal, true);
  Pieces found;
  std::size_t at = 0;
  for (const std::int32_t id : ids) {
    const std::string bytes = tokenizer_.bytes(id);
    if (bytes.empty() || literal.compare(at, bytes.size(), bytes) != 0) break;
    if (tokenizer_.special(id)) {
      found.push_back({id, {}});
    } else if (!found.empty() && found.back().id < 0) {
      found.back().text += bytes;
    } else {
      found.push_back({-1, bytes});
    }
    at += bytes.size();
  }
  if (at != literal.size()) {  // a token that swallows white space beside it: the literal is its tokens
    found.clear();
    for (const std::int32_t id : ids) found.push_back({id, {}});
  }
  pieces.insert(pieces.end(), found.begin(), found.end());
}

MarkedTokens ChatFormat::encode(const std::vector<ChatMessage>& messages, CountedTurns which) const {
  std::size_t last = messages.size();
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (messages[i].role == "assistant") last = i;
  MarkedTokens out;
  Run run(tokenizer_, out);
  const bool all = which == CountedTurns::all;
  const auto write = [&](const Pieces& pieces, bool counts) {
    for (const Piece& piece : pieces) {
      if (piece.id < 0) {
        run.add(piece.text, counts);
      } else {
        run.flush();
        out.add(piece.id, counts);
      }
    }
  };
  write(start_, all);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto turn = turns_.find(messages[i].role);
    if (turn == turns_.end())
      throw_invalid(fmt::format("turns of role \"{}\" cannot be written in this format", messages[i].role), where_of(from_),
                    "put what it says into the first user's message, or give a turn of your own");
    const bool counts =
        all || (which == CountedTurns::assistant && messages[i].role == "assistant") || (which == CountedTurns::last && i == last);
    write(turn->second.head, all);
    run.add(from_.trim ? trimmed(messages[i].content) : std::string_view(messages[i].content), counts);
    write(turn->second.tail, counts);
    write(turn->second.after, all);
  }
  run.flush();
  return out;
}

}  // namespace espalier
