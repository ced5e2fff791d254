// Components that do what a stage should not, for tests of what happens then. Their files named by "counter" (a string, so that the
// file is no input) get a line for every time a component really ran.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "sdk/plugin.h"

namespace {

using espalier::Artifact;
using espalier::ArtifactType;
using espalier::Context;

void count(Context& context) {
  const std::string file = context.params().text("counter");
  if (file.empty()) return;
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  const std::string line = context.params().text("text") + "\n";
  if (::write(fd, line.data(), line.size()) < 0) std::abort();
  ::close(fd);
}

Artifact dataset(Context& context, const std::string& text) {
  Artifact artifact;
  artifact.type = ArtifactType::dataset;
  artifact.blobs["data"] = context.put(std::as_bytes(std::span<const char>(text)));
  return artifact;
}

std::string joined_inputs(Context& context) {
  std::string text;
  for (const Artifact& input : context.inputs("in")) {
    const auto mapped = context.map(input.blobs.at("data"));
    text.append(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  }
  return text;
}

/// Sleeps while it asks whether to stop, then writes its inputs and its text.
class Work final : public espalier::Component {
  void run(Context& context) override {
    count(context);
    std::printf("printed by %s\n", context.params().text("text").c_str());
    context.log(espalier::LogLevel::info, "at work");
    const auto milliseconds = static_cast<std::uint64_t>(context.params().number("seconds") * 1000);
    for (std::uint64_t done = 0; done < milliseconds; done += 10) {
      context.check_cancelled();
      context.progress({done, milliseconds, "waiting", {{"loss", 1.0 / static_cast<double>(done + 1)}}});
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    const std::string padding(static_cast<std::size_t>(context.params().integer("bytes")), 'x');
    context.output("out", dataset(context, joined_inputs(context) + context.params().text("text") + "\n" + padding));
    context.figure("accuracy", context.params().number("figure"));
    context.detail("curve.loss", {{0, 1.0}, {1, 0.5}});
  }
};

class Fault final : public espalier::Component {
  void run(Context& context) override {
    count(context);
    const std::string how = context.params().text("how");
    std::fprintf(stderr, "about to: %s\n", how.c_str());
    if (how == "segfault") {
      volatile int* const nowhere = nullptr;
      *nowhere = 1;
    }
    if (how == "abort") std::abort();
    if (how == "exit") std::exit(3);
    if (how == "exit zero") ::_exit(0);
    if (how == "throw")
      throw espalier::Error(espalier::ErrorCode::invalid_input, "the file is broken", "weights.bin:12", "mend it");
    if (how == "throw integer") throw 42;
    if (how == "throw standard") throw std::runtime_error("a standard exception");
    if (how == "no output") return;
    if (how == "wrong type") context.output("out", Artifact{});
    if (how == "loop")
      for (volatile bool on = true; on;) {}
    if (how == "allocate") {
      std::vector<void*> blocks;
      for (int i = 0; i < 4096; ++i) {
        blocks.push_back(std::malloc(1 << 20));
        std::memset(blocks.back(), 1, 1 << 20);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    if (how == "child") {  // a program that outlives the stage
      if (::fork() == 0)
        for (;;) ::pause();
      return;
    }
    context.output("out", dataset(context, "no fault after all"));
  }
};

/// Another result every time.
class Dice final : public espalier::Component {
  void run(Context& context) override {
    count(context);
    context.output("out", dataset(context, std::to_string(std::chrono::steady_clock::now().time_since_epoch().count())));
  }
};

/// Says when it began and ended.
class Alone final : public espalier::Component {
  void run(Context& context) override {
    const auto now = [] { return static_cast<double>(std::chrono::steady_clock::now().time_since_epoch().count()) * 1e-9; };
    context.figure("latency_p50_ms", now());
    std::this_thread::sleep_for(std::chrono::duration<double>(context.params().number("seconds")));
    context.figure("latency_p99_ms", now());
    context.output("out", dataset(context, "measured"));
  }
};

/// Counts its runs in its scratch folder, and crashes in the first.
class Resume final : public espalier::Component {
  void run(Context& context) override {
    const auto file = context.scratch() / "resume";
    if (::access(file.c_str(), F_OK) != 0) {
      if (std::FILE* made = std::fopen(file.c_str(), "w")) std::fclose(made);
      std::raise(SIGSEGV);
    }
    context.output("out", dataset(context, "resumed"));
  }
};

/// What its process was given as environment, a line a variable.
class Surroundings final : public espalier::Component {
  void run(Context& context) override {
    std::string text;
    for (char** variable = environ; *variable != nullptr; ++variable) text += std::string(*variable) + "\n";
    context.output("out", dataset(context, text));
  }
};

}  // namespace

ESPALIER_PLUGIN(R"json({ "name": "faults", "version": "0.1.0", "author": "The Espalier authors", "licence": "Apache-2.0",
  "description": "for tests", "components": [
  { "name": "source/work", "version": "0.1.0", "summary": "sleeps and writes", "inputs": [{ "name": "in", "type": "dataset", "required": false, "many": true, "help": "joined" }],
    "outputs": [{ "name": "out", "type": "dataset", "help": "the text" }],
    "parameters": [ { "name": "text", "type": "string", "default": "", "help": "what it writes" },
      { "name": "counter", "type": "string", "default": "", "help": "a file that gets a line" },
      { "name": "seconds", "type": "number", "default": 0.0, "help": "how long" },
      { "name": "figure", "type": "number", "default": 0.5, "help": "its accuracy" },
      { "name": "bytes", "type": "integer", "default": 0, "help": "padding" },
      { "name": "files", "type": "list<path>", "default": [], "help": "read by nobody" },
      { "name": "file", "type": "path", "help": "read by nobody" },
      { "name": "inner", "type": "component", "kind": "source", "help": "used by nobody" } ],
    "depends": { "seed": true, "threads": true, "runtimes": [] }, "byte_exact": false, "exclusive": false,
    "estimate": { "memory_base": 1000000, "memory_per_byte": 2, "output_per_byte": 1 } },
  { "name": "source/exact", "version": "0.1.0", "summary": "the same, byte-exact", "inputs": [{ "name": "in", "type": "dataset", "required": false, "many": true, "help": "joined" }],
    "outputs": [{ "name": "out", "type": "dataset", "help": "the text" }],
    "parameters": [ { "name": "text", "type": "string", "default": "", "help": "what it writes" },
      { "name": "counter", "type": "string", "default": "", "help": "a file that gets a line" },
      { "name": "seconds", "type": "number", "default": 0.0, "help": "how long" },
      { "name": "figure", "type": "number", "default": 0.5, "help": "its accuracy" },
      { "name": "bytes", "type": "integer", "default": 0, "help": "padding" } ],
    "depends": { "seed": false, "threads": true, "runtimes": [] }, "byte_exact": true, "exclusive": false },
  { "name": "source/fault", "version": "0.1.0", "summary": "fails", "inputs": [{ "name": "in", "type": "dataset", "required": false, "many": true, "help": "unused" }],
    "outputs": [{ "name": "out", "type": "dataset", "help": "nothing" }],
    "parameters": [ { "name": "how", "type": "string", "default": "", "help": "segfault, throw, …" },
      { "name": "text", "type": "string", "default": "", "help": "for the counter" },
      { "name": "counter", "type": "string", "default": "", "help": "a file that gets a line" } ],
    "depends": { "seed": false, "threads": false, "runtimes": [] } },
  { "name": "source/dice", "version": "0.1.0", "summary": "another result every time", "inputs": [],
    "outputs": [{ "name": "out", "type": "dataset", "help": "a number" }],
    "parameters": [ { "name": "text", "type": "string", "default": "", "help": "for the counter" },
      { "name": "counter", "type": "string", "default": "", "help": "a file that gets a line" } ],
    "depends": { "seed": false, "threads": false, "runtimes": [] } },
  { "name": "source/resume", "version": "0.1.0", "summary": "crashes at first", "inputs": [],
    "outputs": [{ "name": "out", "type": "dataset", "help": "a text" }], "parameters": [],
    "depends": { "seed": false, "threads": false, "runtimes": [] } },
  { "name": "source/surroundings", "version": "0.1.0", "summary": "tells its environment", "inputs": [],
    "outputs": [{ "name": "out", "type": "dataset", "help": "a line a variable" }], "parameters": [],
    "depends": { "seed": true, "threads": false, "runtimes": [] } },
  { "name": "evaluator/alone", "version": "0.1.0", "summary": "measures", "inputs": [{ "name": "in", "type": "dataset", "required": false, "many": true, "help": "unused" }],
    "outputs": [{ "name": "out", "type": "dataset", "help": "a text" }],
    "parameters": [ { "name": "seconds", "type": "number", "default": 0.1, "help": "how long" } ],
    "depends": { "seed": false, "threads": false, "runtimes": [] }, "exclusive": true }
  ] })json",
                ESPALIER_COMPONENT("source/work", Work), ESPALIER_COMPONENT("source/exact", Work),
                ESPALIER_COMPONENT("source/fault", Fault), ESPALIER_COMPONENT("source/dice", Dice),
                ESPALIER_COMPONENT("source/resume", Resume), ESPALIER_COMPONENT("source/surroundings", Surroundings),
                ESPALIER_COMPONENT("evaluator/alone", Alone));
