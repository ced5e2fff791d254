#include "recipe/order.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace espalier {
namespace {

constexpr std::size_t nowhere = static_cast<std::size_t>(-1);

/// Follows producers from `start` among the stages that never became ready, until a stage comes again.
void report_cycle(std::size_t start, const std::vector<std::string>& names, const std::vector<Edge>& edges,
                  const std::vector<std::size_t>& blocker, std::vector<std::size_t>& visited, std::size_t mark,
                  Findings& findings) {
  std::size_t stage = start;
  while (visited[stage] == nowhere) {
    visited[stage] = mark;
    stage = edges[blocker[stage]].from;
  }
  if (visited[stage] != mark) return;  // ran into a circle that is known already
  std::vector<std::size_t> circle;
  std::size_t each = stage;
  do {
    circle.push_back(each);
    each = edges[blocker[each]].from;
  } while (each != stage);
  // Told from the stage that comes first in the recipe.
  const auto first = std::min_element(circle.begin(), circle.end());
  std::rotate(circle.begin(), first, circle.end());
  constexpr std::size_t most_named = 12;
  std::string text;
  for (std::size_t i = 0; i < circle.size() && i < most_named; ++i) text += names[circle[i]] + " → ";
  if (circle.size() > most_named) text += "… → ";
  text += names[circle.front()];
  findings.error("cycle", edges[blocker[circle.front()]].at, "stages need each other in a circle: " + text,
                 "each arrow reads \"needs\"; one of these references must go");
}

}  // namespace

std::vector<std::size_t> topological_order(const std::vector<std::string>& names, const std::vector<Edge>& edges,
                                           Findings& findings) {
  std::vector<std::vector<std::size_t>> readers(names.size());
  std::vector<std::size_t> waits(names.size(), 0);
  for (const auto& edge : edges) {
    readers[edge.from].push_back(edge.to);
    ++waits[edge.to];
  }
  std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> ready;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (waits[i] == 0) ready.push(i);
  std::vector<std::size_t> order;
  while (!ready.empty()) {
    const std::size_t stage = ready.top();
    ready.pop();
    order.push_back(stage);
    for (const std::size_t reader : readers[stage])
      if (--waits[reader] == 0) ready.push(reader);
  }
  if (order.size() == names.size()) return order;

  // What still waits, waits for something that waits: one such edge each leads into a circle.
  std::vector<std::size_t> blocker(names.size(), nowhere);
  for (std::size_t e = 0; e < edges.size(); ++e)
    if (waits[edges[e].to] && waits[edges[e].from] && blocker[edges[e].to] == nowhere) blocker[edges[e].to] = e;
  std::vector<std::size_t> visited(names.size(), nowhere);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (waits[i] && visited[i] == nowhere) report_cycle(i, names, edges, blocker, visited, i, findings);
  return {};
}

}  // namespace espalier
