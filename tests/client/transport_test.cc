// Over loopback only, on ports that the kernel picks.
#include "client/transport.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/base/clock.h"

namespace superlifter::client {
namespace {

// A socket bound to 127.0.0.1 that listens, or (with kNo) only keeps its port from being used.
enum class Listen { kNo, kYes };

class LocalPort {
 public:
  explicit LocalPort(Listen listens, int backlog = 8)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    if (listens == Listen::kYes) {
      EXPECT_EQ(listen(fd_.get(), backlog), 0);
    }
    EXPECT_EQ(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  uint16_t port() const { return port_; }
  UniqueFd accept() const { return UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  UniqueFd fd_;
  uint16_t port_ = 0;
};

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0);
  return value;
}

TEST(Transport, ConnectsAndCarriesBytesBothWays) {
  const LocalPort server(Listen::kYes);
  TcpTransport transport("127.0.0.1", server.port(), 5'000);
  Result<io::ByteStream> stream = transport.connect();
  ASSERT_TRUE(stream.has_value()) << stream.error().message;
  const UniqueFd peer = server.accept();
  ASSERT_TRUE(peer.valid());
  EXPECT_EQ(stream->in_fd(), stream->out_fd());
  char got = 0;
  ASSERT_EQ(send(stream->out_fd(), "x", 1, 0), 1);
  ASSERT_EQ(recv(peer.get(), &got, 1, 0), 1);
  EXPECT_EQ(got, 'x');
}

TEST(Transport, SocketIsSetUp) {
  const LocalPort server(Listen::kYes);
  TcpTransport transport("127.0.0.1", server.port(), 5'000);
  const Result<io::ByteStream> stream = transport.connect();
  ASSERT_TRUE(stream.has_value());
  const int fd = stream->in_fd();
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(fd, SOL_SOCKET, SO_ERROR), 0);
}

TEST(Transport, ConnectsMoreThanOnce) {
  const LocalPort server(Listen::kYes);
  TcpTransport transport("127.0.0.1", server.port(), 5'000);
  const Result<io::ByteStream> first = transport.connect();
  const Result<io::ByteStream> second = transport.connect();
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_NE(first->in_fd(), second->in_fd());
}

TEST(Transport, NamesAreResolvedAndEveryAddressIsTried) {
  // localhost may be ::1 first, where nobody listens on this port.
  const LocalPort server(Listen::kYes);
  for (const uint64_t timeout_ms : {uint64_t{0}, uint64_t{5'000}}) {
    TcpTransport transport("localhost", server.port(), timeout_ms);
    const Result<io::ByteStream> stream = transport.connect();
    EXPECT_TRUE(stream.has_value()) << stream.error().message;
  }
}

TEST(Transport, RefusedNamesHostAndPort) {
  const LocalPort nobody(Listen::kNo);
  TcpTransport transport("127.0.0.1", nobody.port(), 5'000);
  const Result<io::ByteStream> stream = transport.connect();
  ASSERT_FALSE(stream.has_value());
  EXPECT_EQ(stream.error().code, Errc::kIo);
  EXPECT_EQ(stream.error().sys_errno, ECONNREFUSED);
  EXPECT_EQ(stream.error().message,
            "connect to 127.0.0.1:" + std::to_string(nobody.port()) + ": Connection refused");
}

TEST(Transport, RefusedNameSaysWhatWasTried) {
  const LocalPort nobody(Listen::kNo);
  TcpTransport transport("localhost", nobody.port(), 5'000);
  const Result<io::ByteStream> stream = transport.connect();
  ASSERT_FALSE(stream.has_value());
  EXPECT_TRUE(stream.error().message.starts_with("connect to localhost:"))
      << stream.error().message;
  EXPECT_NE(stream.error().message.find("127.0.0.1"), std::string::npos) << stream.error().message;
}

TEST(Transport, PeerThatDoesNotAnswerIsATimeout) {
  // A full backlog: the kernel drops further SYNs without an answer.
  const LocalPort server(Listen::kYes, 0);
  std::vector<UniqueFd> fillers;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(server.port());
  for (int i = 0; i < 4; ++i) {
    fillers.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    static_cast<void>(
        connect(fillers.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  }
  SystemClock clock;
  const uint64_t began_ms = clock.monotonic_ms();
  TcpTransport transport("127.0.0.1", server.port(), 150);
  const Result<io::ByteStream> stream = transport.connect();
  const uint64_t took_ms = clock.monotonic_ms() - began_ms;
  ASSERT_FALSE(stream.has_value());
  EXPECT_EQ(stream.error().code, Errc::kTimeout);
  EXPECT_EQ(stream.error().message,
            "connect to 127.0.0.1:" + std::to_string(server.port()) + ": no answer within 150 ms");
  EXPECT_GE(took_ms, 140U);
  EXPECT_LT(took_ms, 10'000U);
}

TEST(Transport, NamesThatDoNotResolveAreNotFound) {
  // RFC 6761: "invalid" never resolves. A host that has no name server at all may need its time.
  TcpTransport transport("no-such-host.invalid", 1, 5'000);
  const Result<io::ByteStream> stream = transport.connect();
  ASSERT_FALSE(stream.has_value());
  EXPECT_TRUE(stream.error().code == Errc::kNotFound || stream.error().code == Errc::kTimeout);
  EXPECT_TRUE(stream.error().message.starts_with("connect to no-such-host.invalid:1: the name "))
      << stream.error().message;
}

TEST(Transport, NameShowsIpv6InBrackets) {
  EXPECT_EQ(TcpTransport("::1", 8730, 0).name(), "[::1]:8730");
  EXPECT_EQ(TcpTransport("host", 1, 0).name(), "host:1");
}

TEST(Transport, IsMadeFromASource) {
  const LocalPort server(Listen::kYes);
  const std::string text = "127.0.0.1:" + std::to_string(server.port());
  Result<std::unique_ptr<Transport>> transport = make_transport(*parse_source(text + "/m"), 5'000);
  ASSERT_TRUE(transport.has_value());
  EXPECT_EQ((*transport)->name(), text);
  EXPECT_TRUE((*transport)->connect().has_value());
  EXPECT_EQ((*make_transport(*parse_host("h"), 1))->name(), "h:8730");
}

TEST(Transport, SshIsSaidToBeMissing) {
  const Result<std::unique_ptr<Transport>> transport =
      make_transport(*parse_source("ssh://u@h/m"), 5'000);
  ASSERT_FALSE(transport.has_value());
  EXPECT_EQ(transport.error().code, Errc::kUnsupported);
  EXPECT_NE(transport.error().message.find("ssh://u@h/m"), std::string::npos);
}

}  // namespace
}  // namespace superlifter::client
