// Names in a module's catalog directory: "<number><suffix>", the number in decimal without leading
// zeros. FORMAT.md lists them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/fs/walk.h"

namespace superlifter::catalog {

constexpr std::string_view kGenerationSuffix = ".generation";
constexpr std::string_view kDamagedSuffix = ".damaged";
constexpr std::string_view kPackSuffix = ".signatures";

// The number in "<number><suffix>", or 0.
uint64_t number_of(std::string_view name, std::string_view suffix);

// The highest number of a name with that suffix, or 0.
uint64_t highest_number(const fs::DirectoryNames& names, std::string_view suffix);

// The name of a generation's file: "17.generation".
std::string generation_file_name(uint64_t number);

// The name of a pack: "17.signatures".
std::string pack_file_name(uint64_t number);

// The names in the directory, as of now. kIo.
[[nodiscard]] Result<fs::DirectoryNames> list_catalog(int directory_fd);

}  // namespace superlifter::catalog
