// See catalog_store.h.
#include "daemon/catalog_store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/base/rel_path.h"
#include "core/base/unique_fd.h"
#include "core/catalog/catalog.h"
#include "core/catalog/publisher.h"
#include "core/catalog/signature_pack.h"
#include "core/fs/beneath.h"

namespace superlifter::daemon {
namespace {

constexpr uint64_t kKeptCheckMs = 1000;      // How long an answer of is_kept() holds.
constexpr uint64_t kStaleReportMs = 2000;    // Between two reports of one module by one worker.
constexpr uint64_t kSameProblemMs = 60'000;  // Between two log lines that say the same.
constexpr int kOpenAttempts = 3;  // A generation may be retired between CURRENT and open.

// The path of an entry, from a table that may have been damaged since it was checked: every number
// is looked at before it is used, and parents must come before their children.
Result<RelPath> path_of(const tree::TableView& table, uint32_t entry) {
  const auto damaged = [] { return fail(Errc::kCorrupt, "the generation's table is damaged"); };
  const std::string_view strings = table.strings();
  std::vector<std::string_view> names;
  for (uint32_t at = entry; at != tree::kRoot;) {
    const tree::Record record = table.record(at);  // A copy: the map may change under us.
    if (names.size() == kMaxDepth || record.parent >= at) return damaged();
    if (record.name_offset > strings.size() ||
        record.name_bytes > strings.size() - record.name_offset) {
      return damaged();
    }
    names.push_back(strings.substr(record.name_offset, record.name_bytes));
    at = record.parent;
  }
  std::string text;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    if (!text.empty()) text += '/';
    text += *name;
  }
  Result<RelPath> path = RelPath::parse(text);
  if (!path) return damaged();
  return path;
}

template <class Digest>
ByteView bytes_of(std::span<const Digest> digests, uint32_t first, uint32_t count) {
  if (first > digests.size() || count > digests.size() - first) return {};
  const std::span<const Digest> part = digests.subspan(first, count);
  return {reinterpret_cast<const uint8_t*>(part.data()), part.size_bytes()};
}

}  // namespace

// One module of the configuration: its directory in the catalog and its live generation.
class ModuleCatalog : public std::enable_shared_from_this<ModuleCatalog> {
 public:
  ModuleCatalog(const config::Config& config, const config::Module& module, Clock& clock,
                std::function<void(const std::string&)> on_stale)
      : config_(config), module_(module), clock_(clock), on_stale_(std::move(on_stale)) {}

  const config::Module& module() const { return module_; }

  [[nodiscard]] Result<std::shared_ptr<const session::Generation>> open();
  bool is_kept(uint64_t number);
  void report_stale();
  // Lets go of the live generation.
  void forget() { current_.reset(); }

 private:
  [[nodiscard]] Result<uint64_t> read_current();
  [[nodiscard]] Result<std::shared_ptr<const session::Generation>> open_current();
  [[nodiscard]] Result<UniqueFd> open_pack(const catalog::Header& header) const;
  void log_problem(const Error& error);

  const config::Config& config_;
  const config::Module& module_;
  Clock& clock_;
  std::function<void(const std::string&)> on_stale_;
  UniqueFd directory_;  // Of the module in the catalog; opened once it is there.
  // The cache and the sessions that use it own it together.
  std::shared_ptr<const session::Generation> current_;
  std::optional<uint64_t> reported_ms_;
  std::string problem_;
  uint64_t problem_ms_ = 0;
};

namespace {

class CatalogGeneration final : public session::Generation {
 public:
  CatalogGeneration(std::shared_ptr<ModuleCatalog> owner,
                    std::shared_ptr<const catalog::Catalog> catalog, UniqueFd root, UniqueFd file,
                    Clock& clock)
      : owner_(std::move(owner)),
        catalog_(std::move(catalog)),
        root_(std::move(root)),
        file_(std::make_shared<OpenFile>()),
        clock_(clock) {
    file_->fd = std::move(file);
  }

  uint64_t number() const override { return catalog_->header().generation; }
  hash::Sha256 root() const override { return catalog_->header().root; }
  bool is_provisional() const override { return catalog_->header().provisional; }
  bool has_owners() const override { return catalog_->header().has_owners; }
  tree::RootMetadata root_metadata() const override { return catalog_->header().root_metadata; }
  tree::Totals totals() const override { return catalog_->header().totals; }
  uint32_t node_count() const override { return catalog_->header().node_count; }
  uint64_t nodes_bytes() const override { return catalog_->header().nodes_bytes; }

  bool is_kept() const override {
    const uint64_t now_ms = clock_.monotonic_ms();
    if (!kept_checked_ms_ || now_ms - *kept_checked_ms_ >= kKeptCheckMs) {
      kept_ = owner_->is_kept(number());
      kept_checked_ms_ = now_ms;
    }
    return kept_;
  }

  // Of signatures, where the generation names a pack that is there as it says. Before it is shared.
  void set_pack(UniqueFd pack) {
    pack_ = std::make_shared<OpenFile>();
    pack_->fd = std::move(pack);
  }

  unsigned signature_level() const override {
    return pack_ != nullptr ? catalog_->header().signature_level : 0;
  }
  std::optional<Signature> signature(uint32_t entry) const override {
    if (pack_ == nullptr) return std::nullopt;
    const std::optional<catalog::SignaturePlace> place = catalog_->signature(entry);
    if (!place) return std::nullopt;
    return Signature{.file = pack_, .offset = place->offset, .layout = place->layout};
  }

  ByteView node(const hash::Sha256& digest) const override { return catalog_->node(digest); }

  FileRange all_nodes() const override {
    if (catalog_->all_nodes_length_bytes() == 0) return {};
    return {file_, catalog_->all_nodes_offset(), catalog_->all_nodes_length_bytes()};
  }

  ByteView xxh_digests(uint32_t first, uint32_t count) const override {
    return bytes_of(catalog_->xxh(), first, count);
  }
  ByteView sha_digests(uint32_t first, uint32_t count) const override {
    return bytes_of(catalog_->sha(), first, count);
  }

  [[nodiscard]] Result<File> file(uint32_t entry) const override {
    const tree::TableView& table = catalog_->table();
    if (entry >= table.count() || !table.record(entry).is_file()) {
      return fail(Errc::kNotFound, "no regular file has that entry number");
    }
    const Result<RelPath> path = path_of(table, entry);
    if (!path) return std::unexpected(path.error());
    return File{.open = fs::read_request(root_.get(), *path),
                .validators = catalog_->validators(entry)};
  }

  void report_stale(uint32_t entry) const override {
    if (entry < catalog_->table().count()) {
      if (const Result<RelPath> path = path_of(catalog_->table(), entry); path) {
        log_debug("module {}: {} is not what generation {} says", owner_->module().name,
                  escape(path->text()), number());
      }
    }
    owner_->report_stale();
  }

 private:
  std::shared_ptr<ModuleCatalog> owner_;  // Shared by the cache and all generations of the module.
  std::shared_ptr<const catalog::Catalog>
      catalog_;                     // This object alone; shared by the way it is made.
  UniqueFd root_;                   // Of the tree as it was when this generation was opened.
  std::shared_ptr<OpenFile> file_;  // The generation file; shared with ranges on their way out.
  std::shared_ptr<OpenFile> pack_;  // The same of its pack; null where there is none.
  Clock& clock_;
  mutable std::optional<uint64_t> kept_checked_ms_;
  mutable bool kept_ = true;
};

}  // namespace

// --- ModuleCatalog -----------------------------------------------------------------------------

Result<uint64_t> ModuleCatalog::read_current() {
  // Twice at most: the directory that was open may have been removed and made again.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (!directory_) {
      const Result<UniqueFd> catalog = fs::open_root(config_.catalog);
      if (!catalog && catalog.error().code == Errc::kNotFound) return uint64_t{0};
      if (!catalog) return std::unexpected(catalog.error());
      Result<UniqueFd> directory = fs::open_directory_at(catalog->get(), module_.name);
      if (!directory && directory.error().code == Errc::kNotFound) return uint64_t{0};
      if (!directory) return std::unexpected(directory.error());
      directory_ = std::move(*directory);
    }
    const Result<uint64_t> current = catalog::read_current(directory_.get());
    if (!current || *current != 0) return current;
    directory_.reset();
  }
  return uint64_t{0};
}

Result<std::shared_ptr<const session::Generation>> ModuleCatalog::open_current() {
  Error last{Errc::kGone, 0, "module " + module_.name + ": no generation yet"};
  for (int attempt = 0; attempt < kOpenAttempts; ++attempt) {
    const Result<uint64_t> number = read_current();
    if (!number) return std::unexpected(number.error());
    if (*number == 0) return std::unexpected(last);
    if (current_ != nullptr && current_->number() == *number) return current_;
    const Result<std::shared_ptr<const catalog::Catalog>> opened = catalog::Catalog::open(
        directory_.get(), catalog::generation_file_name(*number), catalog::Verify::kHeader);
    if (!opened) {
      last = opened.error();
      if (last.code == Errc::kStale) {
        // Of an older format: the indexer is about to make the catalog anew.
        log_debug("module {}: no generation yet: {}", module_.name, last.message);
        return fail(Errc::kGone, last.message);
      }
      if (last.code != Errc::kNotFound) return std::unexpected(last);
      continue;
    }
    Result<UniqueFd> root = fs::open_root(module_.path);
    if (!root) return std::unexpected(root.error());
    UniqueFd file(fcntl((*opened)->fd(), F_DUPFD_CLOEXEC, 0));
    if (!file) return fail_errno(errno, "keep the generation file open");
    const auto generation = std::make_shared<CatalogGeneration>(
        shared_from_this(), *opened, std::move(*root), std::move(file), clock_);
    if (Result<UniqueFd> pack = open_pack((*opened)->header()); !pack) {
      log_warning("module {}: generation {} is served without signatures: {}", module_.name,
                  *number, pack.error().message);
    } else if (*pack) {
      generation->set_pack(std::move(*pack));
    }
    current_ = generation;
    problem_.clear();
    return current_;
  }
  // CURRENT names a file that is not there: the catalog is damaged, not young.
  last.code = Errc::kCorrupt;
  return std::unexpected(last);
}

// No fd when the generation names no pack. One that is damaged or missing is no reason not to
// serve.
Result<UniqueFd> ModuleCatalog::open_pack(const catalog::Header& header) const {
  if (header.pack == 0) return UniqueFd();
  return catalog::open_pack(directory_.get(), header.pack, header.signature_level,
                            header.pack_bytes);
}

Result<std::shared_ptr<const session::Generation>> ModuleCatalog::open() {
  Result<std::shared_ptr<const session::Generation>> opened = open_current();
  if (opened || opened.error().code == Errc::kGone) return opened;
  log_problem(opened.error());
  // What is wrong with our disk is not the peer's business: never NOT_FOUND.
  Error error = opened.error();
  if (error.code == Errc::kNotFound) error.code = Errc::kIo;
  return std::unexpected(std::move(error));
}

void ModuleCatalog::log_problem(const Error& error) {
  const uint64_t now_ms = clock_.monotonic_ms();
  if (error.message == problem_ && now_ms - problem_ms_ < kSameProblemMs) return;
  problem_ = error.message;
  problem_ms_ = now_ms;
  log_error("module {}: cannot be served: {}", module_.name, error.message);
}

bool ModuleCatalog::is_kept(uint64_t number) {
  const Result<uint64_t> current = read_current();
  // While CURRENT cannot be read, whoever has a generation mapped may go on with it.
  if (!current) return true;
  if (*current < number || *current - number >= config_.limits.generations) return false;
  struct stat status{};
  const std::string name = catalog::generation_file_name(number);
  return directory_.valid() &&
         fstatat(directory_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

void ModuleCatalog::report_stale() {
  const uint64_t now_ms = clock_.monotonic_ms();
  if (reported_ms_ && now_ms - *reported_ms_ < kStaleReportMs) return;
  reported_ms_ = now_ms;
  if (on_stale_) on_stale_(module_.name);
}

// --- CatalogCache and SessionStore -------------------------------------------------------------

CatalogCache::CatalogCache(const config::Config& config, Clock& clock,
                           const std::function<void(const std::string& module)>& on_stale)
    : config_(config) {
  for (const config::Module& module : config.modules) {
    modules_.push_back(std::make_shared<ModuleCatalog>(config, module, clock, on_stale));
  }
}

// Each module and its current generation hold each other; here that ends.
CatalogCache::~CatalogCache() {
  for (const std::shared_ptr<ModuleCatalog>& module : modules_)
    module->forget();
}

Result<std::shared_ptr<const session::Generation>> CatalogCache::open(std::string_view module) {
  for (const std::shared_ptr<ModuleCatalog>& candidate : modules_) {
    if (candidate->module().name == module) return candidate->open();
  }
  return fail(Errc::kNotFound, "no module of that name");
}

std::vector<session::ModuleSummary> SessionStore::modules() {
  std::vector<session::ModuleSummary> summaries;
  for (const config::Module& module : cache_.config().modules) {
    if (!module.list || !module.access.admits(peer_)) continue;
    session::ModuleSummary summary;
    summary.name = module.name;
    summary.comment = module.comment;
    // One that cannot be opened is listed without a generation; why is in the log.
    if (const auto generation = cache_.open(module.name); generation) {
      summary.generation = (*generation)->number();
      summary.totals = (*generation)->totals();
    }
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

Result<std::shared_ptr<const session::Generation>> SessionStore::open(std::string_view name) {
  const config::Module* const module = cache_.config().find_module(name);
  if (module == nullptr) return fail(Errc::kNotFound, "no module of that name");
  if (!module->access.admits(peer_)) {
    // A module that is not listed is not given away by its refusal either.
    return fail(module->list ? Errc::kDenied : Errc::kNotFound,
                "module " + module->name + ": access rules refuse");
  }
  if (Status entered = limiter_.enter_module(row_, name, module->connections); !entered) {
    return std::unexpected(entered.error());
  }
  return cache_.open(name);
}

}  // namespace superlifter::daemon
