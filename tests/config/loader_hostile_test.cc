// Documents made to crash the loader, to hang it or to fill memory. Each must end in errors, or in
// a config, within the bounds of limits.h and within seconds.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "config/loader.h"
#include "core/base/limits.h"
#include "tests/support/temp_tree.h"

namespace superlifter::config {
namespace {

using Lines = std::vector<std::string>;

std::string example() {
  std::ifstream in(std::string(SUPERLIFTER_SOURCE_DIR) + "/config/superlifter.yaml",
                   std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string repeat(const std::string& part, size_t bytes) {
  std::string out;
  while (out.size() + part.size() <= bytes)
    out += part;
  return out;
}

// Loads what may be right or wrong; what is reported must be a proper line.
Loaded load(const std::string& text) {
  Loaded loaded = load_text(text, "f.yaml", CheckPaths::kNo);
  EXPECT_LE(loaded.errors.size(), kMaxConfigErrors + 1);
  for (const std::string& line : loaded.errors) {
    EXPECT_TRUE(line.starts_with("f.yaml:")) << line;
    EXPECT_NE(line.find(": expected "), std::string::npos) << line;
    EXPECT_EQ(line.find_first_of("\n\r\x1b"), std::string::npos) << line;
    EXPECT_LT(line.size(), 1000U);
  }
  return loaded;
}

TEST(LoaderHostile, EveryTruncationOfTheExampleEnds) {
  const std::string whole = example();
  ASSERT_GT(whole.size(), 1000U);
  for (size_t length = 0; length < whole.size(); ++length) {
    load(whole.substr(0, length));
  }
  EXPECT_EQ(load(whole).errors, Lines{});
}

TEST(LoaderHostile, ChangedBytesOfTheExampleEnd) {
  const std::string whole = example();
  constexpr unsigned kSeed = 20240229;
  std::mt19937 random(kSeed);
  SCOPED_TRACE(kSeed);
  for (size_t round = 0; round < 4000; ++round) {
    std::string changed = whole;
    changed[random() % changed.size()] = static_cast<char>(random());
    load(changed);
  }
}

TEST(LoaderHostile, YamlPunctuationAnywhereInTheExampleEnds) {
  const std::string whole = example();
  constexpr unsigned kSeed = 7;
  std::mt19937 random(kSeed);
  SCOPED_TRACE(kSeed);
  const std::string marks = "{}[]&*!|>'\"%@`#,?:- \t\n~<";
  for (size_t round = 0; round < 4000; ++round) {
    std::string changed = whole;
    for (size_t count = 1 + random() % 4; count > 0; --count) {
      const size_t at = random() % changed.size();
      const char mark = marks[random() % marks.size()];
      if (random() % 2 == 0) {
        changed[at] = mark;
      } else {
        changed.insert(at, 1, mark);
      }
    }
    load(changed);
  }
}

TEST(LoaderHostile, OneTokenForAWholeMegabyteEnds) {
  for (const char* part :
       {"[",     "{",      "]",    "}",    "- ",   "-\n",      "? ",        ": ",
        "a: ",   "{a: ",   "[a, ", "a: [", "&a ",  "*a ",      "!a ",       "!!",
        "!<",    "'",      "\"",   "\\",   "|\n",  ">\n",      "%a\n",      "#",
        "---\n", "...\n",  "\n",   " ",    "\t",   "\r",       "a",         "a\n",
        "a:\n",  "a: b\n", "a,",   ",",    "<<: ", "\xC3\xA9", "\"\\u0041", "'' ",
        "\"\" ", "- - ",   "[]: ", "{}: ", "? [",  "? {"}) {
    const auto begin = std::chrono::steady_clock::now();
    const Loaded loaded = load(repeat(part, kMaxConfigBytes));
    EXPECT_FALSE(loaded.errors.empty()) << part;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(took.count(), 30.0) << part;
  }
}

TEST(LoaderHostile, DocumentSizeHasABound) {
  const std::string module = "modules: {a: {path: /a}}\n#";
  const std::string most = module + std::string(kMaxConfigBytes - module.size(), 'x');
  EXPECT_EQ(load(most).errors, Lines{});
  const std::string error = ":1:1: a document of more than 1048576 bytes: expected a smaller one";
  EXPECT_EQ(load(most + "x").errors, Lines{"f.yaml" + error});
  const tests::TempTree tree;
  tree.write("most", most);
  tree.write("more", most + "x");
  EXPECT_EQ(load_file(tree.path("most"), CheckPaths::kNo).errors, Lines{});
  EXPECT_EQ(load_file(tree.path("more"), CheckPaths::kNo).errors, Lines{tree.path("more") + error});
  EXPECT_EQ(load_file("/dev/zero", CheckPaths::kNo).errors, Lines{"/dev/zero" + error});
}

TEST(LoaderHostile, NestingHasABound) {
  const auto nested = [](size_t depth) {
    return "modules: {a: {path: /a}}\nworkers: " + std::string(depth, '[') +
           std::string(depth, ']');
  };
  // The document's own map is one level.
  EXPECT_EQ(
      load(nested(kMaxConfigDepth - 1)).errors,
      Lines{"f.yaml:2:10: workers is a list: expected a whole number from 1 to 1024, or auto"});
  EXPECT_EQ(load(nested(kMaxConfigDepth)).errors,
            Lines{"f.yaml:2:25: lists and maps nested deeper than 16: expected less"});
  EXPECT_EQ(load(nested(400)).errors,
            Lines{"f.yaml:2:25: lists and maps nested deeper than 16: expected less"});
  EXPECT_FALSE(load(nested(100'000)).errors.empty());
}

TEST(LoaderHostile, AliasesThatMultiplyAreRefused) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n";
  for (char name = 'b'; name <= 'z'; ++name) {
    const char before = static_cast<char>(name - 1);
    bomb += std::string(1, name) + ": &" + name + " [";
    for (int i = 0; i < 10; ++i)
      bomb += std::string(i == 0 ? "*" : ",*") + before;
    bomb += "]\n";
  }
  const Loaded loaded = load(bomb);
  ASSERT_EQ(loaded.errors.size(), 1U);
  EXPECT_NE(loaded.errors[0].find("more than 262144 values or 1048576 bytes, aliases written out"),
            std::string::npos)
      << loaded.errors[0];
}

TEST(LoaderHostile, LongTextThatAliasesMultiplyIsRefused) {
  const std::string text =
      "motd: &a " + std::string(400'000, 'x') + "\nmodules: [*a, *a, *a, *a]\n";
  const Loaded loaded = load(text);
  ASSERT_EQ(loaded.errors.size(), 1U);
  EXPECT_TRUE(loaded.errors[0].starts_with("f.yaml:2:15: more than ")) << loaded.errors[0];
}

TEST(LoaderHostile, AliasInsideOfWhatItNamesIsRefused) {
  EXPECT_EQ(
      load("modules: &a {a: *a}\n").errors,
      Lines{"f.yaml:1:17: an alias inside of what it names: expected one to something before"});
  EXPECT_EQ(
      load("listen: &a [*a]\n").errors,
      Lines{"f.yaml:1:13: an alias inside of what it names: expected one to something before"});
}

TEST(LoaderHostile, BytesThatYamlWouldMisreadAreRefused) {
  const std::string module = "modules: {a: {path: /a}}\n";
  const std::string why = ": expected UTF-8 text without control characters";
  // yaml-cpp takes 0x04 for the end of the file: the rules behind it would be lost without a word.
  EXPECT_EQ(load(module + "motd: a\x04\n").errors, Lines{"f.yaml:2:8: byte 0x04" + why});
  EXPECT_EQ(load(module + std::string("motd: \0", 7)).errors, Lines{"f.yaml:2:7: byte 0x00" + why});
  EXPECT_EQ(load(module + "# \x1b[2J").errors, Lines{"f.yaml:2:3: byte 0x1b" + why});
  EXPECT_EQ(load("\xFF\xFEm\0o\0").errors, Lines{"f.yaml:1:1: byte 0xff" + why});
  for (const char* bad : {"\x80", "\xC3", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xE2\x82"}) {
    const Lines errors = load(module + "# " + bad).errors;
    ASSERT_EQ(errors.size(), 1U) << bad;
    EXPECT_TRUE(errors[0].starts_with("f.yaml:2:3: byte 0x")) << errors[0];
  }
  EXPECT_EQ(load(module + "# \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80").errors, Lines{});
}

TEST(LoaderHostile, ErrorsOfOneRunHaveABound) {
  std::string text = "modules: {a: {path: /a}}\n";
  for (size_t i = 0; i < kMaxConfigErrors; ++i)
    text += "x" + std::to_string(i) + ": 1\n";
  EXPECT_EQ(load(text).errors.size(), kMaxConfigErrors);
  const Lines more = load(text + "y: 1\nz: 1\n").errors;
  ASSERT_EQ(more.size(), kMaxConfigErrors + 1);
  EXPECT_EQ(more.back(),
            "f.yaml: more than 100 errors: expected the first ones to be mended first");
}

}  // namespace
}  // namespace superlifter::config
