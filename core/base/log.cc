#include "core/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>

namespace superlifter {
namespace {

// One logger a process; made on first use, replaced by start_log before any second thread starts.
struct Log {
  std::shared_ptr<spdlog::logger> logger = std::make_shared<spdlog::logger>(
      "superlifter", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  LogFormat format = LogFormat::kText;
  std::string role;

  Log() {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    logger->flush_on(spdlog::level::debug);
  }
};

Log& process_log() {
  static Log log;
  return log;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void start_log(const std::string& role, LogLevel level, LogFormat format) {
  Log& log = process_log();
  log.format = format;
  log.role = role;
  log.logger->set_level(to_spdlog(level));
  // The JSON form carries time and level inside the object.
  if (format == LogFormat::kJson) {
    log.logger->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
  }
}

void write_log(LogLevel level, std::string_view line) {
  Log& log = process_log();
  if (!log.logger->should_log(to_spdlog(level))) return;
  if (log.format == LogFormat::kJson) {
    // dump() with replacement never throws on bytes that are not UTF-8.
    const auto quote = [](std::string_view text) {
      return nlohmann::json(std::string(text))
          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    };
    log.logger->log(to_spdlog(level), "\"process\":{},\"message\":{}", quote(log.role),
                    quote(line));
  } else if (log.role.empty()) {
    log.logger->log(to_spdlog(level), "{}", line);
  } else {
    log.logger->log(to_spdlog(level), "[{}] {}", log.role, line);
  }
}

}  // namespace superlifter
