// See settings.h.
#include "daemon/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <utility>

#include "config/loader.h"
#include "config/schema.h"
#include "core/base/coding.h"
#include "core/base/escape.h"
#include "core/base/limits.h"
#include "core/base/unique_fd.h"
#include "core/hash/digest.h"

namespace superlifter::daemon {
namespace {

// A configuration above this is no configuration; the snapshot is bounded by it.
constexpr size_t kMaxSnapshotBytes = 64 * kMiB;
enum class Source : uint8_t { kFile = 0, kServe = 1 };

std::string join_lines(const std::vector<std::string>& lines) {
  std::string joined;
  for (const std::string& line : lines) {
    if (!joined.empty()) joined += '\n';
    joined += line;
  }
  return joined;
}

Result<std::string> read_text(const std::string& file) {
  const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return fail_errno(errno, file);
  std::string text;
  std::string piece(64 * kKiB, '\0');
  while (text.size() <= kMaxSnapshotBytes) {
    const ssize_t got = read(fd.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, file);
    if (got == 0) return text;
    text.append(piece, 0, static_cast<size_t>(got));
  }
  return fail(Errc::kConfig, file + ": expected a configuration of at most 64 MiB");
}

// A configuration from YAML. Module paths were looked at when it was first loaded.
Result<Settings> from_text(const std::string& text, const std::string& name,
                           config::CheckPaths check_paths) {
  config::Loaded loaded = config::load_text(text, name, check_paths);
  if (!loaded.errors.empty()) return fail(Errc::kConfig, join_lines(loaded.errors));
  Settings settings;
  settings.config = std::move(loaded.config);
  Writer writer(settings.snapshot);
  writer.u8(static_cast<uint8_t>(Source::kFile));
  writer.counted(name);
  writer.counted(text);
  return settings;
}

// The configuration of --serve. A catalog inside of a tree that is served is left out of it: each
// pass would change what the next one finds.
Settings from_directories(const std::vector<ServeDirectory>& directories,
                          const std::string& catalog) {
  Settings settings;
  settings.serves_directory = true;
  settings.config = config::default_config();
  settings.config.catalog = catalog;
  Writer writer(settings.snapshot);
  writer.u8(static_cast<uint8_t>(Source::kServe));
  writer.counted(catalog);
  writer.varint(directories.size());
  for (const ServeDirectory& directory : directories) {
    config::Module module = config::default_module();
    module.name = directory.name;
    module.path = directory.path;
    const std::string below = directory.path == "/" ? "/" : directory.path + "/";
    if (catalog.starts_with(below)) {
      std::string pattern = "/";
      for (const char byte : catalog.substr(below.size())) {
        if (std::strchr("*?[]\\", byte) != nullptr) pattern += '\\';
        pattern += byte;
      }
      if (Result<Glob> glob = Glob::parse(pattern + "/"); glob) {
        module.exclude.push_back(std::move(*glob));
      }
    }
    settings.config.modules.push_back(std::move(module));
    writer.counted(directory.path);
    writer.counted(directory.name);
  }
  return settings;
}

Result<std::string> cache_directory() {
  const char* const cache = getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/superlifter";
  const char* home = getenv("HOME");
  if (home == nullptr || home[0] != '/') {
    const passwd* const account = getpwuid(geteuid());
    home = account != nullptr ? account->pw_dir : nullptr;
  }
  if (home == nullptr || home[0] != '/') {
    return fail(Errc::kConfig,
                "--serve: expected HOME or XDG_CACHE_HOME to say where the catalog goes");
  }
  return std::string(home) + "/.cache/superlifter";
}

// mkdir -p. What is there already is left as it is.
Status make_directories(const std::string& path, mode_t mode) {
  for (size_t at = path.find('/', 1); true; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
      return fail_errno(errno, "make directory " + escape(part));
    }
    if (at == std::string::npos) break;
  }
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return fail_errno(errno, escape(path));
  if (!S_ISDIR(status.st_mode)) {
    return fail(Errc::kIo, escape(path) + ": expected a directory for the catalog");
  }
  return {};
}

// The directory as the kernel knows it, and the name that its module gets.
Result<ServeDirectory> resolve(const ServeDirectory& given) {
  const std::string option = "--serve " + escape(given.path);
  const std::unique_ptr<char, void (*)(void*)> real(realpath(given.path.c_str(), nullptr), free);
  if (real == nullptr) return fail_errno(errno, option);
  ServeDirectory resolved{.path = real.get(), .name = given.name};
  struct stat status{};
  if (stat(resolved.path.c_str(), &status) != 0) return fail_errno(errno, option);
  if (!S_ISDIR(status.st_mode)) return fail(Errc::kConfig, option + ": expected a directory");
  if (access(resolved.path.c_str(), R_OK | X_OK) != 0) return fail_errno(errno, option);
  if (resolved.name.empty()) resolved.name = resolved.path.substr(resolved.path.rfind('/') + 1);
  if (resolved.name.empty()) resolved.name = "root";
  if (!config::is_module_name(resolved.name)) {
    return fail(
        Errc::kConfig,
        fmt::format("{}={}: expected a name of letters, digits, '.', '_' and '-', the first a "
                    "letter or digit: say --serve DIR=NAME",
                    option, escape(resolved.name)));
  }
  return resolved;
}

Result<Settings> load_serve(const Options& options) {
  std::vector<ServeDirectory> directories;
  for (const ServeDirectory& given : options.serve) {
    Result<ServeDirectory> resolved = resolve(given);
    if (!resolved) return std::unexpected(resolved.error());
    for (const ServeDirectory& other : directories) {
      if (other.name == resolved->name) {
        return fail(Errc::kConfig, "--serve: two modules named " + other.name +
                                       ": expected another name, as in --serve DIR=NAME");
      }
    }
    directories.push_back(std::move(*resolved));
  }
  const Result<std::string> cache = cache_directory();
  if (!cache) return std::unexpected(cache.error());
  const std::string catalog = *cache + "/" + serve_catalog_name(directories);
  if (Status made = make_directories(catalog, 0700); !made) return fail_in("--serve", made.error());
  // As the kernel knows it, so that it can be compared with the module paths.
  const std::unique_ptr<char, void (*)(void*)> real(realpath(catalog.c_str(), nullptr), free);
  return from_directories(directories, real != nullptr ? std::string(real.get()) : catalog);
}

}  // namespace

std::string serve_catalog_name(const std::vector<ServeDirectory>& directories) {
  std::string paths;
  for (const ServeDirectory& directory : directories) {
    // NUL cannot stand in a path.
    if (!paths.empty()) paths += '\0';
    paths += directory.path;
  }
  return fmt::format("{}-{:016x}", directories.front().name, hash::xxh64(as_bytes(paths)));
}

Result<Settings> load_settings(const Options& options) {
  Result<Settings> settings = [&]() -> Result<Settings> {
    if (!options.serve.empty()) return load_serve(options);
    const Result<std::string> text = read_text(options.config_file);
    if (!text) {
      Error error = text.error();
      error.code = Errc::kConfig;
      error.message += ": expected a configuration (see --config and --serve)";
      return std::unexpected(std::move(error));
    }
    return from_text(*text, options.config_file, config::CheckPaths::kYes);
  }();
  if (settings && !options.listen.empty()) settings->config.listen = options.listen;
  return settings;
}

Result<Settings> read_snapshot(ByteView snapshot) {
  Reader reader(snapshot);
  const auto source = static_cast<Source>(reader.u8());
  if (source == Source::kFile) {
    const std::string name(reader.counted(kMaxSnapshotBytes));
    const std::string text(reader.counted(kMaxSnapshotBytes));
    if (const Status end = reader.finish("config snapshot"); !end) {
      return std::unexpected(end.error());
    }
    return from_text(text, name, config::CheckPaths::kNo);
  }
  if (source != Source::kServe) return fail(Errc::kCorrupt, "config snapshot: unknown source");
  const std::string catalog(reader.counted(kMaxPathBytes));
  const uint64_t count = reader.varint_at_most(kMaxModules);
  std::vector<ServeDirectory> directories;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    ServeDirectory directory;
    directory.path = reader.counted(kMaxPathBytes);
    directory.name = reader.counted(kMaxModuleNameBytes);
    directories.push_back(std::move(directory));
  }
  if (const Status end = reader.finish("config snapshot"); !end) {
    return std::unexpected(end.error());
  }
  return from_directories(directories, catalog);
}

Status make_catalog_directory(const config::Config& config) {
  if (Status made = make_directories(config.catalog, 0755); !made) {
    return fail_in("catalog", made.error());
  }
  return {};
}

std::vector<std::string> settings_without_effect(const config::Config& config) {
  const config::Config defaults = config::default_config();
  std::vector<std::string> names;
  const auto note = [&names](bool is_set, std::string name) {
    if (is_set) names.push_back(std::move(name));
  };
  note(config.user != defaults.user, "user");
  note(config.log.access != defaults.log.access, "log.access");
  note(config.engine == config::EngineChoice::kIoUring, "engine: io_uring");
  note(!config.proxy_protocol.empty(), "proxy_protocol");
  note(config.limits.minimum_rate_bytes_per_s != defaults.limits.minimum_rate_bytes_per_s,
       "limits.minimum_rate");
  note(config.limits.bandwidth_bytes_per_s != defaults.limits.bandwidth_bytes_per_s,
       "limits.bandwidth");
  note(config.ops_listen.has_value(), "ops.listen");
  for (const config::Module& module : config.modules) {
    note(module.bandwidth_bytes_per_s != config::kUnlimited,
         "modules." + module.name + ".bandwidth");
  }
  return names;
}

}  // namespace superlifter::daemon
