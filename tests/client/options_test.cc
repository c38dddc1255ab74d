#include "client/options.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

namespace superlifter::client {
namespace {

CommandLine parse(std::initializer_list<const char*> arguments) {
  std::vector<const char*> argv = {"superlifter"};
  argv.insert(argv.end(), arguments);
  return parse_command_line(static_cast<int>(argv.size()), argv.data());
}

template <class Options>
Options expect(std::initializer_list<const char*> arguments) {
  CommandLine line = parse(arguments);
  EXPECT_TRUE(line.command.has_value()) << line.err;
  EXPECT_EQ(line.exit_code, ExitCode::kOk);
  EXPECT_EQ(line.out + line.err, "");
  if (!line.command || !std::holds_alternative<Options>(*line.command)) {
    ADD_FAILURE() << "another command";
    return {};
  }
  return std::get<Options>(std::move(*line.command));
}
PullOptions pull(std::initializer_list<const char*> arguments) {
  return expect<PullOptions>(arguments);
}

// The message of a refused command line.
std::string refusal(std::initializer_list<const char*> arguments) {
  const CommandLine line = parse(arguments);
  EXPECT_FALSE(line.command.has_value());
  EXPECT_EQ(line.exit_code, ExitCode::kUsage);
  EXPECT_EQ(line.out, "");
  EXPECT_FALSE(line.err.empty());
  EXPECT_TRUE(line.err.ends_with('\n'));
  return line.err;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(Options, PullHasDefaults) {
  const PullOptions options = pull({"pull", "host/mod/dir"});
  EXPECT_EQ(options.source.text(), "superlifter://host/mod/dir");
  EXPECT_EQ(options.destination, "dir");
  EXPECT_FALSE(options.destination_given);
  EXPECT_EQ(options.network.timeout_ms, 60'000U);
  EXPECT_EQ(options.network.connect_timeout_ms, 10'000U);
  EXPECT_EQ(options.network.max_entries, 50'000'000U);
  EXPECT_EQ(options.bandwidth_bytes_per_s, 0U);
  EXPECT_EQ(options.jobs, 0U);
  EXPECT_FALSE(options.dry_run || options.delete_extra || options.owner || options.checksum);
  EXPECT_FALSE(options.whole_file || options.in_place || options.compress);
  EXPECT_TRUE(options.filter.empty());
  EXPECT_EQ(options.output, Output::kAuto);
  EXPECT_EQ(options.stats, StatsFormat::kNone);
  EXPECT_EQ(pull({"pull", "host/mod"}).destination, "mod");
}

TEST(Options, PullTakesEverything) {
  const PullOptions options = pull({"pull",
                                    "-n",
                                    "--delete",
                                    "--bwlimit",
                                    "1.5MiB",
                                    "--jobs=8",
                                    "--whole-file",
                                    "--owner",
                                    "--inplace",
                                    "-z",
                                    "--checksum",
                                    "--quiet",
                                    "--stats=json",
                                    "--timeout",
                                    "5",
                                    "--contimeout=0",
                                    "--max-entries",
                                    "1000",
                                    "host:1/mod",
                                    "/srv/dest"});
  EXPECT_TRUE(options.dry_run && options.delete_extra && options.owner && options.checksum);
  EXPECT_TRUE(options.whole_file && options.in_place && options.compress);
  EXPECT_EQ(options.bandwidth_bytes_per_s, 1'572'864U);
  EXPECT_EQ(options.jobs, 8U);
  EXPECT_EQ(options.output, Output::kQuiet);
  EXPECT_EQ(options.stats, StatsFormat::kJson);
  EXPECT_EQ(options.network.timeout_ms, 5'000U);
  EXPECT_EQ(options.network.connect_timeout_ms, 0U);
  EXPECT_EQ(options.network.max_entries, 1'000U);
  EXPECT_EQ(options.source.port, 1);
  EXPECT_EQ(options.destination, "/srv/dest");
  EXPECT_TRUE(options.destination_given);
}

TEST(Options, OptionsMayComeAnywhere) {
  const PullOptions options = pull({"pull", "host/mod", "--delete", "dest", "-n"});
  EXPECT_TRUE(options.delete_extra && options.dry_run);
  EXPECT_EQ(options.destination, "dest");
}

TEST(Options, AValueMayLookLikeAnOption) {
  const PullOptions options = pull({"pull", "--exclude", "-x", "--exclude=--y", "host/mod"});
  EXPECT_TRUE(options.filter.excludes("-x", IsDirectory::kNo));
  EXPECT_TRUE(options.filter.excludes("--y", IsDirectory::kNo));
}

TEST(Options, DoubleDashEndsTheOptions) {
  const PullOptions options = pull({"pull", "-n", "--", "host/mod", "-dest"});
  EXPECT_EQ(options.destination, "-dest");
  EXPECT_TRUE(options.dry_run);
}

TEST(Options, DestinationMayBeNamedLikeACommand) {
  for (const char* name : {"pull", "ls", "verify", "help", "modules"}) {
    EXPECT_EQ(pull({"pull", "host/mod", name}).destination, name);
  }
}

TEST(Options, StatsDoesNotEatTheNextArgument) {
  const PullOptions options = pull({"pull", "--stats", "host/mod", "dest"});
  EXPECT_EQ(options.stats, StatsFormat::kHuman);
  EXPECT_EQ(options.source.module, "mod");
  EXPECT_EQ(options.destination, "dest");
  EXPECT_TRUE(contains(refusal({"pull", "--stats=xml", "h/m"}), "--stats=xml"));
}

TEST(Options, FiltersKeepTheOrderBetweenTheTwo) {
  const PullOptions include_first =
      pull({"pull", "h/m", "--include", "a.tmp", "--exclude=*.tmp", "--include", "b.tmp"});
  EXPECT_FALSE(include_first.filter.excludes("a.tmp", IsDirectory::kNo));
  EXPECT_TRUE(include_first.filter.excludes("b.tmp", IsDirectory::kNo));
  const PullOptions exclude_first = pull({"pull", "--exclude", "*.tmp", "--include=a.tmp", "h/m"});
  EXPECT_TRUE(exclude_first.filter.excludes("a.tmp", IsDirectory::kNo));
  const PullOptions many = pull({"pull", "--exclude=x1", "--exclude=x2", "--include=y", "--exclude",
                                 "y", "--exclude", "[ab]", "--exclude", "a,b", "h/m"});
  EXPECT_TRUE(many.filter.excludes("x1", IsDirectory::kNo));
  EXPECT_TRUE(many.filter.excludes("x2", IsDirectory::kNo));
  EXPECT_FALSE(many.filter.excludes("y", IsDirectory::kNo));
  EXPECT_TRUE(many.filter.excludes("b", IsDirectory::kNo));    // Brackets are not a list.
  EXPECT_TRUE(many.filter.excludes("a,b", IsDirectory::kNo));  // Nor are commas.
  EXPECT_FALSE(many.filter.excludes("c", IsDirectory::kNo));
}

TEST(Options, BadFilterNamesTheOption) {
  EXPECT_TRUE(contains(refusal({"pull", "--exclude", "[a", "h/m"}), "--exclude pattern '[a'"));
  EXPECT_TRUE(contains(refusal({"pull", "--include", "", "h/m"}), "--include pattern ''"));
  EXPECT_TRUE(contains(refusal({"pull", "--exclude", "- x", "h/m"}), "rule prefixes"));
}

TEST(Options, LastOfARepeatedOptionCounts) {
  const PullOptions options = pull(
      {"pull", "--timeout", "1", "--timeout", "2", "-n", "-n", "--stats", "--stats=json", "h/m"});
  EXPECT_EQ(options.network.timeout_ms, 2'000U);
  EXPECT_TRUE(options.dry_run);
  EXPECT_EQ(options.stats, StatsFormat::kJson);
}

TEST(Options, NumbersHoldTheirBounds) {
  EXPECT_EQ(pull({"pull", "--jobs", "1", "h/m"}).jobs, 1U);
  EXPECT_EQ(pull({"pull", "--jobs", "256", "h/m"}).jobs, kMaxJobs);
  EXPECT_EQ(pull({"pull", "--jobs", "auto", "h/m"}).jobs, 0U);
  EXPECT_EQ(pull({"pull", "--timeout", "0", "h/m"}).network.timeout_ms, 0U);
  EXPECT_EQ(pull({"pull", "--timeout", "604800", "h/m"}).network.timeout_ms, 604'800'000U);
  EXPECT_EQ(pull({"pull", "--max-entries", "4294967280", "h/m"}).network.max_entries, 4294967280U);
  const struct {
    const char* option;
    const char* value;
  } refused[] = {
      {"--jobs", "0"},
      {"--jobs", "257"},
      {"--jobs", "-1"},
      {"--jobs", "many"},
      {"--jobs", "1.5"},
      {"--jobs", "99999999999999999999"},
      {"--timeout", "604801"},
      {"--timeout", "-5"},
      {"--timeout", "1s"},
      {"--timeout", " 1"},
      {"--contimeout", "x"},
      {"--max-entries", "0"},
      {"--max-entries", "4294967281"},
  };
  for (const auto& [option, value] : refused) {
    const std::string message = refusal({"pull", option, value, "h/m"});
    EXPECT_TRUE(
        contains(message, std::string(option) + " '" + value + "': expected a whole number"))
        << message;
  }
  EXPECT_TRUE(contains(refusal({"pull", "--bwlimit", "fast", "h/m"}), "--bwlimit 'fast'"));
}

TEST(Options, MissingValuesAreRefused) {
  EXPECT_TRUE(contains(refusal({"pull", "h/m", "--timeout"}), "--timeout needs a value"));
  // The next argument is not taken for the value.
  EXPECT_TRUE(contains(refusal({"pull", "--bwlimit=", "h/m", "d"}), "--bwlimit= has no value"));
  EXPECT_TRUE(contains(refusal({"pull", "--exclude=", "h/m", "d"}), "has no value"));
  EXPECT_TRUE(contains(refusal({"pull", "h/m", "--exclude"}), "--exclude needs a value"));
}

TEST(Options, EmptyArgumentsAreRefusedNotDefaulted) {
  EXPECT_TRUE(contains(refusal({"pull", "h/m", ""}), "DEST is empty"));
  EXPECT_TRUE(contains(refusal({"pull", "", "d"}), "SRC is empty"));
  EXPECT_TRUE(contains(refusal({"pull", "--timeout", "", "h/m"}), "--timeout is empty"));
  EXPECT_TRUE(contains(refusal({"pull", "--bwlimit", "", "h/m"}), "--bwlimit is empty"));
  EXPECT_TRUE(contains(refusal({"verify", ""}), "DEST is empty"));
}

TEST(Options, FlagsTakeNoValue) {
  EXPECT_TRUE(contains(refusal({"pull", "--delete=maybe", "h/m"}), "--delete takes no value"));
  EXPECT_TRUE(contains(refusal({"ls", "--help=x", "h/m"}), "--help takes no value"));
}

TEST(Options, MissingAndSuperfluousArgumentsAreRefused) {
  EXPECT_TRUE(contains(refusal({"pull"}), "SRC is missing"));
  EXPECT_TRUE(contains(refusal({"ls"}), "SRC is missing"));
  EXPECT_TRUE(contains(refusal({"cat"}), "SRC is missing"));
  EXPECT_TRUE(contains(refusal({"modules"}), "HOST is missing"));
  EXPECT_TRUE(contains(refusal({"verify"}), "DEST is missing"));
  EXPECT_TRUE(contains(refusal({"pull", "h/m", "d", "e"}), "unexpected argument 'e'"));
  EXPECT_TRUE(contains(refusal({"modules", "h", "i"}), "unexpected argument 'i'"));
  EXPECT_TRUE(contains(refusal({"ls", "h/m", "x\ny"}), "unexpected argument 'x\\x0ay'"));
}

TEST(Options, BadSourceIsAUsageError) {
  const std::string message = refusal({"pull", "host"});
  EXPECT_TRUE(message.starts_with("superlifter pull: source 'host': names no module")) << message;
  EXPECT_TRUE(contains(message, "Try 'superlifter pull --help'.\n"));
  EXPECT_TRUE(contains(refusal({"modules", "host/mod"}), "host 'host/mod': names more"));
}

TEST(Options, WhatIsNotThereYetIsRefusedNotIgnored) {
  for (const char* option : {"--rsh=ssh", "--connect=x", "--remote-program=x", "--subsystem=x"}) {
    EXPECT_TRUE(contains(refusal({"pull", option, "h/m", "d"}), "no option")) << option;
  }
}

TEST(Options, HabitsFromRsyncGetAHint) {
  EXPECT_TRUE(contains(refusal({"pull", "-avz", "h/m"}), "no option -a: not needed"));
  EXPECT_TRUE(contains(refusal({"pull", "--fuzzy", "h/m"}), "no option --fuzzy: not needed"));
  EXPECT_TRUE(contains(refusal({"pull", "-nv", "h/m"}), "no option -v: there is --progress"));
  EXPECT_TRUE(contains(refusal({"pull", "--delay-updates", "h/m"}), "not needed"));
  EXPECT_TRUE(contains(refusal({"pull", "--nonsense=1", "h/m"}), "no option '--nonsense=1'"));
}

TEST(Options, ProgressAndQuietExcludeEachOther) {
  EXPECT_EQ(pull({"pull", "--progress", "h/m"}).output, Output::kProgress);
  EXPECT_EQ(pull({"pull", "-q", "h/m"}).output, Output::kQuiet);
  EXPECT_TRUE(contains(refusal({"pull", "-q", "--progress", "h/m"}), "exclude each other"));
}

TEST(Options, OtherCommandsParse) {
  const auto modules = expect<ModulesOptions>({"modules", "[::1]:99", "--contimeout", "3"});
  EXPECT_EQ(modules.host.endpoint(), "[::1]:99");
  EXPECT_EQ(modules.network.connect_timeout_ms, 3'000U);
  const auto bracketed = expect<ModulesOptions>({"modules", "[::1]"});
  EXPECT_EQ(bracketed.host.host, "::1");

  const auto plain = expect<ListOptions>({"ls", "h/m"});
  EXPECT_FALSE(plain.long_format || plain.recursive);
  const auto both = expect<ListOptions>({"ls", "-lR", "h/m/dir"});
  EXPECT_TRUE(both.long_format && both.recursive);
  EXPECT_EQ(both.source.path.text(), "dir");

  EXPECT_EQ(expect<CatOptions>({"cat", "h/m/f"}).source.path.text(), "f");
  EXPECT_TRUE(contains(refusal({"cat", "h/m"}), "names a module"));

  const auto verify = expect<VerifyOptions>({"verify", "dest", "--jobs", "2", "--quiet"});
  EXPECT_EQ(verify.destination, "dest");
  EXPECT_EQ(verify.jobs, 2U);
  EXPECT_EQ(verify.output, Output::kQuiet);
}

TEST(Options, NoCommandIsAUsageErrorThatExplains) {
  EXPECT_TRUE(contains(refusal({}), "Usage: superlifter COMMAND"));
  EXPECT_TRUE(contains(refusal({"fetch", "h/m"}), "no command 'fetch'"));
  EXPECT_TRUE(contains(refusal({"h/m", "dest"}), "superlifter pull h/m"));
  EXPECT_TRUE(contains(refusal({"--delete", "h/m"}), "no command '--delete'"));
  EXPECT_EQ(parse_command_line(0, nullptr).exit_code, ExitCode::kUsage);
}

TEST(Options, VersionAndHelpGoToStdout) {
  for (const char* option : {"-V", "--version"}) {
    const CommandLine line = parse({option});
    EXPECT_TRUE(line.out.starts_with("superlifter ")) << line.out;
    EXPECT_EQ(line.exit_code, ExitCode::kOk);
    EXPECT_EQ(line.err, "");
    EXPECT_FALSE(line.command.has_value());
  }
  const std::string main_help = parse({"--help"}).out;
  EXPECT_EQ(parse({"-h"}).out, main_help);
  EXPECT_EQ(parse({"help"}).out, main_help);
  for (const char* command : {"pull", "modules", "ls", "cat", "verify"}) {
    EXPECT_TRUE(contains(main_help, std::string("\n  ") + command + " "));
    const CommandLine line = parse({command, "--help"});
    EXPECT_EQ(line.exit_code, ExitCode::kOk);
    EXPECT_EQ(line.err, "");
    EXPECT_TRUE(contains(line.out, std::string("\nUsage: superlifter ") + command + " [OPTIONS]"))
        << line.out;
    EXPECT_EQ(parse({"help", command}).out, line.out);
    EXPECT_EQ(parse({command, "-h"}).out, line.out);
    // Help wins over mistakes: whoever asks for it is about to correct them.
    EXPECT_EQ(parse({command, "--nonsense", "--help"}).out, line.out);
  }
}

TEST(Options, HelpFitsATerminalAndEndsOnce) {
  for (const char* command : {"", "pull", "modules", "ls", "cat", "verify"}) {
    const std::string help =
        *command == '\0' ? parse({"--help"}).out : parse({command, "--help"}).out;
    EXPECT_FALSE(contains(help, "\n\n\n")) << command;
    EXPECT_TRUE(help.ends_with('\n') && !help.ends_with("\n\n")) << command;
    EXPECT_FALSE(contains(help, "\t"));
    for (size_t at = 0; at < help.size();) {
      const size_t end = help.find('\n', at);
      const std::string line = help.substr(at, end - at);
      EXPECT_LE(line.size(), 80U) << line;
      EXPECT_FALSE(line.ends_with(' ')) << "'" << line << "'";
      at = end + 1;
    }
  }
}

TEST(Options, PullHelpNamesEveryOptionAndCode) {
  const std::string help = parse({"pull", "--help"}).out;
  for (const std::string_view option :
       {"SRC [DEST]", "-n, --dry-run", "--delete", "--include PATTERN", "--exclude PATTERN",
        "--bwlimit RATE", "--jobs N", "-W, --whole-file", "--owner", "--checksum", "--inplace",
        "-z, --compress", "--progress", "-q, --quiet", "--stats[=json]", "--timeout SECS",
        "--contimeout SECS", "--max-entries N", "-h, --help"}) {
    EXPECT_TRUE(contains(help, option)) << option << " in\n" << help;
  }
  for (const std::string_view missing :
       {"--fuzzy", "--rsh", "--subsystem", "--connect", "--remote-program"}) {
    EXPECT_FALSE(contains(help, missing)) << missing;
  }
  for (const std::string_view code :
       {" 0  done", " 1  wrong", " 2  not", " 5  refused", "10  ", "11  DEST", "12  broken",
        "20  interrupted", "23  some", "24  some", "30  the", "35  no"}) {
    EXPECT_TRUE(contains(help, code)) << code;
  }
}

}  // namespace
}  // namespace superlifter::client
