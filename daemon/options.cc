// See options.h. The only file of the daemon that includes CLI11; its exceptions end here.
#include "daemon/options.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

namespace superlifter::daemon {
namespace {

constexpr const char* kAbout =
    "superlifterd serves read-only directory trees to superlifter clients.\n"
    "\n"
    "  superlifterd [--config FILE] [--daemon | --stdio]      run\n"
    "  superlifterd --serve DIR[=NAME] [--listen ADDR:PORT]   serve a directory with no config\n"
    "  superlifterd check-config [--config FILE]              look for mistakes in a config\n"
    "  superlifterd index [--config FILE] [MODULE...]         bring the catalog up to date now\n";

constexpr const char* kMore =
    "\nSignals to the running daemon: SIGTERM or SIGINT stop accepting, let sessions end (at most\n"
    "limits.drain_timeout) and exit with 0; a second one exits at once. SIGUSR1 looks at all "
    "modules\n"
    "for changes now.\n"
    "\n"
    "Clients fetch with: superlifter pull HOST[:PORT]/NAME [DEST]\n";

// Texts as CLI11 fills them in, before they become Options.
struct Given {
  std::string config_file;
  std::vector<std::string> serve;
  std::vector<std::string> listen;
  std::vector<std::string> modules;
  unsigned threads = 0;
  bool daemon = false;
  bool stdio = false;
  std::string child;
  uint32_t child_index = 0;
  uint32_t child_listen = 0;
};

Options show(std::string text) {
  Options options;
  options.mode = Mode::kShow;
  options.text = std::move(text);
  return options;
}

Result<Options> to_options(const Given& given, bool config_given, bool check, bool index) {
  Options options;
  options.config_given = config_given;
  if (config_given) options.config_file = given.config_file;
  options.modules = given.modules;
  options.threads = given.threads;
  for (const std::string& text : given.serve)
    options.serve.push_back(parse_serve(text));
  for (const std::string& text : given.listen) {
    const Result<config::ListenAddress> address = config::parse_listen_address(text);
    if (!address) {
      return fail(Errc::kConfig, "--listen " + text + ": " + address.error().message);
    }
    options.listen.push_back(*address);
  }
  if (!given.child.empty()) {
    options.mode = Mode::kChild;
    options.child = {given.child == "worker" ? ChildRole::kWorker : ChildRole::kIndexer,
                     given.child_index, given.child_listen};
  } else if (check) {
    options.mode = Mode::kCheckConfig;
  } else if (index) {
    options.mode = Mode::kIndex;
  } else if (given.stdio) {
    options.mode = Mode::kStdio;
  } else if (given.daemon || !given.serve.empty()) {
    options.mode = Mode::kDaemon;
  }
  if ((check || index) && (given.daemon || given.stdio || !given.listen.empty())) {
    return fail(Errc::kConfig, "--daemon, --stdio and --listen do not go with a command");
  }
  if (options.mode == Mode::kStdio && !given.listen.empty()) {
    return fail(Errc::kConfig,
                "--stdio serves one session on stdin and stdout: expected no --listen");
  }
  if (config_given && !given.serve.empty()) {
    return fail(Errc::kConfig, "--config and --serve: expected one of them");
  }
  if (check && !given.serve.empty()) {
    return fail(Errc::kConfig, "check-config: expected --config, there is none with --serve");
  }
  return options;
}

}  // namespace

ServeDirectory parse_serve(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || text.find('/', equals) != std::string::npos) {
    return {.path = text, .name = {}};
  }
  return {.path = text.substr(0, equals), .name = text.substr(equals + 1)};
}

Result<Options> parse_options(int argc, const char* const* argv) {
  Given given;
  CLI::App app(kAbout, "superlifterd");
  app.footer(kMore);
  app.set_version_flag("--version", "superlifterd " SUPERLIFTER_VERSION);
  app.get_formatter()->column_width(34);
  CLI::Option* const config =
      app.add_option("--config", given.config_file,
                     std::string("The configuration (default ") + kDefaultConfigFile + ")")
          ->type_name("FILE");
  app.add_option("--serve", given.serve,
                 "Serve this directory as module NAME (default: its last path segment), with no\n"
                 "config; its catalog is kept in the user's cache directory. May be repeated")
      ->type_name("DIR[=NAME]")
      ->allow_extra_args(false);
  app.add_option(
         "--listen", given.listen,
         "Where to accept connections, instead of what the config says (default [::]:8730).\n"
         "Port 0 lets the kernel choose. May be repeated")
      ->type_name("ADDR:PORT")
      ->allow_extra_args(false);
  CLI::Option* const daemon =
      app.add_flag("--daemon", given.daemon, "Serve on sockets, in the foreground (the default)");
  app.add_flag("--stdio,--inetd", given.stdio,
               "Serve one session on stdin and stdout, for ssh, inetd or a systemd socket")
      ->excludes(daemon);
  // Hidden: what the master passes to its children.
  app.add_option("--child", given.child)->group("")->check(CLI::IsMember({"worker", "indexer"}));
  app.add_option("--child-index", given.child_index)->group("");
  app.add_option("--child-listen", given.child_listen)->group("");

  CLI::App* const check =
      app.add_subcommand("check-config", "Report every mistake in the configuration; exit 0 or 1");
  CLI::App* const index =
      app.add_subcommand("index", "Bring the catalog of all (or the named) modules up to date now");
  index->add_option("MODULE", given.modules, "Names of modules")->type_name("");
  index->add_option("--threads", given.threads, "Threads that hash (default: one a core)")
      ->type_name("N")
      ->check(CLI::Range(1U, 1024U));
  for (CLI::App* const command : {check, index})
    command->fallthrough();
  app.require_subcommand(0, 1);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const CLI::App* const shown = check->parsed() ? check : index->parsed() ? index : &app;
    return show(shown->help());
  } catch (const CLI::CallForVersion& version) {
    return show(std::string(version.what()) + "\n");
  } catch (const CLI::Error& error) {
    return fail(Errc::kConfig, std::string(error.what()) + " (see superlifterd --help)");
  }
  return to_options(given, config->count() > 0, check->parsed(), index->parsed());
}

}  // namespace superlifter::daemon
