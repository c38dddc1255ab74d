// The table itself: well-formed, in agreement with the structs, and the source of reference.md.
#include "config/schema.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "config/value.h"

namespace superlifter::config {
namespace {

// What a field holds, as text.
struct Print {
  std::string operator()(std::monostate) const { return "nothing"; }
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const uint32_t* value) const { return std::to_string(*value); }
  std::string operator()(const uint64_t* value) const { return std::to_string(*value); }
  std::string operator()(const double* value) const { return fmt::format("{}", *value); }
  std::string operator()(const std::string* value) const { return *value; }
  std::string operator()(const std::optional<ListenAddress>* value) const {
    return *value ? to_text(**value) : "absent";
  }
  std::string operator()(const std::vector<ListenAddress>* list) const {
    std::string out;
    for (const ListenAddress& address : *list)
      out += to_text(address) + " ";
    return out;
  }
  std::string operator()(const std::vector<session::Prefix>* list) const {
    std::string out;
    for (const session::Prefix& prefix : *list) {
      out += fmt::format("{}/{} ", session::to_text(prefix.address), prefix.length_bits);
    }
    return out;
  }
  std::string operator()(const std::vector<Glob>* list) const {
    std::string out;
    for (const Glob& glob : *list)
      out += glob.text() + " ";
    return out;
  }
  std::string operator()(const LogLevel* value) const {
    return std::to_string(static_cast<int>(*value));
  }
  std::string operator()(const LogFormat* value) const {
    return std::to_string(static_cast<int>(*value));
  }
  std::string operator()(const EngineChoice* value) const {
    return std::to_string(static_cast<int>(*value));
  }
};

std::string print(const Key& key, Config& config, Module& module) {
  return std::visit(Print{}, key.field(config, module));
}

std::string read_source(const std::string& name) {
  std::ifstream in(std::string(SUPERLIFTER_SOURCE_DIR) + "/config/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TEST(Schema, EveryKeyStandsOnceAndBelowItsSection) {
  std::set<std::string_view> seen;
  for (const Key& key : schema()) {
    EXPECT_TRUE(seen.insert(key.path).second) << key.path;
    EXPECT_EQ(find_key(key.path), &key);
    const size_t dot = key.path.rfind('.');
    if (dot == std::string_view::npos) continue;
    std::string_view parent = key.path.substr(0, dot);
    if (parent.ends_with(".*")) parent.remove_suffix(2);
    EXPECT_TRUE(seen.contains(parent)) << key.path;
  }
  EXPECT_EQ(find_key("limits.nothing"), nullptr);
  EXPECT_EQ(find_key(""), nullptr);
}

TEST(Schema, EveryKeyHasHelpBoundsAndAField) {
  for (const Key& key : schema()) {
    EXPECT_TRUE(key.help.ends_with('.')) << key.path;
    EXPECT_LE(key.least, key.most) << key.path;
    const bool section = key.kind == Kind::kSection || key.kind == Kind::kModules;
    EXPECT_EQ(key.field == nullptr, section) << key.path;
    const bool bounded = is_list(key.kind) || key.kind == Kind::kCount || key.kind == Kind::kSize ||
                         key.kind == Kind::kDuration || key.kind == Kind::kRate ||
                         key.kind == Kind::kShare || key.kind == Kind::kText ||
                         key.kind == Kind::kLines;
    EXPECT_EQ(key.most > 0, bounded) << key.path;
  }
}

TEST(Schema, DefaultsAreThoseOfTheStructs) {
  Config table = default_config();
  Module table_module = default_module();
  Config initializers;
  Module initializers_module;
  for (const Key& key : schema()) {
    if (key.field == nullptr || key.path == "listen") continue;
    EXPECT_EQ(print(key, table, table_module), print(key, initializers, initializers_module))
        << key.path;
  }
  EXPECT_TRUE(initializers.listen.empty());
}

TEST(Schema, DefaultsAreThoseOfTheContract) {
  const Config config = default_config();
  ASSERT_EQ(config.listen.size(), 1U);
  EXPECT_EQ(to_text(config.listen[0]), "[::]:8730");
  EXPECT_EQ(config.workers, 0U);
  EXPECT_EQ(config.user, "");
  EXPECT_EQ(config.catalog, "/var/lib/superlifter");
  EXPECT_EQ(config.log.access, "stderr");
  EXPECT_EQ(config.engine, EngineChoice::kAuto);
  EXPECT_TRUE(config.paths);
  EXPECT_EQ(config.limits.connections, 4096U);
  EXPECT_EQ(config.limits.connections_per_address, 16U);
  EXPECT_EQ(config.limits.queue, 256U);
  EXPECT_EQ(config.limits.hello_timeout_ms, 10'000U);
  EXPECT_EQ(config.limits.idle_timeout_ms, 60'000U);
  EXPECT_EQ(config.limits.session_timeout_ms, 14'400'000U);
  EXPECT_EQ(config.limits.drain_timeout_ms, 600'000U);
  EXPECT_EQ(config.limits.minimum_rate_bytes_per_s, 1024U);
  EXPECT_EQ(config.limits.bandwidth_bytes_per_s, kUnlimited);
  EXPECT_EQ(config.limits.generations, 4U);
  EXPECT_EQ(config.signature_share, 0.015);
  EXPECT_FALSE(config.ops_listen.has_value());
  const Module module = default_module();
  EXPECT_EQ(module.access.allow.size(), 2U);
  EXPECT_TRUE(module.access.deny.empty());
  EXPECT_EQ(module.connections, 0U);
  EXPECT_EQ(module.bandwidth_bytes_per_s, kUnlimited);
  EXPECT_TRUE(module.list);
  EXPECT_FALSE(module.owners);
  EXPECT_EQ(module.rescan_ms, 600'000U);
  EXPECT_TRUE(module.watch);
}

TEST(Schema, ReferenceIsNotStale) {
  const std::string path = std::string(SUPERLIFTER_SOURCE_DIR) + "/config/reference.md";
  if (getenv("SUPERLIFTER_UPDATE_FILES") != nullptr) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << reference_markdown();
  }
  EXPECT_EQ(read_source("reference.md"), reference_markdown())
      << "config/reference.md is stale: run this test with SUPERLIFTER_UPDATE_FILES=1";
}

TEST(Schema, ReferenceAndExampleNameEveryKey) {
  const std::string reference = reference_markdown();
  const std::string example = read_source("superlifter.yaml");
  for (const Key& key : schema()) {
    const std::string name(key.path.substr(key.path.rfind('.') + 1));
    EXPECT_NE(reference.find("`" + name), std::string::npos) << key.path;
    EXPECT_NE(example.find(name + ":"), std::string::npos) << key.path;
  }
}

}  // namespace
}  // namespace superlifter::config
