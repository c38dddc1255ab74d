// Basis: which local file a changed or new file is rebuilt from.
//
//   1. what stands in its place: the same path in DEST
//   2. else the file in the same directory of DEST whose name is most similar, as rsync's --fuzzy:
//      foo_1.2-3_amd64.deb for foo_1.2-4_amd64.deb
//
// A basis that turns out to have nothing in common costs the first sums of a signature, no more, so
// the measure is simple. Names are cut into runs of letters, runs of digits and single other bytes;
// what two names have in common is their longest common subsequence of such parts. Digits weigh
// little, since versions change; letters weigh much, since they tell packages and architectures
// apart. Another last extension, or something else before the first digit, halves it all.
//
//   foo|_|1|.|2|-|3|_|amd|64|.|deb
//   foo|_|1|.|2|-|4|_|amd|64|.|deb     all but one digit: 98 %
//
// Cost: one listing a directory. A name is compared with its nearest neighbours in bytewise order
// only, which have the longest front in common, so a directory of a million names is no problem.
// Memory: the names in the directories that are on the way to the present one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "client/local_tree.h"
#include "client/placement.h"
#include "core/fs/walk.h"
#include "core/tree/table.h"

namespace superlifter::client {

struct Basis {
  std::string path;  // Below DEST.
  uint64_t size_bytes = 0;
  bool is_same_path = false;
};

// How much two file names have in common, in per mille: 1000 for equal ones. Cost: the product of
// their numbers of parts, of which at most 64 are looked at.
unsigned name_similarity(std::string_view a, std::string_view b);

// For one thread.
class BasisFinder {
 public:
  // Borrows the fd, what the table borrows, and the actions. With actions (by entry), a file that
  // is itself to be replaced by this pull is no basis for another name.
  BasisFinder(int destination_fd, const tree::TableView& table,
              std::span<const Action> actions = {});

  // The basis for a file's entry, if there is one of a size that can help. Entries should come in
  // ascending order: else directories are listed again. What cannot be looked at is no basis.
  std::optional<Basis> find(uint32_t entry);
  // Whether a regular file of whatever size stands in the entry's place: what is fetched then is an
  // update, not a new file.
  bool is_update(uint32_t entry);

 private:
  // The names in a directory that may serve for others.
  struct Listing {
    uint32_t directory = 0;
    fs::DirectoryNames names;
    std::vector<std::string_view> replaced;  // By this pull; ascending.
  };
  struct Candidate {
    unsigned similarity = 0;
    std::string name;
  };

  std::optional<Basis> find_similar(uint32_t entry, int directory_fd);
  const Listing& list(uint32_t directory, int directory_fd);
  std::vector<Candidate> candidates(const Listing& listing, std::string_view name) const;
  bool may_serve(const Listing& listing, size_t index) const;

  const tree::TableView table_;
  const std::span<const Action> actions_;
  DirectoryCache directories_;
  std::vector<Listing> listings_;  // Each beneath the one before.
};

}  // namespace superlifter::client
