// The log: a thin face on spdlog. One line per event on stderr, with time, process role and level.
// What came from a peer or a disk is passed through escape() by the caller.
//
//   log_info("module {}: generation {} published", name, number);
//
// Nothing here ever writes to stdout: in stdio mode that belongs to the protocol.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace superlifter {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Sets up the process's log. `role` ("master", "worker 2", "indexer") stands in each line.
void start_log(const std::string& role, LogLevel level, LogFormat format);

// Writes one line. Safe before start_log (then to stderr at kInfo).
void write_log(LogLevel level, std::string_view line);

template <class... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  write_log(LogLevel::kDebug, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  write_log(LogLevel::kInfo, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  write_log(LogLevel::kWarning, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  write_log(LogLevel::kError, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace superlifter
