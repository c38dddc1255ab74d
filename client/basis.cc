#include "client/basis.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/delta/block_length.h"

namespace superlifter::client {
namespace {

// A name is compared with so many neighbours on either side.
constexpr size_t kNeighbours = 16;
// Candidates that are looked at before the search is given up.
constexpr size_t kMaxStats = 8;
// Less alike than this are names of different things.
constexpr unsigned kLeastSimilarity = 600;
// Files whose sizes differ by more than this factor have little in common, whatever their names.
constexpr uint64_t kMaxSizeFactor = 4;
constexpr size_t kMaxParts = 64;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
}

struct Part {
  std::string_view text;
  unsigned weight = 0;
};

struct Parts {
  std::array<Part, kMaxParts> part;
  size_t count = 0;
  unsigned weight = 0;
};

Parts cut(std::string_view name) {
  constexpr unsigned kLetterWeight = 4;
  Parts out;
  while (!name.empty() && out.count < kMaxParts) {
    const bool letters = is_letter(name[0]);
    size_t length = 1;
    if (letters || is_digit(name[0])) {
      while (length < name.size() && (letters ? is_letter(name[length]) : is_digit(name[length]))) {
        ++length;
      }
    }
    if (out.count + 1 == kMaxParts) length = name.size();
    Part& part = out.part[out.count++];
    part.text = name.substr(0, length);
    part.weight = static_cast<unsigned>(length) * (letters ? kLetterWeight : 1);
    out.weight += part.weight;
    name.remove_prefix(length);
  }
  return out;
}

// What follows the last dot; empty when there is none, or nothing before it.
std::string_view extension(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos || dot == 0 ? std::string_view() : name.substr(dot + 1);
}

// What comes before the first digit: as a rule, the name of what has a version.
std::string_view stem(std::string_view name) {
  return name.substr(
      0, static_cast<size_t>(std::find_if(name.begin(), name.end(), is_digit) - name.begin()));
}

// Weight of the heaviest common subsequence.
unsigned common_weight(const Parts& a, const Parts& b) {
  std::array<unsigned, kMaxParts + 1> row{};
  for (size_t i = 0; i < a.count; ++i) {
    unsigned diagonal = 0;  // The row before, one to the left.
    for (size_t j = 0; j < b.count; ++j) {
      const unsigned above = row[j + 1];
      row[j + 1] =
          a.part[i].text == b.part[j].text ? diagonal + a.part[i].weight : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row[b.count];
}

}  // namespace

unsigned name_similarity(std::string_view a, std::string_view b) {
  const Parts parts_of_a = cut(a);
  const Parts parts_of_b = cut(b);
  const unsigned most = std::max(parts_of_a.weight, parts_of_b.weight);
  if (most == 0) return 0;
  const unsigned alike = 1000 * common_weight(parts_of_a, parts_of_b) / most;
  return extension(a) == extension(b) && stem(a) == stem(b) ? alike : alike / 2;
}

BasisFinder::BasisFinder(int destination_fd, const tree::TableView& table,
                         std::span<const Action> actions)
    : table_(table), actions_(actions), directories_(destination_fd, table_) {}

std::optional<Basis> BasisFinder::find(uint32_t entry) {
  const Result<int> directory = directories_.get(table_.record(entry).parent);
  if (!directory) return std::nullopt;
  struct stat stat{};
  const std::string name(table_.name(entry));
  if (fstatat(*directory, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(stat.st_mode) &&
      static_cast<uint64_t>(stat.st_size) >= delta::kLeastSignedBytes) {
    return Basis{.path = table_.path(entry),
                 .size_bytes = static_cast<uint64_t>(stat.st_size),
                 .is_same_path = true};
  }
  return find_similar(entry, *directory);
}

bool BasisFinder::is_update(uint32_t entry) {
  const Result<int> directory = directories_.get(table_.record(entry).parent);
  struct stat stat{};
  const std::string name(table_.name(entry));
  return directory && fstatat(*directory, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISREG(stat.st_mode);
}

std::optional<Basis> BasisFinder::find_similar(uint32_t entry, int directory_fd) {
  const tree::Record& record = table_.record(entry);
  const Listing& listing = list(record.parent, directory_fd);
  size_t looked_at = 0;
  for (const Candidate& candidate : candidates(listing, table_.name(entry))) {
    if (looked_at++ == kMaxStats) break;
    struct stat stat{};
    if (fstatat(directory_fd, candidate.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) continue;
    const auto size_bytes = static_cast<uint64_t>(stat.st_size);
    const bool fits = S_ISREG(stat.st_mode) && size_bytes >= delta::kLeastSignedBytes &&
                      size_bytes / kMaxSizeFactor <= record.size_bytes &&
                      record.size_bytes / kMaxSizeFactor <= size_bytes;
    if (!fits) continue;
    std::string path = table_.path(record.parent);
    if (!path.empty()) path += '/';
    path += candidate.name;
    return Basis{.path = std::move(path), .size_bytes = size_bytes, .is_same_path = false};
  }
  return std::nullopt;
}

// The names in a directory; those in directories that were left are forgotten.
const BasisFinder::Listing& BasisFinder::list(uint32_t directory, int directory_fd) {
  while (!listings_.empty()) {
    const uint32_t last = listings_.back().directory;
    if (last == directory) return listings_.back();
    const bool is_above = directory > last && directory < table_.end_of(last);
    if (is_above) break;
    listings_.pop_back();
  }
  Listing listing;
  listing.directory = directory;
  // An fd of its own: reading moves its position. What cannot be listed has no candidates.
  const UniqueFd fd(openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) {
    Result<fs::DirectoryNames> names = fs::list_directory(fd.get());
    if (names) listing.names = std::move(*names);
  }
  if (!actions_.empty()) {
    const uint32_t end = table_.end_of(directory);
    for (uint32_t child = directory + 1; child < end; child = table_.end_of(child)) {
      const Action action = actions_[child];
      const bool stays = action == Action::kNone || action == Action::kSkip ||
                         action == Action::kMetadata || action == Action::kCheck;
      if (!stays) listing.replaced.push_back(table_.name(child));
    }
  }
  listings_.push_back(std::move(listing));
  return listings_.back();
}

// Names like this one, the most similar first.
std::vector<BasisFinder::Candidate> BasisFinder::candidates(const Listing& listing,
                                                            std::string_view name) const {
  const fs::DirectoryNames& names = listing.names;
  size_t begin = 0;
  size_t end = names.count();
  while (begin < end) {
    const size_t middle = begin + (end - begin) / 2;
    if (names.name(middle) < name) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  std::vector<Candidate> out;
  const auto consider = [&](size_t index) {
    if (!may_serve(listing, index) || names.name(index) == name) return;
    const unsigned alike = name_similarity(name, names.name(index));
    if (alike >= kLeastSimilarity) out.push_back({alike, std::string(names.name(index))});
  };
  // From the nearest outwards, so that of equally similar ones the nearest comes first.
  for (size_t away = 0; away <= kNeighbours; ++away) {
    if (begin + away < names.count()) consider(begin + away);
    if (away < begin) consider(begin - away - 1);
  }
  std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) {
    return a.similarity > b.similarity;
  });
  return out;
}

bool BasisFinder::may_serve(const Listing& listing, size_t index) const {
  const uint8_t type = listing.names.type(index);
  if (type != DT_REG && type != DT_UNKNOWN) return false;
  return !std::binary_search(listing.replaced.begin(), listing.replaced.end(),
                             listing.names.name(index));
}

}  // namespace superlifter::client
