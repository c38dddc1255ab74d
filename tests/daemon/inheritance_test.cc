// Inheritance: what the master makes for its children.
#include "daemon/inheritance.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace superlifter::daemon {
namespace {

TEST(Inheritance, TheArgumentsOfAChildParseBack) {
  for (const ChildRole role : {ChildRole::kWorker, ChildRole::kIndexer}) {
    std::vector<std::string> arguments =
        child_arguments({.role = role, .index = 7, .listen_count = 2});
    std::vector<const char*> argv{"superlifterd"};
    for (const std::string& argument : arguments)
      argv.push_back(argument.c_str());
    const Result<Options> options = parse_options(static_cast<int>(argv.size()), argv.data());
    ASSERT_TRUE(options.has_value()) << options.error().message;
    EXPECT_EQ(options->mode, Mode::kChild);
    EXPECT_EQ(options->child.role, role);
    EXPECT_EQ(options->child.index, 7U);
    EXPECT_EQ(options->child.listen_count, 2U);
  }
}

TEST(Inheritance, TheSettingsCannotBeChangedOnceMade) {
  const Bytes snapshot = {1, 2, 3};
  const Result<UniqueFd> fd = make_settings_fd(snapshot);
  ASSERT_TRUE(fd.has_value());
  Bytes read(10);
  ASSERT_EQ(pread(fd->get(), read.data(), read.size(), 0), 3);
  EXPECT_LT(pwrite(fd->get(), "x", 1, 0), 0);
  EXPECT_NE(ftruncate(fd->get(), 0), 0);
}

}  // namespace
}  // namespace superlifter::daemon
