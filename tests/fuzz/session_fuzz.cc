// A client's whole byte stream against a session with a small store in memory.
#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/session/session.h"
#include "core/wire/codec.h"
#include "tests/support/fake_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace superlifter;  // NOLINT(google-build-using-namespace)
  static tests::FakeStore* const store = [] {
    auto* made = new tests::FakeStore();  // NOLINT(cppcoreguidelines-owning-memory): for ever.
    made->set_files({"a", "", std::string(100'000, 'b')});
    made->keep_signatures(10);
    return made;
  }();
  static session::Packer packer;
  session::Session session({.motd = "", .idle_timeout_ms = 1, .agent = "f", .packer = &packer},
                           *store);
  Outbox outbox;
  // The first byte says whether a good hello and OPEN go ahead, so that the rest is reached.
  if (size > 0 && (data[0] & 1U) != 0) {
    Bytes start;
    wire::encode(wire::ClientHello{}, start);
    wire::encode(wire::Open{.module = "m"}, 1, start);
    session.feed(start);
  }
  if (size > 0) session.feed({data + 1, size - 1});
  for (int turn = 0; turn < 1000 && !session.has_ended(); ++turn) {
    session.advance(outbox);
    const auto requests = session.take_file_requests();
    for (const FileRequest& request : requests) {
      session.on_file(store->run(request));
    }
    CHECK(outbox.queued_bytes() <= kOutboxHighWaterBytes + kDataFrameBytes + kMaxHelloPayload * 2);
    if (requests.empty() && outbox.empty()) break;
    outbox.consume(outbox.queued_bytes());
  }
  return 0;
}
