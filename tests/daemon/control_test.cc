// Control: messages arrive whole and in order; nonsense and the end are told apart.
#include "daemon/control.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "core/base/limits.h"

namespace superlifter::daemon {
namespace {

class ControlTest : public testing::Test {
 protected:
  void SetUp() override {
    Result<std::pair<UniqueFd, UniqueFd>> pair = make_control_pair();
    ASSERT_TRUE(pair.has_value());
    mine_ = std::move(pair->first);
    theirs_ = std::move(pair->second);
  }
  UniqueFd mine_;
  UniqueFd theirs_;
};

TEST_F(ControlTest, CarriesEachMessage) {
  const ControlMessage drain{ControlMessage::Type::kDrain, 1234, ""};
  const ControlMessage rescan{ControlMessage::Type::kRescan, 0,
                              std::string(kMaxModuleNameBytes, 'm')};
  const ControlMessage stop{ControlMessage::Type::kStop, 0, ""};
  for (const ControlMessage& message : {drain, rescan, stop}) {
    ASSERT_TRUE(send_control(mine_.get(), message).has_value());
  }
  for (const ControlMessage& message : {drain, rescan, stop}) {
    const auto received = receive_control(theirs_.get());
    ASSERT_TRUE(received.has_value() && received->has_value());
    EXPECT_EQ(**received, message);
  }
  const auto nothing = receive_control(theirs_.get());
  ASSERT_TRUE(nothing.has_value());
  EXPECT_FALSE(nothing->has_value());
}

TEST_F(ControlTest, TellsTheEnd) {
  mine_.reset();
  EXPECT_EQ(receive_control(theirs_.get()).error().code, Errc::kClosed);
  EXPECT_EQ(send_control(theirs_.get(), {}).error().code, Errc::kClosed);
}

TEST_F(ControlTest, RefusesWhatItDoesNotKnow) {
  const uint8_t unknown[] = {9, 0, 0, 0, 0, 0, 0, 0, 0};
  const uint8_t cut[] = {1, 0, 0, 0, 0};
  ASSERT_GT(send(mine_.get(), unknown, sizeof(unknown), 0), 0);
  ASSERT_GT(send(mine_.get(), cut, sizeof(cut), 0), 0);
  EXPECT_EQ(receive_control(theirs_.get()).error().code, Errc::kCorrupt);
  EXPECT_EQ(receive_control(theirs_.get()).error().code, Errc::kCorrupt);
}

TEST_F(ControlTest, NeverWaitsForWhoDoesNotRead) {
  Status sent;
  for (int i = 0; i < 100'000 && sent; ++i)
    sent = send_control(mine_.get(), {});
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code, Errc::kBusy);
}

}  // namespace
}  // namespace superlifter::daemon
