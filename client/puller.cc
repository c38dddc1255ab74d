#include "client/puller.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "client/applier.h"
#include "client/connect.h"
#include "client/conversation.h"
#include "client/digests.h"
#include "client/local_tree.h"
#include "client/manifest.h"
#include "client/publish.h"
#include "client/staging.h"
#include "client/transfer.h"
#include "client/units.h"
#include "core/base/check.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/catalog/builder.h"
#include "core/fs/beneath.h"

namespace superlifter::client {
namespace {

using tree::kRoot;
using tree::Record;

constexpr unsigned kPasses = 3;                // One, and two more for what was stale.
constexpr uint64_t kNewerGenerationMs = 5000;  // How long to wait for the server to index a change.
constexpr uint64_t kAskAgainMs = 250;
constexpr size_t kMostNotes = 20;  // Lines of one kind before "and N more".

unsigned writer_count(unsigned wanted) {
  if (wanted > 0) return wanted;
  return std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
}

// Where a pull goes: an open directory, and for a single file the name in it.
struct Destination {
  UniqueFd directory;
  std::string file_name;  // Single file only.
};

class Puller {
 public:
  Puller(const PullOptions& options, Progress& progress, Clock& clock,
         const std::atomic<bool>& stop)
      : options_(options),
        progress_(progress),
        clock_(clock),
        stop_(stop),
        began_ms_(clock.monotonic_ms()) {}

  PullResult run() {
    const std::optional<Failure> failure = run_passes();
    if (failure) {
      progress_.note("superlifter: " + failure->error.message);
      result_.exit_code =
          stop_.load() ? ExitCode::kInterrupted : exit_code_for(failure->error, failure->phase);
    } else if (!errors_.empty()) {
      result_.exit_code = ExitCode::kPartial;
    } else if (!stale_.empty() || gone_) {
      result_.exit_code = stop_.load() ? ExitCode::kInterrupted : ExitCode::kVanished;
    }
    if (!failure && gone_) {
      progress_.note("the server gave up generation " + std::to_string(opened_.generation) +
                     " while it was pulled, and what came after it too: pull again");
    }
    tell(errors_);
    tell(stale_);
    result_.stats.stale = stale_.size();
    if (conversation_ != nullptr) {
      if (!failure) conversation_->finish();
      result_.stats.bytes_received += conversation_->bytes_received();
      result_.stats.bytes_sent += conversation_->bytes_sent();
    }
    result_.stats.elapsed_s = static_cast<double>(clock_.monotonic_ms() - began_ms_) / 1000.0;
    return std::move(result_);
  }

 private:
  struct Target {
    tree::TableView view;
    uint32_t first_entry = 0;  // Number in the module of the view's entry 0.
    int destination_fd = -1;
    bool single = false;
    const catalog::Catalog* state = nullptr;
    std::span<const tree::LeafCommitment> leaves;  // Empty when the tree is the state's own.
    const catalog::NodePack* pack = nullptr;       // Null: the tree is the state's own.
    hash::Sha256 node{};                           // With a pack: the tree's top node
    tree::RootMetadata metadata{};                 // and its root's own metadata.
  };

  void tell(const std::vector<std::string>& lines) {
    for (size_t i = 0; i < std::min(lines.size(), kMostNotes); ++i) {
      progress_.note(lines[i]);
    }
    if (lines.size() > kMostNotes) {
      progress_.note("and " + std::to_string(lines.size() - kMostNotes) + " more like these");
    }
  }

  std::optional<Failure> run_passes() {
    progress_.start(ProgressPhase::kConnecting);
    progress_.tick();
    std::expected<Connected, Failure> connected =
        connect({.source = options_.source,
                 .network = options_.network,
                 .bandwidth_bytes_per_s = options_.bandwidth_bytes_per_s,
                 .stop = &stop_,
                 .on_wait = [this](const std::string& line) { tell_unless_quiet(line); }},
                clock_);
    if (!connected) return connected.error();
    conversation_ = std::move(connected->conversation);
    opened_ = std::move(connected->opened);
    if (!conversation_->motd().empty()) tell_unless_quiet(escape_lines(conversation_->motd()));
    if (opened_.provisional) {
      tell_unless_quiet(
          "the server has no digests of this module yet: what comes is recorded and compared at a "
          "later pull");
    }
    for (unsigned pass = 1;; ++pass) {
      errors_.clear();
      stale_.clear();
      gone_ = false;
      if (std::optional<Failure> failure = run_pass()) return failure;
      if (pass == kPasses || (stale_.empty() && !gone_) || options_.dry_run) return std::nullopt;
      // Else what still comes of this pass would count as the next one's.
      conversation_->abandon_requests();
      if (!wait_for_newer_generation()) return std::nullopt;
      listed_from_bytes_ = conversation_->bytes_received();
    }
  }

  // What is neither a warning nor an error.
  void tell_unless_quiet(const std::string& line) {
    if (options_.output != Output::kQuiet) progress_.note(line);
  }

  // One MOTD may have several lines; each is made fit to print.
  static std::string escape_lines(std::string_view text) {
    std::string out;
    while (!text.empty()) {
      const size_t end = text.find('\n');
      if (!out.empty()) out += '\n';
      out += escape(text.substr(0, end));
      text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    }
    return out;
  }

  // Files were stale: the server is told by that, and indexes them. True when there is a newer
  // generation, which is open then; after GONE, whatever there is now.
  bool wait_for_newer_generation() {
    const uint64_t until = clock_.monotonic_ms() + kNewerGenerationMs;
    while (clock_.monotonic_ms() < until && !stop_.load()) {
      uint32_t retry_after_ms = 0;
      Result<OpenedModule> opened = open_module(*conversation_, options_.source.module,
                                                options_.network.max_entries, retry_after_ms);
      if (!opened) return false;
      if (gone_ || opened->generation != opened_.generation) {
        opened_ = std::move(*opened);
        return true;
      }
      poll(nullptr, 0, static_cast<int>(kAskAgainMs));
    }
    return false;
  }

  std::optional<Failure> run_pass() {
    progress_.start(ProgressPhase::kListing);
    progress_.tick();
    NodeStore nodes(*conversation_, opened_, nullptr);
    Result<Location> location = nodes.locate(options_.source.path);
    if (!location && location.error().code == Errc::kGone)
      return transfer_failure(location.error());
    if (!location) return Failure{location.error(), Phase::kOpen};
    const bool single = location->kind != tree::Kind::kDirectory;
    Result<Destination> destination = open_destination(single);
    if (!destination) return Failure{destination.error(), Phase::kLocal};

    std::optional<Staging> staging;
    if (!options_.dry_run) {
      Result<Staging> opened = Staging::open(destination->directory.get());
      if (!opened) return Failure{in_destination(opened.error()), Phase::kLocal};
      staging.emplace(std::move(*opened));
    }
    Staging* const stage = staging ? &*staging : nullptr;
    std::optional<Failure> failure = single ? pull_file(*location, *destination, stage)
                                            : pull_directory(*location, *destination, stage);
    // What a generation that is gone has left there is mostly in the next one, too.
    if (staging && !failure && !gone_) {
      staging->sweep();
      staging->remove();
    }
    return failure;
  }

  Error in_destination(Error error) const {
    error.message = "destination '" + escape(options_.destination) + "': " + error.message;
    return error;
  }

  Result<Destination> open_destination(bool single) {
    const std::string& path = options_.destination;
    const auto failed = [&](const std::string& what) {
      return fail_errno(errno, what + " destination '" + escape(path) + "'");
    };
    struct stat stat{};
    const bool exists = ::stat(path.c_str(), &stat) == 0;
    if (!exists && errno != ENOENT) return failed("look at");
    Destination destination;
    std::string directory = path;
    if (single && !(exists && S_ISDIR(stat.st_mode))) {
      if (path.ends_with('/')) {
        return fail(Errc::kNotFound, "destination '" + escape(path) + "' is not a directory");
      }
      const size_t slash = path.rfind('/');
      directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
      destination.file_name = path.substr(slash == std::string::npos ? 0 : slash + 1);
    } else if (single) {
      destination.file_name = options_.source.path.name();
    } else if (!exists && options_.dry_run) {
      return destination;
    } else if (!exists) {
      // Ours alone until it gets the source's mode at the end.
      if (mkdir(path.c_str(), 0700) != 0) return failed("make");
    } else if (!S_ISDIR(stat.st_mode)) {
      return fail(Errc::kIo,
                  "destination '" + escape(path) + "' is not a directory, and the source is one");
    }
    destination.directory = UniqueFd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // A dry run compares with nothing then.
    if (!destination.directory.valid() && errno == ENOENT && options_.dry_run) return destination;
    if (!destination.directory.valid()) return failed("open");
    return destination;
  }

  // The source is one file or symlink: a table of a root that is not ours and that entry.
  std::optional<Failure> pull_file(const Location& location, const Destination& destination,
                                   Staging* staging) {
    tree::Table table;
    Record root;
    root.kind = tree::Kind::kDirectory;
    static_cast<void>(table.add(root, tree::kNoEntry, {}));
    Record record;
    record.kind = location.kind;
    record.size_bytes = location.size_bytes;
    record.mode = location.metadata.mode;
    record.mtime_s = location.metadata.mtime_s;
    record.mtime_ns = location.metadata.mtime_ns;
    const Result<uint16_t> owner = table.intern_owner(location.metadata.owner);
    const Result<uint16_t> group = table.intern_owner(location.metadata.group);
    record.owner = owner.value_or(0);
    record.group = group.value_or(0);
    if (!is_valid_name(destination.file_name) || destination.file_name == kStateDirectory) {
      return Failure{
          Error{Errc::kConfig, 0,
                "destination '" + escape(options_.destination) + "' does not name a file"},
          Phase::kLocal};
    }
    static_cast<void>(table.add(record, kRoot, destination.file_name, location.target));
    table.finish();
    return apply({.view = table.view(),
                  .first_entry = location.entry - 1,
                  .destination_fd = destination.directory.get(),
                  .single = true},
                 staging);
  }

  std::optional<Failure> pull_directory(const Location& location, const Destination& destination,
                                        Staging* staging) {
    const std::shared_ptr<const catalog::Catalog> state = open_state(destination.directory.get());
    Target target{.view = {},
                  .first_entry = location.entry,
                  .destination_fd = destination.directory.get(),
                  .single = false,
                  .state = state.get()};
    const bool same_tree = state != nullptr && state->header().root == location.node &&
                           state->header().base_path == options_.source.path.text() &&
                           same_metadata(state->header().root_metadata, location.metadata);
    if (same_tree) {
      target.view = state->table();
      return apply(target, staging);
    }
    release_state(state.get());
    NodeStore nodes(*conversation_, opened_, state.get());
    if (const Status fetched = nodes.fetch_below(location.node); !fetched) {
      return transfer_failure(fetched.error());
    }
    std::vector<tree::LeafCommitment> leaves;
    Result<tree::Table> table = nodes.expand(location, options_.source.path, &leaves);
    if (!table) return transfer_failure(table.error());
    target.view = table->view();
    target.leaves = leaves;
    if (target.view.find_child(kRoot, kStateDirectory) != tree::kNoEntry) {
      return Failure{Error{Errc::kProtocol, 0,
                           "the source holds an entry '.superlifter', which is never served"},
                     Phase::kTransfer};
    }
    Result<catalog::NodePack> pack = nodes.take_pack(location.node);
    if (!pack) return transfer_failure(pack.error());
    target.pack = &*pack;
    release_state(target.state);
    target.node = location.node;
    target.metadata = location.metadata;
    return apply(target, staging);
  }

  // The state is as large as the tree; what was read of it must not stay beside the new one.
  static void release_state(const catalog::Catalog* state) {
    if (state != nullptr) state->release_pages();
  }

  static bool same_metadata(const tree::RootMetadata& a, const tree::RootMetadata& b) {
    return a.mode == b.mode && a.mtime_s == b.mtime_s && a.mtime_ns == b.mtime_ns &&
           a.owner == b.owner && a.group == b.group;
  }

  std::optional<Failure> transfer_failure(const Error& error) {
    if (error.code == Errc::kGone) {
      gone_ = true;
      return std::nullopt;
    }
    return Failure{error, Phase::kTransfer};
  }

  // What the last pull left. One that cannot be read costs a longer pull, no more.
  std::shared_ptr<const catalog::Catalog> open_state(int destination_fd) {
    if (destination_fd < 0) return nullptr;
    const Result<UniqueFd> directory =
        fs::open_directory_at(destination_fd, std::string(kStateDirectory));
    if (!directory) return nullptr;
    Result<std::shared_ptr<const catalog::Catalog>> state =
        catalog::Catalog::open(directory->get(), kStateFile, catalog::Verify::kEverything);
    if (state) release_state(state->get());
    if (state) return *state;
    if (state.error().code != Errc::kNotFound) {
      progress_.note("the state of the last pull is not used: " + state.error().message);
    }
    return nullptr;
  }

  // `staging` is null for a dry run, and only then.
  std::optional<Failure> apply(const Target& target, Staging* staging) {
    progress_.start(ProgressPhase::kComparing, {.bytes = 0, .files = target.view.count() - 1});
    uint64_t told = 0;
    const CompareOptions compare_options{.destination_fd = target.destination_fd,
                                         .table = target.view,
                                         .state = target.state,
                                         .filter = target.single ? nullptr : &options_.filter,
                                         .checksum = options_.checksum,
                                         .owner = options_.owner,
                                         .list_extra = options_.delete_extra && !target.single,
                                         .make_accessible = !options_.dry_run && !target.single,
                                         .on_progress = [&](uint64_t entries) {
                                           progress_.skip(0,
                                                          entries - std::exchange(told, entries));
                                           progress_.tick();
                                           if (target.pack != nullptr) release_state(target.state);
                                           return conversation_->keep_alive();
                                         }};
    Result<Comparison> comparison = compare(compare_options);
    if (!comparison) {
      const bool local =
          comparison.error().code == Errc::kNotFound || comparison.error().sys_errno != 0;
      return Failure{comparison.error(), local ? Phase::kLocal : Phase::kTransfer};
    }
    errors_.insert(errors_.end(), comparison->errors.begin(), comparison->errors.end());
    if (!opened_.provisional) {
      const Status fetched = fetch_digests({.conversation = *conversation_,
                                            .table = target.view,
                                            .leaves = target.leaves,
                                            .first_entry = target.first_entry,
                                            .comparison = *comparison,
                                            .state = target.state});
      if (!fetched) return transfer_failure(fetched.error());
    }
    count_totals(target, *comparison);
    if (options_.dry_run) {
      print_plan(target, *comparison);
      return std::nullopt;
    }
    PublishContext publish{.destination_fd = target.destination_fd,
                           .table = target.view,
                           .comparison = *comparison,
                           .staging = *staging,
                           .owner = options_.owner,
                           .delete_extra = may_replace_directories(),
                           .is_single_file = target.single,
                           .filter = target.single ? nullptr : &options_.filter,
                           .errors = errors_};
    make_directories(publish);
    if (std::optional<Failure> failure = transfer_files(target, *comparison, *staging))
      return failure;
    if (gone_) return std::nullopt;
    progress_.start(ProgressPhase::kApplying);
    progress_.tick();
    make_symlinks(publish);
    make_hard_links(publish);
    if (!comparison->extra.empty()) {
      progress_.start(ProgressPhase::kDeleting, {.bytes = 0, .files = comparison->extra.size()});
      progress_.tick();
      delete_extra(publish, result_.stats);
    }
    if (is_changed(*comparison)) finish_directories(publish);
    if (target.single) return std::nullopt;
    return save_state(target, *comparison, *staging);
  }

  // A directory in the way of something else may hold what a rule protects.
  bool may_replace_directories() const { return options_.delete_extra && options_.filter.empty(); }

  // An entry whose content is that of an earlier one.
  static bool follows_leader(const Record& record, const Comparison& comparison) {
    return record.is_hard_link() && comparison.actions[record.link_or_files] != Action::kSkip;
  }

  static bool is_changed(const Comparison& comparison) {
    const auto is_work = [](Action action) {
      return action != Action::kNone && action != Action::kSkip;
    };
    return !comparison.extra.empty() ||
           std::any_of(comparison.actions.begin(), comparison.actions.end(), is_work);
  }

  void count_totals(const Target& target, const Comparison& comparison) {
    Stats& stats = result_.stats;
    stats.files_total = stats.bytes_total = 0;
    stats.files_unchanged = comparison.files_unchanged;
    stats.generation = opened_.generation;
    stats.root = hash::to_hex(opened_.root.bytes);
    Amount wanted;
    for (uint32_t entry = 0; entry < target.view.count(); ++entry) {
      const Record& record = target.view.record(entry);
      const Action action = comparison.actions[entry];
      if (!record.is_file() || action == Action::kSkip) continue;
      ++stats.files_total;
      if (follows_leader(record, comparison)) continue;
      stats.bytes_total += record.size_bytes;
      if (action == Action::kFetch || action == Action::kCheck || action == Action::kUnshare) {
        ++wanted.files;
        wanted.bytes += record.size_bytes;
      }
    }
    stats.bytes_manifest += conversation_->bytes_received() - listed_from_bytes_;
    if (options_.dry_run) {
      progress_.note("dry run: " + human_count(wanted.files) + " files, " +
                     human_bytes(wanted.bytes) + " would be fetched; nothing was changed");
      return;
    }
    progress_.start(ProgressPhase::kTransferring, wanted);
    progress_.tick();
  }

  // What a pull would do, for --dry-run: one line an entry on stdout.
  static void print_plan(const Target& target, const Comparison& comparison) {
    const auto print = [](const char* what, const std::string& path, const char* suffix) {
      std::printf("%-9s %s%s\n", what, escape(path).c_str(), suffix);
    };
    for (uint32_t entry = 1; entry < target.view.count(); ++entry) {
      const char* suffix = target.view.record(entry).is_directory() ? "/" : "";
      const char* what = nullptr;
      switch (comparison.actions[entry]) {
        case Action::kNone:
        case Action::kSkip:
          continue;
        case Action::kFetch:
          what = "fetch";
          break;
        case Action::kCheck:
          what = "check";
          break;
        case Action::kUnshare:
          what = "copy";
          break;
        case Action::kMetadata:
          what = "metadata";
          break;
        case Action::kDirectory:
          what = "mkdir";
          break;
        case Action::kSymlink:
          what = "symlink";
          break;
        case Action::kHardLink:
          what = "link";
          break;
      }
      print(what, target.view.path(entry), suffix);
    }
    for (const std::string& path : comparison.extra) {
      print("delete", path, "");
    }
  }

  std::optional<Failure> transfer_files(const Target& target, Comparison& comparison,
                                        Staging& staging) {
    Applier applier({.destination_fd = target.destination_fd,
                     .table = target.view,
                     .writers = writer_count(options_.jobs),
                     .owner = options_.owner,
                     .delete_extra = may_replace_directories(),
                     .on_outcome = [this] { conversation_->wake(); }},
                    staging);
    TransferContext context{.conversation = *conversation_,
                            .applier = applier,
                            .staging = staging,
                            .progress = progress_,
                            .stats = result_.stats,
                            .table = target.view,
                            .comparison = comparison,
                            .destination_fd = target.destination_fd,
                            .first_entry = target.first_entry,
                            .state = target.state,
                            .signature_level = options_.whole_file ? 0 : opened_.signature_level,
                            .threads = writer_count(options_.jobs),
                            .compress = options_.compress,
                            .in_place = options_.in_place};
    auto done = transfer(context);
    if (!done) {
      const auto& [error, local] = done.error();
      return Failure{local ? in_destination(error) : error,
                     local ? Phase::kLocal : Phase::kTransfer};
    }
    gone_ = done->gone;
    errors_.insert(errors_.end(), done->errors.begin(), done->errors.end());
    stale_.insert(stale_.end(), done->stale.begin(), done->stale.end());
    return std::nullopt;
  }

  // Keeps what is here now for the next pull, unless it is kept already.
  std::optional<Failure> save_state(const Target& target, const Comparison& comparison,
                                    Staging& staging) {
    // The digests of a provisional state are compared at every pull, until it is replaced.
    const bool is_checked_now =
        target.state != nullptr && target.state->header().provisional && !opened_.provisional;
    if (target.pack == nullptr && !is_changed(comparison) && !is_checked_now) return std::nullopt;
    std::optional<catalog::NodePack> own;
    catalog::Parts parts;
    if (target.pack != nullptr) {
      parts.nodes = target.pack;
      parts.header.root = target.node;
      parts.header.root_metadata = target.metadata;
    } else {
      CHECK(target.state != nullptr);
      NodeStore nodes(*conversation_, opened_, target.state);
      Result<catalog::NodePack> pack = nodes.take_pack(target.state->header().root);
      if (!pack) return Failure{pack.error(), Phase::kLocal};
      own = std::move(*pack);
      parts.nodes = &*own;
      parts.header.root = target.state->header().root;
      parts.header.root_metadata = target.state->header().root_metadata;
    }
    parts.header.generation = opened_.generation;
    parts.header.created_ns = clock_.wall_ns();
    parts.header.provisional = opened_.provisional;
    parts.header.has_owners = opened_.has_owners;
    parts.header.base_path = options_.source.path.text();
    parts.header.source = options_.source.text();
    parts.table = target.view;
    parts.xxh = comparison.xxh;
    parts.local = comparison.local;
    parts.all_nodes = catalog::AllNodes::kOmit;
    const Status built = catalog::build(staging.state_fd(), kStateFile, parts);
    if (!built) return Failure{in_destination(built.error()), Phase::kLocal};
    return std::nullopt;
  }

  const PullOptions& options_;
  Progress& progress_;
  Clock& clock_;
  const std::atomic<bool>& stop_;
  const uint64_t began_ms_;
  std::unique_ptr<Conversation> conversation_;
  OpenedModule opened_;
  std::vector<std::string> errors_;
  std::vector<std::string> stale_;
  bool gone_ = false;
  uint64_t listed_from_bytes_ = 0;  // Received when this pass began.
  PullResult result_;
};

}  // namespace

PullResult pull(const PullOptions& options, Progress& progress, Clock& clock,
                const std::atomic<bool>& stop) {
  return Puller(options, progress, clock, stop).run();
}

}  // namespace superlifter::client
