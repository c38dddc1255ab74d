#include "core/catalog/builder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "core/base/check.h"
#include "core/base/coding.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/unique_fd.h"
#include "core/catalog/format.h"

namespace superlifter::catalog {
namespace {

// All of a tree's nodes compress once and are sent many times, but a module of millions of entries
// must not wait for it: level 3 makes some 200 MB/s. Its window is 2 MiB, a quarter of what clients
// allow.
constexpr int kCompressionLevel = 3;
constexpr int kWindowLog = 21;

constexpr std::array<uint8_t, kSectionAlignment> kPadding{};

using Sections = std::array<ByteView, kSectionCount>;

template <class T>
ByteView stored(std::span<const T> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

Bytes encode_owners(const tree::TableView& table) {
  Bytes out;
  Writer writer(out);
  for (const std::string& name : table.owner_names()) {
    writer.counted(name);
  }
  return out;
}

Bytes encode_node_index(const NodePack& nodes) {
  Bytes out;
  out.reserve(nodes.index().size() * kNodeIndexRowBytes);
  Writer writer(out);
  for (const NodePack::Entry& entry : nodes.index()) {
    writer.bytes(entry.digest.bytes);  // [gen-node-digest]
    writer.u64(entry.offset);          // [gen-node-offset]
    writer.u32(entry.length_bytes);    // [gen-node-length]
    writer.u32(0);                     // [gen-node-reserved]
  }
  return out;
}

Bytes encode_context(const Header& header) {
  Bytes out;
  Writer writer(out);
  writer.counted(header.base_path);  // [gen-base-path]
  writer.counted(header.source);     // [gen-source]
  return out;
}

// Not a vector: most of the bound is never touched, and a vector would write it all.
struct Compressed {
  std::unique_ptr<uint8_t[]> bytes;
  size_t size_bytes = 0;
};

Result<Compressed> compress_nodes(ByteView nodes) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(),
                                                                     &ZSTD_freeCCtx);
  CHECK(context != nullptr);
  CHECK(ZSTD_isError(ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel,
                                            kCompressionLevel)) == 0);
  CHECK(ZSTD_isError(ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, kWindowLog)) == 0);
  const size_t bound = ZSTD_compressBound(nodes.size());
  Compressed out;
  out.bytes = std::make_unique_for_overwrite<uint8_t[]>(bound);
  out.size_bytes =
      ZSTD_compress2(context.get(), out.bytes.get(), bound, nodes.data(), nodes.size());
  if (ZSTD_isError(out.size_bytes) != 0) {
    return fail(Errc::kIo,
                std::string("compress directory nodes: ") + ZSTD_getErrorName(out.size_bytes));
  }
  return out;
}

Bytes encode_header_page(const Parts& parts, const Sections& sections) {
  uint32_t flags = 0;
  if (parts.header.provisional) flags |= kProvisionalFlag;
  if (!parts.table.owner_names().empty()) flags |= kOwnersFlag;
  Bytes page;
  page.reserve(kHeaderPageBytes);
  Writer writer(page);
  writer.bytes(as_bytes(kGenerationMagic));  // [gen-magic]
  writer.u32(kGenerationVersion);            // [gen-version]
  writer.u32(flags);                         // [gen-flags]
  writer.u64(parts.header.generation);       // [gen-number]
  writer.i64(parts.header.created_ns);       // [gen-created]
  writer.bytes(parts.header.root.bytes);     // [gen-root]
  uint64_t offset = kHeaderPageBytes;
  for (const ByteView section : sections) {  // [gen-sections]
    writer.u64(offset);                      // [gen-section-offset]
    writer.u64(section.size());              // [gen-section-length]
    writer.u64(hash::xxh64(section));        // [gen-section-checksum]
    offset = align_section(offset + section.size());
  }
  writer.u64(parts.header.pack);             // [gen-pack]
  writer.u64(parts.header.pack_bytes);       // [gen-pack-bytes]
  writer.u64(parts.header.signature_bytes);  // [gen-signature-bytes]
  writer.u32(parts.header.signature_level);  // [gen-signature-level]
  page.resize(kHeaderChecksumAt);            // [gen-reserved]
  writer.u64(hash::xxh64(page));             // [gen-checksum]
  CHECK(page.size() == kHeaderPageBytes);
  return page;
}

Status write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    // The kernel takes no more than about 2 GiB at a time.
    const ssize_t written = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), kGiB));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(errno, "write");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

Status write_generation(UniqueFd fd, const Parts& parts, const Sections& sections) {
  if (const Status head = write_all(fd.get(), encode_header_page(parts, sections)); !head) {
    return head;
  }
  uint64_t offset = kHeaderPageBytes;
  for (const ByteView section : sections) {
    const uint64_t begin = align_section(offset);
    const ByteView gap(kPadding.data(), static_cast<size_t>(begin - offset));
    if (const Status padded = write_all(fd.get(), gap); !padded) return padded;
    if (const Status written = write_all(fd.get(), section); !written) return written;
    offset = begin + section.size();
  }
  // Whatever the umask: workers and stdio sessions of other users read this.
  if (::fchmod(fd.get(), 0644) != 0) return fail_errno(errno, "chmod");
  if (::fsync(fd.get()) != 0) return fail_errno(errno, "fsync");
  return fd.close_checked("close");
}

// Gives a finished file its name, durably.
Status put_in_place(int directory_fd, const std::string& temporary, const std::string& name) {
  if (::renameat(directory_fd, temporary.c_str(), directory_fd, name.c_str()) != 0) {
    return fail_errno(errno, "rename from " + escape(temporary));
  }
  if (::fsync(directory_fd) != 0) return fail_errno(errno, "fsync its directory");
  return {};
}

}  // namespace

void NodePack::add(const hash::Sha256& digest, ByteView node) {
  CHECK(node.size() <= kMaxNodeBytes);
  if (!seen_.insert(digest).second) return;
  Writer writer(bytes_);
  writer.varint(node.size());
  index_.push_back({.digest = digest,
                    .offset = bytes_.size(),
                    .length_bytes = static_cast<uint32_t>(node.size())});
  writer.bytes(node);
}

void NodePack::reserve(size_t nodes, size_t bytes) {
  index_.reserve(nodes);
  bytes_.reserve(bytes);
}

void NodePack::sort() {
  seen_ = {};
  std::sort(index_.begin(), index_.end(),
            [](const Entry& a, const Entry& b) { return a.digest < b.digest; });
}

size_t NodePack::FirstBytes::operator()(const hash::Sha256& digest) const {
  size_t out = 0;
  std::memcpy(&out, digest.bytes.data(), sizeof(out));
  return out;
}

ByteView NodePack::find(const hash::Sha256& digest) const {
  const auto found = std::lower_bound(
      index_.begin(), index_.end(), digest,
      [](const Entry& entry, const hash::Sha256& wanted) { return entry.digest < wanted; });
  if (found == index_.end() || found->digest != digest) return {};
  return ByteView(bytes_).subspan(found->offset, found->length_bytes);
}

Status build(int directory_fd, const std::string& name, const Parts& parts) {
  CHECK(parts.nodes != nullptr);
  CHECK(parts.xxh.size() == parts.table.count() && parts.local.size() == parts.table.count());
  CHECK(parts.sha.empty() || parts.sha.size() == parts.table.count());
  CHECK(parts.signature_offsets.size() == (parts.header.pack != 0 ? parts.table.count() : 0));
  CHECK((parts.header.pack != 0) == (parts.header.signature_level != 0));
  const std::string attempt = "write generation file " + escape(name);
  if (parts.header.base_path.size() > kMaxPathBytes) {
    return fail(Errc::kLimit, attempt + ": base path is longer than 4,095 bytes");
  }
  if (parts.header.source.size() > kMaxSourceBytes) {
    return fail(Errc::kLimit, attempt + ": source is longer than 8,192 bytes");
  }
  const Bytes owners = encode_owners(parts.table);
  const Bytes node_index = encode_node_index(*parts.nodes);
  const Bytes context = encode_context(parts.header);
  Compressed all_nodes;
  if (parts.all_nodes == AllNodes::kCompress) {
    Result<Compressed> compressed = compress_nodes(parts.nodes->bytes());
    if (!compressed) return fail_in(attempt, compressed.error());
    all_nodes = std::move(*compressed);
  }
  const Sections sections = {
      // [gen-records]: [gen-size] [gen-mtime] [gen-name-offset] [gen-mtime-ns] [gen-parent]
      // [gen-subtree] [gen-link-or-files] [gen-name-length] [gen-mode] [gen-owner] [gen-group]
      // [gen-kind] [gen-record-reserved], as they stand.
      stored(parts.table.records()),
      as_bytes(parts.table.strings()),  // [gen-strings]
      ByteView(owners),                 // [gen-owners]
      parts.nodes->bytes(),             // [gen-nodes]
      ByteView(node_index),             // [gen-node-index]
      stored(parts.xxh),                // [gen-xxh]
      stored(parts.sha),                // [gen-sha]
      // [gen-local]: [gen-inode] [gen-ctime] [gen-ctime-ns] [gen-local-reserved] [gen-device].
      stored(parts.local),
      ByteView(all_nodes.bytes.get(), all_nodes.size_bytes),  // [gen-all-nodes]
      ByteView(context),                                      // [gen-context]
      stored(parts.signature_offsets),                        // [gen-signature-offsets]
  };

  const std::string temporary = name + ".tmp";
  // A leftover of a crash may be anything, even a link: it goes first.
  if (::unlinkat(directory_fd, temporary.c_str(), 0) != 0 && errno != ENOENT) {
    return fail_errno(errno, attempt + ": remove " + escape(temporary));
  }
  UniqueFd fd(::openat(directory_fd, temporary.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, attempt + ": create " + escape(temporary));
  Status done = write_generation(std::move(fd), parts, sections);
  if (done) done = put_in_place(directory_fd, temporary, name);
  if (done) return done;
  ::unlinkat(directory_fd, temporary.c_str(), 0);
  return fail_in(attempt, done.error());
}

}  // namespace superlifter::catalog
