#include "core/catalog/file_names.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "core/base/unique_fd.h"

namespace superlifter::catalog {

uint64_t number_of(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return 0;
  const std::string_view text = name.substr(0, name.size() - suffix.size());
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && !text.starts_with('0') ? number : 0;
}

uint64_t highest_number(const fs::DirectoryNames& names, std::string_view suffix) {
  uint64_t highest = 0;
  for (size_t i = 0; i < names.count(); ++i)
    highest = std::max(highest, number_of(names.name(i), suffix));
  return highest;
}

std::string generation_file_name(uint64_t number) {
  return std::to_string(number) + std::string(kGenerationSuffix);
}

std::string pack_file_name(uint64_t number) {
  return std::to_string(number) + std::string(kPackSuffix);
}

Result<fs::DirectoryNames> list_catalog(int directory_fd) {
  // A fresh open: listing moves the offset of the fd.
  const UniqueFd fd(::openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open catalog directory");
  return fs::list_directory(fd.get());
}

}  // namespace superlifter::catalog
