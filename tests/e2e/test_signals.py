"""Signals and processes: clean exits, sessions that end, workers that come back."""

import os
import pathlib
import signal
import socket
import subprocess

import pytest

import wire
from conftest import (ENVIRONMENT, SUPERLIFTERD, assert_same, is_root, pattern, pull, serving, wait_until,
                      write)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_exit(tmp_path, tree, number):
    with serving(tmp_path / "server", tree) as server:
        children = server.children()
        port = server.port
        assert server.stop(number) == 0
        for pid in children:
            assert not pathlib.Path(f"/proc/{pid}/stat").exists(), "a child outlived the master"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        server.start()
        pull(server.url("m/d"), tmp_path / "dest")


def test_an_idle_session_does_not_hold_up_the_exit(tmp_path, tree):
    with serving(tmp_path / "server", tree, limits={"drain_timeout": "500ms"}) as server:
        with server.client() as client:
            client.open("m")
            assert server.stop(timeout=10) == 0
            frames = client.until_closed()
            assert all(kind in (wire.ERROR, wire.GOODBYE) for kind, _, _, _ in frames)


def test_a_second_signal_ends_at_once(tmp_path, tree):
    with serving(tmp_path / "server", tree, limits={"drain_timeout": "10m"}) as server:
        with server.client() as client:
            numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
            # A session that is busy: its output is not taken.
            payload = wire.varint(500) + (wire.varint(numbers[b"large"]) + b"\0\0") * 500
            client.request(wire.READ, payload)
            client.expect(wire.DATA, client.next_request - 1)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refused(server.port), "it stopped accepting")
            assert server.stop(timeout=10) == 0


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_a_worker_that_is_killed_is_replaced(tmp_path, tree):
    with serving(tmp_path / "server", tree) as server:
        before = set(server.children())
        # The one that holds our connection is a worker.
        worker = worker_of(server)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(server.children()) == len(before) and worker not in server.children(),
                   "another worker stands in its place")
        wait_until(lambda: server.generation() > 0, "the new one serves")
        pull(server.url("m/d"), tmp_path / "dest")
        assert_same(tree / "d", tmp_path / "dest")


def worker_of(server):
    """The child that accepted a connection of ours."""
    with server.client() as client:
        port = client.socket.getsockname()[1]
        inode = None
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].split(":")[1], 16) == server.port and int(fields[2].split(":")[1], 16) == port:
                inode = fields[9]
        assert inode is not None
        for pid in server.children():
            for name in os.listdir(f"/proc/{pid}/fd"):
                try:
                    if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                        return pid
                except OSError:
                    pass
    raise AssertionError("no child holds the connection")


def test_a_pull_ends_with_a_code_when_its_worker_dies(tmp_path):
    from proxy import Proxy
    from conftest import SUPERLIFTER
    write(tmp_path / "source/f", pattern(64 << 20))
    with serving(tmp_path / "server", tmp_path / "source") as server, Proxy(server.port) as proxy:
        worker = worker_of(server)
        proxy.hold(1 << 20)
        process = subprocess.Popen([SUPERLIFTER, "pull", "--quiet", proxy.url(), str(tmp_path / "dest")],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
        try:
            proxy.wait_passed(1 << 20)
            os.kill(worker, signal.SIGKILL)
            proxy.release()
            _, err = process.communicate(timeout=60)
            assert process.returncode in (0, 10, 12), err
        finally:
            process.kill()
            process.communicate()
        pull(server.url(), tmp_path / "dest")
        assert_same(tmp_path / "source", tmp_path / "dest")


def test_the_master_inherits_and_leaks_no_fd(tmp_path, tree):
    """Workers hold only what their job needs: no fd of the client's that was open in the master."""
    with serving(tmp_path / "server", tree) as server:
        before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in server.children()}
        for _ in range(30):
            with server.client() as client:
                client.open("m")
                client.read([(1, 0, 0)])
                client.goodbye()

        def settled():
            return all(len(os.listdir(f"/proc/{pid}/fd")) <= count + 8 for pid, count in before.items())

        wait_until(settled, "fds are closed after sessions")


@pytest.mark.skipif(not is_root, reason="only root can become somebody else")
@pytest.mark.xfail(strict=True, reason="the daemon does not give up root yet: config key user")
def test_root_is_given_up_for_the_user_of_the_config(tmp_path):
    source = tmp_path / "source"
    write(source / "f", b"x")
    with serving(tmp_path / "server", source, start=False) as server:
        from conftest import as_nobody
        as_nobody(source / "f")
        for path in (server.work, server.catalog, server.catalog / "m"):
            path.chmod(0o777)
        for path in (server.catalog / "m").iterdir():
            path.chmod(0o666)
        server.settings["user"] = "nobody"
        server.write_config()
        server.start()
        for pid in server.children():
            uid = pathlib.Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0]
            assert uid == "65534", f"child {pid} runs as {uid}"
        pull(server.url(), tmp_path / "dest")


def test_a_dead_master_takes_its_children_along(tmp_path, tree):
    with serving(tmp_path / "server", tree, start=False) as server:
        server.start()
        children = server.children()
        server.process.kill()
        server.process.wait()
        server.process = None
        wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() and
                                   "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]
                                   for pid in children), "the children are gone")


def test_version_and_help():
    for option in ("--version", "--help"):
        done = subprocess.run([SUPERLIFTERD, option], capture_output=True, text=True, timeout=10)
        assert done.returncode == 0 and done.stdout.strip()
