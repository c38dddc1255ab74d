// Options: the forms of DESIGN.md section 7, and the command lines that are refused.
#include "daemon/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace superlifter::daemon {
namespace {

Result<Options> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "superlifterd");
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Options, NothingMeansTheDefaultConfig) {
  const Result<Options> options = parse({});
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->mode, Mode::kRun);
  EXPECT_EQ(options->config_file, kDefaultConfigFile);
  EXPECT_FALSE(options->config_given);
}

TEST(Options, EachModeHasItsWord) {
  EXPECT_EQ(parse({"--daemon"})->mode, Mode::kDaemon);
  EXPECT_EQ(parse({"--stdio"})->mode, Mode::kStdio);
  EXPECT_EQ(parse({"--inetd"})->mode, Mode::kStdio);
  EXPECT_EQ(parse({"--serve", "/srv"})->mode, Mode::kDaemon);
  EXPECT_EQ(parse({"--serve", "/srv", "--stdio"})->mode, Mode::kStdio);
  EXPECT_EQ(parse({"check-config"})->mode, Mode::kCheckConfig);
  EXPECT_EQ(parse({"index"})->mode, Mode::kIndex);
}

TEST(Options, ConfigMayStandBeforeOrBehindACommand) {
  EXPECT_EQ(parse({"--config", "a.yaml", "index"})->config_file, "a.yaml");
  EXPECT_EQ(parse({"index", "--config", "a.yaml"})->config_file, "a.yaml");
  EXPECT_EQ(parse({"check-config", "--config=a.yaml"})->config_file, "a.yaml");
}

TEST(Options, IndexTakesModulesAndThreads) {
  const Result<Options> options = parse({"index", "--threads", "3", "debian", "fedora"});
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->modules, (std::vector<std::string>{"debian", "fedora"}));
  EXPECT_EQ(options->threads, 3U);
}

TEST(Options, ServeAndListenMayBeRepeated) {
  const Result<Options> options = parse(
      {"--serve", "/a=x", "--listen", "127.0.0.1:0", "--serve", "/b", "--listen", "[::1]:99"});
  ASSERT_TRUE(options.has_value());
  ASSERT_EQ(options->serve.size(), 2U);
  EXPECT_EQ(options->serve[0].path, "/a");
  EXPECT_EQ(options->serve[0].name, "x");
  EXPECT_EQ(options->serve[1].name, "");
  ASSERT_EQ(options->listen.size(), 2U);
  EXPECT_EQ(options->listen[1].port, 99);
}

TEST(Options, ServeIsSplitAtItsLastEqualsSign) {
  EXPECT_EQ(parse_serve("/a=b=c").path, "/a=b");
  EXPECT_EQ(parse_serve("/a=b=c").name, "c");
  EXPECT_EQ(parse_serve("/a=b/").path, "/a=b/");
  EXPECT_EQ(parse_serve("/a=b/").name, "");
}

TEST(Options, HelpAndVersionAreTexts) {
  EXPECT_EQ(parse({"--help"})->mode, Mode::kShow);
  EXPECT_NE(parse({"--help"})->text.find("--serve"), std::string::npos);
  EXPECT_EQ(parse({"--help"})->text.find("--child"), std::string::npos);
  EXPECT_NE(parse({"index", "--help"})->text.find("--threads"), std::string::npos);
  EXPECT_NE(parse({"--version"})->text.find("superlifterd "), std::string::npos);
}

TEST(Options, MistakesAreRefused) {
  const std::vector<std::vector<const char*>> wrong = {
      {"--nonsense"},
      {"frobnicate"},
      {"--config"},
      {"--serve"},
      {"--listen", "nonsense", "--serve", "/srv"},
      {"--listen", "127.0.0.1", "--serve", "/srv"},
      {"--daemon", "--stdio"},
      {"--stdio", "--listen", "127.0.0.1:0"},
      {"--config", "a", "--serve", "/srv"},
      {"check-config", "--serve", "/srv"},
      {"check-config", "extra"},
      {"index", "--stdio"},
      {"index", "--threads", "0"},
      {"index", "--threads", "many"},
      {"--child", "thief"},
  };
  for (const std::vector<const char*>& arguments : wrong) {
    const Result<Options> options = parse(arguments);
    ASSERT_FALSE(options.has_value()) << arguments[0];
    EXPECT_EQ(options.error().code, Errc::kConfig);
    EXPECT_FALSE(options.error().message.empty());
  }
}

}  // namespace
}  // namespace superlifter::daemon
