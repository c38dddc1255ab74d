// See stdio_mode.h.
#include "daemon/stdio_mode.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/io/engine.h"
#include "core/session/access.h"
#include "core/shm/limiter.h"
#include "core/shm/segment.h"
#include "daemon/catalog_store.h"
#include "daemon/connection.h"
#include "daemon/peer.h"
#include "daemon/worker.h"

namespace superlifter::daemon {
namespace {

// The protocol's fds, moved away from 0 and 1, where /dev/null and stderr take their places.
Result<io::ByteStream> take_stdio() {
  io::ByteStream stream;
  struct stat in{};
  struct stat out{};
  if (fstat(STDIN_FILENO, &in) != 0) return fail_errno(errno, "stdin");
  if (fstat(STDOUT_FILENO, &out) != 0) return fail_errno(errno, "stdout");
  stream.in = UniqueFd(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
  if (!stream.in) return fail_errno(errno, "stdin");
  // inetd gives one socket twice.
  if (!S_ISSOCK(in.st_mode) || in.st_dev != out.st_dev || in.st_ino != out.st_ino) {
    stream.out = UniqueFd(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    if (!stream.out) return fail_errno(errno, "stdout");
  }
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return fail_errno(errno, "/dev/null");
  if (dup2(null.get(), STDIN_FILENO) < 0) return fail_errno(errno, "replace stdin");
  if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0 && dup2(null.get(), STDOUT_FILENO) < 0) {
    return fail_errno(errno, "replace stdout");
  }
  return stream;
}

Status serve(const Settings& settings) {
  const config::Config& config = settings.config;
  Result<io::ByteStream> stream = take_stdio();
  if (!stream) return std::unexpected(stream.error());
  const std::optional<session::Address> peer = peer_address(stream->in_fd());
  const Result<shm::Segment> segment = shm::Segment::create(1);
  if (!segment) return std::unexpected(segment.error());
  const shm::Limiter limiter(*segment, {});
  Result<shm::Admission> admission =
      limiter.admit(peer.value_or(session::Address{}).bytes, /*worker=*/0);
  if (!admission) return std::unexpected(admission.error());
  SystemClock clock;
  // Before the engine, which waits for file requests that borrow from it.
  CatalogCache cache(config, clock, [](const std::string& module) {
    log_info("module {}: its catalog is out of date", module);
  });
  session::Packer packer;
  Result<std::unique_ptr<io::Engine>> engine = io::make_uv_engine();
  if (!engine) return std::unexpected(engine.error());
  auto store = std::make_unique<SessionStore>(cache, peer, limiter, admission->row());
  ConnectionOptions options{.session = session_options(config, packer),
                            .hello_timeout_ms = config.limits.hello_timeout_ms,
                            .idle_timeout_ms = config.limits.idle_timeout_ms,
                            .session_timeout_ms = config.limits.session_timeout_ms,
                            .peer = peer ? session::to_text(*peer) : "stdio"};
  const Result<std::unique_ptr<Connection>> connection = Connection::start(
      **engine, std::move(options), {std::move(*stream), std::move(store), std::move(*admission)},
      [&engine](Connection& closed) {
        log_info("{}", closed.summary());
        (*engine)->stop();
      });
  if (!connection) return std::unexpected(connection.error());
  (*engine)->run();
  return {};
}

}  // namespace

bool stdin_is_connected_socket() {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  return getpeername(STDIN_FILENO, reinterpret_cast<sockaddr*>(&storage), &size) == 0;
}

int run_stdio(const Settings& settings) {
  start_log("stdio", settings.config.log.level, settings.config.log.format);
  if (Status served = serve(settings); !served) {
    log_error("{}", served.error().message);
    return 1;
  }
  return 0;
}

}  // namespace superlifter::daemon
