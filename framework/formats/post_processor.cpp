#include "formats/post_processor.h"

#include <fmt/format.h>

#include "formats/tokenizer_part.h"
#include "sdk/error.h"

namespace espalier {
namespace {

constexpr const char* kKind = "post_processor";

std::int32_t checked_id(const Json& id, const std::string& what, const std::string& where) {
  if (!id.is_number_unsigned() || id.get<std::uint64_t>() > INT32_MAX)
    throw_invalid(what + " is no number of 31 bits", where, kDamagedTokenizer);
  return id.get<std::int32_t>();
}

/// ["[CLS]", 101]
std::int32_t named_id(const TokenizerPart& part, const char* key) {
  const Json& pair = part.at(key);
  if (!pair.is_array() || pair.size() != 2) part.damaged(fmt::format("\"{}\" is no token with its id", key));
  return checked_id(pair[1], fmt::format("the id of \"{}\"", key), part.where());
}

}  // namespace

PostProcessor::PostProcessor(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where);
}

void PostProcessor::add(const Json& json, const std::string& where) {
  const TokenizerPart part(json, kKind, where);
  if (part.type() == "ByteLevel") return;  // it only moves offsets
  if (part.type() == "Sequence") {
    const Json& list = part.at("processors");
    if (!list.is_array()) part.damaged("\"processors\" is no list");
    for (const Json& item : list) add(item, where);
    return;
  }
  if (framed_) throw_unsupported("a Sequence of post-processors that puts tokens around a text twice", where);
  framed_ = true;
  using Source = Piece::Source;
  if (part.type() == "TemplateProcessing") {
    single_ = read_template(part.at("single"), part.at("special_tokens"), false, where);
    pair_ = read_template(part.at("pair"), part.at("special_tokens"), true, where);
  } else if (part.type() == "BertProcessing" || part.type() == "RobertaProcessing") {
    const bool bert = part.type() == "BertProcessing";
    const Piece first{Source::special, {named_id(part, "cls")}, 0}, end{Source::special, {named_id(part, "sep")}, 0};
    const std::int32_t second = bert ? 1 : 0;  // RoBERTa has one segment
    single_ = {first, Piece{}, end};
    pair_ = {first, Piece{}, end, Piece{Source::pair, {}, second}, Piece{Source::special, end.ids, second}};
    if (!bert) pair_.insert(pair_.begin() + 3, end);
  } else {
    part.refuse("BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing");
  }
}

PostProcessor::Template PostProcessor::read_template(const Json& pieces, const Json& specials, bool pair,
                                                     const std::string& where) {
  const auto damaged = [&](const std::string& what) {
    throw_invalid(fmt::format("TemplateProcessing's \"{}\" {}", pair ? "pair" : "single", what), where, kDamagedTokenizer);
  };
  if (!pieces.is_array()) damaged("is no list");
  Template out;
  for (const Json& entry : pieces) {
    const Json& special = json_member(entry, "SpecialToken");
    const Json& sequence = json_member(entry, "Sequence");
    Piece piece;
    piece.segment = checked_id(json_member(special.is_null() ? sequence : special, "type_id"), "a template's type_id", where);
    if (special.is_object()) {
      piece.source = Piece::Source::special;
      const Json& name = json_member(special, "id");
      const Json& ids =
          name.is_string() ? json_member(json_member(specials, name.get_ref<const std::string&>().c_str()), "ids") : name;
      if (!ids.is_array()) damaged(fmt::format("names {}, which is none of its special_tokens", name.dump()));
      for (const Json& id : ids) piece.ids.push_back(checked_id(id, "a special token's id", where));
    } else {
      const Json& id = json_member(sequence, "id");
      if (id != "A" && (id != "B" || !pair)) damaged(fmt::format("names the sequence {}", id.dump()));
      piece.source = id == "A" ? Piece::Source::text : Piece::Source::pair;
    }
    out.push_back(std::move(piece));
  }
  return out;
}

std::vector<std::int32_t> PostProcessor::fill(const Template& pieces, Ids text, Ids pair, std::vector<std::int32_t>* segments) {
  std::vector<std::int32_t> out;
  if (segments) segments->clear();
  for (const Piece& piece : pieces) {
    const Ids ids = piece.source == Piece::Source::special ? Ids(piece.ids) : piece.source == Piece::Source::text ? text : pair;
    out.insert(out.end(), ids.begin(), ids.end());
    if (segments) segments->resize(out.size(), piece.segment);
  }
  return out;
}

std::vector<std::int32_t> PostProcessor::frame(Ids text, std::vector<std::int32_t>* segments) const {
  return fill(single_, text, {}, segments);
}

std::vector<std::int32_t> PostProcessor::frame(Ids text, Ids pair, std::vector<std::int32_t>* segments) const {
  return fill(pair_, text, pair, segments);
}

std::int32_t PostProcessor::leading() const {
  const bool special = !single_.empty() && single_[0].source == Piece::Source::special && single_[0].ids.size() == 1;
  return special ? single_[0].ids[0] : -1;
}

}  // namespace espalier
