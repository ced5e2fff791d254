#pragma once
/// Conversations as tokens: turns between markers, as a chat template lays them out, with a mark on each token that is to be
/// learned.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer.h"

namespace espalier {

struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

/// Tokens, and of each whether it counts in the loss (0 or 1).
struct MarkedTokens {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> counted;
  void add(std::int32_t id, bool counts);
  void add(const std::vector<std::int32_t>& more, bool counts);
};

/// Whose turns count: everything, markers included; the assistant's turns; or the last of them.
enum class CountedTurns { all, assistant, last };

/// How one turn is written. Placeholders: {role} and {content}, once each and in this order, {bos} and {eos} anywhere; all other
/// text is literal.
struct ChatTemplate {
  std::string name;        ///< for messages
  std::string turn;        ///< such as "<|im_start|>{role}\n{content}<|im_end|>\n"
  std::string start = {};  ///< stands once, before the first turn
  bool trim = false;       ///< white space around contents is dropped
  std::map<std::string, std::string> roles = {{"system", "system"}, {"user", "user"}, {"assistant", "assistant"}};  ///< as written
  std::vector<std::string> special = {};  ///< markers that the tokenizer must have as special tokens

  /// A well-known one, without its default system message. Throws Error(invalid_input) for a name that is none of names().
  static ChatTemplate named(std::string_view name);
  static std::vector<std::string> names();
};

/// A template under a tokenizer. Special tokens are recognised in what the template writes and never in contents, so that no
/// message can end its turn or begin another. All else is encoded as one text, as it is when a template is rendered first.
class ChatFormat {
 public:
  /// Throws Error(invalid_input) for a placeholder that is unknown, missing or doubled, and for markers that the tokenizer does not
  /// have. `tokenizer` must outlive the object.
  ChatFormat(const ChatTemplate& from, const Tokenizer& tokenizer);

  /// Of a turn that counts, what counts is its content and what the template writes behind it, up to closing white space (which
  /// counts only where nothing else follows): the header does not. A token that reaches from one into the other belongs to what its
  /// first byte is in. Throws Error(invalid_input) for a role that the template does not have.
  MarkedTokens encode(const std::vector<ChatMessage>& messages, CountedTurns which) const;

  /// Whether special tokens tell turns apart, so that no content looks like the end of one.
  bool marked() const { return marked_; }

 private:
  /// A token, or text that is encoded together with what stands beside it.
  struct Piece {
    std::int32_t id;  ///< -1: text
    std::string text;
  };
  using Pieces = std::vector<Piece>;
  struct Turn {
    Pieces head, tail, after;  ///< before the content, behind it, closing white space
  };
  Pieces pieces_of(std::string_view text) const;
  void split(const std::string& literal, Pieces& pieces) const;
  Turn turn_of(const std::string& role) const;

  const Tokenizer& tokenizer_;
  ChatTemplate from_;
  Pieces start_;
  std::map<std::string, Turn> turns_;  ///< by role
  bool marked_ = false;
};

}  // namespace espalier
