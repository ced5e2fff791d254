#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "engine/tools/tools.h"
#include "engine/worker/loader.h"
#include "formats/package.h"
#include "formats/tokenizer.h"
#include "formats/utf8.h"
#include "run/runtime.h"
#include "sdk/artifact.h"
#include "sdk/error.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
double seconds(Clock::time_point from, Clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

void write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = ::write(STDOUT_FILENO, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno == EPIPE) ::_exit(141);  // as a shell reports SIGPIPE: the reader had enough
    if (done < 0)
      throw Error(ErrorCode::resource, std::string("cannot write the text: ") + std::strerror(errno), "standard output");
    text.remove_prefix(static_cast<std::size_t>(done));
  }
}

/// Bytes of tokens in, whole characters out: a character may be spread over several tokens.
class TextStream {
 public:
  /// What can be shown by now.
  std::string push(std::string_view bytes) {
    held_ += bytes;
    std::string shown;
    while (!held_.empty()) {
      std::size_t bad = 0;
      const std::size_t good = utf8_sequence(held_, &bad);
      if (good == 0 && bad >= held_.size()) break;  // the rest may still come
      shown += good > 0 ? held_.substr(0, good) : "\uFFFD";
      held_.erase(0, good > 0 ? good : bad);
    }
    return shown;
  }
  std::string finish() { return repaired_utf8(std::exchange(held_, {})); }

 private:
  std::string held_;
};

std::shared_ptr<Tokenizer> tokenizer_of(const fs::path& package) {
  const fs::path file = package / "tokenizer.json";
  if (!fs::exists(file))
    throw_invalid("the package has no tokenizer.json", package.string(), "package a model that came with its tokenizer");
  const MappedFile mapped(file);
  return Tokenizer::from_json({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, file.string());
}

/// The id of a mark that must be one token.
std::int32_t mark(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text, true);
  if (ids.size() != 1)
    throw_invalid("the tokenizer has no chat mark \"" + text + "\"", "generate --chat",
                  "leave --chat away: this model continues plain text");
  return ids[0];
}

/// Prompt tokens, and the token that ends an answer (besides the end-of-text token). ChatML marks are the ones known.
std::vector<std::int32_t> prompt_tokens(const Tokenizer& tokenizer, const std::string& prompt, bool chat, std::int32_t& stop) {
  if (!chat) return tokenizer.frame(tokenizer.encode(prompt, true));  // with a BOS where the model expects one
  const std::int32_t open = mark(tokenizer, "<|im_start|>"), close = mark(tokenizer, "<|im_end|>");
  stop = close;
  std::vector<std::int32_t> ids{open};
  const auto add = [&](std::string_view text) {
    const std::vector<std::int32_t> more = tokenizer.encode(text, false);  // marks inside the user's text stay text
    ids.insert(ids.end(), more.begin(), more.end());
  };
  add("user\n" + prompt);
  ids.push_back(close);
  add("\n");
  ids.push_back(open);
  add("assistant\n");
  return ids;
}

std::shared_ptr<Component> backend_of(const Json& description, const Json& backends, const fs::path& package) {
  const std::string name = description.at("backend").get<std::string>();
  if (!backends.contains(name))
    throw_invalid("no installed plugin offers \"" + name + "\"", (package / "package.json").string(),
                  "espalier plugins lists what is there");
  return load_component(backends.at(name).get<std::string>(), name);
}

void continue_text(const Json& request) {
  const fs::path package = request.at("package").get<std::string>();
  if (!fs::is_directory(package))
    throw_invalid("no such folder", package.string(),
                  "generate takes a package's folder, as `espalier export RECIPE STAGE DIR` writes it");
  const Json description = read_package(package, true);
  const std::shared_ptr<Component> backend = backend_of(description, request.at("backends"), package);
  const ComponentHandle handle{description.at("backend").get<std::string>(), backend, {}};
  const std::shared_ptr<Tokenizer> tokenizer = tokenizer_of(package);

  std::int32_t stop = -1;
  const std::vector<std::int32_t> prompt =
      prompt_tokens(*tokenizer, request.at("prompt").get<std::string>(), request.at("chat").get<bool>(), stop);
  if (prompt.empty()) throw_invalid("the prompt holds no tokens", "generate --prompt");
  const std::unique_ptr<LanguageModel> model =
      handle.as<Runtime>().open_language_model(package, {request.at("threads").get<int>(), true});

  GenerateOptions options;
  options.tokens = request.at("tokens").get<std::int64_t>();
  options.temperature = request.at("temperature").get<double>();
  options.seed = request.at("seed").get<std::uint64_t>();
  options.eos = tokenizer->eos();

  const bool json = request.at("json").get<bool>();
  TextStream stream;
  std::string whole;
  std::int64_t made = 0;
  const auto show = [&](const std::string& text) {
    if (json)
      whole += text;
    else
      write_out(text);
  };
  const auto start = Clock::now();
  Clock::time_point first = start;
  const std::vector<std::int32_t> ids = generate(*model, prompt, options, [&](std::int32_t token) {
    if (made == 0) first = Clock::now();
    if (token == stop) return false;
    ++made;
    if (!tokenizer->special(token)) show(stream.push(tokenizer->bytes(token)));
    return true;
  });
  const auto end = Clock::now();
  show(stream.finish());
  const double prefill = seconds(start, first), decode = seconds(first, end);
  const double rate = made > 1 && decode > 0 ? static_cast<double>(made - 1) / decode : 0.0;
  if (json) {
    const Json result = {{"schema", 1},
                         {"ok", true},
                         {"text", whole},
                         {"prompt_ids", prompt},
                         {"ids", ids},
                         {"prompt_tokens", prompt.size()},
                         {"tokens", made},
                         {"end", made < options.tokens ? "stop" : "length"},
                         {"prefill_seconds", prefill},
                         {"decode_seconds", decode},
                         {"decode_tokens_per_second", rate}};
    write_out(result.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    write_out("\n");
  }
  if (!request.at("quiet").get<bool>())
    std::fprintf(stderr, "espalier: %zu prompt tokens in %.2f s, %lld new tokens in %.2f s (%.1f tokens/s)\n", prompt.size(),
                 prefill, static_cast<long long>(made), decode, rate);
}

int generate_tool(int argc, char** argv) {
  if (argc != 2)
    throw_invalid("the tool takes one argument, a JSON object", "espalier-worker --tool generate", "call espalier generate");
  Json request;
  try {
    request = Json::parse(argv[1]);
    continue_text(request);
    return 0;
  } catch (const Json::exception& error) {
    throw_invalid(std::string("malformed request or package.json: ") + error.what(), "generate");
  } catch (const Error& error) {
    if (request.is_object() && request.value("json", false)) {
      const Json body = {
          {"code", to_string(error.code())}, {"message", error.message()}, {"where", error.where()}, {"hint", error.hint()}};
      write_out(Json{{"schema", 1}, {"ok", false}, {"error", body}}.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    }
    throw;
  }
}

const RegisterTool tool{"generate", generate_tool};

}  // namespace
}  // namespace espalier
