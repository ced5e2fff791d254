// JSON Lines as examples: texts, conversations, or prompts with their completions, each a window of its own or packed one after
// another, with a mark on every token that counts in the loss.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include "formats/chat_format.h"
#include "formats/json_lines.h"
#include "formats/model_artifact.h"
#include "run/dataset.h"
#include "sdk/plugin.h"

namespace fs = std::filesystem;
using namespace espalier;

namespace {

/// Makes tokens of what a line holds.
class Encoder {
 public:
  Encoder(const Params& params, const Tokenizer& tokenizer) : params_(params), tokenizer_(tokenizer) {
    if (params.flag("bos") && tokenizer.bos() < 0)
      throw_invalid("the tokenizer has no BOS token", "parameter bos", "give bos = false");
    if (params.has("train_on")) train_on_ = params.text("train_on");
  }

  /// Checks what the recipe asks of lines of a form, and readies the chat format where one is needed. What it throws is the
  /// recipe's fault, not a line's.
  void prepare(Context& context, RecordForm form) {
    if (form == RecordForm::text && train_on_ && *train_on_ != "all")
      throw_invalid(fmt::format("train_on = \"{}\", but the files hold texts, which have no roles", *train_on_),
                    "parameter train_on", "leave it out");
    if (!chat(form) || format_) return;
    const std::string turn = params_.text("turn");
    format_.emplace(turn.empty() ? ChatTemplate::named(params_.text("format")) : ChatTemplate{.name = {}, .turn = turn},
                    tokenizer_);
    if (!format_->marked())
      context.log(LogLevel::warning, "no special token tells turns apart: a message can look like the end of its turn");
  }

  MarkedTokens encode(const RecordReader& reader, const Json& object, RecordForm form) const {
    MarkedTokens tokens;
    if (chat(form)) {
      tokens = format_->encode(reader.conversation(object, form), counted());
    } else {
      const bool special = params_.flag("special");
      if (form == RecordForm::pair) tokens.add(tokenizer_.encode(reader.prompt(object), special), counted() == CountedTurns::all);
      tokens.add(tokenizer_.encode(form == RecordForm::pair ? reader.completion(object) : reader.text(object), special), true);
      const std::int32_t eos = params_.flag("eos") ? tokenizer_.eos() : -1;
      if (eos >= 0 && (tokens.ids.empty() || tokens.ids.back() != eos)) tokens.add(eos, true);
    }
    if (params_.flag("bos") && (tokens.ids.empty() || tokens.ids.front() != tokenizer_.bos())) {
      tokens.ids.insert(tokens.ids.begin(), tokenizer_.bos());
      tokens.counted.insert(tokens.counted.begin(), 0);
    }
    return tokens;
  }

 private:
  bool chat(RecordForm form) const {
    return form == RecordForm::messages || (form == RecordForm::pair && params_.text("pairs") == "chat");
  }
  /// Of what has roles.
  CountedTurns counted() const {
    if (train_on_ == "all") return CountedTurns::all;
    return train_on_ == "last" ? CountedTurns::last : CountedTurns::assistant;
  }

  const Params& params_;
  const Tokenizer& tokenizer_;
  std::optional<std::string> train_on_;
  std::optional<ChatFormat> format_;
};

/// Windows of one length, written to files as they fill: they may take many times the room of the text.
class Windows {
 public:
  Windows(Context& context, std::int64_t sequence, std::int32_t padding, bool pack)
      : sequence_(static_cast<std::size_t>(sequence)),
        padding_(padding),
        pack_(pack),
        tokens_file_(context.scratch() / "tokens.i32"),
        flags_file_(context.scratch() / "flags.u8"),
        tokens_(tokens_file_, std::ios::binary | std::ios::trunc),
        flags_(flags_file_, std::ios::binary | std::ios::trunc) {}

  /// An example of `sequence` tokens or fewer.
  void add(const MarkedTokens& example) {
    if (!ids_.empty() && (!pack_ || ids_.size() + example.ids.size() > sequence_)) flush();
    ids_.insert(ids_.end(), example.ids.begin(), example.ids.end());
    for (const std::uint8_t counts : example.counted)
      marks_.push_back(static_cast<std::uint8_t>(TokenFlag::real | (counts ? TokenFlag::counted : 0)));
    real += static_cast<std::int64_t>(example.ids.size());
    counted += std::count(example.counted.begin(), example.counted.end(), 1);
  }

  /// The data set; nothing can be added behind it.
  Artifact finish(Context& context, const Artifact& tokenizer) {
    if (!ids_.empty()) flush();
    for (std::ofstream* file : {&tokens_, &flags_}) {
      file->close();
      if (!*file)
        throw Error(ErrorCode::resource, "the windows cannot be written", tokens_file_.parent_path().string(), "is the disk full?");
    }
    Artifact data;
    data.type = ArtifactType::dataset;
    data.meta = {{"kind", "tokens"},
                 {"sequence", sequence_},
                 {"count", count},
                 {"tokens", real},
                 {"flags", true},
                 {"counted", counted},
                 {"tokenizer", tokenizer.digest().hex()}};
    data.blobs["tokens.i32"] = context.put_file(tokens_file_);
    data.blobs["flags.u8"] = context.put_file(flags_file_);
    return data;
  }

  std::int64_t count = 0, real = 0, counted = 0;  ///< windows; tokens that are no padding; those that count

 private:
  void flush() {
    ids_.resize(sequence_, padding_);
    marks_.resize(sequence_, 0);
    const auto bytes = std::as_bytes(std::span(ids_));
    tokens_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    flags_.write(reinterpret_cast<const char*>(marks_.data()), static_cast<std::streamsize>(marks_.size()));
    ids_.clear();
    marks_.clear();
    ++count;
  }

  std::size_t sequence_;
  std::int32_t padding_;
  bool pack_;
  fs::path tokens_file_, flags_file_;
  std::ofstream tokens_, flags_;
  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> marks_;
};

class JsonLinesSource final : public Component {
 public:
  void run(Context& context) override {
    const Params& params = context.params();
    const auto tokenizer = load_tokenizer(context, context.input("tokenizer"));
    const auto files = params.paths("files");
    if (files.empty()) throw_invalid("no files are given", "parameter files");
    const RecordReader reader({params.text("field"), params.text("messages"), params.text("prompt"), params.text("completion"),
                               params.text("role"), params.text("content"), params.text("system"),
                               static_cast<std::size_t>(params.integer("max_line"))});
    Encoder encoder(params, *tokenizer);
    Windows windows(context, params.integer("sequence"), std::max(tokenizer->eos(), 0), params.flag("pack"));
    const std::int64_t lines = count_lines(context, files);
    const auto wanted = examples_of_part(lines, params.text("part"), params.number("share"), context.seed());
    Tally tally;
    read(context, files, wanted, reader, encoder, windows, tally);
    if (tally.examples == 0)
      throw_invalid(fmt::format("none of {} lines gives an example: {}", lines, tally.text()), "parameter files",
                    "give more data, another share, or a longer sequence");
    context.output("data", windows.finish(context, context.input("tokenizer")));
    report(context, windows, tally);
  }

 private:
  struct Tally {
    std::int64_t examples = 0, read = 0, bad = 0, cut = 0, dropped = 0, uncounted = 0;
    std::string text() const {
      return fmt::format("{} read, {} bad lines, {} too long and dropped, {} without a token that counts", read, bad, dropped,
                         uncounted);
    }
  };

  static std::int64_t count_lines(Context& context, const std::vector<fs::path>& files) {
    JsonLines lines(files);
    std::int64_t count = 0;
    while (lines.next())
      if (++count % 65536 == 0) context.check_cancelled();
    return count;
  }

  static void read(Context& context, const std::vector<fs::path>& files, const std::vector<std::int64_t>& wanted,
                   const RecordReader& reader, Encoder& encoder, Windows& windows, Tally& tally) {
    const Params& params = context.params();
    const bool skip = params.text("on_error") == "skip";
    const std::int64_t limit = params.integer("limit");
    std::vector<std::optional<RecordForm>> forms(files.size());
    JsonLines lines(files);
    auto next = wanted.begin();
    for (std::int64_t number = 0; next != wanted.end() && lines.next(); ++number) {
      if (number != *next) continue;
      ++next;
      context.check_cancelled();
      ++tally.read;
      std::optional<RecordForm>& form = forms[lines.file()];
      const auto example = parsed(lines, skip, context, tally, [&] {
        Json object = reader.object(lines.line());
        if (!form) form = reader.form_of(object);
        return object;
      });
      if (!example) continue;
      encoder.prepare(context, *form);
      auto tokens = parsed(lines, skip, context, tally, [&] { return encoder.encode(reader, *example, *form); });
      if (tokens && fits(*tokens, params, lines, tally)) windows.add(*tokens);
      context.progress({lines.done(), lines.total(), "reading " + files[lines.file()].filename().string(), {}});
      if (limit > 0 && tally.examples == limit) break;
    }
  }

  /// What `work` gives; an error names the line, or is counted and told of.
  template <class Work>
  static auto parsed(const JsonLines& lines, bool skip, Context& context, Tally& tally, const Work& work)
      -> std::optional<decltype(work())> {
    constexpr std::int64_t told = 10;
    try {
      return work();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::invalid_input) throw;
      if (!skip)
        throw_invalid(error.message(), lines.where(),
                      error.hint().empty() ? "on_error = \"skip\" leaves bad lines out" : error.hint());
      if (++tally.bad <= told) context.log(LogLevel::warning, fmt::format("skipped {}: {}", lines.where(), error.message()));
      return std::nullopt;
    }
  }

  /// Brings an example down to a window's length; false where it is left out.
  static bool fits(MarkedTokens& tokens, const Params& params, const JsonLines& lines, Tally& tally) {
    const auto sequence = static_cast<std::size_t>(params.integer("sequence"));
    const std::string too_long = params.text("too_long");
    if (tokens.ids.size() > sequence) {
      if (too_long == "error")
        throw_invalid(fmt::format("the example has {} tokens, more than sequence = {}", tokens.ids.size(), sequence), lines.where(),
                      "too_long = \"truncate\" or \"drop\", or a longer sequence");
      ++(too_long == "drop" ? tally.dropped : tally.cut);
      if (too_long == "drop") return false;
      tokens.ids.resize(sequence);
      tokens.counted.resize(sequence);
    }
    if (!tokens.ids.empty()) tokens.counted.front() = 0;  // nothing stands before it, or another example
    if (std::find(tokens.counted.begin(), tokens.counted.end(), 1) == tokens.counted.end()) {
      ++tally.uncounted;
      return false;
    }
    ++tally.examples;
    return true;
  }

  static void report(Context& context, const Windows& windows, const Tally& tally) {
    const std::pair<const char*, std::int64_t> figures[] = {{"examples", tally.examples},
                                                            {"windows", windows.count},
                                                            {"tokens", windows.real},
                                                            {"tokens_counted", windows.counted},
                                                            {"lines_bad", tally.bad},
                                                            {"examples_truncated", tally.cut},
                                                            {"examples_too_long", tally.dropped},
                                                            {"examples_uncounted", tally.uncounted}};
    for (const auto& [name, value] : figures) context.figure(name, static_cast<double>(value));
    const auto sequence = context.params().integer("sequence");
    context.log(LogLevel::info, fmt::format("{} examples in {} windows of {}, {} tokens of which {} count; {}", tally.examples,
                                            windows.count, sequence, windows.real, windows.counted, tally.text()));
    if (tally.bad + tally.uncounted > 0)
      context.log(LogLevel::warning,
                  fmt::format("left out: {} bad lines, {} examples without a token that counts", tally.bad, tally.uncounted));
    if (context.params().flag("pack") && windows.count < tally.examples)
      context.log(LogLevel::info, "packed examples see those before them in their window");
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({
  "name": "jsonl", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "Makes data sets from JSON Lines",
  "components": [{
    "name": "source/jsonl", "version": "0.1.0",
    "summary": "JSON Lines of texts, conversations, or prompts and completions: an example a line, padded or packed, with what counts in the loss marked",
    "inputs": [
      {"name": "tokenizer", "type": "tokenizer", "help": "the tokenizer of the model that is to read the examples"}
    ],
    "outputs": [
      {"name": "data", "type": "dataset", "help": "windows of tokens with flags (kind \"tokens\")"}
    ],
    "parameters": [
      {"name": "files", "type": "list<path>", "required": true, "help": "files with a JSON object on each line, in UTF-8; the first line of a file tells which of the fields below all of them have"},
      {"name": "sequence", "type": "integer", "default": 512, "min": 2, "max": 1048576, "unit": "tokens", "help": "length of a window"},
      {"name": "field", "type": "string", "default": "text", "help": "field with the whole text of an example"},
      {"name": "messages", "type": "string", "default": "messages", "help": "field with a conversation: a list of objects with role and content"},
      {"name": "role", "type": "string", "default": "role", "help": "field of a message that says who speaks: system, user (or human), assistant (or what is said in its place)"},
      {"name": "content", "type": "string", "default": "content", "help": "field of a message that says what"},
      {"name": "prompt", "type": "string", "default": "prompt", "help": "field with what is asked, such as instruction"},
      {"name": "completion", "type": "string", "default": "completion", "help": "field with the answer to it, such as output"},
      {"name": "pairs", "type": "string", "default": "plain", "choices": ["plain", "chat"], "help": "prompt and completion as one text, or as a user's and an assistant's message"},
      {"name": "format", "type": "string", "default": "chatml", "choices": ["chatml", "llama3", "zephyr", "gemma"], "help": "how conversations are written; the tokenizer must have its special tokens"},
      {"name": "turn", "type": "string", "default": "", "help": "instead of format: one turn, such as <|im_start|>{role}\\n{content}<|im_end|>\\n; {bos} and {eos} are the tokenizer's"},
      {"name": "system", "type": "string", "default": "", "help": "system message for conversations that begin without one; empty: none"},
      {"name": "train_on", "type": "string", "choices": ["all", "assistant", "last"], "help": "what counts in the loss: all, the assistant's turns (or the completion), or the last of them; assistant for what has roles, all for texts, when left out"},
      {"name": "bos", "type": "boolean", "default": false, "help": "begin every example with the tokenizer's BOS token, if it does not anyway"},
      {"name": "eos", "type": "boolean", "default": true, "help": "end every text and completion with the tokenizer's EOS token, if it has one and the text does not anyway; conversations end as their format says"},
      {"name": "special", "type": "boolean", "default": true, "help": "recognise special tokens in texts, prompts and completions; never in messages"},
      {"name": "pack", "type": "boolean", "default": false, "help": "put examples one after another into a window as long as they fit whole; attention then reaches into the examples before"},
      {"name": "too_long", "type": "string", "default": "truncate", "choices": ["truncate", "drop", "error"], "help": "what becomes of an example longer than a window: its end is cut off, it is left out, or the stage fails"},
      {"name": "on_error", "type": "string", "default": "error", "choices": ["error", "skip"], "help": "at a line that cannot be read: fail with its place, or leave it out and count it"},
      {"name": "max_line", "type": "integer", "default": 16777216, "min": 2, "max": 1073741824, "unit": "bytes", "help": "longest line that is read"},
      {"name": "part", "type": "string", "default": "all", "choices": ["all", "train", "heldout"], "help": "which lines: all, or one side of the split that share and seed make"},
      {"name": "share", "type": "number", "default": 0.1, "min": 0, "max": 1, "help": "share of the lines that the split holds out"},
      {"name": "limit", "type": "integer", "default": 0, "min": 0, "unit": "examples", "help": "keep only the first examples of the part; 0: all"}
    ],
    "depends": {"seed": true, "threads": false, "runtimes": []},
    "byte_exact": true,
    "estimate": {"memory": "1e8 + files.bytes + 20 * min(files.bytes, max_line)",
                 "seconds": "0.2 + files.bytes / 3e6",
                 "memory_base": 1e8, "memory_per_byte": 2, "output_per_byte": 8}
  }]
})json",
                ESPALIER_COMPONENT("source/jsonl", JsonLinesSource));
