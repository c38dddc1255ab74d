// catalog: what is built is read back; what is damaged is an error or reads the same, and never a
// crash.
#include "core/catalog/catalog.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/coding.h"
#include "core/base/limits.h"
#include "core/catalog/builder.h"
#include "core/catalog/format.h"
#include "tests/core/catalog/sample.h"
#include "tests/support/temp_tree.h"

namespace superlifter::catalog {
namespace {

constexpr const char* kName = "17.generation";

using Opened = Result<std::shared_ptr<const Catalog>>;

// Everything a catalog answers, as one string; looks at every byte that a reader would.
std::string answers(const Catalog& catalog, const Sample& sample) {
  Bytes out;
  Writer writer(out);
  const Header& header = catalog.header();
  writer.u64(header.generation);
  writer.i64(header.created_ns);
  writer.bytes(header.root.bytes);
  writer.u8(header.provisional ? 1 : 0);
  writer.u8(header.has_owners ? 1 : 0);
  writer.u16(header.root_metadata.mode);
  writer.counted(header.root_metadata.owner);
  writer.counted(header.base_path);
  writer.counted(header.source);
  const tree::TableView& table = catalog.table();
  for (uint32_t entry = 0; entry < table.count(); ++entry) {
    const tree::Record& record = table.record(entry);
    writer.counted(table.path(entry));
    if (record.is_symlink()) writer.counted(table.target(entry));
    writer.counted(table.owner_name(record.owner));
    writer.counted(table.owner_name(record.group));
    writer.bytes({reinterpret_cast<const uint8_t*>(&record), sizeof(record)});
    writer.bytes(catalog.xxh()[entry].bytes);
    if (!catalog.sha().empty()) writer.bytes(catalog.sha()[entry].bytes);
    if (const std::optional<SignaturePlace> place = catalog.signature(entry); place) {
      writer.u64(place->offset);
      writer.u64(place->layout.size_bytes());
    }
    const Validators validators = catalog.validators(entry);
    writer.u64(validators.inode + static_cast<uint64_t>(validators.ctime_s) + validators.ctime_ns);
    writer.u64(catalog.local()[entry].device);
  }
  for (const NodePack::Entry& node : sample.nodes.index()) {
    writer.counted(as_text(catalog.node(node.digest)));
  }
  writer.u64(catalog.all_nodes_offset());
  writer.u64(catalog.all_nodes_length_bytes());
  return std::string(as_text(out));
}

Opened open_file(const tests::TempTree& tree, Verify verify) {
  return Catalog::open(tree.fd(), kName, verify);
}

TEST(Catalog, AnswersWhatWasBuilt) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  for (const Verify verify : {Verify::kHeader, Verify::kEverything}) {
    const Opened opened = open_file(tree, verify);
    ASSERT_TRUE(opened) << opened.error().message;
    const Catalog& catalog = **opened;
    EXPECT_EQ(catalog.header().generation, 17U);
    EXPECT_EQ(catalog.header().created_ns, 1'234'567'890);
    EXPECT_EQ(catalog.header().root, sample.root);
    EXPECT_FALSE(catalog.header().provisional);
    EXPECT_TRUE(catalog.header().has_owners);
    EXPECT_EQ(catalog.header().root_metadata.mode, 0644);
    EXPECT_EQ(catalog.header().root_metadata.mtime_s, -5);
    EXPECT_EQ(catalog.header().root_metadata.owner, "root");
    EXPECT_EQ(catalog.header().totals, sample.table.view().totals());
    EXPECT_EQ(catalog.header().node_count, sample.nodes.count());
    EXPECT_EQ(catalog.header().nodes_bytes, sample.nodes.bytes().size());
    EXPECT_EQ(catalog.header().base_path, "pool/main");
    EXPECT_EQ(catalog.header().source, "superlifter://host/module/pool/main");
    EXPECT_EQ(catalog.header().pack, 3U);
    EXPECT_EQ(catalog.header().pack_bytes, 76U);
    EXPECT_EQ(catalog.header().signature_bytes, 44U);
    EXPECT_EQ(catalog.header().signature_level, 10U);
    const std::optional<SignaturePlace> place = catalog.signature(sample.large_entry);
    ASSERT_TRUE(place.has_value());
    EXPECT_EQ(place->offset, 36U);
    EXPECT_EQ(place->layout.size_bytes(), 40U);
    for (const uint32_t other : {0U, 2U, 4U, 5U, sample.table.count(), UINT32_MAX}) {
      EXPECT_FALSE(catalog.signature(other).has_value()) << other;
    }
    EXPECT_EQ(read_pack_number(tree.fd(), kName).value_or(0), 3U);
    ASSERT_EQ(catalog.table().count(), sample.table.count());
    EXPECT_EQ(catalog.table().find("bin/a\xff"), 2U);
    EXPECT_EQ(catalog.table().target(catalog.table().find("link")), "bin/b");
    EXPECT_EQ(catalog.table().owner_name(catalog.table().record(1).group), "staff");
    EXPECT_TRUE(std::equal(catalog.xxh().begin(), catalog.xxh().end(), sample.xxh.begin()));
    EXPECT_TRUE(std::equal(catalog.sha().begin(), catalog.sha().end(), sample.sha.begin()));
    EXPECT_TRUE(std::equal(catalog.local().begin(), catalog.local().end(), sample.local.begin()));
    const Validators expected{.inode = 1002,
                              .size_bytes = 7,
                              .mtime_s = -5,
                              .ctime_s = 77,
                              .mtime_ns = 999'999'999,
                              .ctime_ns = 88};
    EXPECT_EQ(catalog.validators(2), expected);
  }
}

TEST(Catalog, FindsEachNodeByItsDigestAndNoOther) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const Opened opened = open_file(tree, Verify::kHeader);
  ASSERT_TRUE(opened);
  ASSERT_EQ(sample.nodes.count(), 2U);
  for (const NodePack::Entry& entry : sample.nodes.index()) {
    const ByteView node = (*opened)->node(entry.digest);
    EXPECT_EQ(hash::sha256(node), entry.digest);
    EXPECT_EQ(as_text(node), as_text(sample.nodes.find(entry.digest)));
    hash::Sha256 other = entry.digest;
    other.bytes[31] ^= 1;
    EXPECT_TRUE((*opened)->node(other).empty());
    EXPECT_TRUE(sample.nodes.find(other).empty());
  }
  EXPECT_TRUE((*opened)->node(hash::Sha256()).empty());
}

TEST(Catalog, HoldsAllNodesAsOneZstdFrameWithASmallWindow) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const Opened opened = open_file(tree, Verify::kEverything);
  ASSERT_TRUE(opened);
  Bytes frame((*opened)->all_nodes_length_bytes());
  ASSERT_EQ(::pread((*opened)->fd(), frame.data(), frame.size(),
                    static_cast<off_t>((*opened)->all_nodes_offset())),
            static_cast<ssize_t>(frame.size()));
  Bytes nodes(sample.nodes.bytes().size() + 1);
  const size_t size = ZSTD_decompress(nodes.data(), nodes.size(), frame.data(), frame.size());
  ASSERT_FALSE(ZSTD_isError(size));
  EXPECT_EQ(as_text(ByteView(nodes).first(size)), as_text(sample.nodes.bytes()));
}

TEST(Catalog, KeepsAWindowOf8MiBForManyNodes) {
  // 24 MiB of nodes, more than the largest window that clients allow.
  NodePack nodes;
  Bytes node(64 << 10);
  for (uint32_t i = 0; i < 384; ++i) {
    std::memcpy(node.data(), &i, sizeof(i));
    nodes.add(hash::sha256(node), node);
  }
  nodes.sort();
  const tests::TempTree tree;
  const Sample sample;
  Parts parts = sample.parts();
  parts.nodes = &nodes;
  ASSERT_TRUE(build(tree.fd(), kName, parts));
  const Opened opened = open_file(tree, Verify::kEverything);
  ASSERT_TRUE(opened);
  Bytes frame((*opened)->all_nodes_length_bytes());
  ASSERT_EQ(::pread((*opened)->fd(), frame.data(), frame.size(),
                    static_cast<off_t>((*opened)->all_nodes_offset())),
            static_cast<ssize_t>(frame.size()));
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     &ZSTD_freeDCtx);
  ASSERT_FALSE(ZSTD_isError(ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, 23)));
  Bytes out(64 << 10);
  ZSTD_inBuffer in{.src = frame.data(), .size = frame.size(), .pos = 0};
  uint64_t total = 0;
  for (size_t rest = 1; rest != 0;) {
    ZSTD_outBuffer piece{.dst = out.data(), .size = out.size(), .pos = 0};
    rest = ZSTD_decompressStream(context.get(), &piece, &in);
    ASSERT_FALSE(ZSTD_isError(rest)) << ZSTD_getErrorName(rest);
    total += piece.pos;
  }
  EXPECT_EQ(total, nodes.bytes().size());
}

TEST(Catalog, TakesAClientsStateWithoutShaAndStream) {
  const tests::TempTree tree;
  const Sample sample(false);
  Parts parts = sample.parts();
  parts.sha = {};
  parts.all_nodes = AllNodes::kOmit;
  parts.header.provisional = true;
  parts.header.base_path = std::string(kMaxPathBytes, 'p');
  parts.header.source = std::string(kMaxSourceBytes, 's');
  ASSERT_TRUE(build(tree.fd(), kName, parts));
  const Opened opened = open_file(tree, Verify::kEverything);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_TRUE((*opened)->sha().empty());
  EXPECT_EQ((*opened)->all_nodes_length_bytes(), 0U);
  EXPECT_TRUE((*opened)->header().provisional);
  EXPECT_FALSE((*opened)->header().has_owners);
  EXPECT_EQ((*opened)->header().base_path, parts.header.base_path);
  EXPECT_EQ((*opened)->header().source, parts.header.source);
}

TEST(Catalog, RefusesToBuildWithTextsOneByteTooLong) {
  const tests::TempTree tree;
  const Sample sample;
  Parts parts = sample.parts();
  parts.header.base_path = std::string(kMaxPathBytes + 1, 'p');
  Status built = build(tree.fd(), kName, parts);
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Errc::kLimit);
  parts = sample.parts();
  parts.header.source = std::string(kMaxSourceBytes + 1, 's');
  built = build(tree.fd(), kName, parts);
  ASSERT_FALSE(built);
  EXPECT_EQ(built.error().code, Errc::kLimit);
}

TEST(Catalog, LivesOnWhenTheFileIsRemoved) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const Opened opened = open_file(tree, Verify::kHeader);
  ASSERT_TRUE(opened);
  ASSERT_EQ(::unlink(tree.path(kName).c_str()), 0);
  EXPECT_EQ((*opened)->table().path(2), "bin/a\xff");
}

TEST(Catalog, SaysNotFoundForAFileThatIsNotThere) {
  const tests::TempTree tree;
  const Opened opened = open_file(tree, Verify::kHeader);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kNotFound);
  EXPECT_NE(opened.error().message.find(kName), std::string::npos);
}

TEST(Catalog, NamesBothVersionsOfANewerFormat) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  std::string file = tree.read(kName);
  file[8] = 9;
  tree.write(kName, file);
  const Opened opened = open_file(tree, Verify::kHeader);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kUnsupported);
  EXPECT_NE(opened.error().message.find("version 9"), std::string::npos);
  EXPECT_NE(opened.error().message.find("version 2"), std::string::npos);
  EXPECT_EQ(read_pack_number(tree.fd(), kName).error().code, Errc::kUnsupported);
  // However short a newer file is.
  tree.write(kName, file.substr(0, 12));
  EXPECT_EQ(open_file(tree, Verify::kHeader).error().code, Errc::kUnsupported);
}

TEST(Catalog, TellsAnOlderFormatFromDamage) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  std::string file = tree.read(kName);
  file[8] = 1;
  tree.write(kName, file);
  const Opened opened = open_file(tree, Verify::kEverything);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kStale);
  EXPECT_NE(opened.error().message.find("version 1"), std::string::npos);
  EXPECT_NE(opened.error().message.find("version 2"), std::string::npos);
  EXPECT_EQ(read_pack_number(tree.fd(), kName).value_or(9), 0U);
}

// A client's state, and a generation that has none.
TEST(Catalog, KeepsNoSignaturesWhereThereIsNoPack) {
  const tests::TempTree tree;
  const Sample sample;
  Parts parts = sample.parts();
  parts.header.pack = 0;
  parts.header.pack_bytes = 0;
  parts.header.signature_bytes = 0;
  parts.header.signature_level = 0;
  parts.signature_offsets = {};
  ASSERT_TRUE(build(tree.fd(), kName, parts));
  const Opened opened = open_file(tree, Verify::kEverything);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)->header().pack, 0U);
  EXPECT_TRUE((*opened)->signature_offsets().empty());
  EXPECT_FALSE((*opened)->signature(sample.large_entry).has_value());
}

// Whatever the offsets say: a place lies within the pack's bytes, or there is none.
TEST(Catalog, RefusesPlacesOutsideThePack) {
  const Sample sample;
  const uint64_t end = sample.parts().header.pack_bytes;
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{35}, uint64_t{37}, end - 8, end,
                                end + 1, uint64_t{1} << 63, UINT64_MAX - 39, UINT64_MAX}) {
    const tests::TempTree tree;
    Sample bad;
    std::fill(bad.signatures.begin(), bad.signatures.end(), offset);
    ASSERT_TRUE(build(tree.fd(), kName, bad.parts()));
    const Opened opened = open_file(tree, Verify::kEverything);
    ASSERT_TRUE(opened) << opened.error().message;
    for (uint32_t entry = 0; entry < bad.table.count(); ++entry) {
      EXPECT_FALSE((*opened)->signature(entry).has_value()) << entry << " " << offset;
    }
  }
}

TEST(Catalog, RefusesAHeaderWhosePackCannotBe) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const std::string file = tree.read(kName);
  struct Lie {
    size_t at = 0;
    uint64_t value = 0;
  };
  // pack, pack-bytes, signature-bytes and signature-level, each beyond what the others allow.
  for (const Lie lie : std::initializer_list<Lie>{{328, 0},
                                                  {336, 31},
                                                  {336, 0},
                                                  {344, 77},
                                                  {344, UINT64_MAX},
                                                  {352, 0},
                                                  {352, 8},
                                                  {352, 11},
                                                  {352, 30},
                                                  {352, 0xFFFF'FFFF}}) {
    std::string bad = file;
    std::memcpy(bad.data() + lie.at, &lie.value, lie.at == 352 ? 4 : 8);
    const uint64_t checksum = hash::xxh64(as_bytes(bad).first(kHeaderChecksumAt));
    std::memcpy(bad.data() + kHeaderChecksumAt, &checksum, sizeof(checksum));
    tree.write(kName, bad);
    const Opened opened = open_file(tree, Verify::kHeader);
    ASSERT_FALSE(opened) << lie.at << " " << lie.value;
    EXPECT_EQ(opened.error().code, Errc::kCorrupt);
  }
}

TEST(Catalog, RefusesEveryTruncationAndOneByteMore) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const std::string file = tree.read(kName);
  for (size_t size = file.size(); size-- > 0;) {
    ASSERT_EQ(::truncate(tree.path(kName).c_str(), static_cast<off_t>(size)), 0);
    for (const Verify verify : {Verify::kHeader, Verify::kEverything}) {
      const Opened opened = open_file(tree, verify);
      ASSERT_FALSE(opened) << size;
      ASSERT_EQ(opened.error().code, Errc::kCorrupt) << size;
    }
  }
  tree.write(kName, file + '\0');
  EXPECT_FALSE(open_file(tree, Verify::kHeader));
}

// The whole check finds every flipped byte; the quick check finds it, or the answers can be walked
// through without harm.
TEST(Catalog, FindsEveryFlippedByte) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const std::string file = tree.read(kName);
  const UniqueFd fd(::open(tree.path(kName).c_str(), O_RDWR | O_CLOEXEC));
  for (size_t at = 0; at < file.size(); ++at) {
    // One bit, another from byte to byte; where there is content, all bits too.
    const bool reserved = at >= 356 && at < kHeaderChecksumAt;
    for (const int bits :
         reserved ? std::vector<int>{1 << at % 8} : std::vector<int>{1 << at % 8, 0xFF}) {
      const char flipped = static_cast<char>(file[at] ^ bits);
      ASSERT_EQ(::pwrite(fd.get(), &flipped, 1, static_cast<off_t>(at)), 1);
      const Opened whole = open_file(tree, Verify::kEverything);
      ASSERT_FALSE(whole) << at;
      // The version says 2: what is flipped here makes it a newer one.
      const bool newer = at >= 8 && at < 12;
      ASSERT_EQ(whole.error().code, newer ? Errc::kUnsupported : Errc::kCorrupt) << at;
      const Opened quick = open_file(tree, Verify::kHeader);
      if (quick) answers(**quick, sample);
      ASSERT_FALSE(quick && at < kHeaderPageBytes) << at;
    }
    ASSERT_EQ(::pwrite(fd.get(), &file[at], 1, static_cast<off_t>(at)), 1);
  }
  EXPECT_TRUE(open_file(tree, Verify::kEverything));
}

// A damaged file whose checksums were made right again, as an attacker with write access could:
// sections that overlap, run past the end, or do not fit the count.
TEST(Catalog, RefusesASectionTableThatLies) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const std::string file = tree.read(kName);
  for (size_t section = 0; section < kSectionCount; ++section) {
    for (const size_t field : {0U, 8U}) {
      for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, uint64_t{file.size()},
                                   uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 4095}) {
        std::string bad = file;
        const size_t at = 64 + section * 24 + field;
        if (std::memcmp(bad.data() + at, &value, sizeof(value)) == 0) continue;
        std::memcpy(bad.data() + at, &value, sizeof(value));
        const uint64_t checksum = hash::xxh64(as_bytes(bad).first(kHeaderChecksumAt));
        std::memcpy(bad.data() + kHeaderChecksumAt, &checksum, sizeof(checksum));
        tree.write(kName, bad);
        const Opened opened = open_file(tree, Verify::kHeader);
        ASSERT_FALSE(opened) << section << " " << field << " " << value;
        EXPECT_EQ(opened.error().code, Errc::kCorrupt);
      }
    }
  }
}

TEST(Catalog, RefusesWhatIsNoRegularFile) {
  const tests::TempTree tree;
  tree.make_directory(kName);
  EXPECT_FALSE(open_file(tree, Verify::kHeader));
  tree.make_directory("x");
  ASSERT_EQ(::rmdir(tree.path(kName).c_str()), 0);
  ASSERT_EQ(::mkfifo(tree.path(kName).c_str(), 0644), 0);
  EXPECT_FALSE(open_file(tree, Verify::kHeader));
}

TEST(Catalog, StoresEqualNodesOnce) {
  NodePack nodes;
  const Bytes node = {1, 2, 3};
  nodes.add(hash::sha256(node), node);
  nodes.add(hash::sha256(node), node);
  nodes.sort();
  EXPECT_EQ(nodes.count(), 1U);
  EXPECT_EQ(nodes.bytes().size(), 4U);
}

TEST(Builder, ReplacesALeftoverAndIsReadableByAll) {
  const tests::TempTree tree;
  const Sample sample;
  tree.write("victim", "precious");
  ASSERT_EQ(::symlink("victim", tree.path(std::string(kName) + ".tmp").c_str()), 0);
  const mode_t umask = ::umask(0077);
  const Status built = build(tree.fd(), kName, sample.parts());
  ::umask(umask);
  ASSERT_TRUE(built) << built.error().message;
  EXPECT_EQ(tree.read("victim"), "precious");
  struct stat stat{};
  ASSERT_EQ(::stat(tree.path(kName).c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 07777, 0644U);
}

TEST(Builder, BuildsTheSameBytesFromTheSameParts) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), "a", sample.parts()));
  ASSERT_TRUE(build(tree.fd(), "b", sample.parts()));
  EXPECT_EQ(tree.read("a"), tree.read("b"));
}

// A file size limit stands for the full disk: the write fails part way. In a child, since the limit
// is the process's.
TEST(Builder, LeavesNothingBehindWhenItCannotWrite) {
  const tests::TempTree tree;
  const Sample sample;
  ASSERT_TRUE(build(tree.fd(), kName, sample.parts()));
  const std::string before = tree.read(kName);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit{.rlim_cur = 4500, .rlim_max = 4500};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 || ::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) ::_exit(1);
    const Status built = build(tree.fd(), kName, sample.parts());
    if (built) ::_exit(2);
    if (built.error().code != Errc::kIo || built.error().sys_errno != EFBIG) ::_exit(3);
    ::_exit(built.error().message.find(kName) != std::string::npos ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(tree.read(kName), before);
  EXPECT_FALSE(std::filesystem::exists(tree.path(std::string(kName) + ".tmp")));
}

}  // namespace
}  // namespace superlifter::catalog
