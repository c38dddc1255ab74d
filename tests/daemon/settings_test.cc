// Settings: --serve without a config, and the snapshot that children read.
#include "daemon/settings.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "config/schema.h"
#include "tests/support/temp_tree.h"

namespace superlifter::daemon {
namespace {

class SettingsTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(setenv("XDG_CACHE_HOME", tree_.path("cache").c_str(), 1), 0);
    tree_.make_directory("stuff");
  }
  static Options serve(std::vector<ServeDirectory> directories) {
    Options options;
    options.serve = std::move(directories);
    return options;
  }

  tests::TempTree tree_;
};

TEST_F(SettingsTest, ServeNamesTheModuleByItsDirectory) {
  const Result<Settings> settings = load_settings(serve({{tree_.path("stuff/"), ""}}));
  ASSERT_TRUE(settings.has_value()) << settings.error().message;
  EXPECT_TRUE(settings->serves_directory);
  ASSERT_EQ(settings->config.modules.size(), 1U);
  EXPECT_EQ(settings->config.modules[0].name, "stuff");
  EXPECT_EQ(settings->config.modules[0].path, tree_.path("stuff"));
  EXPECT_TRUE(settings->config.catalog.starts_with(tree_.path("cache/superlifter/stuff-")));
  EXPECT_FALSE(settings->config.listen.empty());
  struct stat status{};
  EXPECT_EQ(stat(settings->config.catalog.c_str(), &status), 0);
}

TEST_F(SettingsTest, ServeLeavesACatalogInsideOfTheTreeOut) {
  const Result<Settings> settings = load_settings(serve({{tree_.path(), "all"}}));
  ASSERT_TRUE(settings.has_value());
  ASSERT_EQ(settings->config.modules[0].exclude.size(), 1U);
  const std::string below = settings->config.catalog.substr(tree_.path().size() + 1);
  EXPECT_TRUE(settings->config.modules[0].exclude[0].matches(below, IsDirectory::kYes));
  EXPECT_FALSE(settings->config.modules[0].exclude[0].matches("stuff", IsDirectory::kYes));
}

TEST_F(SettingsTest, ServeRefusesWhatItCannotServe) {
  tree_.write("file", "x");
  tree_.make_directory("odd name");
  for (const ServeDirectory& wrong :
       {ServeDirectory{tree_.path("absent"), ""}, ServeDirectory{tree_.path("file"), ""},
        ServeDirectory{tree_.path("odd name"), ""}, ServeDirectory{tree_.path("stuff"), "a b"}}) {
    const Result<Settings> settings = load_settings(serve({wrong}));
    ASSERT_FALSE(settings.has_value()) << wrong.path;
    EXPECT_NE(settings.error().message.find(tree_.path()), std::string::npos);
  }
  EXPECT_TRUE(load_settings(serve({{tree_.path("odd name"), "fine"}})).has_value());
  EXPECT_FALSE(load_settings(serve({{tree_.path("stuff"), "x"}, {tree_.path("odd name"), "x"}}))
                   .has_value());
}

TEST_F(SettingsTest, ListenOverridesTheConfig) {
  Options options = serve({{tree_.path("stuff"), ""}});
  options.listen.push_back(*config::parse_listen_address("127.0.0.1:5"));
  EXPECT_EQ(load_settings(options)->config.listen, options.listen);
}

TEST_F(SettingsTest, TheSnapshotOfServeGivesTheSameModules) {
  // A path that is not UTF-8 could not stand in YAML.
  tree_.make_directory("bytes\xff\xfe");
  const Result<Settings> first =
      load_settings(serve({{tree_.path("bytes\xff\xfe"), "m"}, {tree_.path(), "all"}}));
  ASSERT_TRUE(first.has_value()) << first.error().message;
  const Result<Settings> second = read_snapshot(first->snapshot);
  ASSERT_TRUE(second.has_value()) << second.error().message;
  EXPECT_TRUE(second->serves_directory);
  EXPECT_EQ(second->config.catalog, first->config.catalog);
  ASSERT_EQ(second->config.modules.size(), 2U);
  EXPECT_EQ(second->config.modules[0].path, tree_.path("bytes\xff\xfe"));
  EXPECT_EQ(second->config.modules[1].exclude.size(), 1U);
}

TEST_F(SettingsTest, TheSnapshotOfAFileIsItsText) {
  tree_.write("c.yaml", "catalog: " + tree_.path("c") +
                            "\nmotd: hello\nmodules: {m: {path: " + tree_.path("stuff") + "}}\n");
  Options options;
  options.config_file = tree_.path("c.yaml");
  options.config_given = true;
  const Result<Settings> first = load_settings(options);
  ASSERT_TRUE(first.has_value()) << first.error().message;
  tree_.write("c.yaml", "something else");
  const Result<Settings> second = read_snapshot(first->snapshot);
  ASSERT_TRUE(second.has_value()) << second.error().message;
  EXPECT_EQ(second->config.motd, "hello");
  EXPECT_EQ(second->config.modules[0].path, tree_.path("stuff"));
}

TEST_F(SettingsTest, EveryMistakeOfAFileIsNamedWithItsPlace) {
  tree_.write("c.yaml", "lisen: []\nmodules: {m: {path: /nowhere/at/all}}\n");
  Options options;
  options.config_file = tree_.path("c.yaml");
  const Result<Settings> settings = load_settings(options);
  ASSERT_FALSE(settings.has_value());
  EXPECT_NE(settings.error().message.find("c.yaml:1:1"), std::string::npos);
  EXPECT_NE(settings.error().message.find("c.yaml:2:"), std::string::npos);
}

TEST_F(SettingsTest, AnAbsentFileAndADamagedSnapshotAreRefused) {
  Options options;
  options.config_file = tree_.path("absent.yaml");
  EXPECT_NE(load_settings(options).error().message.find("absent.yaml"), std::string::npos);
  const Result<Settings> settings = load_settings(serve({{tree_.path("stuff"), ""}}));
  ASSERT_TRUE(settings.has_value());
  for (size_t size = 0; size < settings->snapshot.size(); ++size) {
    EXPECT_FALSE(read_snapshot(ByteView(settings->snapshot).first(size)).has_value()) << size;
  }
}

TEST_F(SettingsTest, TheCatalogDirectoryIsMade) {
  config::Config config;
  config.catalog = tree_.path("deep/er/catalog");
  EXPECT_TRUE(make_catalog_directory(config).has_value());
  EXPECT_TRUE(make_catalog_directory(config).has_value());
  tree_.write("file", "x");
  config.catalog = tree_.path("file");
  EXPECT_FALSE(make_catalog_directory(config).has_value());
}

TEST(SettingsWithoutEffect, AreNamedWhenTheyAreSet) {
  config::Config config = config::default_config();
  EXPECT_TRUE(settings_without_effect(config).empty());
  config.user = "mirror";
  config.limits.bandwidth_bytes_per_s = 1000;
  config.modules.push_back({.name = "m", .bandwidth_bytes_per_s = 5});
  EXPECT_EQ(settings_without_effect(config),
            (std::vector<std::string>{"user", "limits.bandwidth", "modules.m.bandwidth"}));
}

}  // namespace
}  // namespace superlifter::daemon
