// Which known word a mistyped one was meant to be.
#include "config/suggest.h"

#include <gtest/gtest.h>

#include <string>

namespace superlifter::config {
namespace {

const std::vector<std::string_view> kWords = {
    "listen", "limits", "hello_timeout", "idle_timeout", "connections", "connections_per_address",
    "list"};

TEST(Suggest, FindsTheNearestWord) {
  EXPECT_EQ(nearest("lisen", kWords), "listen");
  EXPECT_EQ(nearest("limit", kWords), "limits");
  EXPECT_EQ(nearest("conections", kWords), "connections");
  EXPECT_EQ(nearest("connections-per-address", kWords), "connections_per_address");
  EXPECT_EQ(nearest("List", kWords), "list");
}

TEST(Suggest, CountsSwappedNeighboursOnce) {
  EXPECT_EQ(nearest("on", {"no", "oxy"}), "no");
  EXPECT_EQ(nearest("lsiten", kWords), "listen");
}

TEST(Suggest, TakesAWordThatHoldsTheOther) {
  EXPECT_EQ(nearest("max_connections", kWords), "connections");
  EXPECT_EQ(nearest("timeout", kWords), "idle_timeout");
  EXPECT_EQ(nearest("warn", {"error", "warning"}), "warning");
}

TEST(Suggest, SaysNothingWhenNothingIsNear) {
  EXPECT_EQ(nearest("colour", kWords), "");
  EXPECT_EQ(nearest("", kWords), "");
  EXPECT_EQ(nearest("x", {"y"}), "");
  EXPECT_EQ(nearest("anything", {}), "");
}

TEST(Suggest, LeavesLongTextAlone) {
  EXPECT_EQ(nearest(std::string(64, 'a'), {std::string_view("aaaa")}), "aaaa");
  EXPECT_EQ(nearest(std::string(65, 'a'), {std::string_view("aaaa")}), "");
  EXPECT_EQ(nearest(std::string(1 << 20, 'a'), kWords), "");
}

}  // namespace
}  // namespace superlifter::config
