// Index mode: when a pass is due, and what is said about one.
#include "daemon/index_mode.h"

#include <gtest/gtest.h>

namespace superlifter::daemon {
namespace {

using Outcome = catalog::IndexReport::Outcome;

TEST(RescanSchedule, BeginsAtOnceThenByInterval) {
  RescanSchedule schedule(60'000);
  EXPECT_EQ(schedule.due_ms(), 0U);
  schedule.on_pass_done(1000, 1500);
  EXPECT_EQ(schedule.due_ms(), 61'500U);
}

TEST(RescanSchedule, WithoutAnIntervalWaitsForever) {
  RescanSchedule schedule(0);
  schedule.on_pass_done(1000, 1500);
  EXPECT_FALSE(schedule.due_ms().has_value());
  schedule.on_request();
  EXPECT_EQ(schedule.due_ms(), 0U);
}

TEST(RescanSchedule, WaitsForAQuietMoment) {
  RescanSchedule schedule(0);
  schedule.on_pass_done(0, 10);
  schedule.on_event(5'000);
  EXPECT_EQ(schedule.due_ms(), 5'000 + RescanSchedule::kQuietMs);
  schedule.on_event(5'900);
  EXPECT_EQ(schedule.due_ms(), 5'900 + RescanSchedule::kQuietMs);
}

TEST(RescanSchedule, DoesNotWaitForQuietWithoutEnd) {
  RescanSchedule schedule(0);
  schedule.on_pass_done(0, 10);
  for (uint64_t now_ms = 5'000; now_ms < 60'000; now_ms += 500)
    schedule.on_event(now_ms);
  EXPECT_EQ(schedule.due_ms(), 5'000 + RescanSchedule::kLongestWaitMs);
}

TEST(RescanSchedule, RestsTenTimesAsLongAsAPassTook) {
  RescanSchedule schedule(0);
  schedule.on_pass_done(0, 2'000);
  schedule.on_event(2'100);
  EXPECT_EQ(schedule.due_ms(), 2'000 + RescanSchedule::kRestFactor * 2'000);
}

TEST(RescanSchedule, TriesAgainSoonAfterAnotherWriter) {
  RescanSchedule schedule(0);
  schedule.on_pass_failed(0, 10, Errc::kBusy);
  EXPECT_EQ(schedule.due_ms(), 10 + RescanSchedule::kRetryMs);
  schedule.on_pass_failed(0, 10, Errc::kIo);
  EXPECT_FALSE(schedule.due_ms().has_value());
}

TEST(IndexMode, DescribesEachOutcome) {
  catalog::IndexReport report;
  report.outcome = Outcome::kPublished;
  report.generation = 3;
  report.entries = 10;
  report.files = 8;
  report.bytes = 1234;
  report.files_hashed = 2;
  EXPECT_EQ(describe("m", report),
            "module m: generation 3 published: 10 entries, 8 files, 1234 bytes, 2 hashed");
  report.outcome = Outcome::kUnchanged;
  EXPECT_EQ(describe("m", report), "module m: generation 3 is up to date");
  report.bytes = 1'300'000'000;
  report.signature_bytes = 13'520'000;
  report.pack_bytes = 14'100'000;
  EXPECT_EQ(
      describe("m", report),
      "module m: generation 3 is up to date, signatures 13.5 MB (1.04 %) in a pack of 14.1 MB");
  report.outcome = Outcome::kPublished;
  EXPECT_EQ(describe("m", report),
            "module m: generation 3 published: 10 entries, 8 files, 1300000000 bytes, 2 hashed, "
            "signatures 13.5 MB (1.04 %) in a pack of 14.1 MB");
  report.bytes = 0;
  EXPECT_NE(describe("m", report).find("(0.00 %)"), std::string::npos);
  report.outcome = Outcome::kHeld;
  report.held_by = "Archive-Update\n";
  EXPECT_NE(describe("m", report).find("Archive-Update\\x0a"), std::string::npos)
      << describe("m", report);
}

}  // namespace
}  // namespace superlifter::daemon
