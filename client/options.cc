#include "client/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "client/units.h"
#include "core/base/escape.h"
#include "core/base/limits.h"

namespace superlifter::client {
namespace {

constexpr const char* kProgram = "superlifter";
constexpr uint64_t kMaxSeconds =
    uint64_t{7} * 24 * 3600;  // A longer timeout is a mistake in the unit.

constexpr const char* kMainHelp =
    R"(superlifter: pull a tree of files from a mirror, fast, and trust the result.

Usage: superlifter COMMAND [OPTIONS] ...

Commands:
  pull SRC [DEST]     make DEST the same as SRC
  modules HOST        list what a server offers
  ls SRC              list a directory on a server
  cat SRC             write a file from a server to stdout
  verify DEST         read a pulled tree again and check every file

superlifter COMMAND --help explains a command; -V, --version prints the version.

SRC is host[:port]/module[/path] or superlifter://host[:port]/module[/path].
The port is 8730 unless given; an IPv6 address is written in brackets; %XX is
a byte of a name.

Examples:
  superlifter modules mirror.example.org
  superlifter pull mirror.example.org/debian/dists /srv/debian/dists
  superlifter pull -n --delete '[2001:db8::1]:8730/debian' /srv/debian
)";

constexpr const char* kPullFooter =
    R"(Filters: the first pattern that matches decides, as with rsync; what no pattern
matches is pulled. A pattern with a leading / is anchored at DEST, one with a
trailing / matches only directories; * and ? stop at /, ** does not; dir/*** is
a directory and all that is in it. What is excluded is also safe from --delete.

DEST comes to hold what SRC names, with no extra level: pulling
host/debian/dists into /srv/d makes /srv/d/stable, not /srv/d/dists/stable.
Nothing in DEST is changed before its replacement is complete and verified (but
see --inplace); a run that was cut short is resumed by the next one. Of a file
that changed, only what differs is fetched. Modes, times to the
nanosecond, symlinks and hard links are always kept.

Exit codes, as rsync's:
   0  done                            20  interrupted
   1  wrong command line              23  some files failed
   2  not superlifter, or no common   24  some files changed at the source
      version of the protocol             while they were being pulled
   5  refused by the server           30  the server fell silent
  10  unreachable, connection lost    35  no connection in time
  11  DEST cannot be used
  12  broken protocol stream

Examples:
  superlifter pull --delete mirror.example.org/debian /srv/debian
  superlifter pull -n --delete mirror.example.org/debian /srv/debian
  superlifter pull --quiet --stats=json mirror.example.org/debian /srv/debian
)";

constexpr const char* kListFooter =
    R"(Names are written as they are; on a terminal, unusual bytes as \xNN. The name of
a directory ends in /. With -l: kind and mode, size in bytes, time (UTC), name,
and where a symlink points.
)";

constexpr const char* kVerifyFooter =
    R"(Exit codes: 0 everything is as it was pulled; 23 something differs (each is
named on stderr); 11 DEST was not pulled by superlifter, or cannot be read.
)";

// What people used to rsync try first, and what to tell them.
struct Hint {
  std::string_view option;
  std::string_view text;
};
constexpr std::array<Hint, 27> kHints = {{
    {"-a", "not needed: modes, times, symlinks and hard links are always kept"},
    {"--archive", "not needed: modes, times, symlinks and hard links are always kept"},
    {"-r", "not needed: a pull always takes the whole tree"},
    {"--recursive", "not needed: a pull always takes the whole tree"},
    {"-t", "not needed: times are always kept"},
    {"--times", "not needed: times are always kept"},
    {"-p", "not needed: modes are always kept"},
    {"--perms", "not needed: modes are always kept"},
    {"-H", "not needed: hard links are always kept"},
    {"--hard-links", "not needed: hard links are always kept"},
    {"--links", "not needed: symlinks are always kept"},
    {"-v", "there is --progress, and --stats for the numbers"},
    {"--verbose", "there is --progress, and --stats for the numbers"},
    {"-P", "use --progress; a pull that was cut short is always resumed"},
    {"--partial", "not needed: a pull that was cut short is always resumed"},
    {"-o", "use --owner (owner and group)"},
    {"-g", "use --owner (owner and group)"},
    {"--group", "use --owner (owner and group)"},
    {"-c", "use --checksum"},
    {"--dryrun", "use -n or --dry-run"},
    {"--delete-after", "use --delete (deletions always come last)"},
    {"--delay-updates", "not needed: files are put in place when they are complete and verified"},
    {"--fuzzy", "not needed: a file with a similar name is always made use of"},
    {"-y", "not needed: a file with a similar name is always made use of"},
    {"--rsh", "not in this version: TCP is the only transport"},
    {"-e", "not in this version: TCP is the only transport"},
    {"--connect", "not in this version: TCP is the only transport"},
}};

// CLI11's own help with one layout for all commands: a usage line with the program's name, short
// and long names in two columns, and no doubled blank lines.
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string /*name*/) const override {
    std::string out = fmt::format("\nUsage: {} [OPTIONS]", app->get_name());
    for (const CLI::Option* option : app->get_options()) {
      if (!option->get_positional()) continue;
      const std::string& name = option->get_name(true, false);
      out += option->get_group() == "[]" ? " [" + name + "]" : " " + name;
    }
    return out + "\n";
  }

  // Positionals are explained in the description.
  std::string make_positionals(const CLI::App* /*app*/) const override { return {}; }

  std::string make_option(const CLI::Option* option, bool /*is_positional*/) const override {
    std::string left = option->get_snames().empty() ? "    " : "-" + option->get_snames()[0];
    if (!option->get_lnames().empty()) {
      left += (option->get_snames().empty() ? "--" : ", --") + option->get_lnames()[0];
    }
    left = "  " + left + option->get_option_text();
    std::string out = fmt::format("{:<{}}", left, kColumn);
    size_t column = out.size();
    std::string_view rest = option->get_description();
    while (!rest.empty()) {
      const std::string_view word = rest.substr(0, rest.find(' '));
      rest.remove_prefix(std::min(rest.size(), word.size() + 1));
      if (column + word.size() > kWidth) {
        out.pop_back();
        out += "\n" + std::string(kColumn, ' ');
        column = kColumn;
      }
      out += word;
      out += ' ';
      column += word.size() + 1;
    }
    out.back() = '\n';
    return out;
  }

 private:
  static constexpr size_t kColumn = 25;
  static constexpr size_t kWidth = 80;  // Fits the oldest console.
};

// One command's parser: CLI11 takes the arguments apart, the values are read here, so that every
// message has the same form and names the option. The first mistake counts.
class Arguments {
 public:
  Arguments(const std::string& command, const std::string& description)
      : app_(description, std::string(kProgram) + " " + command) {
    app_.formatter(std::make_shared<HelpFormatter>());
    app_.set_help_flag();
    app_.allow_extras();
  }

  CLI::Option* flag(const std::string& names, bool& value, const std::string& text) {
    return app_.add_flag(names, value, text)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  // An option with one value; given several times, the last counts.
  CLI::Option* option(const std::string& names, std::string& value, const std::string& label,
                      const std::string& text) {
    return app_.add_option(names, value, text)
        ->option_text(label)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  // An option that may be given many times, one value each.
  CLI::Option* list(const std::string& names, std::vector<std::string>& values,
                    const std::string& label, const std::string& text) {
    return app_.add_option(names, values, text)
        ->option_text(label)
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  // A flag that may carry "=value".
  void flag_with_value(const std::string& names, std::string& value, const std::string& label,
                       const std::string& text) {
    app_.add_flag(names, value, text)
        ->option_text(label)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
        ->group("Output");
  }
  void positional(const std::string& name, std::string& value) {
    app_.add_option(name, value)->expected(1);
  }
  void optional_positional(const std::string& name, std::string& value) {
    app_.add_option(name, value)->expected(1)->group("[]");
  }
  void footer(const std::string& text) { app_.footer(text); }

  // Takes the arguments behind the command apart. After that, failed() or help() may be true.
  void parse(const std::vector<std::string>& arguments) {
    flag("-h,--help", help_, "print this and exit")->group("Help");
    for (const std::string& argument : arguments) {
      if (argument == "--") break;
      const size_t equals = argument.find('=');
      if (!argument.starts_with("--") || equals == std::string::npos) continue;
      // CLI11 would take the next argument for the missing value.
      if (equals + 1 == argument.size()) return fail(escape(argument) + " has no value");
      const std::string name = argument.substr(0, equals);
      const CLI::Option* option = app_.get_option_no_throw(name);
      if (option != nullptr && option->get_items_expected_max() == 0 &&
          option->get_option_text().empty()) {
        return fail(name + " takes no value");
      }
    }
    try {
      app_.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    } catch (const CLI::ArgumentMismatch&) {
      // Only the last argument can lack its value.
      return fail(escape(arguments.empty() ? "" : arguments.back()) + " needs a value");
    } catch (const CLI::ParseError& error) {
      return fail(escape(error.what()));
    }
    if (help_) return;
    refuse_extras();
    // "$UNSET" in a script: the default would be a surprise, for DEST with --delete a bad one.
    for (const CLI::Option* option : app_.get_options()) {
      const bool takes_one = option->get_items_expected_max() > 0 &&
                             option->get_multi_option_policy() != CLI::MultiOptionPolicy::TakeAll;
      if (takes_one && !option->results().empty() && option->results().back().empty()) {
        fail(option->get_name(option->get_positional(), false) + " is empty");
      }
    }
  }

  bool help() const { return help_; }
  std::string help_text() const {
    std::string text = app_.help();
    for (size_t at = text.find("\n\n\n"); at != std::string::npos; at = text.find("\n\n\n", at)) {
      text.erase(at, 1);
    }
    while (text.ends_with("\n\n")) {
      text.pop_back();
    }
    return text;
  }

  // Records a mistake; the first one is kept.
  void fail(const std::string& message) {
    if (message_.empty()) message_ = message;
  }
  bool failed() const { return !message_.empty(); }
  std::string message() const {
    const std::string name = app_.get_name();
    return fmt::format("{}: {}\nTry '{} --help'.\n", name, message_, name);
  }

  // --include and --exclude in the order of the command line.
  std::vector<std::pair<Filter::Action, std::string>> filter_rules(
      const CLI::Option* include, const std::vector<std::string>& includes,
      const CLI::Option* exclude, const std::vector<std::string>& excludes) const {
    std::vector<std::pair<Filter::Action, std::string>> rules;
    size_t next_include = 0;
    size_t next_exclude = 0;
    // CLI11 lists an option once for every value, in the order of the arguments.
    for (const CLI::Option* option : app_.parse_order()) {
      if (option == include && next_include < includes.size()) {
        rules.emplace_back(Filter::Action::kInclude, includes[next_include++]);
      } else if (option == exclude && next_exclude < excludes.size()) {
        rules.emplace_back(Filter::Action::kExclude, excludes[next_exclude++]);
      }
    }
    return rules;
  }

  // A whole number from `least` to `most`, or `value` as it is when the text is empty (not given).
  void read_number(std::string_view name, const std::string& text, uint64_t least, uint64_t most,
                   uint64_t& value) {
    if (text.empty()) return;
    uint64_t number = 0;
    bool good = text.size() <= 12;
    for (const char c : text) {
      good = good && c >= '0' && c <= '9';
      if (good) number = number * 10 + static_cast<uint64_t>(c - '0');
    }
    if (good && number >= least && number <= most) {
      value = number;
    } else {
      fail(fmt::format("{} '{}': expected a whole number from {} to {}", name,
                       escape(text.substr(0, 64)), least, most));
    }
  }

 private:
  void refuse_extras() {
    for (const std::string& extra : app_.remaining()) {
      if (extra == "--") continue;
      if (!extra.starts_with('-') || extra.size() < 2) {
        return fail(fmt::format("unexpected argument '{}'", escape(extra)));
      }
      // "--name=value" or the first letter of "-abc".
      const std::string name =
          extra.starts_with("--") ? extra.substr(0, extra.find('=')) : extra.substr(0, 2);
      for (const Hint& hint : kHints) {
        if (hint.option == name) return fail(fmt::format("no option {}: {}", name, hint.text));
      }
      return fail(fmt::format("no option '{}'", escape(extra)));
    }
  }

  CLI::App app_;
  bool help_ = false;
  std::string message_;
};

// The texts of NetworkOptions until they are read.
struct NetworkTexts {
  std::string timeout;
  std::string connect_timeout;
  std::string max_entries;
};

void offer_network(Arguments& arguments, NetworkTexts& texts) {
  arguments
      .option("--timeout", texts.timeout, " SECS",
              "give up when the server is silent for so long (default 60, 0: never)")
      ->group("Network");
  arguments
      .option("--contimeout", texts.connect_timeout, " SECS",
              "give up when there is no connection after so long (default 10, "
              "0: as long as the kernel tries)")
      ->group("Network");
}

void offer_max_entries(Arguments& arguments, NetworkTexts& texts) {
  arguments
      .option("--max-entries", texts.max_entries, " N",
              "refuse a source with more files and directories than this, so that "
              "a server cannot exhaust our memory (default 50000000)")
      ->group("Network");
}

void read_network(Arguments& arguments, const NetworkTexts& texts, NetworkOptions& network) {
  uint64_t timeout_s = network.timeout_ms / 1000;
  uint64_t connect_timeout_s = network.connect_timeout_ms / 1000;
  arguments.read_number("--timeout", texts.timeout, 0, kMaxSeconds, timeout_s);
  arguments.read_number("--contimeout", texts.connect_timeout, 0, kMaxSeconds, connect_timeout_s);
  arguments.read_number("--max-entries", texts.max_entries, 1, kMaxEntries, network.max_entries);
  network.timeout_ms = timeout_s * 1000;
  network.connect_timeout_ms = connect_timeout_s * 1000;
}

void read_source(Arguments& arguments, const std::string& text, SourceUri& source) {
  if (text.empty()) {
    return arguments.fail("SRC is missing; expected host[:port]/module[/path]");
  }
  Result<SourceUri> parsed = parse_source(text);
  if (!parsed) return arguments.fail(parsed.error().message);
  source = std::move(*parsed);
}

void offer_output(Arguments& arguments, bool& progress, bool& quiet) {
  arguments
      .flag("--progress", progress,
            "show progress on stderr; this is the default on a terminal, and "
            "elsewhere it prints lines more often")
      ->group("Output");
  arguments
      .flag("-q,--quiet", quiet,
            "print nothing but warnings and errors (and --stats, if asked for)")
      ->group("Output");
}

Output read_output(Arguments& arguments, bool progress, bool quiet) {
  if (progress && quiet) arguments.fail("--progress and --quiet exclude each other");
  if (quiet) return Output::kQuiet;
  return progress ? Output::kProgress : Output::kAuto;
}

void offer_jobs(Arguments& arguments, std::string& jobs, const std::string& text) {
  arguments.option("--jobs", jobs, " N", text)->group("Resources");
}

void read_jobs(Arguments& arguments, const std::string& text, unsigned& jobs) {
  if (text == "auto") return;
  uint64_t number = jobs;
  arguments.read_number("--jobs", text, 1, kMaxJobs, number);
  jobs = static_cast<unsigned>(number);
}

// Every parse_… returns the command, or nothing when arguments.help() or arguments.failed().

// What a pull was given, until it is read.
struct PullTexts {
  NetworkTexts network;
  std::string source;
  std::string rate;
  std::string jobs;
  std::string stats;
  std::vector<std::string> includes;
  std::vector<std::string> excludes;
  const CLI::Option* include = nullptr;
  const CLI::Option* exclude = nullptr;
  bool progress = false;
  bool quiet = false;
};

void offer_pull(Arguments& arguments, PullTexts& texts, PullOptions& out) {
  arguments.positional("SRC", texts.source);
  arguments.optional_positional("DEST", out.destination);
  arguments.flag("-n,--dry-run", out.dry_run, "say what would be done; change nothing")
      ->group("What to do");
  arguments
      .flag("--delete", out.delete_extra,
            "delete from DEST what SRC does not have, after everything else "
            "has succeeded; excluded files stay")
      ->group("What to do");
  texts.exclude =
      arguments
          .list("--exclude", texts.excludes, " PATTERN", "leave out what matches; may be repeated")
          ->group("What to do");
  texts.include = arguments
                      .list("--include", texts.includes, " PATTERN",
                            "do not leave out what matches, whatever a later --exclude says; "
                            "may be repeated")
                      ->group("What to do");
  arguments
      .flag("--checksum", out.checksum,
            "read local files and compare their content, where size and time "
            "would do; slow, and finds what was changed behind our back")
      ->group("What to do");
  arguments
      .flag("--owner", out.owner,
            "keep owner, group, setuid and setgid; needs root, and a module with "
            "owners: true")
      ->group("What to do");
  arguments
      .flag("-W,--whole-file", out.whole_file,
            "fetch changed files whole, with no use of what is here: on a fast network "
            "with a slow disk that can be quicker")
      ->group("What to do");
  arguments
      .flag("--inplace", out.in_place,
            "change files where they stand, for files too large to hold twice. An "
            "interrupted --inplace leaves a file that is neither old nor new; the next "
            "pull repairs it. Files with several hard links are still built aside")
      ->group("What to do");
}

void offer_pull_costs_and_output(Arguments& arguments, PullTexts& texts, PullOptions& out) {
  arguments
      .flag("-z,--compress", out.compress,
            "let the server compress whole files too; what changed in a file that is "
            "here is compressed in any case")
      ->group("Resources");
  arguments
      .option("--bwlimit", texts.rate, " RATE",
              "receive at most so many bytes per second: 500000, 512KiB, 1.5MiB "
              "(default 0: unlimited; unlike rsync, a bare number is bytes)")
      ->group("Resources");
  offer_jobs(arguments, texts.jobs,
             "threads that write and check files (1 to 256; default auto: by the "
             "number of cores)");
  offer_network(arguments, texts.network);
  offer_max_entries(arguments, texts.network);
  offer_output(arguments, texts.progress, texts.quiet);
  arguments.flag_with_value("--stats", texts.stats, "[=json]",
                            "print numbers on stdout at the end, for people or as one line of "
                            "JSON, which is then the last line");
}

void read_pull(Arguments& arguments, const PullTexts& texts, PullOptions& out) {
  read_source(arguments, texts.source, out.source);
  read_network(arguments, texts.network, out.network);
  read_jobs(arguments, texts.jobs, out.jobs);
  out.output = read_output(arguments, texts.progress, texts.quiet);
  if (!texts.rate.empty()) {
    const Result<uint64_t> parsed = parse_bytes(texts.rate);
    if (parsed) {
      out.bandwidth_bytes_per_s = *parsed;
    } else {
      arguments.fail("--bwlimit " + parsed.error().message);
    }
  }
  if (texts.stats == "json") {
    out.stats = StatsFormat::kJson;
  } else if (texts.stats == "true" || texts.stats == "human") {
    out.stats = StatsFormat::kHuman;
  } else if (!texts.stats.empty()) {
    arguments.fail(
        fmt::format("--stats={}: expected --stats or --stats=json", escape(texts.stats)));
  }
  for (const auto& [action, pattern] :
       arguments.filter_rules(texts.include, texts.includes, texts.exclude, texts.excludes)) {
    const Status added = out.filter.add(action, pattern);
    if (added) continue;
    const char* name = action == Filter::Action::kInclude ? "--include " : "--exclude ";
    arguments.fail(name + added.error().message);
  }
}

std::optional<Command> parse_pull(Arguments& arguments, const std::vector<std::string>& given) {
  PullOptions out;
  PullTexts texts;
  offer_pull(arguments, texts, out);
  offer_pull_costs_and_output(arguments, texts, out);
  arguments.footer(kPullFooter);
  arguments.parse(given);
  if (arguments.help() || arguments.failed()) return std::nullopt;
  read_pull(arguments, texts, out);
  out.destination_given = !out.destination.empty();
  if (!out.destination_given) {
    out.destination = out.source.default_destination();
    if (out.source.module == "~" && out.source.path.is_root()) {
      arguments.fail("DEST is missing: a home directory has no name to use for it");
    }
  }
  return out;
}

std::optional<Command> parse_modules(Arguments& arguments, const std::vector<std::string>& given) {
  ModulesOptions out;
  NetworkTexts network;
  std::string host;
  arguments.positional("HOST", host);
  offer_network(arguments, network);
  arguments.parse(given);
  if (arguments.help() || arguments.failed()) return std::nullopt;
  read_network(arguments, network, out.network);
  if (host.empty()) {
    arguments.fail("HOST is missing; expected host[:port]");
    return std::nullopt;
  }
  Result<SourceUri> parsed = parse_host(host);
  if (!parsed) {
    arguments.fail(parsed.error().message);
    return std::nullopt;
  }
  out.host = std::move(*parsed);
  return out;
}

std::optional<Command> parse_ls(Arguments& arguments, const std::vector<std::string>& given) {
  ListOptions out;
  NetworkTexts network;
  std::string source;
  arguments.positional("SRC", source);
  arguments.flag("-l", out.long_format, "with mode, size and time of each entry")
      ->group("What to do");
  arguments.flag("-R", out.recursive, "with everything in the directories below")
      ->group("What to do");
  offer_network(arguments, network);
  offer_max_entries(arguments, network);
  arguments.footer(kListFooter);
  arguments.parse(given);
  if (arguments.help() || arguments.failed()) return std::nullopt;
  read_source(arguments, source, out.source);
  read_network(arguments, network, out.network);
  return out;
}

std::optional<Command> parse_cat(Arguments& arguments, const std::vector<std::string>& given) {
  CatOptions out;
  NetworkTexts network;
  std::string source;
  arguments.positional("SRC", source);
  offer_network(arguments, network);
  offer_max_entries(arguments, network);
  arguments.parse(given);
  if (arguments.help() || arguments.failed()) return std::nullopt;
  read_source(arguments, source, out.source);
  read_network(arguments, network, out.network);
  if (!arguments.failed() && out.source.path.is_root()) {
    arguments.fail(
        fmt::format("'{}' names a module; expected the path of a file in it", escape(source)));
  }
  return out;
}

std::optional<Command> parse_verify(Arguments& arguments, const std::vector<std::string>& given) {
  VerifyOptions out;
  std::string jobs;
  bool progress = false;
  bool quiet = false;
  arguments.positional("DEST", out.destination);
  offer_jobs(arguments, jobs,
             "threads that read and check files (1 to 256; default auto: by the "
             "number of cores)");
  offer_output(arguments, progress, quiet);
  arguments.footer(kVerifyFooter);
  arguments.parse(given);
  if (arguments.help() || arguments.failed()) return std::nullopt;
  read_jobs(arguments, jobs, out.jobs);
  out.output = read_output(arguments, progress, quiet);
  if (out.destination.empty()) arguments.fail("DEST is missing; expected a directory");
  return out;
}

struct CommandParser {
  std::string_view name;
  const char* description;
  std::optional<Command> (*parse)(Arguments& arguments, const std::vector<std::string>& given);
};

constexpr std::array<CommandParser, 5> kCommands = {{
    {"pull",
     "Makes DEST the same as SRC. SRC is host[:port]/module[/path]. DEST is a\n"
     "directory, or a file if SRC is one; by default the last name of SRC.",
     parse_pull},
    {"modules", "Lists the modules of a server: name, files, size, comment. HOST is host[:port].",
     parse_modules},
    {"ls", "Lists a directory on a server. SRC is host[:port]/module[/path].", parse_ls},
    {"cat",
     "Writes a file from a server to stdout and checks its digest. SRC is\n"
     "host[:port]/module/path.",
     parse_cat},
    {"verify",
     "Reads every file of a pulled tree again and compares it with what was pulled.\n"
     "DEST is the directory that a pull filled. Needs no server.",
     parse_verify},
}};

CommandLine show(const std::string& text) {
  return {.command = std::nullopt, .exit_code = ExitCode::kOk, .out = text, .err = {}};
}
CommandLine refuse(const std::string& text) {
  return {.command = std::nullopt, .exit_code = ExitCode::kUsage, .out = {}, .err = text};
}

CommandLine run(const CommandParser& parser, const std::vector<std::string>& given) {
  Arguments arguments(std::string(parser.name), parser.description);
  std::optional<Command> command = parser.parse(arguments, given);
  if (arguments.help()) return show(arguments.help_text());
  if (arguments.failed()) return refuse(arguments.message());
  return {.command = std::move(command), .exit_code = ExitCode::kOk, .out = {}, .err = {}};
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv) {
  std::vector<std::string> given(argv + std::min(argc, 1), argv + argc);
  if (given.empty()) return refuse(kMainHelp);
  const std::string first = given.front();
  given.erase(given.begin());
  if (first == "-V" || first == "--version" || first == "version") {
    return show(fmt::format("superlifter {}\n", SUPERLIFTER_VERSION));
  }
  const bool help = first == "-h" || first == "--help" || first == "help";
  // "superlifter help pull" is "superlifter pull --help".
  const std::string wanted = help && !given.empty() ? given.front() : first;
  for (const CommandParser& parser : kCommands) {
    if (parser.name != wanted) continue;
    return run(parser, help ? std::vector<std::string>{"--help"} : given);
  }
  if (help && given.empty()) return show(kMainHelp);
  std::string message = fmt::format("superlifter: no command '{}'", escape(wanted));
  if (parse_source(wanted)) message += "; to fetch it: superlifter pull " + escape(wanted);
  return refuse(message + "\nTry 'superlifter --help'.\n");
}

}  // namespace superlifter::client
