// Catalog: one immutable generation of a module, mapped and read in place. FORMAT.md decides the
// bytes.
//
// A generation holds the tree as a table (tree/table.h, mapped as it stands), its directory nodes
// with an index by digest, the file digests, and, apart from all that is digested, the local part:
// what stat said of each file when it was hashed. Answers are views; nothing is copied. Everything
// read is checked on open (header digest, section bounds, and the table once by validate()), so
// that a damaged file is an error and never a crash.
//
// The client keeps the state of its last pull in the same form: a tree that was pulled can be
// served on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/file_request.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/delta/signature.h"
#include "core/fs/mapped_file.h"
#include "core/hash/digest.h"
#include "core/tree/node.h"
#include "core/tree/table.h"

namespace superlifter::catalog {

// What stat said of an entry when it was indexed (or pulled): with the record's size and mtime
// these are its validators. All zero: the entry is not on this host's disk as the table says. 32
// bytes, stored as it stands.
struct LocalStat {
  uint64_t inode = 0;
  int64_t ctime_s = 0;
  uint32_t ctime_ns = 0;
  uint32_t reserved = 0;
  uint64_t device = 0;

  bool known() const { return inode != 0; }
  friend bool operator==(const LocalStat&, const LocalStat&) = default;
};
static_assert(sizeof(LocalStat) == 32);

constexpr size_t kMaxSourceBytes = 8192;  // A SRC: a host, and a percent-encoded path.

struct Header {
  uint64_t generation = 0;
  int64_t created_ns = 0;    // Wall clock.
  hash::Sha256 root;         // Digest of the root's top node.
  bool provisional = false;  // Digests are not made yet.
  bool has_owners = false;
  tree::RootMetadata root_metadata;  // Of the table's root, as are the totals.
  tree::Totals totals;
  uint32_t node_count = 0;
  uint64_t nodes_bytes = 0;  // Section of nodes: each as varint length and bytes.
  std::string base_path;     // Client: the directory of the module that was pulled; else empty.
  std::string source;        // Client: the SRC it came from; else empty.
  // The pack that holds this generation's signatures; 0: none are kept, and the three below are 0.
  uint64_t pack = 0;
  uint64_t pack_bytes = 0;       // From its beginning; what follows is not this generation's.
  uint64_t signature_bytes = 0;  // Of those, what this generation uses.
  unsigned signature_level = 0;  // The finest level that is kept.
};

// A kept signature: where it begins in the pack, and what is where in it.
struct SignaturePlace {
  uint64_t offset = 0;
  delta::SignatureLayout layout;
};

enum class Verify : bool { kHeader, kEverything };

// The pack that a generation file names, from its header alone: 0 when it names none. Errors as
// Catalog::open, but an older format is none.
[[nodiscard]] Result<uint64_t> read_pack_number(int directory_fd, const std::string& name);

class Catalog {
 public:
  // Opens a generation file below a directory fd. kNotFound, kCorrupt (names what is damaged),
  // kUnsupported (a newer format: names both numbers), kStale (an older one: nothing is wrong with
  // it, and what it says must be found out anew). kEverything reads the whole file and
  // compares every section's digest; kHeader checks the header, the section bounds and the table.
  [[nodiscard]] static Result<std::shared_ptr<const Catalog>> open(int directory_fd,
                                                                   const std::string& name,
                                                                   Verify verify);

  const Header& header() const { return header_; }
  const tree::TableView& table() const { return table_; }
  // By entry number, table().count() each. sha is empty when the generation has none (a client's).
  std::span<const hash::Xxh128> xxh() const { return xxh_; }
  std::span<const hash::Sha256> sha() const { return sha_; }
  std::span<const LocalStat> local() const { return local_; }
  // As they stand: not checked. Empty when the generation has none.
  std::span<const uint64_t> signature_offsets() const { return signature_offsets_; }

  // A node by its digest; empty when it is not here.
  ByteView node(const hash::Sha256& digest) const;
  // The zstd stream of all nodes: offset and length within the file, and the file itself. Length 0
  // when the generation has none (a client's).
  uint64_t all_nodes_offset() const { return all_nodes_offset_; }
  uint64_t all_nodes_length_bytes() const { return all_nodes_length_; }
  int fd() const { return fd_.get(); }

  // Lets go of the memory that passes over this generation took (fs::MappedFile::release_pages).
  void release_pages() const { file_.release_pages(); }

  // A file's kept signature; nothing when none is kept of the entry, or its place lies outside the
  // pack's bytes. Any number may be asked.
  std::optional<SignaturePlace> signature(uint32_t entry) const;

  // The validators of a file as they were indexed.
  Validators validators(uint32_t entry) const;

 private:
  Catalog() = default;

  UniqueFd fd_;
  fs::MappedFile file_;
  Header header_;
  std::vector<std::string> owner_names_;
  tree::TableView table_;
  std::span<const hash::Xxh128> xxh_;
  std::span<const hash::Sha256> sha_;
  std::span<const LocalStat> local_;
  std::span<const uint64_t> signature_offsets_;
  ByteView nodes_;
  ByteView node_index_;
  uint64_t all_nodes_offset_ = 0;
  uint64_t all_nodes_length_ = 0;

  friend class CatalogLoader;
};

}  // namespace superlifter::catalog
