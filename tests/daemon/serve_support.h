// A small served tree with its catalog, for the daemon's tests.
#pragma once

#include <string>

#include "config/config.h"
#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/base/unique_fd.h"
#include "core/catalog/indexer.h"
#include "core/fs/beneath.h"
#include "tests/support/temp_tree.h"

namespace superlifter::tests {

class ManualClock final : public Clock {
 public:
  uint64_t monotonic_ms() override { return now_ms; }
  int64_t wall_ns() override { return static_cast<int64_t>(now_ms) * 1'000'000; }
  uint64_t now_ms = 1'000'000;
};

class ServedTree {
 public:
  ServedTree() {
    tree.make_directory("catalog");
    tree.make_directory("root");
    config.modules.reserve(16);  // Callers keep references.
    config.catalog = tree.path("catalog");
    add_module("m");
  }

  config::Module& add_module(const std::string& name) {
    config::Module module;
    module.name = name;
    module.path = tree.path("root");
    config.modules.push_back(std::move(module));
    return config.modules.back();
  }

  // One pass of the indexer; the live generation's number.
  uint64_t index(const std::string& name = "m") {
    const Result<UniqueFd> root = fs::open_root(tree.path("root"));
    const Result<UniqueFd> catalog = fs::open_root(config.catalog);
    CHECK(root.has_value() && catalog.has_value());
    catalog::IndexOptions options;
    options.module = name;
    options.root_fd = root->get();
    options.catalog_fd = catalog->get();
    options.keep_generations = config.limits.generations;
    const Result<catalog::IndexReport> report = catalog::index_module(options);
    CHECK(report.has_value());
    return report->generation;
  }

  TempTree tree;
  config::Config config;
};

}  // namespace superlifter::tests
