// Publish: everything about a pulled tree that is not the content of files. Each step works on the
// target's table and the comparison, below the destination's fd, and reports what fails by name.
//
// Order, as the puller calls them: make_directories before the transfer (files need them), then
// links, deletions, and last the directories' own modes and times, which every step before
// disturbs.
#pragma once

#include <string>
#include <vector>

#include "client/local_tree.h"
#include "client/staging.h"
#include "client/stats.h"
#include "core/tree/table.h"

namespace superlifter::client {

struct PublishContext {
  int destination_fd = -1;
  const tree::TableView& table;
  Comparison& comparison;
  Staging& staging;
  bool owner = false;
  bool delete_extra = false;         // A directory with content may be replaced by something else.
  bool is_single_file = false;       // Entry 0 is not ours to change.
  const Filter* filter = nullptr;    // What it excludes is not deleted. Null: none. Borrowed.
  std::vector<std::string>& errors;  // One line each is added.
};

// Makes directories that are missing, or in whose place something else stands, writable by us for
// now; so are those that are there and get something new.
void make_directories(PublishContext& context);
// Makes symlinks, and sets modes, times and owners where nothing else is wrong.
void make_symlinks(PublishContext& context);
// Links hard links to their first entries.
void make_hard_links(PublishContext& context);
// Removes what the target does not have; counts every entry in stats.files_deleted.
void delete_extra(PublishContext& context, Stats& stats);
// Gives every directory its mode, time and owner.
void finish_directories(PublishContext& context);

}  // namespace superlifter::client
