// Watcher: says that something below a root has changed, by inotify(7).
//
// It says no more than that: the indexer's walk finds out what, and the rescan by interval is the
// net below it (writes through a shared map, another host's writes to a network file system, and a
// file that is written and never closed make no event). One watch a directory, added before the
// directory is listed, so that nothing made in between is missed. inotify takes paths only, so a
// directory is opened beneath the root and watched as /proc/self/fd/N.
//
// Watches form a tree by (parent watch, name); a directory that moves within the tree carries its
// watches along, one that leaves it loses them. When the kernel's queue overflows, all watches are
// checked anew.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/glob.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace superlifter::fs {

struct WatchOptions {
  std::vector<Glob> exclude;  // Changes here are not reported, directories here not watched.
  std::vector<Glob> notice;   // Reported even where `exclude` matches too.
  // A directory that is not watched should it lie below the root: the catalog, which we write
  // ourselves. Borrowed for the life of the watcher.
  int skip_directory_fd = -1;
};

class Watcher {
 public:
  struct Changes {
    bool changed = false;      // Something did; set with events_lost as well.
    bool events_lost = false;  // The queue overflowed; the watches were made anew.
    bool root_gone = false;    // The root itself was removed or moved; no more will be heard.
  };

  // Watches everything below root_fd (borrowed: must outlive this), except /.superlifter. kLimit
  // when the user's inotify instances or watches are used up (the message names the sysctl): fall
  // back to the interval. kIo. Cost: open, inotify_add_watch, getdents64, close for each directory.
  [[nodiscard]] static Result<Watcher> make(int root_fd, WatchOptions options);

  // Readable (poll) when drain has something to say. Owned here.
  int fd() const { return fd_.get(); }

  // Reads what has gathered, without waiting, and watches directories that are new. On an error
  // (kLimit as above, kIo) this watcher is of no more use.
  [[nodiscard]] Result<Changes> drain();

  size_t watch_count() const { return watches_.size(); }

 private:
  // Where a directory hangs: the watch of the one that holds it, and its name there.
  using Place = std::pair<int, std::string>;
  using Places = std::map<Place, int>;

  Watcher() = default;
  Status watch_below(Place place);
  Status watch_one(const Place& place, std::vector<Place>& found);
  Status handle(int watch, uint32_t mask, std::string_view name, Changes& changes);
  void attach(int watch, const Place& place);
  void detach(const Place& place);
  void forget(int watch);
  void drop_detached();
  // False when the chain to the root is broken or the path is too long.
  bool path_of(int watch, std::string& path) const;
  bool is_ignored(const std::string& path, IsDirectory is_directory) const;
  bool is_skipped(int directory_fd) const;

  UniqueFd fd_;
  int root_fd_ = -1;
  int root_watch_ = 0;
  WatchOptions options_;
  Places places_;  // Watch of each place but the root's.
  // Each watch with its node of places_: null for the root, and for what moved away and has not
  // been seen again.
  std::unordered_map<int, Places::value_type*> watches_;
  bool any_detached_ = false;
};

}  // namespace superlifter::fs
