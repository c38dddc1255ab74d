#include "config/loader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "config/document.h"
#include "config/interpret.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/unique_fd.h"

// How it works. yaml-cpp turns the text into events; Parse keeps them as a Document: a flat list,
// with the position of each value and aliases written out, under bounds of ours. interpret.cc makes
// a Config of that by the schema. yaml-cpp's own tree (YAML::Node) is not used: it forgets
// where an alias stood, has nothing to show after a syntax error, and can be made to hold cycles.
//
// What yaml-cpp itself gets wrong is kept from it: it takes byte 0x04 for the end of the file and
// replaces bytes that are not UTF-8, and either would load a config that is not the one written.

namespace superlifter::config {
namespace {

Position position(const YAML::Mark& mark) {
  if (mark.is_null()) return {};
  return {mark.line + 1, mark.column + 1};
}

// Receives the events of one document.
class Parse final : public YAML::EventHandler {
 public:
  explicit Parse(Mistakes& mistakes) : mistakes_(mistakes) {}

  // Reads all of `text`. Mistakes are added; what came before a syntax error is kept. Nothing when
  // a bound was passed: what there is then, is not what was written.
  std::optional<Document> run(std::string_view text);

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 2) {
      mistakes_.add(position(mark), "a second YAML document: expected one document in the file");
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(Value::Type::kNothing, mark, anchor, "");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override;
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    refuse_tag(mark, tag);
    add(Value::Type::kScalar, mark, anchor, text);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    refuse_tag(mark, tag);
    add(Value::Type::kList, mark, anchor, "");
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    refuse_tag(mark, tag);
    add(Value::Type::kMap, mark, anchor, "");
  }
  void OnMapEnd() override { close(); }

 private:
  bool ignoring() const { return refused_ || documents_ != 1; }
  void add(Value::Type type, const YAML::Mark& mark, YAML::anchor_t anchor, std::string text);
  bool has_room(const YAML::Mark& mark, size_t count, size_t bytes);
  void refuse_tag(const YAML::Mark& mark, const std::string& tag);
  void close();
  void add_syntax_error(const YAML::Exception& error, std::string_view text);
  void refuse(Position at, std::string text) {
    mistakes_.add(at, std::move(text));
    refused_ = true;
  }

  // open_ holds the lists and maps of values_ whose end is 0, outermost first.
  Mistakes& mistakes_;
  std::vector<Value> values_;
  std::vector<size_t> open_;
  std::unordered_map<YAML::anchor_t, size_t> anchors_;
  size_t text_bytes_ = 0;
  size_t documents_ = 0;
  bool refused_ = false;
};

// Length of the UTF-8 sequence (RFC 3629) in front of `text`, 0 if there is none.
size_t utf8_length(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<uint8_t>(text[i]) & 0xC0U) != 0x80) return 0;
  }
  const auto second = static_cast<uint8_t>(text[1]);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool outside = (lead == 0xED && second >= 0xA0) || (lead == 0xF4 && second >= 0x90);
  return overlong || outside ? 0 : length;
}

// The first byte that may not stand in the file.
std::optional<Mistake> find_bad_byte(std::string_view text) {
  Position at;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const size_t length = utf8_length(text.substr(i));
    const bool control =
        (byte < 0x20 && byte != '\n' && byte != '\t' && byte != '\r') || byte == 0x7F;
    if (length == 0 || control) {
      return Mistake{
          at, fmt::format("byte 0x{:02x}: expected UTF-8 text without control characters", byte)};
    }
    i += length;
    if (byte == '\n') {
      at = {at.line + 1, 1};
    } else {
      at.column += static_cast<int>(length);
    }
  }
  return std::nullopt;
}

std::optional<Document> Parse::run(std::string_view text) {
  if (text.size() > kMaxConfigBytes) {
    mistakes_.add({}, fmt::format("a document of more than {} bytes: expected a smaller one",
                                  kMaxConfigBytes));
    return std::nullopt;
  }
  if (std::optional<Mistake> bad = find_bad_byte(text)) {
    mistakes_.add(bad->at, std::move(bad->text));
    return std::nullopt;
  }
  bool complete = false;
  try {
    // A quote that is never closed would otherwise end with the file, and silently swallow whatever
    // settings stand behind it; inside of a quote the end of a document is an error.
    std::istringstream stream{std::string(text) + "\n...\n"};
    YAML::Parser parser(stream);
    if (parser.HandleNextDocument(*this)) parser.HandleNextDocument(*this);
    complete = true;
  } catch (const YAML::Exception& error) {
    add_syntax_error(error, text);
  } catch (const std::exception& error) {
    mistakes_.add({}, fmt::format("{}: expected well-formed YAML", error.what()));
  }
  while (!open_.empty()) {
    close();
  }
  if (refused_) return std::nullopt;
  return Document{.values = std::move(values_), .complete = complete};
}

void Parse::add(Value::Type type, const YAML::Mark& mark, YAML::anchor_t anchor, std::string text) {
  if (ignoring() || !has_room(mark, 1, text.size())) return;
  const bool has_inside = type == Value::Type::kList || type == Value::Type::kMap;
  if (has_inside && open_.size() == kMaxConfigDepth) {
    return refuse(position(mark), fmt::format("lists and maps nested deeper than {}: expected less",
                                              kMaxConfigDepth));
  }
  const size_t index = values_.size();
  if (anchor != YAML::NullAnchor) anchors_[anchor] = index;
  values_.push_back({.type = type,
                     .at = position(mark),
                     .text = std::move(text),
                     .end = has_inside ? 0 : index + 1});
  if (has_inside) open_.push_back(index);
}

void Parse::OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) {
  if (ignoring()) return;
  const auto found = anchors_.find(anchor);
  const size_t begin = found == anchors_.end() ? values_.size() : found->second;
  if (begin == values_.size() || values_[begin].end == 0) {
    return refuse(position(mark),
                  "an alias inside of what it names: expected one to something before");
  }
  const size_t end = values_[begin].end;
  const size_t shift = values_.size() - begin;
  size_t bytes = 0;
  for (size_t i = begin; i < end; ++i)
    bytes += values_[i].text.size();
  if (!has_room(mark, end - begin, bytes)) return;
  for (size_t i = begin; i < end; ++i) {
    Value copy = values_[i];
    copy.end += shift;
    values_.push_back(std::move(copy));
  }
}

bool Parse::has_room(const YAML::Mark& mark, size_t count, size_t bytes) {
  text_bytes_ += bytes;
  if (values_.size() + count <= kMaxConfigValues && text_bytes_ <= kMaxConfigBytes) return true;
  refuse(position(mark),
         fmt::format("more than {} values or {} bytes, aliases written out: expected less",
                     kMaxConfigValues, kMaxConfigBytes));
  return false;
}

void Parse::refuse_tag(const YAML::Mark& mark, const std::string& tag) {
  // "?" and "!" are yaml-cpp's names for a plain and a quoted scalar without a tag.
  if (ignoring() || tag.empty() || tag == "?" || tag == "!") return;
  mistakes_.add(position(mark),
                fmt::format("the tag {}: expected a value without a tag", show(tag)));
}

void Parse::close() {
  if (refused_ || documents_ > 1 || open_.empty()) return open_.clear();
  const size_t index = open_.back();
  open_.pop_back();
  values_[index].end = values_.size();
  // yaml-cpp says that an absent value is where the next token is; better where its key or list is.
  const bool is_map = values_[index].type == Value::Type::kMap;
  for (size_t i = index + 1; i < values_.size();) {
    const size_t value = is_map ? values_[i].end : i;
    if (value >= values_.size()) break;
    if (values_[value].type == Value::Type::kNothing)
      values_[value].at = values_[is_map ? i : index].at;
    i = values_[value].end;
  }
}

// yaml-cpp says where it gave up; where a bracket or a quote is not closed, that is often the end
// of the file, and what was open says more.
void Parse::add_syntax_error(const YAML::Exception& error, std::string_view text) {
  namespace msg = YAML::ErrorMsg;
  std::string found = escape(error.msg);  // It can quote a byte of the file.
  if (found == msg::END_OF_MAP_FLOW || found == msg::END_OF_SEQ_FLOW) {
    if (!open_.empty()) {
      const Position opened = values_[open_.back()].at;
      found = fmt::format("the bracket of line {}, column {} is not closed by here", opened.line,
                          opened.column);
    }
  } else if (found == msg::DOC_IN_SCALAR || found == msg::EOF_IN_SCALAR) {
    found = "a quote is not closed by here";
    if (!values_.empty()) {
      found = fmt::format("the quote after {} in line {} is not closed by here",
                          describe(values_.back()), values_.back().at.line);
    }
  } else if (found == msg::END_OF_MAP || found == msg::END_OF_SEQ) {
    found = "text that does not go on with what is above it";
  }
  // The "..." that run() appended is not the administrator's.
  const auto lines = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  const size_t last_line = text.size() - (text.rfind('\n') + 1);  // npos + 1 is 0.
  const Position end{lines + 1, static_cast<int>(last_line) + 1};
  mistakes_.add(std::min(position(error.mark), end), found + ": expected well-formed YAML");
}

// The whole of a file, or one byte more than may be read.
Result<std::string> read_whole(const std::string& file) {
  const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot be opened");
  std::string text(kMaxConfigBytes + 1, '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = read(fd.get(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "cannot be read");
    if (count == 0) break;
    filled += static_cast<size_t>(count);
  }
  text.resize(filled);
  return text;
}

}  // namespace

Loaded load_text(std::string_view text, const std::string& file, CheckPaths check_paths) {
  Mistakes mistakes;
  const std::optional<Document> document = Parse(mistakes).run(text);
  Loaded loaded;
  if (document) loaded.config = interpret(*document, check_paths, mistakes);
  loaded.errors = mistakes.lines(file);
  return loaded;
}

Loaded load_file(const std::string& file, CheckPaths check_paths) {
  const Result<std::string> text = read_whole(file);
  if (text) return load_text(*text, file, check_paths);
  Loaded loaded;
  loaded.errors.push_back(
      fmt::format("{}: {}: expected a YAML file that can be read", file, text.error().message));
  return loaded;
}

}  // namespace superlifter::config
