#include "core/hash/digest.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <cstring>

#include "core/base/check.h"

namespace superlifter::hash {
namespace {

Xxh128 canonical(XXH128_hash_t value) {
  XXH128_canonical_t form;
  XXH128_canonicalFromHash(&form, value);
  Xxh128 out;
  static_assert(sizeof(form.digest) == sizeof(out.bytes));
  std::memcpy(out.bytes.data(), form.digest, out.bytes.size());
  return out;
}

}  // namespace

Xxh128 xxh128(ByteView bytes) {
  return canonical(XXH3_128bits(bytes.data(), bytes.size()));
}

uint64_t xxh64(ByteView bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

Sha256 sha256(ByteView bytes) {
  thread_local Sha256Hasher hasher;
  hasher.reset();
  hasher.update(bytes);
  return hasher.finish();
}

std::string to_hex(ByteView bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    out += kHex[byte >> 4];
    out += kHex[byte & 0x0FU];
  }
  return out;
}

// Made by the library, which knows its size and alignment.
struct Xxh128Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();

  State() { CHECK(xxh != nullptr); }
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { XXH3_freeState(xxh); }
};

Xxh128Hasher::Xxh128Hasher() : state_(std::make_unique<State>()) {
  reset();
}
Xxh128Hasher::~Xxh128Hasher() = default;
Xxh128Hasher::Xxh128Hasher(Xxh128Hasher&&) noexcept = default;
Xxh128Hasher& Xxh128Hasher::operator=(Xxh128Hasher&&) noexcept = default;

void Xxh128Hasher::reset() {
  CHECK(XXH3_128bits_reset(state_->xxh) == XXH_OK);
}
void Xxh128Hasher::update(ByteView bytes) {
  CHECK(XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size()) == XXH_OK);
}
Xxh128 Xxh128Hasher::digest() const {
  return canonical(XXH3_128bits_digest(state_->xxh));
}

struct Sha256Hasher::State {
  // Fetched once a hasher: the implicit fetch of EVP_sha256() takes a lock on every init.
  EVP_MD* algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MD_CTX* context = EVP_MD_CTX_new();

  State() { CHECK(algorithm != nullptr && context != nullptr); }
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    EVP_MD_CTX_free(context);
    EVP_MD_free(algorithm);
  }
};

Sha256Hasher::Sha256Hasher() : state_(std::make_unique<State>()) {
  reset();
}
Sha256Hasher::~Sha256Hasher() = default;
Sha256Hasher::Sha256Hasher(Sha256Hasher&&) noexcept = default;
Sha256Hasher& Sha256Hasher::operator=(Sha256Hasher&&) noexcept = default;

void Sha256Hasher::reset() {
  CHECK(EVP_DigestInit_ex(state_->context, state_->algorithm, nullptr) == 1);
}
void Sha256Hasher::update(ByteView bytes) {
  CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}
Sha256 Sha256Hasher::finish() {
  Sha256 out;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(state_->context, out.bytes.data(), &size) == 1);
  CHECK(size == out.bytes.size());
  return out;
}

}  // namespace superlifter::hash
