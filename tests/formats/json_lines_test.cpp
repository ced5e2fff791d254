#include "formats/json_lines.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "abuse.h"

using namespace espalier;
using Catch::Matchers::ContainsSubstring;

namespace {

std::filesystem::path write(const abuse::Folder& folder, const std::string& name, std::string_view text) {
  abuse::write_file(folder / name, abuse::bytes_of(text));
  return folder / name;
}

}  // namespace

TEST_CASE("lines are those that hold something, under their numbers") {
  const abuse::Folder folder;
  const std::vector<std::filesystem::path> files{write(folder, "a.jsonl", "\xef\xbb\xbf{}\r\n\n  \n[1]\n"),
                                                 write(folder, "b.jsonl", ""), write(folder, "c.jsonl", "\n3")};
  JsonLines lines(files);
  std::vector<std::string> found, places;
  while (lines.next()) {
    found.emplace_back(lines.line());
    const auto where = lines.where();
    places.push_back(where.substr(where.rfind('/') + 1));
  }
  CHECK(found == std::vector<std::string>{"{}\r", "[1]", "3"});
  CHECK(places == std::vector<std::string>{"a.jsonl:1", "a.jsonl:4", "c.jsonl:2"});
  CHECK(lines.done() == lines.total());
  CHECK_FALSE(lines.next());
  const std::vector<std::filesystem::path> none{folder / "none.jsonl"};
  CHECK_THROWS_WITH(JsonLines(none), ContainsSubstring("none.jsonl"));
}

TEST_CASE("a line is told what is wrong with it") {
  RecordFields fields;
  fields.longest = 64;
  const RecordReader reader(fields);
  const auto wrong = [&](const std::string& line) { return abuse::error_of([&] { reader.object(line); }).message(); };
  CHECK_THAT(wrong("{\"text\": \"a"), ContainsSubstring("no JSON"));
  CHECK_THAT(wrong("{\"text\": 1} x"), ContainsSubstring("no JSON"));
  CHECK_THAT(wrong("[1]"), ContainsSubstring("array"));
  CHECK_THAT(wrong("{\"text\": \"\xff\"}"), ContainsSubstring("not UTF-8"));
  CHECK_THAT(wrong("{\"text\": \"\\ud800\"}"), ContainsSubstring("no JSON"));
  CHECK_THAT(wrong("{\"text\": \"" + std::string(80, 'x') + "\"}"), ContainsSubstring("more than max_line = 64"));
  fields.longest = std::size_t{1} << 20;
  const RecordReader roomy(fields);
  CHECK_THAT(abuse::error_of([&] { roomy.object("{\"a\":" + std::string(400'000, '[')); }).message(), ContainsSubstring("nested"));

  const auto conversation = [&](const char* messages) {
    return abuse::error_of([&] { roomy.conversation(Json{{"messages", Json::parse(messages)}}, RecordForm::messages); }).message();
  };
  CHECK_THAT(conversation("[]"), ContainsSubstring("\"messages\" is empty"));
  CHECK_THAT(conversation("\"x\""), ContainsSubstring("JSON string, expected a list"));
  CHECK_THAT(conversation("[3]"), ContainsSubstring("message 1 is a JSON number"));
  CHECK_THAT(conversation(R"([{"role": "user"}])"), ContainsSubstring("no field \"content\""));
  CHECK_THAT(conversation(R"([{"role": "user", "content": null}])"), ContainsSubstring("\"content\" is a JSON null"));
  CHECK_THAT(conversation(R"([{"role": "tool", "content": ""}])"), ContainsSubstring("role \"tool\" is not known"));
  CHECK_THAT(abuse::error_of([&] { roomy.form_of(Json{{"prompt", ""}}); }).message(), ContainsSubstring("no field \"messages\""));
}

TEST_CASE("forms are told by their fields; roles have two names, and a system message is added where none is") {
  RecordFields fields;
  fields.system = "be kind";
  const RecordReader reader(fields);
  CHECK(reader.form_of({{"text", ""}}) == RecordForm::text);
  CHECK(reader.form_of({{"text", ""}, {"prompt", ""}, {"completion", ""}}) == RecordForm::pair);
  CHECK(reader.form_of({{"messages", 1}, {"prompt", ""}, {"completion", ""}}) == RecordForm::messages);
  const auto roles = [&](const Json& object, RecordForm form) {
    std::string all;
    for (const auto& message : reader.conversation(object, form)) all += message.role + "=" + message.content + ";";
    return all;
  };
  CHECK(roles({{"prompt", "a"}, {"completion", "b"}}, RecordForm::pair) == "system=be kind;user=a;assistant=b;");
  const Json shared = Json::parse(R"({"messages": [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]})");
  CHECK(roles(shared, RecordForm::messages) == "system=be kind;user=a;assistant=b;");
  const Json own = Json::parse(R"({"messages": [{"role": "system", "content": "be brief"}]})");
  CHECK(roles(own, RecordForm::messages) == "system=be brief;");
}

TEST_CASE("mistreated lines are refused or read, and nothing else") {
  const RecordReader reader{RecordFields()};
  const std::string good =
      R"({"messages": [{"role": "user", "content": "añ\u00e9 \ud83d\ude42"}, {"role": "assistant", "content": "b"}]})";
  const auto outcome = abuse::mistreat(abuse::bytes_of(good), [&](const abuse::Bytes& bytes) {
    const Json object = reader.object({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    reader.conversation(object, reader.form_of(object));
  });
  INFO(outcome.failure);
  CHECK(outcome.survived);
  CHECK(outcome.refused > 100);
}
