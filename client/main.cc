// superlifter: the client. Parses the command line, runs one command, returns its exit code.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <variant>

#include "client/inspect.h"
#include "client/options.h"
#include "client/progress.h"
#include "client/puller.h"
#include "client/verify.h"
#include "core/base/clock.h"

namespace {

using namespace superlifter::client;  // NOLINT(google-build-using-namespace): main only.

// Set once by a signal; everything that waits looks at it.
std::atomic<bool> stop = false;

constexpr unsigned kOrderlyEndSeconds = 2;

// The first signal asks for an orderly end, a second one ends at once (the default action is back).
// What cannot be asked (a name lookup, a slow disk) is ended after a while: a pull may end
// anywhere.
void on_signal(int) {
  stop.store(true);
  alarm(kOrderlyEndSeconds);
}
void on_alarm(int) {
  _exit(static_cast<int>(ExitCode::kInterrupted));
}

void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_alarm;
  sigaction(SIGALRM, &action, nullptr);
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before{};
    // What the caller had us ignore (nohup, a shell's background job) stays so.
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    static_cast<void>(sigaction(number, &action, nullptr));
  }
  static_cast<void>(signal(SIGPIPE, SIG_IGN));
}

ExitCode run(const PullOptions& options, superlifter::Clock& clock) {
  // Modes are the source's, exactly; what is built before it has its mode is created private.
  umask(0);
  Progress progress(clock, make_renderer(options.output, STDERR_FILENO));
  const PullResult result = pull(options, progress, clock, stop);
  const bool sums_up = result.exit_code == ExitCode::kOk && !options.dry_run;
  progress.finish(sums_up ? result.stats.summary() : "");
  std::string text;
  if (options.stats == StatsFormat::kHuman) text = result.stats.to_text();
  if (options.stats == StatsFormat::kJson) text = result.stats.to_json() + "\n";
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stdout));  // fflush tells.
  if (std::fflush(stdout) != 0 && result.exit_code == ExitCode::kOk) return ExitCode::kFileIo;
  return result.exit_code;
}

ExitCode run(const VerifyOptions& options, superlifter::Clock& clock) {
  Progress progress(clock, make_renderer(options.output, STDERR_FILENO));
  const VerifyResult result = verify(options, progress, stop);
  std::string summary;
  if (result.exit_code == ExitCode::kOk) {
    summary = "verified " + std::to_string(result.files) + " files, " +
              std::to_string(result.bytes) + " bytes: all as pulled";
    if (result.without_digest > 0) {
      summary += "; " + std::to_string(result.without_digest) + " files have no digest yet";
    }
  } else if (result.exit_code == ExitCode::kPartial) {
    summary = std::to_string(result.problems) + " problems; " + std::to_string(result.files) +
              " files are as pulled";
  }
  progress.finish(summary);
  return result.exit_code;
}

ExitCode run(const ModulesOptions& options, superlifter::Clock& clock) {
  return list_modules(options, clock, stop);
}
ExitCode run(const ListOptions& options, superlifter::Clock& clock) {
  return list_entries(options, clock, stop);
}
ExitCode run(const CatOptions& options, superlifter::Clock& clock) {
  return print_file(options, clock, stop);
}

}  // namespace

// std::visit throws for a variant without a value alone, and parse_command_line gives none such.
int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  const CommandLine line = parse_command_line(argc, argv);
  static_cast<void>(std::fputs(line.out.c_str(), stdout));
  static_cast<void>(std::fputs(line.err.c_str(), stderr));
  if (!line.command) return static_cast<int>(line.exit_code);
  catch_signals();
  superlifter::SystemClock clock;
  const ExitCode code =
      std::visit([&](const auto& options) { return run(options, clock); }, *line.command);
  return static_cast<int>(code);
}
