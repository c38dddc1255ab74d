#include "client/moved.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/rel_path.h"
#include "core/fs/beneath.h"
#include "core/fs/walk.h"

namespace superlifter::client {
namespace {

using tree::Record;

struct DigestHash {
  size_t operator()(const hash::Xxh128& digest) const {
    size_t value = 0;
    std::memcpy(&value, digest.bytes.data(), sizeof(value));
    return value;
  }
};

// What a move leaves as it was.
struct Traits {
  uint64_t size_bytes = 0;
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  std::string_view name;  // Or empty: any.

  friend bool operator==(const Traits&, const Traits&) = default;
};
struct TraitsHash {
  size_t operator()(const Traits& traits) const {
    uint64_t value = traits.size_bytes * 0x9E37'79B9'7F4A'7C15;
    value ^= static_cast<uint64_t>(traits.mtime_s) + (value << 6) + (value >> 2);
    value ^= traits.mtime_ns + (value << 6) + (value >> 2);
    return value ^ std::hash<std::string_view>()(traits.name);
  }
};

Traits traits_of(const tree::TableView& table, uint32_t entry, std::string_view name) {
  const Record& record = table.record(entry);
  return {.size_bytes = record.size_bytes,
          .mtime_s = record.mtime_s,
          .mtime_ns = record.mtime_ns,
          .name = name};
}

// Whether something else will stand at that path when the pull is done.
bool is_replaced(const MovedFiles::Options& options, std::string_view path) {
  uint32_t entry = 0;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    entry = options.table.find_child(entry, path.substr(0, end));
    if (entry == tree::kNoEntry) return false;
    path.remove_prefix(std::min(end + 1, path.size()));
    if (!path.empty() && !options.table.record(entry).is_directory()) return true;
  }
  const Action action = options.comparison->actions[entry];
  return action != Action::kNone && action != Action::kSkip && action != Action::kMetadata;
}

bool link_into(int destination_fd, const std::string& path, int stage_fd, const std::string& name) {
  const Result<RelPath> source = RelPath::parse(path);
  if (!source) return false;
  const Result<UniqueFd> directory = fs::open_directory(destination_fd, source->parent());
  if (!directory) return false;
  const std::string last(source->name());
  return linkat(directory->get(), last.c_str(), stage_fd, name.c_str(), 0) == 0;
}

}  // namespace

MovedFiles::MovedFiles(const Options& options) {
  std::vector<uint32_t> wanted;
  for (uint32_t entry = 0; entry < options.table.count(); ++entry) {
    const bool is_wanted = options.comparison->actions[entry] == Action::kFetch &&
                           options.comparison->xxh[entry].known() &&
                           options.table.record(entry).size_bytes > 0;
    if (is_wanted) wanted.push_back(entry);
  }
  if (wanted.empty()) return;
  if (options.state != nullptr) {
    find_in_state(options, wanted);
  } else {
    find_in_destination(options, wanted);
  }
}

const std::string& MovedFiles::path_of(uint32_t entry) const {
  static const std::string kNowhere;
  const auto found = paths_.find(entry);
  return found == paths_.end() ? kNowhere : found->second;
}

void MovedFiles::keep_replaced(const Options& options, Staging& staging) {
  std::unordered_map<std::string, std::string> kept;  // Path to its second name.
  for (auto& [entry, path] : paths_) {
    if (!is_replaced(options, path)) continue;
    const auto [second, is_new] = kept.try_emplace(path);
    if (is_new) {
      const std::string name = staging.new_patch_name();
      if (link_into(options.destination_fd, path, staging.stage_fd(), name)) {
        second->second = Staging::path_of(name);
      }
    }
    if (!second->second.empty()) path = second->second;
  }
}

void MovedFiles::find_in_state(const Options& options, std::span<const uint32_t> wanted) {
  std::unordered_map<hash::Xxh128, uint32_t, DigestHash> places;  // Entry of the state.
  for (const uint32_t entry : wanted)
    places.try_emplace(options.comparison->xxh[entry], tree::kNoEntry);
  const catalog::Catalog& state = *options.state;
  for (uint32_t entry = 0; entry < state.table().count(); ++entry) {
    if (!state.local()[entry].known() || !state.table().record(entry).is_file()) continue;
    const auto place = places.find(state.xxh()[entry]);
    if (place != places.end() && place->second == tree::kNoEntry) place->second = entry;
  }
  for (const uint32_t entry : wanted) {
    const uint32_t place = places.at(options.comparison->xxh[entry]);
    if (place != tree::kNoEntry) paths_.emplace(entry, state.table().path(place));
  }
}

void MovedFiles::find_in_destination(const Options& options, std::span<const uint32_t> wanted) {
  // Each file in DEST is named for one entry, so that the effort is linear whatever is alike.
  std::unordered_map<Traits, std::vector<uint32_t>, TraitsHash> by_traits;
  for (const uint32_t entry : wanted)
    by_traits[traits_of(options.table, entry, {})].push_back(entry);
  std::unordered_map<Traits, std::vector<uint32_t>, TraitsHash> by_name;
  for (const uint32_t entry : wanted)
    by_name[traits_of(options.table, entry, options.table.name(entry))].push_back(entry);
  fs::WalkHandlers handlers;
  handlers.filter = [](const fs::WalkEntry& seen) {
    return seen.path == kStateDirectory ? fs::Verdict::kSkip : fs::Verdict::kTake;
  };
  handlers.entry = [&](const fs::WalkEntry& seen) -> Status {
    if (!S_ISREG(seen.stat->st_mode)) return {};
    Traits traits{.size_bytes = static_cast<uint64_t>(seen.stat->st_size),
                  .mtime_s = seen.stat->st_mtim.tv_sec,
                  .mtime_ns = static_cast<uint32_t>(seen.stat->st_mtim.tv_nsec),
                  .name = seen.name};
    if (const auto same = by_name.find(traits); same != by_name.end() && !same->second.empty()) {
      paths_[same->second.back()] = seen.path;
      same->second.pop_back();
      return {};
    }
    traits.name = {};
    const auto like = by_traits.find(traits);
    if (like == by_traits.end()) return {};
    while (!like->second.empty()) {
      const uint32_t entry = like->second.back();
      like->second.pop_back();
      if (paths_.try_emplace(entry, seen.path).second) break;
    }
    return {};
  };
  // What cannot be walked cannot be copied from either.
  static_cast<void>(fs::walk(options.destination_fd, handlers));
}

}  // namespace superlifter::client
