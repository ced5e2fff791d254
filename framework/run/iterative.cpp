#include "run/iterative.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "formats/model_artifact.h"
#include "graph/element_count.h"
#include "run/forwarding_context.h"
#include "run/iterative_state.h"
#include "run/metric.h"
#include "run/origins.h"
#include "run/pruning.h"
#include "run/trainer.h"
#include "sdk/error.h"

namespace espalier {

std::vector<double> removal_schedule(std::string_view schedule, double sparsity, std::int64_t rounds) {
  std::vector<double> gone;
  for (std::int64_t t = 1; t <= rounds; ++t) {
    const double done = static_cast<double>(t) / static_cast<double>(rounds);
    if (t == rounds)
      gone.push_back(sparsity);
    else if (schedule == "linear")
      gone.push_back(sparsity * done);
    else if (schedule == "cubic")
      gone.push_back(sparsity * (1 - std::pow(1 - done, 3)));
    else if (schedule == "geometric")
      gone.push_back(1 - std::pow(1 - sparsity, done));
    else
      throw_invalid(fmt::format("schedule \"{}\" is none of linear, cubic, geometric", schedule), "parameter schedule");
  }
  return gone;
}

namespace {

using Groups = std::vector<CoupledGroup>;

/// One kind of unit that is cut: its settings and its way down.
struct Cut {
  CoupledGroup::Kind kind;
  SelectionOptions options;
  std::vector<double> targets;
  Groups groups;  ///< of the uncut model, in scope
};

void check_finite(double loss, const std::string& when) {
  if (std::isfinite(loss)) return;
  throw Error(ErrorCode::failed, fmt::format("the held-out loss is {} {}", loss, when), "port heldout",
              "look for overflow in the model, remove less, or lower the learning rate of recover");
}

void check_share(std::string_view name, double share) {
  if (!(share > 0 && share < 1))
    throw_invalid(fmt::format("{} = {} must be above 0 and below 1", name, share), fmt::format("parameter {}", name));
}

/// Shares gone after each round. `own`: the number of per_kind, instead of the stage's.
std::vector<double> targets_of(const Params& params, std::optional<double> own) {
  const std::int64_t rounds = params.integer("rounds");
  if (rounds < 1) throw_invalid(fmt::format("rounds = {} must be 1 or more", rounds), "parameter rounds");
  if (params.has("share") == params.has("sparsity"))
    throw_invalid(params.has("share") ? "share and sparsity are both given; one follows from the other"
                                      : "neither share nor sparsity says how much goes",
                  "parameters share, sparsity",
                  "share: of what is left, each round; sparsity: of the whole, in the end, with a schedule");
  if (params.has("share")) {
    if (params.has("schedule"))
      throw_invalid("share takes the same share of what is left in every round, so schedule has no meaning", "parameter schedule",
                    "give sparsity instead of share");
    const double share = own.value_or(params.number("share"));
    check_share("share", share);
    return removal_schedule("geometric", 1 - std::pow(1 - share, static_cast<double>(rounds)), rounds);
  }
  const double sparsity = own.value_or(params.number("sparsity"));
  check_share("sparsity", sparsity);
  return removal_schedule(params.has("schedule") ? params.text("schedule") : "linear", sparsity, rounds);
}

std::vector<Cut> cuts_of(const Params& params) {
  const std::map<std::string, CoupledGroup::Kind> known{{"channels", CoupledGroup::Kind::channels},
                                                        {"heads", CoupledGroup::Kind::heads}};
  const auto kinds = params.texts("kinds");
  const auto own = params.numbers("per_kind");
  for (const auto& [name, share] : own)
    if (std::find(kinds.begin(), kinds.end(), name) == kinds.end())
      throw_invalid(fmt::format("per_kind speaks of \"{}\", which is not among the kinds that are cut", name), "parameter per_kind",
                    fmt::format("kinds = [\"{}\"]", fmt::join(kinds, "\", \"")));
  std::vector<Cut> cuts;
  for (const std::string& name : kinds) {
    const auto kind = known.find(name);
    if (kind == known.end())
      throw_invalid(fmt::format("\"{}\" is no kind of unit that can be cut", name), "parameter kinds",
                    "there are: channels, heads");
    const auto number = own.find(name);
    const auto twice = std::any_of(cuts.begin(), cuts.end(), [&](const Cut& cut) { return cut.kind == kind->second; });
    if (twice) throw_invalid(fmt::format("kinds names \"{}\" twice", name), "parameter kinds");
    cuts.push_back({kind->second,
                    selection_options(params, name + "_"),
                    targets_of(params, number == own.end() ? std::nullopt : std::optional(number->second)),
                    {}});
  }
  if (cuts.empty()) throw_invalid("kinds is empty, so nothing would be cut", "parameter kinds", "such as kinds = [\"channels\"]");
  return cuts;
}

class IterativePruning {
 public:
  explicit IterativePruning(Context& context);
  void run();

 private:
  void resume();
  void round();
  Groups followed();
  Removal choose(const Graph& graph, const Groups& groups, const Scores& scores);
  Graph recover(RoundContext& round, Graph graph, RoundRecord& record);
  double heldout_loss(Context& context, const Graph& graph, std::string_view label) const;
  bool acceptable(const RoundRecord& record) const;
  double sparsity() const;
  void save(const Graph& graph);
  void report();
  std::string key() const;

  Context& context_;
  const Params& params_;
  std::vector<Cut> cuts_;
  ComponentHandle metric_;
  std::optional<ComponentHandle> trainer_;
  std::int64_t rounds_;
  std::unique_ptr<Dataset> data_, heldout_;
  Graph original_, graph_;
  Groups groups_;  ///< of all kinds
  std::optional<Origins> origins_;
  IterativeState state_;
  FolderContext kept_;
  std::int64_t resumed_at_ = 0, stopped_at_ = 0;
  bool saving_ = true;
};

IterativePruning::IterativePruning(Context& context)
    : context_(context),
      params_(context.params()),
      cuts_(cuts_of(params_)),
      metric_(context.component("metric")),
      rounds_(params_.integer("rounds")),
      kept_(context, context.scratch() / "model") {
  metric_.as<Metric>();
  if (auto handles = context.components(params_, "recover"); !handles.empty()) trainer_ = std::move(handles.front());
  if (trainer_) trainer_->as<Trainer>();
  const auto need = [&](bool asked, const char* port, const char* asks) {
    if (asked && !context.has_input(port))
      throw_invalid(
          fmt::format("{} needs {} data, and the stage has none", asks, port == std::string("data") ? "training" : "held-out"),
          fmt::format("port {}", port), fmt::format("give it: {} = \"@corpus\"", port));
  };
  need(trainer_.has_value(), "data", "recover");
  need(params_.flag("compensate"), "data", "compensate = true");
  need(params_.has("max_loss_ratio"), "heldout", "max_loss_ratio");
  const Artifact& model = context.input("model");
  const auto open = [&](const char* port) {
    if (!context.has_input(port)) return std::unique_ptr<Dataset>();
    check_tokenizers(model, context.input(port));
    auto data = open_dataset(context, context.input(port));
    if (data->count() == 0) throw_invalid("the data set is empty", fmt::format("port {}", port));
    return data;
  };
  data_ = open("data");
  heldout_ = open("heldout");
  original_ = load_model(context, model);
  graph_ = original_;
  std::vector<std::string> warnings;
  const Groups all = coupled_groups(original_, infer(original_), true);
  for (Cut& cut : cuts_) {
    cut.groups = groups_in_scope(original_, all, cut.kind, cut.options, warnings);
    groups_.insert(groups_.end(), cut.groups.begin(), cut.groups.end());
  }
  for (const auto& warning : warnings) context.log(LogLevel::warning, warning);
  origins_.emplace(original_, groups_);
}

/// Groups of the model as it is now that are in scope.
Groups IterativePruning::followed() {
  Groups groups;
  for (Cut& cut : cuts_) cut.options.full.clear();
  for (auto& group : coupled_groups(graph_, infer(graph_))) {
    const auto was = origins_->of(group);
    if (!was) continue;
    for (Cut& cut : cuts_)
      if (cut.kind == group.kind) cut.options.full[group.id] = static_cast<std::int64_t>(groups_[was->front().group].units.size());
    groups.push_back(std::move(group));
  }
  return groups;
}

Removal IterativePruning::choose(const Graph& graph, const Groups& groups, const Scores& scores) {
  Removal removal;
  for (Cut& cut : cuts_) {
    ElementCount count(original_, cut.groups);
    const std::int64_t total = count.total(), gone = count.taken(origins_->removal());
    const double target = cut.targets[static_cast<std::size_t>(state_.round)];
    const auto budget = static_cast<std::int64_t>(std::floor(target * static_cast<double>(total) + 1e-6)) - gone;
    Groups own;
    std::copy_if(groups.begin(), groups.end(), std::back_inserter(own), [&](const auto& group) { return group.kind == cut.kind; });
    if (budget <= 0 || own.empty()) continue;
    cut.options.sparsity = std::min(1.0, static_cast<double>(budget) / static_cast<double>(total - gone));
    // What a round cannot take because units are whole, a later one can: select_units()'s warnings say nothing of the end.
    removal.merge(select_units(graph, own, scores, cut.options).removal);
  }
  return removal;
}

double IterativePruning::heldout_loss(Context& context, const Graph& graph, std::string_view label) const {
  SessionOptions how;
  if (trainer_ && trainer_->params.has("precision")) how = session_options(trainer_->params);
  Session session(graph, how);
  return mean_loss(session, graph, *heldout_, *objective_for(graph, *heldout_), context, label);
}

Graph IterativePruning::recover(RoundContext& round, Graph graph, RoundRecord& record) {
  if (!trainer_) {
    if (heldout_) record.before = record.after = heldout_loss(round, graph, "held-out loss");
    return graph;
  }
  const TrainingTask task{graph, &original_, *data_, heldout_.get(), "model"};
  Trained trained = trainer_->as<Trainer>().train(round, trainer_->params, task);
  state_.losses.insert(state_.losses.end(), trained.result.losses.begin(), trained.result.losses.end());
  if (heldout_) {
    record.before = trained.heldout_before ? *trained.heldout_before : heldout_loss(round, graph, "held-out loss before");
    record.after = trained.heldout_after ? *trained.heldout_after : heldout_loss(round, trained.model, "held-out loss after");
  }
  return std::move(trained.model);
}

bool IterativePruning::acceptable(const RoundRecord& record) const {
  if (!params_.has("max_loss_ratio")) return true;
  return *record.after <= params_.number("max_loss_ratio") * *state_.original_loss;  // false for NaN, too
}

double IterativePruning::sparsity() const {
  ElementCount count(original_, groups_);
  const auto total = static_cast<double>(count.total());
  return total > 0 ? static_cast<double>(count.taken(origins_->removal())) / total : 0;
}

void IterativePruning::round() {
  const auto start = std::chrono::steady_clock::now();
  RoundContext round(context_, state_.round + 1, rounds_);
  RoundRecord record{.round = state_.round + 1};
  const Removal before = origins_->removal();
  const std::size_t steps_before = state_.losses.size();
  const Json compensation_before = state_.compensation;
  const Groups groups = followed();
  Removal removal;
  if (!groups.empty()) {
    std::optional<Artifact> data;
    if (context_.has_input("data")) data = context_.input("data");
    round.progress({0, 0, "scoring with " + metric_.name, {}});
    const Scores scores = metric_.as<Metric>().score(round, metric_.params, graph_, groups, data ? &*data : nullptr);
    removal = choose(graph_, groups, scores);
  }
  context_.check_cancelled();
  Graph next = graph_;
  if (!removal.empty()) {
    if (params_.flag("compensate")) {
      std::vector<Compensated> rows;
      next = compensated(round, params_, next, groups, removal, rows);
      for (const Compensated& row : rows)
        state_.compensation.push_back({record.round, row.tensor, row.error_before, row.error_after});
    }
    next = cut(next, groups, removal, params_.flag("allow_inexact"));
    origins_->cut(groups, removal);
    next = recover(round, std::move(next), record);
  } else {
    context_.log(LogLevel::info, fmt::format("round {} of {}: nothing is left to cut within its share", record.round, rounds_));
    record.before = record.after = state_.rounds.empty() ? state_.original_loss : state_.rounds.back().after;
  }
  record.parameters = next.parameter_count();
  record.sparsity = sparsity();
  record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  record.kept = acceptable(record);
  if (record.kept && record.after) check_finite(*record.after, fmt::format("after round {}", record.round));
  state_.rounds.push_back(record);
  context_.log(LogLevel::info, fmt::format("round {} of {}: {:.2f} % of the parameters in scope are gone, {} left in the model{}",
                                           record.round, rounds_, 100 * record.sparsity, record.parameters,
                                           record.after ? fmt::format("; held-out loss {:.5f} after the cut, {:.5f} after recovery",
                                                                      record.before.value_or(*record.after), *record.after)
                                                        : ""));
  if (!record.kept) {
    origins_->restore(before);
    state_.losses.resize(steps_before);
    state_.compensation = compensation_before;
    stopped_at_ = record.round;
    context_.log(state_.round == 0 ? LogLevel::warning : LogLevel::info,
                 fmt::format("stopped: held-out loss {:.5f} is more than {} times the original's {:.5f}; the result is {}",
                             *record.after, params_.number("max_loss_ratio"), *state_.original_loss,
                             state_.round == 0 ? "the model as it came" : fmt::format("round {}'s model", state_.round)));
  } else {
    graph_ = std::move(next);
    ++state_.round;
    if (state_.round < rounds_) save(graph_);
  }
  round.clean();
}

std::string IterativePruning::key() const {
  KeyEncoder key;
  key.text(params_.json().dump());
  key.integer(static_cast<std::int64_t>(context_.seed()));
  for (const char* port : {"model", "data", "heldout"})
    if (context_.has_input(port)) {
      key.text(port);
      key.digest(context_.input(port).digest());
    }
  return key.finish().hex();
}

/// Keeps the model after a round, and goes on from what was kept: mapped, as after a resume.
void IterativePruning::save(const Graph& graph) {
  if (!saving_) return;
  const auto file = context_.scratch() / "rounds";
  try {
    state_.model = save_model(kept_, graph);
    state_.removal = origins_->removal();
    write_iterative_state(file, key(), state_);
    kept_.keep_only(state_.model);
    graph_ = load_model(kept_, state_.model);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::resource) throw;
    saving_ = false;
    context_.log(LogLevel::warning, fmt::format("{}; a run that is broken off will start over", error.what()));
  }
}

void IterativePruning::resume() {
  const auto file = context_.scratch() / "rounds";
  std::string why;
  auto found = read_iterative_state(file, key(), why);
  if (found && found->round >= rounds_) why = "it has more rounds than are to be done";
  if (found && why.empty() && !kept_.whole(found->model)) why = "its model is not whole";
  if (found && why.empty() && !origins_->restore(found->removal)) why = "it speaks of other groups";
  if (!found || !why.empty()) kept_.keep_only({});  // what lies there may be damaged, and would be taken for whole
  if (!why.empty()) {
    context_.log(LogLevel::warning, fmt::format("{}: ignored, {}; pruning starts over", file.string(), why));
    return;
  }
  if (!found) return;
  graph_ = load_model(kept_, found->model);
  state_ = std::move(*found);
  resumed_at_ = state_.round;
  context_.log(LogLevel::info, fmt::format("an earlier run was broken off: going on after round {} of {}", state_.round, rounds_));
}

void IterativePruning::run() {
  resume();
  if (heldout_ && !state_.original_loss) {
    state_.original_loss = heldout_loss(context_, original_, "held-out loss of the original");
    check_finite(*state_.original_loss, "before the first round");
  }
  while (state_.round < rounds_ && stopped_at_ == 0) {
    context_.check_cancelled();
    round();
  }
  report();
  std::error_code ignored;
  std::filesystem::remove(context_.scratch() / "rounds", ignored);
  std::filesystem::remove_all(context_.scratch() / "model", ignored);
}

void IterativePruning::report() {
  const Removal& removal = origins_->removal();
  for (const Cut& cut : cuts_) {
    ElementCount count(original_, cut.groups);
    const double reached = static_cast<double>(count.taken(removal)) / static_cast<double>(count.total());
    if (stopped_at_ == 0 && cut.targets.back() - reached > 0.01)
      context_.log(LogLevel::warning,
                   fmt::format("sparsity {:.4g} of {} cannot be reached with minimum {}, multiple {} and whole units: {:.4f} it is",
                               cut.targets.back(), cut.kind == CoupledGroup::Kind::heads ? "heads" : "channels",
                               cut.options.minimum, cut.options.multiple, reached));
  }
  context_.output("model", save_model(context_, graph_));
  context_.output("masks", save_masks(context_, groups_, removal));
  context_.figure("parameters", static_cast<double>(graph_.parameter_count()));
  context_.figure("sparsity", sparsity());
  context_.figure("groups", static_cast<double>(groups_.size()));
  context_.figure("rounds", static_cast<double>(state_.round));
  if (stopped_at_ > 0) context_.figure("stopped_at", static_cast<double>(stopped_at_));
  if (resumed_at_ > 0) context_.figure("resumed_at", static_cast<double>(resumed_at_));
  Json rows = Json::array(), curve = Json::array(), losses = Json::array();
  if (heldout_) {
    curve.push_back({0, *state_.original_loss});
    const auto& last = state_.round == 0 ? state_.original_loss : state_.rounds[static_cast<std::size_t>(state_.round) - 1].after;
    context_.figure("heldout_loss_before", *state_.original_loss);
    context_.figure("heldout_loss_after", *last);
  }
  for (const RoundRecord& r : state_.rounds) {
    Json row{r.round, r.parameters, r.sparsity};
    if (heldout_) {
      row.push_back(r.before ? Json(*r.before) : Json());
      row.push_back(r.after ? Json(*r.after) : Json());
      if (r.after) curve.push_back({r.round, *r.after});
    }
    row.push_back(r.seconds);
    row.push_back(r.kept ? "yes" : "no");
    rows.push_back(std::move(row));
  }
  Json columns{"round", "parameters", "sparsity"};
  if (heldout_) {
    columns.push_back("held-out loss after the cut");
    columns.push_back("after recovery");
  }
  columns.push_back("seconds");
  columns.push_back("kept");
  context_.detail("rounds", {{"columns", std::move(columns)}, {"rows", std::move(rows)}});
  context_.detail("widths", widths_table(groups_, removal));
  if (heldout_) context_.detail("curve.heldout", std::move(curve));
  for (std::size_t i = 0; i < state_.losses.size(); ++i) losses.push_back({i + 1, state_.losses[i]});
  if (!losses.empty()) context_.detail("curve.loss", std::move(losses));
  if (params_.flag("compensate"))
    context_.detail("compensation", {{"columns", {"round", "weight", "relative error without", "with compensation"}},
                                     {"rows", state_.compensation}});
}

}  // namespace

void run_iterative_pruner(Context& context) { IterativePruning(context).run(); }

}  // namespace espalier
