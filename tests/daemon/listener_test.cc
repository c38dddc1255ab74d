// Listener: real ports, and an address that cannot be had is named.
#include "daemon/listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

namespace superlifter::daemon {
namespace {

TEST(Listener, TellsThePortThatTheKernelChose) {
  const auto listeners = bind_all({*config::parse_listen_address("127.0.0.1:0")});
  ASSERT_TRUE(listeners.has_value()) << listeners.error().message;
  ASSERT_EQ(listeners->size(), 1U);
  const Listener& listener = listeners->front();
  EXPECT_NE(listener.address.port, 0);
  EXPECT_NE(fcntl(listener.fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_NE(fcntl(listener.fd.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(config::to_text(listener.address),
            "127.0.0.1:" + std::to_string(listener.address.port));
}

TEST(Listener, NamesAnAddressThatIsTaken) {
  const auto first = bind_all({*config::parse_listen_address("127.0.0.1:0")});
  ASSERT_TRUE(first.has_value());
  const auto second = bind_all({first->front().address});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().sys_errno, EADDRINUSE);
  EXPECT_NE(second.error().message.find(config::to_text(first->front().address)),
            std::string::npos);
}

TEST(Listener, AnyIpv6TakesIpv4Too) {
  const auto listeners = bind_all({*config::parse_listen_address("[::]:0")});
  ASSERT_TRUE(listeners.has_value()) << listeners.error().message;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(listeners->front().address.port);
  const UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
}

TEST(Listener, NoAddressesMeanNoSockets) {
  const auto listeners = bind_all({});
  ASSERT_TRUE(listeners.has_value());
  EXPECT_TRUE(listeners->empty());
}

}  // namespace
}  // namespace superlifter::daemon
