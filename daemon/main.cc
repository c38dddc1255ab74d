// superlifterd: picks the mode and hands over. Everything is in the library, where tests reach it.
#include <cstdio>
#include <utility>

#include "daemon/index_mode.h"
#include "daemon/inheritance.h"
#include "daemon/master.h"
#include "daemon/options.h"
#include "daemon/settings.h"
#include "daemon/stdio_mode.h"
#include "daemon/worker.h"

namespace {

using superlifter::Error;
using superlifter::Result;
using superlifter::daemon::ChildRole;
using superlifter::daemon::Inheritance;
using superlifter::daemon::Mode;
using superlifter::daemon::Options;
using superlifter::daemon::Settings;

int fail(const Error& error) {
  static_cast<void>(std::fprintf(stderr, "superlifterd: %s\n", error.message.c_str()));
  return 1;
}

int run_child(const Options& options) {
  Result<Inheritance> inheritance = superlifter::daemon::receive_inheritance(options.child);
  if (!inheritance) return fail(inheritance.error());
  return options.child.role == ChildRole::kWorker
             ? superlifter::daemon::run_worker(std::move(*inheritance))
             : superlifter::daemon::run_indexer(std::move(*inheritance));
}

}  // namespace

int main(int argc, char** argv) {
  const Result<Options> options = superlifter::daemon::parse_options(argc, argv);
  if (!options) return fail(options.error());
  if (options->mode == Mode::kShow) {
    static_cast<void>(std::fputs(options->text.c_str(), stdout));
    return std::fflush(stdout) == 0 ? 0 : 1;
  }
  if (options->mode == Mode::kChild) return run_child(*options);

  Result<Settings> settings = superlifter::daemon::load_settings(*options);
  if (options->mode == Mode::kCheckConfig) {
    // The mistakes alone, each as file:line:col.
    if (!settings)
      static_cast<void>(std::fprintf(stderr, "%s\n", settings.error().message.c_str()));
    return settings ? 0 : 1;
  }
  if (!settings) {
    static_cast<void>(std::fprintf(stderr, "%s\n", settings.error().message.c_str()));
    return 1;
  }
  switch (options->mode) {
    case Mode::kIndex:
      return superlifter::daemon::run_index_command(*settings, options->modules, options->threads);
    case Mode::kStdio:
      return superlifter::daemon::run_stdio(*settings);
    case Mode::kRun:
      if (superlifter::daemon::stdin_is_connected_socket()) {
        return superlifter::daemon::run_stdio(*settings);
      }
      break;
    default:
      break;
  }
  return superlifter::daemon::run_master(std::move(*settings));
}
