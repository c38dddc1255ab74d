#include "client/inspect.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "client/connect.h"
#include "client/manifest.h"
#include "client/units.h"
#include "core/base/escape.h"
#include "core/hash/digest.h"
#include "core/wire/codec.h"

namespace superlifter::client {
namespace {

void complain(const std::string& message) {
  static_cast<void>(std::fprintf(stderr, "superlifter: %s\n", message.c_str()));
}

ExitCode failed(const Error& error, Phase phase, const std::atomic<bool>& stop) {
  complain(error.message);
  return stop ? ExitCode::kInterrupted : exit_code_for(error, phase);
}

// Connects, or complains and gives the exit code.
std::expected<Connected, ExitCode> reach(const SourceUri& source, const NetworkOptions& network,
                                         Clock& clock, const std::atomic<bool>& stop) {
  std::expected<Connected, Failure> connected = connect({.source = source,
                                                         .network = network,
                                                         .bandwidth_bytes_per_s = 0,
                                                         .stop = &stop,
                                                         .on_wait = complain},
                                                        clock);
  if (connected) return std::move(*connected);
  return std::unexpected(failed(connected.error().error, connected.error().phase, stop));
}

std::string printable(std::string_view name) {
  return isatty(STDOUT_FILENO) != 0 ? escape(name) : std::string(name);
}

// "drwxr-xr-x" with setuid, setgid and sticky as ls shows them.
std::string mode_text(const tree::Record& record) {
  std::string text = record.is_directory() ? "d" : record.is_symlink() ? "l" : "-";
  const unsigned mode = record.is_symlink() ? 0777U : record.mode;
  for (int shift = 6; shift >= 0; shift -= 3) {
    const unsigned bits = mode >> shift;
    text += (bits & 4U) != 0 ? 'r' : '-';
    text += (bits & 2U) != 0 ? 'w' : '-';
    text += (bits & 1U) != 0 ? 'x' : '-';
  }
  const auto special = [&](unsigned bit, size_t place, char with_x, char without_x) {
    if ((mode & bit) != 0) text[place] = text[place] == 'x' ? with_x : without_x;
  };
  special(04000, 3, 's', 'S');
  special(02000, 6, 's', 'S');
  special(01000, 9, 't', 'T');
  return text;
}

std::string time_text(int64_t seconds) {
  const time_t time = seconds;
  tm parts{};
  char text[32] = {};
  if (gmtime_r(&time, &parts) == nullptr ||
      strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts) == 0) {
    return std::to_string(seconds);
  }
  return text;
}

void print_entry(const tree::TableView& table, uint32_t entry, const std::string& name,
                 bool long_format) {
  const tree::Record& record = table.record(entry);
  std::string line;
  if (long_format) {
    line = fmt::format("{} {:>14} {} ", mode_text(record), record.size_bytes,
                       time_text(record.mtime_s));
  }
  line += printable(name);
  if (record.is_directory()) line += '/';
  if (long_format && record.is_symlink()) line += " -> " + printable(table.target(entry));
  line += '\n';
  // A failure sticks to the stream; flush_stdout tells it.
  static_cast<void>(std::fwrite(line.data(), 1, line.size(), stdout));
}

ExitCode flush_stdout() {
  if (std::fflush(stdout) == 0) return ExitCode::kOk;
  complain(std::string("write to stdout: ") + std::strerror(errno));
  return ExitCode::kFileIo;
}

// A table with the directory's own entries only, without descending.
Result<tree::Table> one_level(const tree::Node& node) {
  tree::Table table;
  tree::Record root;
  root.kind = tree::Kind::kDirectory;
  if (const Result<uint32_t> added = table.add(root, tree::kNoEntry, {}); !added) {
    return std::unexpected(added.error());
  }
  for (const tree::NodeEntry& entry : std::get<tree::LeafNode>(node).entries) {
    tree::Record record;
    record.kind = entry.kind;
    record.mode = entry.mode;
    record.mtime_s = entry.mtime_s;
    record.mtime_ns = entry.mtime_ns;
    record.size_bytes = entry.size_bytes;
    if (const Result<uint32_t> added = table.add(record, tree::kRoot, entry.name, entry.target);
        !added) {
      return std::unexpected(added.error());
    }
  }
  return table;
}

// Prints one directory, leaf by leaf: a directory of a million names is never held whole.
Status print_directory(NodeStore& nodes, const hash::Sha256& top, bool long_format) {
  std::vector<hash::Sha256> open{top};
  while (!open.empty()) {
    const hash::Sha256 digest = open.back();
    open.pop_back();
    const Result<tree::Node> node = nodes.get(digest);
    if (!node) return std::unexpected(node.error());
    if (const auto* index = std::get_if<tree::IndexNode>(&*node)) {
      for (size_t i = index->children.size(); i-- > 0;) {
        open.push_back(index->children[i].node);
      }
      continue;
    }
    const Result<tree::Table> table = one_level(*node);
    if (!table) return std::unexpected(table.error());
    const tree::TableView view = table->view();
    for (uint32_t entry = 1; entry < view.count(); ++entry) {
      print_entry(view, entry, std::string(view.name(entry)), long_format);
    }
  }
  return {};
}

}  // namespace

ExitCode list_modules(const ModulesOptions& options, Clock& clock, const std::atomic<bool>& stop) {
  std::expected<Connected, ExitCode> connected = reach(options.host, options.network, clock, stop);
  if (!connected) return connected.error();
  Conversation& conversation = *connected->conversation;
  const Result<Bytes> reply = conversation.wait(conversation.send_modules());
  if (!reply) return failed(reply.error(), Phase::kOpen, stop);
  const Result<wire::ModuleList> list = wire::decode_module_list(*reply);
  if (!list) return failed(list.error(), Phase::kTransfer, stop);
  for (const wire::ModuleEntry& module : list->modules) {
    const std::string state =
        module.generation == 0 ? "not indexed yet"
                               : human_count(module.files) + " files, " + human_bytes(module.bytes);
    std::printf("%-20s %-28s %s\n", escape(module.name).c_str(), state.c_str(),
                escape(module.comment).c_str());
  }
  conversation.finish();
  return flush_stdout();
}

ExitCode list_entries(const ListOptions& options, Clock& clock, const std::atomic<bool>& stop) {
  std::expected<Connected, ExitCode> connected =
      reach(options.source, options.network, clock, stop);
  if (!connected) return connected.error();
  NodeStore nodes(*connected->conversation, connected->opened, nullptr);
  const Result<Location> location = nodes.locate(options.source.path);
  if (!location) return failed(location.error(), Phase::kOpen, stop);
  if (location->kind != tree::Kind::kDirectory) {
    tree::Table table;
    tree::Record root;
    root.kind = tree::Kind::kDirectory;
    static_cast<void>(table.add(root, tree::kNoEntry, {}));
    tree::Record record;
    record.kind = location->kind;
    record.mode = location->metadata.mode;
    record.mtime_s = location->metadata.mtime_s;
    record.size_bytes = location->size_bytes;
    const std::string name(options.source.path.name());
    static_cast<void>(table.add(record, tree::kRoot, name, location->target));
    print_entry(table.view(), 1, name, options.long_format);
  } else if (!options.recursive) {
    if (const Status printed = print_directory(nodes, location->node, options.long_format);
        !printed) {
      return failed(printed.error(), Phase::kTransfer, stop);
    }
  } else {
    if (const Status fetched = nodes.fetch_below(location->node); !fetched) {
      return failed(fetched.error(), Phase::kTransfer, stop);
    }
    const Result<tree::Table> table = nodes.expand(*location, options.source.path);
    if (!table) return failed(table.error(), Phase::kTransfer, stop);
    const tree::TableView view = table->view();
    for (uint32_t entry = 1; entry < view.count() && !stop; ++entry) {
      print_entry(view, entry, view.path(entry), options.long_format);
    }
    if (stop) return ExitCode::kInterrupted;
  }
  connected->conversation->finish();
  return flush_stdout();
}

ExitCode print_file(const CatOptions& options, Clock& clock, const std::atomic<bool>& stop) {
  std::expected<Connected, ExitCode> connected =
      reach(options.source, options.network, clock, stop);
  if (!connected) return connected.error();
  Conversation& conversation = *connected->conversation;
  NodeStore nodes(conversation, connected->opened, nullptr);
  const Result<Location> location = nodes.locate(options.source.path);
  if (!location) return failed(location.error(), Phase::kOpen, stop);
  const std::string quoted = "'" + escape(options.source.path.text()) + "'";
  if (location->kind != tree::Kind::kFile) {
    const bool directory = location->kind == tree::Kind::kDirectory;
    complain(quoted + " is " +
             (directory ? "a directory: expected a file"
                        : "a symlink to '" + escape(location->target) + "': expected a file"));
    return ExitCode::kPartial;
  }
  hash::Xxh128 expected;
  const Result<Bytes> digests = conversation.wait(conversation.send_digests(
      {.kind = wire::DigestKind::kXxh128, .ranges = {{.first = location->entry, .count = 1}}}));
  if (!digests) return failed(digests.error(), Phase::kTransfer, stop);
  if (digests->size() == expected.bytes.size()) {
    std::copy(digests->begin(), digests->end(), expected.bytes.begin());
  }
  hash::Xxh128Hasher hasher;
  std::optional<wire::Code> status;
  bool write_failed = false;
  uint64_t left_bytes = location->size_bytes;
  const auto handler = [&](const Conversation::ReadEvent& event) -> Status {
    if (event.bytes.size() > left_bytes) {
      return fail(Errc::kProtocol, quoted + ": the server sent more bytes than the file has");
    }
    left_bytes -= event.bytes.size();
    hasher.update(event.bytes);
    if (std::fwrite(event.bytes.data(), 1, event.bytes.size(), stdout) != event.bytes.size()) {
      write_failed = true;
      return fail_errno(errno, "write to stdout");
    }
    if (event.decided) status = event.status;
    return {};
  };
  conversation.send_read({.items = {{.entry = location->entry, .offset = 0, .length_bytes = 0}}});
  while (!status) {
    if (const Status turned = conversation.turn(handler, -1); !turned) {
      return failed(turned.error(), write_failed ? Phase::kLocal : Phase::kTransfer, stop);
    }
  }
  if (*status != wire::Code::kOk) {
    complain(quoted + ": " + std::string(wire::to_text(*status)));
    return ExitCode::kVanished;
  }
  if (left_bytes > 0) {
    complain(quoted + ": the server sent fewer bytes than the file has");
    return ExitCode::kStream;
  }
  if (expected.known() && hasher.digest() != expected) {
    complain(quoted + ": its content does not have the digest that the generation states");
    return ExitCode::kStream;
  }
  conversation.finish();
  return flush_stdout();
}

}  // namespace superlifter::client
