// The house rules of STYLE.md as one test: layers, protocol tags, includes, names in CMake, words.
// Every file of the project is read once; a breach is reported as file:line with the rule.
//
// Files are what git lists (tracked, and new ones that it does not ignore), or what a walk finds
// where git does not answer. The scanners below work on lines and know just enough C++ to leave
// comments and string literals out; they are not parsers, and a rule that would need one belongs to
// clang-tidy.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace filesystem = std::filesystem;

struct File {
  std::string path;  // From the project's root.
  std::vector<std::string> lines;
  std::vector<std::string> code;  // The same lines without comments and literals; C++ files only.

  bool is_header() const { return path.ends_with(".h"); }
  bool is_cpp() const { return is_header() || path.ends_with(".cc"); }
  bool is_below(std::string_view folder) const {
    return path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/';
  }
};

// --- Reading the project
// -----------------------------------------------------------------------------

const std::string kRoot = SUPERLIFTER_SOURCE_DIR;

std::vector<std::string> list_with_git() {
  const std::string command =
      "git -C '" + kRoot + "' ls-files -z --cached --others --exclude-standard 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::vector<std::string> paths;
  if (pipe == nullptr) return paths;
  std::string path;
  for (int byte = fgetc(pipe.get()); byte != EOF; byte = fgetc(pipe.get())) {
    if (byte != '\0') {
      path += static_cast<char>(byte);
    } else {
      paths.push_back(std::exchange(path, {}));
    }
  }
  return paths;
}

std::vector<std::string> list_with_walk() {
  std::vector<std::string> paths;
  filesystem::recursive_directory_iterator walk(kRoot);
  for (const filesystem::directory_entry& entry : walk) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && (name == ".git" || name == "build" || name == "__pycache__")) {
      walk.disable_recursion_pending();
    } else if (entry.is_regular_file()) {
      paths.push_back(filesystem::relative(entry.path(), kRoot).string());
    }
  }
  return paths;
}

// Blanks comments, string literals and character literals, keeping the lines where they are.
std::vector<std::string> strip(const std::vector<std::string>& lines) {
  std::vector<std::string> code;
  bool in_block_comment = false;
  std::string raw_end;  // What ends the raw string that we are in.
  for (const std::string& line : lines) {
    std::string out;
    for (size_t i = 0; i < line.size(); ++i) {
      if (in_block_comment) {
        if (line.compare(i, 2, "*/") == 0) {
          in_block_comment = false;
          ++i;
        }
      } else if (!raw_end.empty()) {
        if (line.compare(i, raw_end.size(), raw_end) == 0) {
          i += raw_end.size() - 1;
          raw_end.clear();
          out += "\"\"";
        }
      } else if (line.compare(i, 2, "//") == 0) {
        break;
      } else if (line.compare(i, 2, "/*") == 0) {
        in_block_comment = true;
        ++i;
      } else if (line.compare(i, 2, "R\"") == 0) {
        const size_t open = line.find('(', i);
        if (open == std::string::npos) break;
        raw_end = ")" + line.substr(i + 2, open - i - 2) + "\"";
        i = open;
      } else if (line[i] == '"' ||
                 (line[i] == '\'' &&
                  (i == 0 || !isalnum(static_cast<unsigned char>(line[i - 1]))))) {
        const char quote = line[i];
        size_t end = i + 1;
        while (end < line.size() && line[end] != quote)
          end += line[end] == '\\' ? 2 : 1;
        out += quote;
        out += quote;
        i = end;
      } else {
        out += line[i];
      }
    }
    code.push_back(out);
  }
  return code;
}

const std::vector<File>& project() {
  static const std::vector<File> files = [] {
    std::vector<std::string> paths = list_with_git();
    if (paths.empty()) paths = list_with_walk();
    std::sort(paths.begin(), paths.end());
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    std::vector<File> all;
    for (const std::string& path : paths) {
      std::ifstream in(kRoot + "/" + path, std::ios::binary);
      if (!in) continue;  // Listed but removed, or a dangling link.
      File file;
      file.path = path;
      for (std::string line; std::getline(in, line);) {
        file.lines.push_back(line);
      }
      if (file.is_cpp()) file.code = strip(file.lines);
      all.push_back(std::move(file));
    }
    return all;
  }();
  return files;
}

std::string at(const File& file, size_t index) {
  return file.path + ":" + std::to_string(index + 1) + ": ";
}

// The quoted include of a line, or nothing.
std::string quoted_include(const std::string& line) {
  static const std::regex pattern(R"(^\s*#\s*include\s+\"([^\"]+)\")");
  std::smatch match;
  return std::regex_search(line, match, pattern) ? match[1].str() : std::string();
}

std::string angle_include(const std::string& line) {
  static const std::regex pattern(R"(^\s*#\s*include\s+<([^>]+)>)");
  std::smatch match;
  return std::regex_search(line, match, pattern) ? match[1].str() : std::string();
}

bool is_below_any(std::string_view path, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) {
    return path == prefix || (path.starts_with(prefix) && path[prefix.size()] == '/');
  });
}

// --- Layers: STYLE.md section 2
// ----------------------------------------------------------------------

struct Layer {
  std::string folder;
  std::vector<std::string> may_include;     // Folders or files, besides its own.
  std::vector<std::string> never_includes;  // System headers, by prefix.
};

const std::vector<std::string> kIoHeaders = {"uv.h", "liburing", "unistd.h", "fcntl.h", "poll.h",
                                             "sys/", "netinet/", "arpa/",    "netdb.h"};

const std::vector<Layer>& layers() {
  static const std::vector<Layer> all = {
      {"core/base", {}, {"uv.h", "liburing", "netinet/", "arpa/", "netdb.h"}},
      {"core/hash", {"core/base"}, kIoHeaders},
      {"core/wire", {"core/base", "core/hash"}, kIoHeaders},
      {"core/tree", {"core/base", "core/hash"}, kIoHeaders},
      {"core/delta", {"core/base", "core/hash"}, kIoHeaders},
      {"core/fs", {"core/base"}, {"uv.h", "liburing"}},
      {"core/shm", {"core/base"}, {"uv.h", "liburing"}},
      {"core/io", {"core/base"}, {}},
      {"core/catalog",
       {"core/base", "core/hash", "core/tree", "core/delta", "core/fs"},
       {"uv.h", "liburing", "netinet/", "arpa/", "netdb.h"}},
      {"core/session",
       {"core/base", "core/hash", "core/wire", "core/tree", "core/delta"},
       {"uv.h", "liburing", "unistd.h", "fcntl.h", "poll.h", "sys/", "netdb.h"}},
      {"config", {"core/base", "core/session/access.h"}, {"uv.h", "liburing"}},
      {"ops", {"core/base", "core/shm"}, {"liburing"}},
      {"daemon", {"core", "config", "ops"}, {"liburing"}},
      {"client", {"core", "config"}, {"liburing"}},
      {"tests", {"core", "config", "ops", "daemon", "client"}, {}},
      {"bench", {"core", "config", "ops", "daemon", "client", "tests"}, {}},
  };
  return all;
}

TEST(Tidy, IncludesGoOnlyDownwards) {
  for (const File& file : project()) {
    if (!file.is_cpp()) continue;
    const Layer* layer = nullptr;
    for (const Layer& candidate : layers()) {
      if (file.is_below(candidate.folder)) layer = &candidate;
    }
    if (layer == nullptr) {
      ADD_FAILURE() << file.path << ": no layer in tests/tidy_test.cc covers this folder";
      continue;
    }
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string ours = quoted_include(file.lines[i]);
      if (!ours.empty() && !is_below_any(ours, {layer->folder}) &&
          !is_below_any(ours, layer->may_include)) {
        ADD_FAILURE() << at(file, i) << layer->folder << " may not include \"" << ours << "\"";
      }
      const std::string system = angle_include(file.lines[i]);
      for (const std::string& never : layer->never_includes) {
        if (!system.empty() && system.starts_with(never)) {
          ADD_FAILURE() << at(file, i) << layer->folder << " may not include <" << system << ">";
        }
      }
    }
  }
}

TEST(Tidy, LibrariesStayInTheirOneUnit) {
  // Header prefix, and the files that may name it.
  const std::vector<std::pair<std::string, std::vector<std::string>>> homes = {
      {"yaml-cpp/", {"config/loader.cc"}},
      {"liburing", {"core/io/uring_engine.cc", "core/io/uring_engine.h"}},
      {"xxh", {"core/hash"}},
      {"openssl/", {"core/hash"}},
      {"spdlog/", {"core/base/log.cc"}},
  };
  for (const File& file : project()) {
    if (!file.is_cpp() || file.is_below("tests") || file.is_below("bench")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string system = angle_include(file.lines[i]);
      if (system.empty()) continue;
      for (const auto& [prefix, allowed] : homes) {
        if (system.starts_with(prefix) && !is_below_any(file.path, allowed)) {
          ADD_FAILURE() << at(file, i) << "<" << system << "> belongs to " << allowed.front();
        }
      }
      // Of the data plane, only the libuv engine may know libuv.
      const bool data_plane = file.is_below("core") || file.path.starts_with("daemon/worker") ||
                              file.path.starts_with("daemon/connection");
      if (system == "uv.h" && data_plane && !file.path.starts_with("core/io/uv_engine")) {
        ADD_FAILURE() << at(file, i) << "<uv.h> belongs to core/io/uv_engine in the data plane";
      }
    }
  }
}

// --- Tags of PROTOCOL.md and FORMAT.md
// ---------------------------------------------------------------

enum class Side { kNeither, kEncoder, kDecoder };

bool mentions(std::string text, const std::vector<std::string_view>& words) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(tolower(c)); });
  return std::any_of(words.begin(), words.end(),
                     [&](std::string_view word) { return text.find(word) != std::string::npos; });
}

// What a line of code says of itself. Our own words for the two sides decide; words that a helper's
// name may have are asked after that.
Side side_of(const std::string& code) {
  const std::vector<std::string_view> encoders[] = {{"writer", "encode"},
                                                    {"write_", "emit", "build", "put_"}};
  const std::vector<std::string_view> decoders[] = {{"reader", "decode"},
                                                    {"read_", "parse", "load", "check_"}};
  for (size_t i = 0; i < std::size(encoders); ++i) {
    const bool encoder = mentions(code, encoders[i]);
    const bool decoder = mentions(code, decoders[i]);
    if (encoder != decoder) return encoder ? Side::kEncoder : Side::kDecoder;
  }
  return Side::kNeither;
}

bool is_blank(const std::string& line) {
  return line.find_first_not_of(' ') == std::string::npos;
}

// On which side line `index` of a file stands: by the code of the line itself (a comment alone
// stands with the code below it), else by the head of the function around it: the nearest line
// above that is indented less and has a parenthesis. A head that takes bytes to look at and says no
// more is a decoder's.
Side side_at(const File& file, size_t index) {
  size_t described = index;
  while (described + 1 < file.code.size() && is_blank(file.code[described]))
    ++described;
  const Side own = side_of(file.code[described]);
  if (own != Side::kNeither) return own;
  size_t indent = file.code[described].find_first_not_of(' ');
  if (indent == 0 && file.code[described].find("ByteView ") != std::string::npos)
    return Side::kDecoder;
  for (size_t i = described; i-- > 0 && indent > 0;) {
    const size_t here = file.code[i].find_first_not_of(' ');
    if (here == std::string::npos || here >= indent) continue;
    if (file.code[i].find('(') == std::string::npos) continue;
    const Side side = side_of(file.code[i]);
    if (side != Side::kNeither) return side;
    indent = here;
  }
  return Side::kNeither;
}

const std::regex& tag_pattern() {
  static const std::regex pattern(R"(\[([a-z0-9]+(?:-[a-z0-9]+)+)\])");
  return pattern;
}

struct Seen {
  size_t encoders = 0;
  size_t decoders = 0;
};

TEST(Tidy, EachTagStandsInDocumentEncoderAndDecoder) {
  std::map<std::string, std::string> documented;  // Tag to where it stands first.
  for (const File& file : project()) {
    if (file.path != "core/wire/PROTOCOL.md" && file.path != "core/catalog/FORMAT.md") continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (std::sregex_iterator it(file.lines[i].begin(), file.lines[i].end(), tag_pattern()), end;
           it != end; ++it) {
        documented.try_emplace((*it)[1].str(), at(file, i));
      }
    }
  }
  ASSERT_FALSE(documented.empty())
      << "no tags found in core/wire/PROTOCOL.md and core/catalog/FORMAT.md";

  std::map<std::string, Seen> seen;
  for (const File& file : project()) {
    if (!file.path.ends_with(".cc") ||
        !is_below_any(file.path, {"core/wire", "core/tree", "core/delta", "core/catalog",
                                  "core/session", "client"})) {
      continue;
    }
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      const size_t comment = line.find("//");
      if (comment == std::string::npos) continue;
      const std::string text = line.substr(comment);
      for (std::sregex_iterator it(text.begin(), text.end(), tag_pattern()), end; it != end; ++it) {
        const std::string tag = (*it)[1].str();
        if (!documented.contains(tag)) {
          ADD_FAILURE() << at(file, i) << "[" << tag << "] stands in no document";
        }
        const Side side = side_at(file, i);
        seen[tag].encoders += side == Side::kEncoder ? 1 : 0;
        seen[tag].decoders += side == Side::kDecoder ? 1 : 0;
      }
    }
  }
  for (const auto& [tag, where] : documented) {
    EXPECT_GT(seen[tag].encoders, 0U) << where << "[" << tag << "] is in no encoder's comment";
    EXPECT_GT(seen[tag].decoders, 0U) << where << "[" << tag << "] is in no decoder's comment";
  }
}

// --- Single lines
// ------------------------------------------------------------------------------------

TEST(Tidy, OnlyBaseClosesFileDescriptors) {
  // A call with an argument; a member (.close(…), ->close(…), Type::close(…)) is not meant.
  const std::regex call(R"((^|[^\w.>:]|[^\w]::)close\s*\(\s*[^)\s])");
  for (const File& file : project()) {
    if (!file.is_cpp() || file.is_below("core/base") || file.is_below("tests")) continue;
    for (size_t i = 0; i < file.code.size(); ++i) {
      EXPECT_FALSE(std::regex_search(file.code[i], call))
          << at(file, i) << "bare close(): an fd lives in UniqueFd";
    }
  }
}

TEST(Tidy, NothingOfOursThrows) {
  const std::regex word(R"(\bthrow\b)");
  for (const File& file : project()) {
    if (!file.is_cpp() || file.is_below("tests") || file.is_below("bench")) continue;
    for (size_t i = 0; i < file.code.size(); ++i) {
      EXPECT_FALSE(std::regex_search(file.code[i], word)) << at(file, i) << "we do not throw";
    }
  }
}

TEST(Tidy, NoUsingDirectives) {
  // Of the standard's literals alone it brings no names.
  const std::regex directive(R"(\busing\s+namespace\b(?!\s+std::\w*literals\s*;))");
  for (const File& file : project()) {
    for (size_t i = 0; i < file.code.size(); ++i) {
      // A line may say why it is let off, as for clang-tidy's check of that name.
      if (file.lines[i].find("NOLINT(google-build-using-namespace)") != std::string::npos) continue;
      EXPECT_FALSE(std::regex_search(file.code[i], directive)) << at(file, i) << "using-directive";
    }
  }
}

TEST(Tidy, HeadersHavePragmaOnceAndProse) {
  for (const File& file : project()) {
    if (!file.is_header()) continue;
    EXPECT_TRUE(std::find(file.lines.begin(), file.lines.end(), "#pragma once") != file.lines.end())
        << file.path << ":1: #pragma once is missing";
    EXPECT_TRUE(!file.lines.empty() && file.lines.front().starts_with("// "))
        << file.path << ":1: a file opens with prose that says what it is";
  }
}

TEST(Tidy, SourcesOpenWithProseOrTheirOwnHeader) {
  for (const File& file : project()) {
    if (!file.path.ends_with(".cc") || file.lines.empty()) continue;
    // A unit's header, or that of the unit which a test is about.
    std::string unit = file.path.substr(0, file.path.size() - 3);
    if (unit.starts_with("tests/") && unit.ends_with("_test"))
      unit = unit.substr(6, unit.size() - 11);
    const std::string own = "#include \"" + unit + ".h\"";
    EXPECT_TRUE(file.lines.front().starts_with("// ") || file.lines.front() == own)
        << file.path << ":1: a file opens with prose, or with the header that has it";
  }
}

TEST(Tidy, EveryFileIsNamedInCMake) {
  // The nearest CMakeLists.txt above a file names it, by its path from there.
  std::map<std::string, std::string> lists;
  for (const File& file : project()) {
    if (filesystem::path(file.path).filename() != "CMakeLists.txt") continue;
    std::string text;
    for (const std::string& line : file.lines) {
      text += " " + line.substr(0, line.find('#')) + " ";
    }
    std::replace_if(
        text.begin(), text.end(), [](char c) { return c == '(' || c == ')' || c == '\t'; }, ' ');
    lists[filesystem::path(file.path).parent_path().string()] = text;
  }
  for (const File& file : project()) {
    if (!file.is_cpp()) continue;
    filesystem::path folder = filesystem::path(file.path).parent_path();
    while (!lists.contains(folder.string()) && !folder.empty())
      folder = folder.parent_path();
    const std::string name =
        filesystem::path(file.path).lexically_relative(folder.empty() ? "." : folder).string();
    EXPECT_NE(lists[folder.string()].find(" " + name + " "), std::string::npos)
        << file.path << ":1: not named in " << (folder / "CMakeLists.txt").string();
  }
}

TEST(Tidy, NoBannedWords) {
  struct Ban {
    std::regex pattern;
    const char* why;
  };
  const auto flags = std::regex::ECMAScript | std::regex::icase;
  // Written in pieces, so that this file does not hold what it looks for.
  const std::vector<Ban> bans = {
      {std::regex("(^|[^\\w./-])/(wo"
                  "rk|ro"
                  "ot|tmp/b-)/"),
       "path of one machine"},
      {std::regex("\\bsub-?ag"
                  "ent",
                  flags),
       "says how it was written, not what it is"},
      {std::regex("\\bTO"
                  "DO(?!\\([^)]+\\): )"),
       "needs a way to find it: (where): what"},
      {std::regex("\\b(FIX"
                  "ME|XX"
                  "X|HA"
                  "CK)\\b"),
       "say it in a sentence, or as a to-do with a way to find it"},
      {std::regex("^(<<<<"
                  "<<<|>>>>"
                  ">>>) "),
       "merge conflict"},
      {std::regex("\\r$"), "carriage return"},
  };
  for (const File& file : project()) {
    if (file.path == "LICENSE" || file.path.starts_with("tests/golden/")) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const Ban& ban : bans) {
        std::smatch match;
        EXPECT_FALSE(std::regex_search(file.lines[i], match, ban.pattern))
            << at(file, i) << "\"" << match.str() << "\": " << ban.why;
      }
    }
  }
}

// --- The scanner itself
// ------------------------------------------------------------------------------

TEST(Tidy, ScannerLeavesCommentsAndLiteralsOut) {
  const std::vector<std::string> code =
      strip({"a(\"close(x)\"); // close(y)", "/* close(1)", "close(2) */ b();", "c('\\'', 1'000);",
             "d(R\"(close(3)", "close(4))\");"});
  EXPECT_EQ(code[0], "a(\"\"); ");
  EXPECT_EQ(code[1], "");
  EXPECT_EQ(code[2], " b();");
  EXPECT_EQ(code[3], "c('', 1'000);");
  EXPECT_EQ(code[4], "d(");
  EXPECT_EQ(code[5], "\"\");");
}

TEST(Tidy, ReadsTheWholeProject) {
  std::set<std::string> paths;
  for (const File& file : project()) {
    paths.insert(file.path);
  }
  for (const char* expected : {"CMakeLists.txt", "core/base/result.h", "core/wire/PROTOCOL.md",
                               "daemon/main.cc", "client/main.cc", "tests/tidy_test.cc"}) {
    EXPECT_TRUE(paths.contains(expected)) << expected;
  }
}

}  // namespace
