"""A TCP relay between a client and a server: counts what passes, and can stop the server's bytes at a
number, so that a test acts at a known point of a transfer instead of at a guessed time."""

import socket
import threading


class Proxy:
    def __init__(self, port):
        self.target = port
        self.passed = 0  # Bytes from the server to the client, all connections.
        self.hold_at = None
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []

    def url(self, path="m"):
        return f"127.0.0.1:{self.port}/{path}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.sockets:
            one.close()

    def hold(self, at):
        """Lets no byte of the server's pass beyond the first `at`."""
        with self.changed:
            self.hold_at = at

    def release(self):
        with self.changed:
            self.hold_at = None
            self.changed.notify_all()

    def wait_passed(self, count, timeout=60):
        with self.changed:
            assert self.changed.wait_for(lambda: self.passed >= count, timeout), (
                f"only {self.passed} of {count} bytes passed in {timeout} s")

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [near, far]
            threading.Thread(target=self._relay, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._relay, args=(far, near, True), daemon=True).start()

    def _relay(self, source, sink, from_server):
        try:
            while data := source.recv(16384):
                while data:
                    count = len(data)
                    if from_server:
                        with self.changed:
                            self.changed.wait_for(lambda: self.hold_at is None or self.passed < self.hold_at)
                            if self.hold_at is not None:
                                count = min(count, self.hold_at - self.passed)
                    sink.sendall(data[:count])
                    data = data[count:]
                    if from_server:
                        with self.changed:
                            self.passed += count
                            self.changed.notify_all()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for one in (source, sink):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
