#include "engine/why.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/key.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr int kRuns = 100;  // that are looked at, newest first
constexpr std::size_t kLongest = 80;

/// What the recipe gives a stage now.
struct Present {
  const Stage* stage = nullptr;
  std::optional<Digest> key;           ///< nothing while an input is not known
  Json preimage;                       ///< with the inputs that are known
  std::set<std::string> open;          ///< ports with an input that is not known
  std::map<std::string, Json> inputs;  ///< port → digests, null where not known
  std::optional<ActionEntry> entry;
};

/// A stage of an earlier run.
struct Past {
  Digest key;
  Json outputs;  ///< port → {"type", "digest"}
};

std::map<std::string, Past> stages_of(const Store::RunRecord& run) {
  std::map<std::string, Past> stages;
  const auto list = run.summary.find("stages");
  if (list == run.summary.end() || !list->is_array()) return stages;
  for (const Json& stage : *list) {
    if (!stage.is_object()) continue;
    const std::string status = stage.value("status", "");
    const auto key = stage.find("key");
    if ((status != "ran" && status != "cached") || key == stage.end() || !key->is_string()) continue;
    const auto digest = Digest::from_hex(key->get<std::string>());
    if (digest) stages[stage.value("name", "")] = {*digest, stage.value("outputs", Json::object())};
  }
  return stages;
}

std::string output_of(const std::map<std::string, Past>& run, const std::string& stage, const std::string& port) {
  const auto found = run.find(stage);
  if (found == run.end() || !found->second.outputs.is_object()) return {};
  const auto output = found->second.outputs.find(port);
  return output != found->second.outputs.end() && output->is_object() ? output->value("digest", "") : "";
}

bool is_digest(const Json& value) { return value.is_string() && Digest::from_hex(value.get<std::string>()).has_value(); }

std::string shown(const Json* value) {
  if (value == nullptr) return {};
  if (is_digest(*value)) return value->get<std::string>().substr(0, 12);
  std::string text = value->is_string() ? value->get<std::string>() : value->dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  return text;
}

using Path = std::vector<std::string>;

/// Values by their place; lists of plain values are one.
void flatten(const Json& json, Path& at, std::map<Path, const Json*>& leaves) {
  const bool plain = json.is_array() && std::none_of(json.begin(), json.end(), [](const Json& one) { return one.is_structured(); });
  if (!json.is_structured() || plain || json.empty()) {
    leaves[at] = &json;
    return;
  }
  for (const auto& [name, value] : json.items()) {
    at.push_back(json.is_array() ? "[" + name + "]" : name);
    flatten(value, at, leaves);
    at.pop_back();
  }
}

/// Names of a parameter's inner parts: "metric.samples", "files[2]".
std::string dotted(const Path& path, std::size_t from, std::size_t to) {
  std::string text;
  for (std::size_t i = from; i < to; ++i) {
    if (path[i] == "parameters" || path[i] == "fields") continue;
    text += (text.empty() || path[i].starts_with("[") ? "" : ".") + path[i];
  }
  return text;
}

std::string code_label(const Path& path, std::size_t at, const std::string& whose) {
  const std::string part = at + 1 < path.size() ? path[at + 1] : "";
  if (part == "libraries" && at + 2 < path.size()) return "library " + path[at + 2];
  if (part == "runtimes" && at + 2 < path.size()) return "runtime " + path[at + 2];
  return "code of " + whose;
}

/// How people call a place in a key.
std::string label(const Path& path, const std::string& use) {
  const std::string& first = path.front();
  if (first == "code") return code_label(path, 0, use);
  if (first == "backends" && path.size() > 1) return code_label(path, 1, path[1]);
  if (first == "profile") return "numeric profile" + (path.size() > 1 ? ", " + dotted(path, 1, path.size()) : std::string());
  if (first == "machine") return "machine" + (path.size() > 1 ? ", " + dotted(path, 1, path.size()) : std::string());
  if (first == "format") return "format of keys";
  if (first != "parameters" || path.size() < 2) return first;
  for (std::size_t i = 2; i < path.size(); ++i) {
    const std::string of = dotted(path, 1, i);
    if (path[i] == "file" && i + 1 == path.size()) return "file of parameter " + of;
    if (path[i] == "folder" && i + 1 < path.size()) return "file " + path[i + 1] + " in the folder of parameter " + of;
    if (path[i] == "external" && i + 1 < path.size()) return "file " + path[i + 1] + " beside that of parameter " + of;
    if (path[i] == "component" && i + 1 == path.size()) return "component of parameter " + of;
    if (path[i] == "code") return code_label(path, i, "parameter " + of);
  }
  return "parameter " + dotted(path, 1, path.size());
}

/// Beside a component that is another one, its code, parameters and what it depends on say nothing.
bool below(const Path& path, const std::set<Path>& replaced) {
  return std::any_of(replaced.begin(), replaced.end(), [&](const Path& each) {
    const auto around = static_cast<std::ptrdiff_t>(each.size()) - 1;  // without the word "component"
    return path != each && std::ssize(path) > around && std::equal(each.begin(), each.begin() + around, path.begin());
  });
}

void compare_keys(const Present& now, const Json& before, std::vector<Cause>& causes) {
  std::map<Path, const Json*> old_leaves, new_leaves;
  Path at;
  flatten(before, at, old_leaves);
  flatten(now.preimage, at, new_leaves);
  std::set<Path> places, replaced;
  for (const auto* leaves : {&old_leaves, &new_leaves})
    for (const auto& [path, value] : *leaves)
      if (!path.empty() && path.front() != "inputs") places.insert(path);
  const auto value_in = [](const std::map<Path, const Json*>& leaves, const Path& path) {
    const auto found = leaves.find(path);
    return found == leaves.end() ? nullptr : found->second;
  };
  const auto same = [](const Json* a, const Json* b) { return a == b || (a && b && *a == *b); };
  for (const Path& path : places)
    if (path.back() == "component" && !same(value_in(old_leaves, path), value_in(new_leaves, path))) replaced.insert(path);
  std::set<std::string> told;
  for (const Path& path : places) {
    const Json *was = value_in(old_leaves, path), *is = value_in(new_leaves, path);
    if (same(was, is) || below(path, replaced)) continue;
    // A package that is not made yet: which backend will have made it is not known either.
    if (path.front() == "backends" && is == nullptr && !now.open.empty()) continue;
    Cause cause{now.stage->name, now.stage->use, label(path, now.stage->use), shown(was), shown(is)};
    if (told.insert(cause.what).second) causes.push_back(std::move(cause));
  }
}

class Comparison {
 public:
  Comparison(const std::map<std::string, Present>& present, const Store& store, const Store::RunRecord& run)
      : present_(present), store_(store), run_(stages_of(run)) {}

  bool has(const std::string& stage) const { return run_.contains(stage); }

  void walk(const std::string& name) {
    if (!seen_.insert(name).second) return;
    const Present& now = present_.at(name);
    const Stage& stage = *now.stage;
    const auto own = [&](std::string what, std::string before, std::string after) {
      causes[name].push_back({name, stage.use, std::move(what), std::move(before), std::move(after)});
    };
    const auto past = run_.find(name);
    if (past == run_.end()) return own("stage", "", "new");
    if (now.key && *now.key == past->second.key) {
      if (!now.entry) own("result", past->second.key.hex().substr(0, 12), "");
      return;
    }
    const auto entry = store_.find(past->second.key);
    std::optional<Json> before;
    if (entry && entry->preimage && store_.has_blob(*entry->preimage)) {
      const MappedFile mapped(store_.blob_path(*entry->preimage));
      const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
      Json parsed = Json::parse(text, nullptr, false);
      if (parsed.is_object()) before = std::move(parsed);
    }
    if (!before) {
      lost += 1;
      return own("earlier result", past->second.key.hex().substr(0, 12), "");
    }
    compare_keys(now, *before, causes[name]);
    compare_inputs(now, before->value("inputs", Json::object()), own);
    if (causes[name].empty()) through.insert(name);
  }

  std::size_t cost() const {
    std::size_t count = 1000 * lost;
    for (const auto& [stage, list] : causes) count += list.size();
    return count;
  }

  std::map<std::string, std::vector<Cause>> causes;
  std::set<std::string> through;
  std::size_t lost = 0;  ///< stages whose earlier result is gone

 private:
  template <class Own>
  void compare_inputs(const Present& now, const Json& before, const Own& own) {
    std::set<std::string> ports;
    for (const auto& [port, digests] : before.items()) ports.insert(port);
    for (const auto& [port, digests] : now.inputs) ports.insert(port);
    for (const std::string& port : ports) {
      const Json was = before.value(port, Json::array()), is = now.inputs.contains(port) ? now.inputs.at(port) : Json::array();
      const auto producers = now.stage->inputs.find(port);
      if (was.size() != is.size()) own("input " + port, count_text(was), count_text(is));
      for (std::size_t i = 0; i < is.size() && producers != now.stage->inputs.end(); ++i) {
        const StageInput& from = producers->second.at(i);
        const Json old = i < was.size() ? was[i] : Json();
        if (is[i] == old) continue;
        if (old.is_string() && output_of(run_, from.stage, from.port) == old.get<std::string>()) {
          walk(from.stage);  // the same stage made it then
        } else if (was.size() == is.size()) {
          const std::string which = was.size() > 1 ? fmt::format("input {}[{}]", port, i) : "input " + port;
          own(which, maker_of(old), "@" + from.stage + "." + from.port);
        }
      }
    }
  }

  static std::string count_text(const Json& list) {
    return list.empty() ? std::string() : fmt::format("{} artifact{}", list.size(), list.size() == 1 ? "" : "s");
  }

  /// The stage of the earlier run that gave an artifact.
  std::string maker_of(const Json& digest) const {
    if (!digest.is_string()) return {};
    for (const auto& [name, past] : run_)
      if (past.outputs.is_object())
        for (const auto& [port, output] : past.outputs.items())
          if (output.is_object() && output.value("digest", "") == digest.get<std::string>()) return "@" + name + "." + port;
    return shown(&digest);
  }

  const std::map<std::string, Present>& present_;
  const Store& store_;
  std::map<std::string, Past> run_;
  std::set<std::string> seen_;
};

std::map<std::string, Present> present_state(const Plan& plan, Store& store, const Catalog& catalog, const std::string& stage,
                                             Installation installation) {
  KeyMaker keys(store, catalog, std::move(installation));
  std::map<std::string, Present> present;
  const auto needed = plan.closure({stage});
  for (const Stage& each : plan.stages) {
    if (std::find(needed.begin(), needed.end(), each.name) == needed.end()) continue;
    Present now;
    now.stage = &each;
    std::map<std::string, std::vector<Digest>> known;
    for (const auto& [port, producers] : each.inputs) {
      Json digests = Json::array();
      for (const StageInput& producer : producers) {
        const auto& entry = present.at(producer.stage).entry;
        const auto output = entry ? entry->outputs.find(producer.port) : decltype(entry->outputs.end()){};
        if (!entry || output == entry->outputs.end()) {
          digests.push_back(nullptr);
          now.open.insert(port);
        } else {
          digests.push_back(output->second.second.hex());
          known[port].push_back(output->second.second);
        }
      }
      now.inputs[port] = std::move(digests);
    }
    StageKey key = keys.key(each, known);
    now.preimage = std::move(key.preimage);
    if (now.open.empty()) {
      now.key = key.digest;
      now.entry = store.find(key.digest);
    }
    present[each.name] = std::move(now);
  }
  return present;
}

}  // namespace

Explanation explain(const Plan& plan, Store& store, const Catalog& catalog, const std::string& stage, Installation installation) {
  const auto present = present_state(plan, store, catalog, stage, std::move(installation));
  const Present& now = present.at(stage);
  Explanation explanation;
  explanation.key = now.key;
  explanation.state = now.entry ? Explanation::State::hit : now.key ? Explanation::State::miss : Explanation::State::waiting;
  std::vector<Store::RunRecord> runs = store.runs({}, kRuns);
  if (now.entry) {
    for (Store::RunRecord& run : runs) {
      const auto stages = stages_of(run);
      const auto found = stages.find(stage);
      if (found != stages.end() && found->second.key == *now.key) explanation.compared = std::move(run);
    }
    return explanation;  // the oldest of those that are looked at: since when
  }
  std::optional<Comparison> nearest;
  for (Store::RunRecord& run : runs) {
    Comparison comparison(present, store, run);
    if (!comparison.has(stage)) continue;
    comparison.walk(stage);
    const auto rank = [&](const Comparison& one, const Store::RunRecord& of) {
      return std::pair(one.cost(), of.file != plan.file.string());
    };
    if (nearest && rank(comparison, run) >= rank(*nearest, *explanation.compared)) continue;
    nearest.emplace(std::move(comparison));
    explanation.compared = std::move(run);
  }
  if (!nearest) return explanation;
  for (const Stage& each : plan.stages) {
    if (const auto found = nearest->causes.find(each.name); found != nearest->causes.end())
      explanation.causes.insert(explanation.causes.end(), found->second.begin(), found->second.end());
    if (nearest->through.contains(each.name)) explanation.through.push_back(each.name);
  }
  return explanation;
}

}  // namespace espalier
