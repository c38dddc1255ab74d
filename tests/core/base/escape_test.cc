#include "core/base/escape.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace superlifter {
namespace {

TEST(Escape, PrintableAsciiAndUtf8Stay) {
  EXPECT_EQ(escape(""), "");
  EXPECT_EQ(escape("a file (1).txt ~'\"%"), "a file (1).txt ~'\"%");
  EXPECT_EQ(escape("Größe/日本語/\U0001F600"), "Größe/日本語/\U0001F600");
}

TEST(Escape, ControlsAndBackslashDoNot) {
  EXPECT_EQ(escape("a\nb\tc"), "a\\x0ab\\x09c");
  EXPECT_EQ(escape(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(escape("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(escape("\x7f"), "\\x7f");
  EXPECT_EQ(escape("a\\x0a"), "a\\x5cx0a");
}

TEST(Escape, MalformedUtf8IsEscapedByteByByte) {
  EXPECT_EQ(escape("\xff"), "\\xff");
  EXPECT_EQ(escape("\x80"), "\\x80");           // Lone continuation.
  EXPECT_EQ(escape("\xc3"), "\\xc3");           // Cut short.
  EXPECT_EQ(escape("\xe6\x97"), "\\xe6\\x97");  // Cut short.
  EXPECT_EQ(escape("\xc3(x"), "\\xc3(x");       // Broken in the middle.
  EXPECT_EQ(escape("\xc0\xaf"), "\\xc0\\xaf");  // Overlong '/'.
  EXPECT_EQ(escape("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");
  EXPECT_EQ(escape("\xed\xa0\x80"), "\\xed\\xa0\\x80");                    // Surrogate.
  EXPECT_EQ(escape("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");           // Above U+10FFFF.
  EXPECT_EQ(escape("\xf8\x88\x80\x80\x80"), "\\xf8\\x88\\x80\\x80\\x80");  // Five bytes.
  EXPECT_EQ(escape("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf");               // U+10FFFF itself stays.
}

TEST(Escape, WhatCouldDeceiveATerminalIsEscaped) {
  EXPECT_EQ(escape("\xc2\x9b"), "\\xc2\\x9b");           // C1: control sequence introducer.
  EXPECT_EQ(escape("\xc2\xa0"), "\xc2\xa0");             // One beyond.
  EXPECT_EQ(escape("\xe2\x80\xae"), "\\xe2\\x80\\xae");  // Right-to-left override.
  EXPECT_EQ(escape("\xe2\x81\xa6"), "\\xe2\\x81\\xa6");  // Isolate.
  EXPECT_EQ(escape("\xe2\x80\xa8"), "\\xe2\\x80\\xa8");  // Line separator.
  EXPECT_EQ(escape("\xd8\x9c"), "\\xd8\\x9c");           // Arabic letter mark.
}

TEST(Escape, IsInjectiveAndPrintable) {
  constexpr uint64_t kSeed = 42;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  static constexpr std::string_view kBytes = "ax0\\\n\x7f\xc3\xa4\xe2\x80\xae\xff";
  std::map<std::string, std::string> seen;
  for (int i = 0; i < 50'000; ++i) {
    std::string bytes;
    for (uint64_t n = random() % 8; n > 0; --n)
      bytes += kBytes[random() % kBytes.size()];
    const std::string text = escape(bytes);
    for (const char c : text)
      ASSERT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
    const auto [at, fresh] = seen.emplace(text, bytes);
    ASSERT_EQ(at->second, bytes) << text;
  }
}

}  // namespace
}  // namespace superlifter
