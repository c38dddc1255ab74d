// MovedFiles: content that is to be fetched and stands in DEST already, under another name.
//
// The state of the last pull knows what was where by digest. Without one (DEST was made by another
// program) a file of the same size, time and, where there are several, name is worth a try: a
// directory that was moved keeps all three. Whatever is named here is a guess that the copy's
// digest has to confirm.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>

#include "client/local_tree.h"
#include "client/staging.h"
#include "core/base/result.h"
#include "core/catalog/catalog.h"
#include "core/tree/table.h"

namespace superlifter::client {

class MovedFiles {
 public:
  struct Options {
    int destination_fd = -1;                  // Borrowed.
    const Comparison* comparison = nullptr;   // Files with kFetch and a digest are looked for.
    const catalog::Catalog* state = nullptr;  // May be null. Borrowed.
    tree::TableView table;
  };
  // Cost: a pass over the state, or else one stat for each file in DEST; nothing when there is
  // nothing to look for.
  explicit MovedFiles(const Options& options);

  // Where in DEST the content of an entry may stand; empty: nowhere.
  const std::string& path_of(uint32_t entry) const;

  // Gives those of the files that this pull replaces (names that changed places, say) a second name
  // in staging, so that their content stays until it was copied. Where that cannot be done, the
  // file is fetched if its copy comes too late. Cost: a hard link for each such file.
  void keep_replaced(const Options& options, Staging& staging);

 private:
  void find_in_state(const Options& options, std::span<const uint32_t> wanted);
  void find_in_destination(const Options& options, std::span<const uint32_t> wanted);

  std::unordered_map<uint32_t, std::string> paths_;  // By entry.
};

}  // namespace superlifter::client
