// Publisher: the directory of one module's catalog.
//
//   <catalog>/<module>/CURRENT            "17\n": the live generation; replaced by rename
//   <catalog>/<module>/17.generation      kept: the live one and those before it, `keep` in all
//   <catalog>/<module>/3.signatures       the pack that kept generations name (signature_pack.h)
//   <catalog>/<module>/LOCK               flock'd by the one writer
//   <catalog>/<module>/digests.journal    digests of a hashing that was interrupted (journal.h)
//
// Readers need no lock: they read CURRENT and map the file; an unlinked generation lives on for
// whoever has it mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/catalog/builder.h"
#include "core/catalog/catalog.h"
#include "core/catalog/file_names.h"

namespace superlifter::catalog {

// Reads CURRENT below a module's catalog directory fd: 0 when there is none yet. kCorrupt, kIo.
[[nodiscard]] Result<uint64_t> read_current(int directory_fd);

// The one writer of a module's catalog. Holds the lock while it lives.
class Publisher {
 public:
  // Opens (and with mode 0755 makes) the module's directory below the catalog directory and takes
  // the lock. kBusy when another process holds it. kIo, kProtocol (a module name that is no file
  // name).
  [[nodiscard]] static Result<Publisher> open(int catalog_fd, const std::string& module);

  int directory_fd() const { return directory_.get(); }

  // The live generation, verified whole. Empty when there is none; a damaged or unreadable one is
  // logged, set aside, and treated as none: everything is made again; so is one of an older format,
  // which stays where it is. kUnsupported for one that a
  // newer version of this program wrote: that is not ours to replace.
  [[nodiscard]] Result<std::shared_ptr<const Catalog>> current() const;

  // Builds the next generation (its number and time are set here), swaps CURRENT, and removes
  // generations beyond `keep` (at least the live one stays), packs that no kept one names, and the
  // leftovers of crashes. `pack_in_use` stays too: one that is still being written; 0: none.
  // Returns the number, which is higher than that of any generation there. On an error the last one
  // stays live.
  [[nodiscard]] Result<uint64_t> publish(Parts parts, size_t keep, uint64_t pack_in_use = 0);

 private:
  void clean(uint64_t live, uint64_t before, size_t keep, uint64_t pack_in_use) const;
  void clean_packs(const fs::DirectoryNames& names, const std::vector<uint64_t>& kept,
                   uint64_t pack_in_use) const;

  std::string module_;
  UniqueFd directory_;
  UniqueFd lock_;
};

}  // namespace superlifter::catalog
