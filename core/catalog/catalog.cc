#include "core/catalog/catalog.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/catalog/format.h"
#include "core/catalog/signature_pack.h"

namespace superlifter::catalog {
namespace {

// A stored array in place. The map begins on a page and sections are aligned, so T is.
template <class T>
std::span<const T> in_place(ByteView bytes) {
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

bool all_zero(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

std::unexpected<Error> corrupt(const std::string& what) {
  return fail(Errc::kCorrupt, what);
}

// One row of the node index. Everything in it is hostile until compared.
struct NodeRow {
  hash::Sha256 digest;
  uint64_t offset = 0;
  uint32_t length_bytes = 0;
};

NodeRow decode_row(ByteView index, size_t row) {
  Reader reader(index.subspan(row * kNodeIndexRowBytes, kNodeIndexRowBytes));
  NodeRow out;
  const ByteView digest = reader.bytes(out.digest.bytes.size());  // [gen-node-digest]
  std::copy(digest.begin(), digest.end(), out.digest.bytes.begin());
  out.offset = reader.u64();        // [gen-node-offset]
  out.length_bytes = reader.u32();  // [gen-node-length]; [gen-node-reserved] follows
  return out;
}

constexpr size_t kPackAt = 328;  // Of [gen-pack] in the header page.

}  // namespace

Result<uint64_t> read_pack_number(int directory_fd, const std::string& name) {
  const std::string attempt = "generation file " + escape(name);
  const UniqueFd fd(
      ::openat(directory_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return fail_errno(errno, attempt);
  Bytes page(kHeaderPageBytes);
  ssize_t size = 0;
  do {
    size = ::pread(fd.get(), page.data(), page.size(), 0);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return fail_errno(errno, attempt + ": read");
  Reader reader(ByteView(page).first(static_cast<size_t>(size)));
  const bool ours = as_text(reader.bytes(kGenerationMagic.size())) == kGenerationMagic;
  const uint32_t version = reader.u32();
  if (ours && reader.ok() && version > kGenerationVersion) {
    return fail(Errc::kUnsupported, attempt + ": of a newer format");
  }
  if (ours && reader.ok() && version < kGenerationVersion) return 0;  // They had none.
  reader.bytes(kHeaderChecksumAt - (page.size() - reader.remaining()));
  const uint64_t checksum = reader.u64();
  if (!ours || !reader.ok() || checksum != hash::xxh64(ByteView(page).first(kHeaderChecksumAt))) {
    return fail(Errc::kCorrupt, attempt + ": header is damaged");
  }
  Reader pack(ByteView(page).subspan(kPackAt));
  return pack.u64();
}

// Fills a Catalog from its mapped file, one check after the other.
class CatalogLoader {
 public:
  CatalogLoader(Catalog& catalog, Verify verify) : out_(catalog), verify_(verify) {}

  Status load() {
    file_ = out_.file_.bytes();
    if (const Status read = read_header_page(); !read) return read;
    if (const Status found = find_sections(); !found) return found;
    if (verify_ == Verify::kEverything) {
      if (const Status sound = verify_sections(); !sound) return sound;
    }
    if (const Status read = read_owners(); !read) return read;
    if (const Status read = read_arrays(); !read) return read;
    return read_context();
  }

 private:
  struct Row {
    uint64_t offset = 0;
    uint64_t length_bytes = 0;
    uint64_t checksum = 0;
  };

  Status read_header_page() {
    Reader reader(file_);
    if (as_text(reader.bytes(kGenerationMagic.size())) != kGenerationMagic) {  // [gen-magic]
      return corrupt("header: does not begin as a generation file does");
    }
    const uint32_t version = reader.u32();  // [gen-version]
    if (reader.ok() && version > kGenerationVersion) {
      return fail(Errc::kUnsupported, "header: format version " + std::to_string(version) +
                                          ", but this program reads up to version " +
                                          std::to_string(kGenerationVersion));
    }
    if (reader.ok() && version != 0 && version < kGenerationVersion) {
      return fail(Errc::kStale, "header: format version " + std::to_string(version) +
                                    " is older than version " + std::to_string(kGenerationVersion) +
                                    ", which this program reads");
    }
    if (file_.size() < kHeaderPageBytes) return corrupt("header: the file ends within it");
    Reader checksum(file_.subspan(kHeaderChecksumAt, 8));
    if (checksum.u64() != hash::xxh64(file_.first(kHeaderChecksumAt))) {  // [gen-checksum]
      return corrupt("header: checksum differs");
    }
    const uint32_t flags = reader.u32();                                 // [gen-flags]
    out_.header_.generation = reader.u64();                              // [gen-number]
    out_.header_.created_ns = reader.i64();                              // [gen-created]
    const ByteView root = reader.bytes(out_.header_.root.bytes.size());  // [gen-root]
    for (Row& row : rows_) {                                             // [gen-sections]
      row.offset = reader.u64();                                         // [gen-section-offset]
      row.length_bytes = reader.u64();                                   // [gen-section-length]
      row.checksum = reader.u64();                                       // [gen-section-checksum]
    }
    out_.header_.pack = reader.u64();             // [gen-pack]
    out_.header_.pack_bytes = reader.u64();       // [gen-pack-bytes]
    out_.header_.signature_bytes = reader.u64();  // [gen-signature-bytes]
    out_.header_.signature_level = reader.u32();  // [gen-signature-level]
    CHECK(reader.ok());                           // The page is there whole.
    std::copy(root.begin(), root.end(), out_.header_.root.bytes.begin());
    const size_t used = file_.size() - reader.remaining();
    const bool reserved_ok = all_zero(file_.subspan(used, kHeaderChecksumAt - used));
    if (version == 0 || (flags & ~(kProvisionalFlag | kOwnersFlag)) != 0 || !reserved_ok ||
        !is_pack_sound()) {
      return corrupt("header: holds a value that is not allowed");  // [gen-reserved]
    }
    out_.header_.provisional = (flags & kProvisionalFlag) != 0;
    out_.header_.has_owners = (flags & kOwnersFlag) != 0;
    return {};
  }

  bool is_pack_sound() const {
    const Header& header = out_.header_;
    if (header.pack == 0) {
      return header.pack_bytes == 0 && header.signature_bytes == 0 && header.signature_level == 0;
    }
    return header.pack_bytes >= kPackHeaderBytes && header.signature_bytes <= header.pack_bytes &&
           delta::is_level(header.signature_level) && header.signature_level >= delta::kLeafLevel;
  }

  // Sections must lie exactly where the layout puts them: no overlap, no gap, no byte left over.
  Status find_sections() {
    uint64_t end = kHeaderPageBytes;
    for (size_t i = 0; i < kSectionCount; ++i) {
      const uint64_t begin = align_section(end);
      const bool fits = begin <= file_.size() && rows_[i].length_bytes <= file_.size() - begin;
      if (rows_[i].offset != begin || !fits) {
        return corrupt(named(i) + ": does not lie within the file as it should");
      }
      sections_[i] = file_.subspan(begin, rows_[i].length_bytes);
      if (verify_ == Verify::kEverything && !all_zero(file_.subspan(end, begin - end))) {
        return corrupt(named(i) + ": the padding before it is not zero");
      }
      end = begin + rows_[i].length_bytes;
    }
    if (end != file_.size()) {
      return corrupt("the file has " + std::to_string(file_.size()) + " bytes in place of " +
                     std::to_string(end));
    }
    return {};
  }

  Status verify_sections() const {
    for (size_t i = 0; i < kSectionCount; ++i) {
      if (hash::xxh64(sections_[i]) != rows_[i].checksum) {
        return corrupt(named(i) + ": checksum differs");
      }
    }
    return {};
  }

  Status read_owners() {
    Reader reader(section(Section::kOwners));  // [gen-owners]
    while (reader.ok() && reader.remaining() > 0) {
      const std::string_view name = reader.counted(kMaxOwnerNameBytes);
      if (name.empty() || out_.owner_names_.size() == 0xFFFF) reader.invalidate();
      out_.owner_names_.emplace_back(name);
    }
    if (!reader.ok() || out_.owner_names_.empty() == out_.header_.has_owners) {
      return corrupt(named(Section::kOwners) + ": not a list of names");
    }
    return {};
  }

  Status read_arrays() {
    const ByteView records = section(Section::kRecords);  // [gen-records]
    const uint64_t count = records.size() / sizeof(tree::Record);
    if (records.size() % sizeof(tree::Record) != 0 || count == 0 || count > kMaxEntries) {
      return corrupt(named(Section::kRecords) + ": not a whole number of records");
    }
    const auto has_size = [&](Section which, uint64_t size) {
      return section(which).size() == size;
    };
    if (!has_size(Section::kXxh, count * sizeof(hash::Xxh128))) return wrong_size(Section::kXxh);
    if (!has_size(Section::kSha, count * sizeof(hash::Sha256)) && !has_size(Section::kSha, 0)) {
      return wrong_size(Section::kSha);
    }
    if (!has_size(Section::kLocal, count * sizeof(LocalStat))) return wrong_size(Section::kLocal);
    if (!has_size(Section::kSignatureOffsets,
                  out_.header_.pack != 0 ? count * sizeof(uint64_t) : 0)) {
      return wrong_size(Section::kSignatureOffsets);
    }
    out_.node_index_ = section(Section::kNodeIndex);  // [gen-node-index]
    if (out_.node_index_.size() % kNodeIndexRowBytes != 0) return wrong_size(Section::kNodeIndex);

    // The arrays stand in the file as in memory; [gen-size] [gen-mtime] [gen-name-offset]
    // [gen-mtime-ns] [gen-parent] [gen-subtree] [gen-link-or-files] [gen-name-length] [gen-mode]
    // [gen-owner] [gen-group] [gen-kind] [gen-record-reserved] are looked at by validate().
    out_.table_ = tree::TableView(in_place<tree::Record>(records),
                                  as_text(section(Section::kStrings)),  // [gen-strings]
                                  out_.owner_names_);
    if (const Status valid = out_.table_.validate(); !valid) {
      return fail_in(named(Section::kRecords), valid.error());
    }
    out_.xxh_ = in_place<hash::Xxh128>(section(Section::kXxh));  // [gen-xxh]
    out_.sha_ = in_place<hash::Sha256>(section(Section::kSha));  // [gen-sha]
    // [gen-local]: [gen-inode] [gen-ctime] [gen-ctime-ns] [gen-local-reserved] [gen-device]
    out_.local_ = in_place<LocalStat>(section(Section::kLocal));
    // [gen-signature-offsets]; each is looked at when it is used.
    out_.signature_offsets_ = in_place<uint64_t>(section(Section::kSignatureOffsets));
    out_.nodes_ = section(Section::kNodes);                            // [gen-nodes]
    out_.all_nodes_offset_ = rows_[index(Section::kAllNodes)].offset;  // [gen-all-nodes]
    out_.all_nodes_length_ = rows_[index(Section::kAllNodes)].length_bytes;

    const tree::Record& root = out_.table_.record(tree::kRoot);
    tree::RootMetadata& metadata = out_.header_.root_metadata;
    metadata.mode = root.mode;
    metadata.mtime_s = root.mtime_s;
    metadata.mtime_ns = root.mtime_ns;
    metadata.owner = out_.table_.owner_name(root.owner);
    metadata.group = out_.table_.owner_name(root.group);
    out_.header_.totals = out_.table_.totals();
    out_.header_.node_count = static_cast<uint32_t>(
        std::min<size_t>(out_.node_index_.size() / kNodeIndexRowBytes, UINT32_MAX));
    out_.header_.nodes_bytes = out_.nodes_.size();
    return {};
  }

  Status read_context() {
    Reader reader(section(Section::kContext));               // [gen-context]
    out_.header_.base_path = reader.counted(kMaxPathBytes);  // [gen-base-path]
    out_.header_.source = reader.counted(kMaxSourceBytes);   // [gen-source]
    if (const Status end = reader.finish("context"); !end) {
      return corrupt("section " + end.error().message);
    }
    return {};
  }

  static size_t index(Section which) { return static_cast<size_t>(which); }
  ByteView section(Section which) const { return sections_[index(which)]; }
  static std::string named(size_t i) { return "section " + std::string(kSectionNames[i]); }
  static std::string named(Section which) { return named(index(which)); }
  static std::unexpected<Error> wrong_size(Section which) {
    return corrupt(named(which) + ": its size does not fit the number of entries");
  }

  Catalog& out_;
  const Verify verify_;
  ByteView file_;
  std::array<Row, kSectionCount> rows_{};
  std::array<ByteView, kSectionCount> sections_{};
};

Result<std::shared_ptr<const Catalog>> Catalog::open(int directory_fd, const std::string& name,
                                                     Verify verify) {
  const std::string attempt = "generation file " + escape(name);
  int fd = -1;
  do {
    fd = ::openat(directory_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno(errno, attempt);
  // Shared by the store and every session that has it pinned: a generation lives as long as any
  // reader.
  std::shared_ptr<Catalog> out(new Catalog());
  out->fd_ = UniqueFd(fd);
  Result<fs::MappedFile> file = fs::MappedFile::map(fd);
  if (!file) return fail_in(attempt, file.error());
  out->file_ = std::move(*file);
  if (const Status loaded = CatalogLoader(*out, verify).load(); !loaded) {
    return fail_in(attempt, loaded.error());
  }
  // Checking touched most of the file; a reader keeps what it uses from here on.
  out->file_.release_pages();
  return out;
}

ByteView Catalog::node(const hash::Sha256& digest) const {
  size_t low = 0;
  size_t high = node_index_.size() / kNodeIndexRowBytes;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const NodeRow row = decode_row(node_index_, middle);
    if (row.digest == digest) {
      if (row.offset > nodes_.size() || row.length_bytes > nodes_.size() - row.offset) return {};
      return nodes_.subspan(row.offset, row.length_bytes);
    }
    if (row.digest < digest) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return {};
}

std::optional<SignaturePlace> Catalog::signature(uint32_t entry) const {
  if (entry >= signature_offsets_.size()) return std::nullopt;
  const uint64_t offset = signature_offsets_[entry];
  const tree::Record record = table_.record(entry);
  if (offset < kPackHeaderBytes + kPackChecksumBytes || offset > header_.pack_bytes ||
      !record.is_file() || record.size_bytes < least_signed_bytes(header_.signature_level)) {
    return std::nullopt;
  }
  const SignaturePlace out{.offset = offset,
                           .layout = {record.size_bytes, header_.signature_level}};
  if (out.layout.size_bytes() > header_.pack_bytes - offset) return std::nullopt;
  return out;
}

Validators Catalog::validators(uint32_t entry) const {
  const tree::Record& record = table_.record(entry);
  const LocalStat& local = local_[entry];
  Validators out;
  out.inode = local.inode;
  out.size_bytes = record.size_bytes;
  out.mtime_s = record.mtime_s;
  out.mtime_ns = record.mtime_ns;
  out.ctime_s = local.ctime_s;
  out.ctime_ns = local.ctime_ns;
  return out;
}

}  // namespace superlifter::catalog
