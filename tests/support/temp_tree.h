// TempTree: a private directory for one test, removed with everything below it at the end.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "core/base/unique_fd.h"

namespace superlifter::tests {

class TempTree {
 public:
  TempTree() {
    const char* base = getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/superlifter-test-XXXXXX";
    CHECK(mkdtemp(path_.data()) != nullptr);
    fd_ = UniqueFd(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    CHECK(fd_.valid());
  }
  ~TempTree() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempTree(const TempTree&) = delete;
  TempTree& operator=(const TempTree&) = delete;

  const std::string& path() const { return path_; }
  std::string path(std::string_view below) const { return path_ + "/" + std::string(below); }
  int fd() const { return fd_.get(); }

  void make_directory(std::string_view below) const {
    std::filesystem::create_directories(path(below));
  }
  // Writes a file, making the directories above it.
  void write(std::string_view below, std::string_view content) const {
    std::filesystem::create_directories(std::filesystem::path(path(below)).parent_path());
    std::ofstream out(path(below), std::ios::binary | std::ios::trunc);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    CHECK(out.good());
  }
  std::string read(std::string_view below) const {
    std::ifstream in(path(below), std::ios::binary);
    CHECK(in.good());
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

 private:
  std::string path_;
  UniqueFd fd_;
};

}  // namespace superlifter::tests
