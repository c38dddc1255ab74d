#include "client/stats.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "client/units.h"

namespace superlifter::client {
namespace {

// Bytes per second over the whole run; a run of no measurable length has no rate.
std::string average_rate(uint64_t size_bytes, double elapsed_s) {
  if (!(elapsed_s > 0)) return "-";
  const double rate = static_cast<double>(size_bytes) / elapsed_s;
  return human_bytes(rate < 1e18 ? static_cast<uint64_t>(rate) : 0) + "/s";
}

// Seconds with one decimal while they are few, then as a clock shows them.
std::string elapsed_text(double elapsed_s) {
  const double seconds = elapsed_s > 0 && elapsed_s < 1e15 ? elapsed_s : 0;
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  return human_duration(static_cast<uint64_t>(seconds));
}

std::string bytes_text(uint64_t size_bytes) {
  return fmt::format("{:>18}  ({})", human_count(size_bytes), human_bytes(size_bytes));
}

}  // namespace

std::string Stats::to_json() const {
  nlohmann::ordered_json object;
  object["files_total"] = files_total;
  object["files_unchanged"] = files_unchanged;
  object["files_fetched"] = files_fetched;
  object["files_patched"] = files_patched;
  object["files_refetched"] = files_refetched;
  object["files_mismatched"] = files_mismatched;
  object["files_moved"] = files_moved;
  object["files_deleted"] = files_deleted;
  object["bytes_total"] = bytes_total;
  object["bytes_received"] = bytes_received;
  object["bytes_sent"] = bytes_sent;
  object["bytes_manifest"] = bytes_manifest;
  object["bytes_signature"] = bytes_signature;
  object["bytes_literal"] = bytes_literal;
  object["bytes_matched"] = bytes_matched;
  object["generation"] = generation;
  object["root"] = root;
  object["elapsed_s"] = std::isfinite(elapsed_s) ? std::round(elapsed_s * 1000) / 1000 : 0.0;
  object["stale"] = stale;
  // Replacement: dump() throws on bytes that are not UTF-8, and nothing may throw here.
  return object.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

std::string Stats::to_text() const {
  std::string out;
  const auto count = [&](const char* label, uint64_t value) {
    out += fmt::format("{:<22}{:>18}\n", label, human_count(value));
  };
  const auto bytes = [&](const char* label, uint64_t value) {
    out += fmt::format("{:<22}{}\n", label, bytes_text(value));
  };
  count("Files in the source", files_total);
  count("  already here", files_unchanged);
  count("  fetched", files_fetched);
  count("  patched", files_patched);
  count("  fetched again", files_refetched);
  count("  rebuilt in vain", files_mismatched);
  count("  moved", files_moved);
  count("  stale", stale);
  count("Deleted here", files_deleted);
  bytes("Size of the source", bytes_total);
  bytes("  sent as content", bytes_literal);
  bytes("  found here", bytes_matched);
  bytes("Received", bytes_received);
  bytes("  listing", bytes_manifest);
  bytes("  signatures", bytes_signature);
  bytes("Sent", bytes_sent);
  out += fmt::format("{:<22}{:>18}\n", "Elapsed", elapsed_text(elapsed_s));
  out += fmt::format("{:<22}{:>18}\n", "Average rate", average_rate(bytes_received, elapsed_s));
  count("Generation", generation);
  out += fmt::format("{:<22}{}\n", "Root digest", root.empty() ? "-" : root);
  return out;
}

std::string Stats::summary() const {
  std::string out = fmt::format("{} {}, {}: {} fetched, {} unchanged", human_count(files_total),
                                files_total == 1 ? "file" : "files", human_bytes(bytes_total),
                                human_count(files_fetched), human_count(files_unchanged));
  const auto add = [&](uint64_t value, const char* what) {
    if (value > 0) out += fmt::format(", {} {}", human_count(value), what);
  };
  add(files_patched, "patched");
  add(files_mismatched, "rebuilt in vain and fetched whole");
  add(files_moved, "moved");
  add(files_deleted, "deleted");
  add(files_refetched, "fetched again");
  add(stale, "stale");
  if (bytes_matched > 0) out += fmt::format("; {} found here", human_bytes(bytes_matched));
  out += fmt::format("; received {} in {} ({})", human_bytes(bytes_received),
                     elapsed_text(elapsed_s), average_rate(bytes_received, elapsed_s));
  return out;
}

}  // namespace superlifter::client
