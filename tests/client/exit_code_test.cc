#include "client/exit_code.h"

#include <gtest/gtest.h>

namespace superlifter::client {
namespace {

TEST(ExitCode, NumbersAreRsyncs) {
  EXPECT_EQ(static_cast<int>(ExitCode::kOk), 0);
  EXPECT_EQ(static_cast<int>(ExitCode::kUsage), 1);
  EXPECT_EQ(static_cast<int>(ExitCode::kIncompatible), 2);
  EXPECT_EQ(static_cast<int>(ExitCode::kStart), 5);
  EXPECT_EQ(static_cast<int>(ExitCode::kSocketIo), 10);
  EXPECT_EQ(static_cast<int>(ExitCode::kFileIo), 11);
  EXPECT_EQ(static_cast<int>(ExitCode::kStream), 12);
  EXPECT_EQ(static_cast<int>(ExitCode::kInterrupted), 20);
  EXPECT_EQ(static_cast<int>(ExitCode::kPartial), 23);
  EXPECT_EQ(static_cast<int>(ExitCode::kVanished), 24);
  EXPECT_EQ(static_cast<int>(ExitCode::kTimeout), 30);
  EXPECT_EQ(static_cast<int>(ExitCode::kConnectTimeout), 35);
}

TEST(ExitCode, FollowsErrorAndPhase) {
  const struct {
    Errc code;
    Phase phase;
    ExitCode expected;
  } cases[] = {
      {Errc::kNotFound, Phase::kConnect, ExitCode::kSocketIo},
      {Errc::kIo, Phase::kConnect, ExitCode::kSocketIo},
      {Errc::kTimeout, Phase::kConnect, ExitCode::kConnectTimeout},
      {Errc::kUnsupported, Phase::kConnect, ExitCode::kUsage},
      {Errc::kTimeout, Phase::kHello, ExitCode::kTimeout},
      {Errc::kProtocol, Phase::kHello, ExitCode::kIncompatible},
      {Errc::kUnsupported, Phase::kHello, ExitCode::kIncompatible},
      {Errc::kTruncated, Phase::kHello, ExitCode::kStream},
      {Errc::kClosed, Phase::kHello, ExitCode::kStream},
      {Errc::kIo, Phase::kHello, ExitCode::kSocketIo},
      {Errc::kBusy, Phase::kHello, ExitCode::kStart},
      {Errc::kDenied, Phase::kHello, ExitCode::kStart},
      {Errc::kNotFound, Phase::kOpen, ExitCode::kStart},
      {Errc::kDenied, Phase::kOpen, ExitCode::kStart},
      {Errc::kBusy, Phase::kOpen, ExitCode::kStart},
      {Errc::kProtocol, Phase::kOpen, ExitCode::kStream},
      {Errc::kTimeout, Phase::kTransfer, ExitCode::kTimeout},
      {Errc::kIo, Phase::kTransfer, ExitCode::kSocketIo},
      {Errc::kProtocol, Phase::kTransfer, ExitCode::kStream},
      {Errc::kCorrupt, Phase::kTransfer, ExitCode::kStream},
      {Errc::kTruncated, Phase::kTransfer, ExitCode::kStream},
      {Errc::kClosed, Phase::kTransfer, ExitCode::kStream},
      {Errc::kLimit, Phase::kTransfer, ExitCode::kStream},
      {Errc::kStale, Phase::kTransfer, ExitCode::kVanished},
      {Errc::kGone, Phase::kTransfer, ExitCode::kVanished},
      {Errc::kNotFound, Phase::kTransfer, ExitCode::kPartial},
      {Errc::kIo, Phase::kLocal, ExitCode::kFileIo},
      {Errc::kNotFound, Phase::kLocal, ExitCode::kFileIo},
      {Errc::kBusy, Phase::kLocal, ExitCode::kFileIo},
      {Errc::kCorrupt, Phase::kLocal, ExitCode::kFileIo},
      {Errc::kStale, Phase::kLocal, ExitCode::kVanished},
      {Errc::kConfig, Phase::kLocal, ExitCode::kUsage},
  };
  for (const auto& [code, phase, expected] : cases) {
    EXPECT_EQ(exit_code_for(code, phase), expected)
        << static_cast<int>(code) << " in phase " << static_cast<int>(phase);
    EXPECT_EQ(exit_code_for(Error{code, 0, "x"}, phase), expected);
  }
}

TEST(ExitCode, NoFailureIsSuccess) {
  for (int code = 0; code <= static_cast<int>(Errc::kClosed); ++code) {
    for (const Phase phase :
         {Phase::kConnect, Phase::kHello, Phase::kOpen, Phase::kTransfer, Phase::kLocal}) {
      EXPECT_NE(exit_code_for(static_cast<Errc>(code), phase), ExitCode::kOk);
    }
  }
}

}  // namespace
}  // namespace superlifter::client
