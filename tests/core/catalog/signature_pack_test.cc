// signature_pack: what is kept is found again; what is damaged, torn or not written never counts.
#include "core/catalog/signature_pack.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "core/catalog/file_names.h"
#include "core/catalog/format.h"
#include "tests/support/temp_tree.h"

namespace superlifter::catalog {
namespace {

constexpr unsigned kLevel = delta::kLeafLevel;

// A content of so many bytes, told from others by `seed`, and sums that could be its own.
struct Sample {
  Content content;
  Bytes sums;

  Sample(uint64_t size_bytes, uint8_t seed) {
    content.size_bytes = size_bytes;
    content.sha.bytes.fill(seed);
    sums.resize(delta::SignatureLayout(size_bytes, kLevel).size_bytes());
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] = static_cast<uint8_t>(i * 7 + i / 251 + seed);
  }
};

Bytes stored_sums(const tests::TempTree& tree, uint64_t number, uint64_t offset, size_t size) {
  const std::string file = tree.read(pack_file_name(number));
  CHECK(offset + size <= file.size());
  const ByteView bytes = as_bytes(file).subspan(offset, size);
  return {bytes.begin(), bytes.end()};
}

uint64_t put_in_pieces(SignaturePack& pack, const Sample& sample) {
  const Result<uint64_t> offset = pack.reserve(pack.layout(sample.content));
  CHECK(offset.has_value());
  for (size_t at = 0; at < sample.sums.size(); at += 1000) {
    const ByteView part =
        ByteView(sample.sums).subspan(at, std::min<size_t>(1000, sample.sums.size() - at));
    CHECK(pack.write(*offset + at, part).has_value());
  }
  CHECK(pack.finish(*offset, sample.content).has_value());
  return *offset;
}

TEST(SignatureLevel, FollowsFromTheShareThatIsAllowed) {
  EXPECT_EQ(signature_level_within(0), 0U);
  EXPECT_EQ(signature_level_within(0.0002), 0U);
  EXPECT_EQ(signature_level_within(0.00022), 16U);
  EXPECT_EQ(signature_level_within(0.0008), 16U);
  EXPECT_EQ(signature_level_within(0.0009), 14U);
  EXPECT_EQ(signature_level_within(0.0034), 14U);
  EXPECT_EQ(signature_level_within(0.0035), 12U);
  EXPECT_EQ(signature_level_within(0.0138), 12U);
  EXPECT_EQ(signature_level_within(0.0139), 10U);
  EXPECT_EQ(signature_level_within(0.015), 10U);
  EXPECT_EQ(signature_level_within(1), 10U);
}

TEST(SignatureLevel, SignsNothingOfFewerThanTwoBlocks) {
  EXPECT_EQ(least_signed_bytes(10), 2048U);
  EXPECT_EQ(least_signed_bytes(12), 8192U);
  EXPECT_EQ(least_signed_bytes(16), 131072U);
}

// What one file costs on the disk, whatever its size.
TEST(SignatureLevel, StaysWithinOneAndAHalfPerCentOfEachFile) {
  double most = 0;
  for (uint64_t size = least_signed_bytes(kLevel); size < (1 << 20); ++size) {
    const uint64_t cost = kPackChecksumBytes + delta::SignatureLayout(size, kLevel).size_bytes();
    most = std::max(most, static_cast<double>(cost) / static_cast<double>(size));
  }
  EXPECT_LE(most, 0.015);
}

TEST(SignaturePack, MakesNoFileUntilSomethingIsKept) {
  const tests::TempTree tree;
  SignaturePack pack(tree.fd(), kLevel);
  EXPECT_EQ(pack.number(), 0U);
  pack.settle();
  EXPECT_FALSE(pack.holds(36, Sample(5000, 1).content));
  EXPECT_TRUE(std::filesystem::is_empty(tree.path()));
}

TEST(SignaturePack, HoldsWhatWasPutIntoIt) {
  const tests::TempTree tree;
  const std::vector<Sample> samples = {
      {2048, 1}, {2049, 2}, {100'000, 3}, {20 << 20, 4}, {5000, 5}};
  std::vector<uint64_t> offsets;
  uint64_t end = 0;
  {
    SignaturePack pack(tree.fd(), kLevel);
    for (const Sample& sample : samples) {
      offsets.push_back(sample.sums.size() > SignaturePack::kSmallBytes
                            ? put_in_pieces(pack, sample)
                            : pack.append(sample.content, sample.sums).value_or(0));
    }
    pack.settle();
    EXPECT_FALSE(pack.failure().has_value());
    EXPECT_EQ(pack.lost_from(), UINT64_MAX);
    EXPECT_EQ(pack.number(), 1U);
    end = pack.size_bytes();
  }
  struct stat stat{};
  ASSERT_EQ(::stat(tree.path("1.signatures").c_str(), &stat), 0);
  EXPECT_EQ(static_cast<uint64_t>(stat.st_size), end);
  EXPECT_EQ(stat.st_mode & 07777, 0644U);
  EXPECT_TRUE(open_pack(tree.fd(), 1, kLevel, end));
  const Result<SignaturePack> pack = SignaturePack::open(tree.fd(), 1, kLevel, end);
  ASSERT_TRUE(pack) << pack.error().message;
  uint64_t expected = kPackHeaderBytes;
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(offsets[i], expected + kPackChecksumBytes);
    expected = offsets[i] + samples[i].sums.size();
    EXPECT_TRUE(pack->holds(offsets[i], samples[i].content)) << i;
    EXPECT_EQ(stored_sums(tree, 1, offsets[i], samples[i].sums.size()), samples[i].sums);
    // Not of another content, nor elsewhere.
    EXPECT_FALSE(pack->holds(offsets[i], samples[(i + 1) % samples.size()].content));
    EXPECT_FALSE(pack->holds(offsets[i] + 4, samples[i].content));
    Content other = samples[i].content;
    other.sha.bytes[31] ^= 1;
    EXPECT_FALSE(pack->holds(offsets[i], other));
  }
  EXPECT_EQ(expected, end);
}

TEST(SignaturePack, IsNotHarmedByAnyOffset) {
  const tests::TempTree tree;
  const Sample sample(5000, 1);
  SignaturePack pack(tree.fd(), kLevel);
  ASSERT_TRUE(pack.append(sample.content, sample.sums));
  pack.settle();
  const uint64_t end = pack.size_bytes();
  for (const uint64_t offset : {uint64_t{0}, uint64_t{3}, uint64_t{35}, uint64_t{37}, end - 1, end,
                                end + 1, uint64_t{1} << 62, UINT64_MAX - 3, UINT64_MAX}) {
    EXPECT_FALSE(pack.holds(offset, sample.content)) << offset;
  }
  EXPECT_FALSE(pack.holds(36, Content{sample.content.sha, UINT64_MAX}));
}

// Kills at any byte: whatever is there whole counts, nothing else does, and the next signature
// stands behind it all.
TEST(SignaturePack, GoesOnAfterATornEnd) {
  const tests::TempTree tree;
  const Sample first(5000, 1);
  const Sample second(9000, 2);
  uint64_t first_at = 0;
  uint64_t second_at = 0;
  {
    SignaturePack pack(tree.fd(), kLevel);
    first_at = pack.append(first.content, first.sums).value_or(0);
    second_at = pack.append(second.content, second.sums).value_or(0);
    pack.settle();
  }
  const std::string whole = tree.read("1.signatures");
  for (size_t size = 0; size <= whole.size(); ++size) {
    tree.write("1.signatures", whole.substr(0, size));
    Result<SignaturePack> pack = SignaturePack::open(tree.fd(), 1, kLevel, 0);
    ASSERT_EQ(pack.has_value(), size >= kPackHeaderBytes) << size;
    if (!pack) continue;
    EXPECT_EQ(pack->holds(first_at, first.content), size >= first_at + first.sums.size());
    EXPECT_EQ(pack->holds(second_at, second.content), size == whole.size());
    const Sample third(4000, 3);
    const uint64_t third_at = pack->append(third.content, third.sums).value_or(0);
    EXPECT_GE(third_at, size + kPackChecksumBytes);
    pack->settle();
    EXPECT_TRUE(pack->holds(third_at, third.content));
    EXPECT_EQ(pack->holds(second_at, second.content), size == whole.size());
  }
}

TEST(SignaturePack, FindsEveryFlippedByte) {
  const tests::TempTree tree;
  const Sample sample(20'000, 1);
  {
    SignaturePack pack(tree.fd(), kLevel);
    ASSERT_TRUE(pack.append(sample.content, sample.sums));
    pack.settle();
  }
  const std::string whole = tree.read("1.signatures");
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
    tree.write("1.signatures", bad);
    const Result<SignaturePack> pack = SignaturePack::open(tree.fd(), 1, kLevel, whole.size());
    if (at < kPackHeaderBytes) {
      ASSERT_FALSE(pack) << at;
      EXPECT_EQ(pack.error().code, Errc::kCorrupt);
      EXPECT_EQ(open_pack(tree.fd(), 1, kLevel, 0).error().code, Errc::kCorrupt);
    } else {
      ASSERT_TRUE(pack) << at;
      EXPECT_FALSE(pack->holds(36, sample.content)) << at;
    }
  }
}

TEST(SignaturePack, RefusesWhatIsNotThePackThatIsMeant) {
  const tests::TempTree tree;
  const Sample sample(5000, 1);
  {
    SignaturePack pack(tree.fd(), kLevel);
    ASSERT_TRUE(pack.append(sample.content, sample.sums));
    pack.settle();
  }
  const uint64_t size = std::filesystem::file_size(tree.path("1.signatures"));
  EXPECT_TRUE(open_pack(tree.fd(), 1, kLevel, size));
  EXPECT_EQ(open_pack(tree.fd(), 1, kLevel, size + 1).error().code, Errc::kCorrupt);
  EXPECT_EQ(open_pack(tree.fd(), 1, kLevel + 2, size).error().code, Errc::kCorrupt);
  EXPECT_EQ(open_pack(tree.fd(), 2, kLevel, 0).error().code, Errc::kNotFound);
  ASSERT_EQ(::rename(tree.path("1.signatures").c_str(), tree.path("2.signatures").c_str()), 0);
  EXPECT_EQ(open_pack(tree.fd(), 2, kLevel, 0).error().code, Errc::kCorrupt);
  ASSERT_EQ(::symlink("2.signatures", tree.path("3.signatures").c_str()), 0);
  EXPECT_FALSE(open_pack(tree.fd(), 3, kLevel, 0));
  ASSERT_EQ(::mkfifo(tree.path("4.signatures").c_str(), 0644), 0);
  EXPECT_EQ(open_pack(tree.fd(), 4, kLevel, 0).error().code, Errc::kCorrupt);
  tree.make_directory("5.signatures");
  EXPECT_FALSE(open_pack(tree.fd(), 5, kLevel, 0));
  // A new one takes none of these names.
  SignaturePack pack(tree.fd(), kLevel);
  ASSERT_TRUE(pack.append(sample.content, sample.sums));
  EXPECT_EQ(pack.number(), 6U);
  tree.write("18446744073709551615.signatures", "");
  SignaturePack none(tree.fd(), kLevel);
  EXPECT_EQ(none.append(sample.content, sample.sums).error().code, Errc::kLimit);
}

TEST(SignaturePack, UsesPlacesAgainThatWereReleasedAtItsEnd) {
  const tests::TempTree tree;
  const Sample large(20 << 20, 1);
  const Sample small(5000, 2);
  SignaturePack pack(tree.fd(), kLevel);
  const delta::SignatureLayout layout = pack.layout(large.content);
  const uint64_t first = pack.reserve(layout).value_or(0);
  const uint64_t second = pack.reserve(layout).value_or(0);
  ASSERT_TRUE(pack.write(second, large.sums));
  const uint64_t third = pack.reserve(layout).value_or(0);
  pack.release(second, layout);
  EXPECT_EQ(pack.size_bytes(), third + layout.size_bytes());
  pack.release(third, layout);
  EXPECT_EQ(pack.size_bytes(), second - kPackChecksumBytes);
  EXPECT_EQ(pack.append(small.content, small.sums).value_or(0), second);
  pack.release(first, layout);  // Garbage: something follows it that stays.
  EXPECT_EQ(pack.size_bytes(), second + small.sums.size());
  pack.settle();
  EXPECT_TRUE(pack.holds(second, small.content));
  EXPECT_EQ(std::filesystem::file_size(tree.path("1.signatures")), second + small.sums.size());
}

TEST(SignaturePack, CopiesWhatIsSoundFromAnother) {
  const tests::TempTree tree;
  const Sample small(5000, 1);
  const Sample large(20 << 20, 2);
  SignaturePack from(tree.fd(), kLevel);
  const uint64_t small_at = from.append(small.content, small.sums).value_or(0);
  const uint64_t large_at = put_in_pieces(from, large);
  from.settle();
  SignaturePack to(tree.fd(), kLevel);
  const auto copied_large = to.copy(from, large_at, large.content);
  const auto copied_small = to.copy(from, small_at, small.content);
  ASSERT_TRUE(copied_large && *copied_large && copied_small && *copied_small);
  to.settle();
  EXPECT_EQ(to.number(), 2U);
  EXPECT_TRUE(to.holds(**copied_large, large.content));
  EXPECT_TRUE(to.holds(**copied_small, small.content));
  const uint64_t before = to.size_bytes();
  const auto damaged = to.copy(from, small_at, large.content);
  ASSERT_TRUE(damaged);
  EXPECT_FALSE(damaged->has_value());
  EXPECT_EQ(to.size_bytes(), before);
}

TEST(SignaturePack, TakesBackWhatWasAdded) {
  const tests::TempTree tree;
  const Sample first(5000, 1);
  const Sample second(6000, 2);
  {
    SignaturePack pack(tree.fd(), kLevel);
    EXPECT_FALSE(pack.take_back());
    ASSERT_TRUE(pack.append(first.content, first.sums));
    EXPECT_TRUE(pack.take_back());
    EXPECT_TRUE(std::filesystem::is_empty(tree.path()));
    ASSERT_TRUE(pack.append(first.content, first.sums));
    pack.settle();
  }
  const uint64_t size = std::filesystem::file_size(tree.path("1.signatures"));
  Result<SignaturePack> pack = SignaturePack::open(tree.fd(), 1, kLevel, size);
  ASSERT_TRUE(pack);
  EXPECT_FALSE(pack->take_back());
  ASSERT_TRUE(pack->append(second.content, second.sums));
  pack->flush();
  EXPECT_GT(std::filesystem::file_size(tree.path("1.signatures")), size);
  EXPECT_TRUE(pack->take_back());
  EXPECT_EQ(std::filesystem::file_size(tree.path("1.signatures")), size);
  EXPECT_TRUE(pack->holds(36, first.content));
}

// A file size limit stands for the full disk. In a child, since the limit is the process's; its
// exit status tells which check failed.
template <class Check>
int with_file_limit(rlim_t bytes, Check check) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    const rlimit limit{.rlim_cur = bytes, .rlim_max = bytes};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 || ::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) ::_exit(1);
    ::_exit(check());
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(SignaturePack, SaysWhatIsLostWhenTheDiskIsFull) {
  const tests::TempTree tree;
  EXPECT_EQ(with_file_limit(100'000,
                            [&] {
                              SignaturePack pack(tree.fd(), kLevel);
                              std::vector<uint64_t> offsets;
                              std::vector<Sample> samples;
                              for (int i = 0; i < 100; ++i) {
                                samples.emplace_back(200'000, static_cast<uint8_t>(i));
                                const Result<uint64_t> offset =
                                    pack.append(samples.back().content, samples.back().sums);
                                if (!offset) break;
                                offsets.push_back(*offset);
                              }
                              pack.settle();
                              if (!pack.failure() || pack.failure()->sys_errno != EFBIG) return 2;
                              if (pack.failure()->message.find("1.signatures") == std::string::npos)
                                return 3;
                              if (pack.append(samples[0].content, samples[0].sums)) return 4;
                              if (pack.reserve(pack.layout(samples[0].content))) return 5;
                              size_t kept = 0;
                              for (size_t i = 0; i < offsets.size(); ++i) {
                                const bool is_lost = offsets[i] >= pack.lost_from();
                                if (pack.holds(offsets[i], samples[i].content) == is_lost) return 6;
                                kept += is_lost ? 0 : 1;
                              }
                              // The first batch is there.
                              return kept * samples[0].sums.size() >= SignaturePack::kSmallBytes / 2
                                         ? 0
                                         : 7;
                            }),
            0);
}

TEST(SignaturePack, LeavesNoFileWhenNotEvenTheHeaderFits) {
  const tests::TempTree tree;
  EXPECT_EQ(
      with_file_limit(10,
                      [&] {
                        SignaturePack pack(tree.fd(), kLevel);
                        const Sample sample(5000, 1);
                        return !pack.append(sample.content, sample.sums) && pack.failure() ? 0 : 2;
                      }),
      0);
  EXPECT_TRUE(std::filesystem::is_empty(tree.path()));
}

TEST(SignaturePack, KnowsWhetherThereIsRoom) {
  const tests::TempTree tree;
  EXPECT_EQ(with_file_limit(100'000,
                            [&] {
                              SignaturePack pack(tree.fd(), kLevel);
                              if (!pack.make_room(0) || !pack.make_room(100'000 - kPackHeaderBytes))
                                return 2;
                              if (pack.make_room(100'001 - kPackHeaderBytes) ||
                                  pack.make_room(UINT64_MAX))
                                return 3;
                              // That was a question only.
                              const Sample sample(5000, 1);
                              return pack.append(sample.content, sample.sums) ? 0 : 4;
                            }),
            0);
  const SignaturePack pack(tree.fd(), kLevel);
  EXPECT_EQ(pack.size_bytes(), 0U);
}

}  // namespace
}  // namespace superlifter::catalog
