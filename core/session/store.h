// Store: what a session asks of the catalog. A seam, so that the session knows neither files nor
// maps; daemon/catalog_store joins the two, and tests bring a FakeStore.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/outbox.h"
#include "core/base/result.h"
#include "core/delta/signature.h"
#include "core/hash/digest.h"
#include "core/tree/node.h"

namespace superlifter::session {

// One module as MODULES lists it.
struct ModuleSummary {
  std::string name;
  std::string comment;
  uint64_t generation = 0;  // 0: none yet.
  tree::Totals totals;
};

// A pinned generation. Lives as long as a request that uses it; shared by the session and its
// requests.
class Generation {
 public:
  virtual ~Generation() = default;

  virtual uint64_t number() const = 0;
  virtual hash::Sha256 root() const = 0;
  virtual bool is_provisional() const = 0;
  virtual bool has_owners() const = 0;
  virtual tree::RootMetadata root_metadata() const = 0;
  virtual tree::Totals totals() const = 0;
  virtual uint32_t node_count() const = 0;
  virtual uint64_t nodes_bytes() const = 0;  // All nodes with their varint lengths.

  // Whether it is still kept. A session on one that is not gets GONE.
  virtual bool is_kept() const = 0;

  // A node's bytes, empty when there is none with that digest. Borrows from the generation.
  virtual ByteView node(const hash::Sha256& digest) const = 0;
  // The precompressed stream of all nodes, as a range of the generation's own file.
  virtual FileRange all_nodes() const = 0;
  // 16 or 32 bytes a piece for entries [first, first + count). REQUIRES: within the entries.
  virtual ByteView xxh_digests(uint32_t first, uint32_t count) const = 0;
  // Empty when the generation has none: the session then sends zeros.
  virtual ByteView sha_digests(uint32_t first, uint32_t count) const = 0;

  // The finest level that is kept of signatures; 0: none are kept.
  virtual unsigned signature_level() const = 0;
  // A file's kept signature: where it begins in which file, and what is where in it. Nothing when
  // none is kept of the entry (too short, or no file). Any number may be asked.
  struct Signature {
    std::shared_ptr<OpenFile> file;  // The pack; shared with reads on their way.
    uint64_t offset = 0;
    delta::SignatureLayout layout;
  };
  virtual std::optional<Signature> signature(uint32_t entry) const = 0;

  // How to open a regular file and what it looked like when it was indexed. kNotFound when the
  // entry is no regular file. REQUIRES: nothing; any number may be asked.
  struct File {
    OpenRequest open;
    Validators validators;
  };
  [[nodiscard]] virtual Result<File> file(uint32_t entry) const = 0;

  // The entry's file was found changed: its module wants a rescan.
  virtual void report_stale(uint32_t entry) const = 0;
};

class Store {
 public:
  virtual ~Store() = default;

  // The listed modules that this session's peer may use.
  virtual std::vector<ModuleSummary> modules() = 0;

  // The live generation of a module. kNotFound (unknown, or hidden from this peer), kDenied, kBusy,
  // kStale never; kUnsupported or kCorrupt when the catalog cannot be read; kGone while there is no
  // generation yet.
  [[nodiscard]] virtual Result<std::shared_ptr<const Generation>> open(std::string_view module) = 0;
};

}  // namespace superlifter::session
