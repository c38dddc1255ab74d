// CatalogStore: what sessions ask (session/store.h), answered from mapped generations
// (catalog/catalog.h).
//
//   CatalogCache      one a worker: for each module the generation that CURRENT names, mapped once
//                     and shared by all sessions that use it; an older one lives on as long as any
//                     does. Its pack of signatures is opened with it and never mapped.
//   SessionStore      one a session: the same, seen by one peer (access rules, module limits)
//
// Nothing here can be damaged by what is on the disk: a generation that fails its checks is an
// error with a log line, and what is read from a map after the checks is bounds-checked once more,
// because somebody may write into the file while it is mapped.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "core/base/clock.h"
#include "core/base/result.h"
#include "core/session/access.h"
#include "core/session/store.h"
#include "core/shm/limiter.h"

namespace superlifter::daemon {

class ModuleCatalog;

class CatalogCache {
 public:
  // Borrows the config and the clock. `on_stale` is called with a module's name when a served file
  // was found changed, at most once in a while for each module.
  CatalogCache(const config::Config& config, Clock& clock,
               const std::function<void(const std::string& module)>& on_stale);
  ~CatalogCache();
  CatalogCache(const CatalogCache&) = delete;
  CatalogCache& operator=(const CatalogCache&) = delete;

  const config::Config& config() const { return config_; }

  // The live generation of a module, mapped anew when CURRENT has changed. kNotFound (no such
  // module), kGone (no generation yet), kCorrupt, kUnsupported, kIo (its root or catalog cannot be
  // read; logged). Cost when nothing changed: open, read and close of CURRENT.
  [[nodiscard]] Result<std::shared_ptr<const session::Generation>> open(std::string_view module);

 private:
  const config::Config& config_;
  // Shared with the generations, which outlive nothing else here.
  std::vector<std::shared_ptr<ModuleCatalog>> modules_;
};

class SessionStore final : public session::Store {
 public:
  // Borrows the cache. `limiter` and `row` count the session towards its module's limit.
  SessionStore(CatalogCache& cache, std::optional<session::Address> peer,
               const shm::Limiter& limiter, shm::ConnectionRow& row)
      : cache_(cache), peer_(peer), limiter_(limiter), row_(row) {}

  std::vector<session::ModuleSummary> modules() override;
  [[nodiscard]] Result<std::shared_ptr<const session::Generation>> open(
      std::string_view name) override;

 private:
  CatalogCache& cache_;
  std::optional<session::Address> peer_;
  const shm::Limiter& limiter_;
  shm::ConnectionRow& row_;
};

}  // namespace superlifter::daemon
