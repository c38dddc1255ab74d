"""The daemon against broken and hostile clients: the session ends with the right code, and the worker and
everybody else's sessions live on."""

import os
import random
import socket
import struct
import time

import pytest

import wire
from conftest import Server, assert_same, pull, serving, wait_until, write
from superlifter_client import Ended


@pytest.fixture
def survivor(server):
    """The server, with a session open all along that must still work at the end; no process may die."""
    before = server.children()
    with server.client() as client:
        client.open("m")
        yield server
        assert client.read([(1, 0, 1)])[0][0] == wire.OK
    assert server.children() == before, f"a process died:\n{server.log()}"


def error_code(frames):
    errors = [struct.unpack("<HQ", payload)[0] for kind, _, request, payload in frames
              if kind == wire.ERROR and request == 0]
    assert len(errors) == 1, frames
    return errors[0]


def varints(*numbers):
    return b"".join(map(wire.varint, numbers))


def read_payload(items):
    return wire.varint(len(items)) + b"".join(varints(*item) for item in items)


def signature_payload(items, level=8, width=7):
    return bytes([level, width]) + read_payload(items)


# What is sent after a good hello; each must end the session with PROTOCOL.
BROKEN = {
    "unknown type": wire.frame(99, request=1),
    "type 0": wire.frame(0, request=1),
    "type beyond the last": wire.frame(23, request=1),
    "a server's pack": wire.frame(wire.PACKED, wire.compress(wire.frame(wire.PING)), request=1),
    "a server's sums": wire.frame(wire.SUMS, b"\0", request=1),
    "a server's message": wire.frame(wire.OPENED, b"", request=1),
    "a second hello": wire.client_hello(),
    "reserved bits": wire.frame(wire.MODULES, request=1, reserved=1),
    "flags": wire.frame(wire.MODULES, flags=0x80, request=1),
    "too long": wire.frame(wire.READ, b"", request=1, length=(256 << 10) + 1),
    "far too long": wire.frame(wire.READ, b"", request=1, length=0xFFFFFFFF),
    "payload where none belongs": wire.frame(wire.MODULES, b"x", request=1),
    "open with an empty payload": wire.frame(wire.OPEN, b"", request=1),
    "open with a short name": wire.frame(wire.OPEN, wire.varint(5) + b"abc", request=1),
    "open with trailing bytes": wire.frame(wire.OPEN, wire.counted(b"m") + b"x", request=1),
    "open with a long name": wire.frame(wire.OPEN, wire.counted(b"m" * 129), request=1),
    "request id 0": wire.frame(wire.OPEN, wire.counted(b"m"), request=0),
}

# The same after an OPEN as request 1.
BROKEN_AFTER_OPEN = {
    "tree of an unknown kind": wire.frame(wire.TREE, b"\2", request=2),
    "tree with a short list": wire.frame(wire.TREE, b"\1" + wire.varint(2) + bytes(32), request=2),
    "tree with a huge count": wire.frame(wire.TREE, b"\1" + wire.varint(2**60), request=2),
    "tree with 4097 nodes": wire.frame(wire.TREE, b"\1" + wire.varint(4097) + bytes(32 * 4097), request=2),
    "digests of an unknown kind": wire.frame(wire.DIGESTS, b"\3" + varints(1, 0, 1), request=2),
    "digests with an empty range": wire.frame(wire.DIGESTS, b"\1" + varints(1, 0, 0), request=2),
    "digests with a huge count": wire.frame(wire.DIGESTS, b"\1" + varints(2**60), request=2),
    "digests that overflow": wire.frame(wire.DIGESTS, b"\1" + varints(2, 2**31, 2**31, 2**31, 2**31), request=2),
    "read with 1025 items": wire.frame(wire.READ, read_payload([(1, 0, 1)] * 1025), request=2),
    "read with a huge count": wire.frame(wire.READ, wire.varint(2**63), request=2),
    "read with half an item": wire.frame(wire.READ, varints(1, 1, 0), request=2),
    "read with an unknown flag": wire.frame(wire.READ, read_payload([(1, 0, 1)]), flags=2, request=2),
    "read with an offset beyond all bounds": wire.frame(wire.READ, read_payload([(1, 2**63, 1)]), request=2),
    "read whose offsets overflow": wire.frame(wire.READ, read_payload([(1, 2**63 - 1, 1), (1, 0, 1)]), request=2),
    "signature without anything": wire.frame(wire.SIGNATURE, b"", request=2),
    "signature without items": wire.frame(wire.SIGNATURE, signature_payload([]), request=2),
    "signature of an odd level": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)], level=7), request=2),
    "signature of level 4": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)], level=4), request=2),
    "signature of level 30": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)], level=30), request=2),
    "signature 3 bytes wide": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)], width=3), request=2),
    "signature 9 bytes wide": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)], width=9), request=2),
    "signature of no blocks": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 0)]), request=2),
    "signature with 4097 items": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)] * 4097), request=2),
    "signature with a huge count": wire.frame(wire.SIGNATURE, b"\x08\x07" + wire.varint(2**63), request=2),
    "signature with half an item": wire.frame(wire.SIGNATURE, b"\x08\x07" + varints(1, 1, 0), request=2),
    "signature with trailing bytes": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)]) + b"x", request=2),
    "signature of a block beyond all bounds": wire.frame(wire.SIGNATURE, signature_payload([(1, 2**63, 1)]), request=2),
    "signature whose blocks overflow": wire.frame(
        wire.SIGNATURE, signature_payload([(1, 2**62, 2**63 - 1), (1, 0, 1)]), request=2),
    "signature with a flag": wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1)]), flags=1, request=2),
    "a varint of eleven bytes": wire.frame(wire.READ, b"\x01" + b"\x80" * 10 + b"\x01" + b"\0\0", request=2),
    "a varint not in its shortest form": wire.frame(wire.READ, b"\x01\x81\x00\0\0", request=2),
    "cancel with a payload": wire.frame(wire.CANCEL, b"x", request=1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_ends_the_session(survivor, name):
    with survivor.client() as client:
        client.send(BROKEN[name])
        assert error_code(client.until_closed()) == wire.PROTOCOL


@pytest.mark.parametrize("name", BROKEN_AFTER_OPEN)
def test_a_broken_rule_after_open_ends_the_session(survivor, name):
    with survivor.client() as client:
        client.open("m")
        client.send(BROKEN_AFTER_OPEN[name])
        assert error_code(client.until_closed()) == wire.PROTOCOL


@pytest.mark.parametrize("hello", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(64),
    b"@RSYNCD: 31.0 sha512\n" + bytes(64),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    bytes(64),
    b"\xff" * 64,
    wire.client_hello(magic=b"superlfx"),
    wire.client_hello(features=[b"f"] * 33),
    wire.client_hello(features=[b"f" * 33]),
    wire.client_hello(agent=b"a" * 129),
    wire.client_hello(version_min=2, version_max=1),
    wire.frame(wire.HELLO, b"", length=9000),
    wire.frame(wire.MODULES, request=1),
    wire.frame(wire.PING),
])
def test_what_is_no_hello_is_refused(survivor, hello):
    with survivor.client(hello=False) as client:
        client.send(hello)
        assert error_code(client.until_closed()) == wire.PROTOCOL


def test_no_common_version(survivor):
    with survivor.client(hello=False) as client:
        with pytest.raises(Ended) as ended:
            client.hello(version_min=2, version_max=9)
        assert ended.value.code == wire.VERSION and ended.value.argument == 0x00010001
        assert client.until_closed() == []


def test_a_range_of_versions_that_holds_ours(survivor):
    with survivor.client(hello=False) as client:
        client.hello(version_min=0, version_max=65535, features=[b"unknown", b"words"])
        assert client.version == 1 and client.features == []


def test_everything_in_one_byte_pieces(survivor):
    with survivor.client(hello=False) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in wire.client_hello() + wire.frame(wire.OPEN, wire.counted(b"m"), request=7) + wire.frame(wire.GOODBYE):
            client.send(bytes([byte]))
        kinds = [kind for kind, _, _, _ in client.until_closed()]
        assert kinds == [wire.HELLO, wire.OPENED, wire.GOODBYE]


def test_everything_in_one_piece(survivor):
    with survivor.client(hello=False) as client:
        client.send(wire.client_hello() + wire.frame(wire.MODULES, request=1) +
                    wire.frame(wire.OPEN, wire.counted(b"m"), request=2) + wire.frame(wire.TREE, b"\0", request=3) +
                    wire.frame(wire.READ, read_payload([(1, 0, 0)]), request=4) + wire.frame(wire.PING, request=5) +
                    wire.frame(wire.GOODBYE))
        frames = client.until_closed()
        assert {wire.MODULE_LIST, wire.OPENED, wire.NODES, wire.DATA, wire.PONG} <= {kind for kind, _, _, _ in frames}
        assert frames[-1][0] == wire.GOODBYE


def test_unknown_things_end_only_their_request(survivor):
    with survivor.client() as client:
        with pytest.raises(Ended) as ended:
            client.open("nowhere")
        assert ended.value.code == wire.NOT_FOUND
        opened = client.open("m")
        with pytest.raises(Ended) as ended:
            client.tree([bytes(32)])
        assert ended.value.code == wire.NOT_FOUND
        replies = client.read([(opened["entries"] + 1, 0, 0), (0, 0, 0), (0xFFFFFFEF, 0, 0), (1, 2**62, 5)])
        assert [code for code, _ in replies[:3]] == [wire.NOT_FOUND] * 3
        client.goodbye()


def test_cancel_stops_a_read(survivor, tree):
    with survivor.client() as client:
        numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
        client.request(wire.READ, read_payload([(numbers[b"large"], 0, 0)] * 100))
        request = client.next_request - 1
        client.expect(wire.DATA, request)
        client.send(wire.frame(wire.CANCEL, request=request))
        received = 0
        while (got := client.read_frame())[0] != wire.CANCELLED:
            assert got[2] == request
            received += len(got[3])
        assert received < 100 * (3 << 20)
        assert client.read([(numbers[b"plain.txt"], 0, 0)]) == [(wire.OK, b"hello\n")]
        client.send(wire.frame(wire.CANCEL, request=12345))  # One that is long over.
        client.expect(wire.CANCELLED, 12345)


def test_sums_are_those_of_the_files(survivor, tree):
    with survivor.client() as client:
        opened = client.open("m")
        files = [(number, path) for number, path, entry in client.walk(opened) if entry["kind"] == wire.FILE]
        contents = [(tree / os.fsdecode(path)).read_bytes()[:1 << 20] for _, path in files]
        large = next(number for number, path in files if path == b"large")
        for level, width in ((6, 4), (8, 7), (10, 8), (12, 6)):
            items, blocks, expected = [], [], []
            for (number, _), content in zip(files, contents):
                count = max(1, -(-min(len(content), 50_000) >> level))
                whole = -(-len(content) >> level) if number != large else 1 << 30
                items.append((number, 0, count))
                blocks.append(whole)
                expected.append((wire.OK, wire.block_sums(content, level, width, 0, count)))
            assert client.signature(level, width, items, blocks) == expected
        # What is no file, a level that is nowhere kept, blocks beyond the end.
        small = next(number for (number, _), content in zip(files, contents) if 0 < len(content) < 2048)
        assert client.signature(8, 8, [(0, 0, 1), (opened["entries"] + 1, 0, 1), (small, 2**62, 2**62)],
                                [1, 1, 100]) == [(wire.NOT_FOUND, b""), (wire.NOT_FOUND, b""), (wire.OK, b"")]
        assert client.signature(28, 8, [(small, 0, 1)], [1]) == [(wire.NOT_FOUND, b"")]


def test_sums_on_demand_have_a_budget(survivor, tree):
    size = (tree / "large").stat().st_size
    with survivor.client() as client:
        numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
        blocks = -(-size >> 6)
        for _ in range(4):
            (code, sums), = client.signature(6, 4, [(numbers[b"large"], 0, 2**40)], [blocks])
            assert code == wire.OK and len(sums) == 4 * blocks
        # The rest of it in longer blocks, of which nothing is kept either.
        many = [(numbers[b"large"], 0, 2**40), (numbers[b"plain.txt"], 0, 1)] * 400
        client.send(wire.frame(wire.SIGNATURE, wire.signature_payload(8, 4, many), request=100))
        sums = wire.Cursor(client.joined(wire.SUMS, 100))
        codes = []
        while not sums.done():
            codes.append(sums.u8())
            if codes[-1] == wire.OK:
                sums.take(4 * (-(-size >> 8) if len(codes) % 2 == 1 else 1))
        left = (1 << 30) - 4 * size
        assert 0 <= left - codes[::2].count(wire.OK) * size < size
        assert codes[-2] == wire.BUSY_CODE and codes[0] == wire.OK and len(codes) == 800
        assert client.read([(numbers[b"plain.txt"], 0, 0)]) == [(wire.OK, b"hello\n")]


def test_packed_replies_are_what_plain_ones_are(survivor, tree, tmp_path):
    with survivor.client() as client:
        opened = client.open("m")
        files = [number for number, _, entry in client.walk(opened) if entry["kind"] == wire.FILE]
        for part in (files[at:at + 1000] for at in range(0, len(files), 1000)):
            items = [(number, 0, 0) for number in part] + [(0, 0, 0), (opened["entries"] + 1, 0, 0)]
            plain = client.read(items)
            assert client.read(items, may_pack=True) == plain
    source = tmp_path / "text"
    for number in range(50):
        write(source / f"{number:02}", b"".join(b"line %d of %d\n" % (line, number) for line in range(2000)))
    with serving(tmp_path / "server", source) as server, server.client() as client:
        opened = client.open("m")
        items = [(number, 0, 0) for number, _, _ in client.walk(opened)]
        before = client.bytes_received
        plain = client.read(items)
        plain_bytes = client.bytes_received - before
        before = client.bytes_received
        assert client.read(items, may_pack=True) == plain
        assert client.packs > 0 and client.bytes_received - before < plain_bytes / 3


def test_cancel_stops_sums(survivor):
    with survivor.client() as client:
        numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
        items = [(numbers[b"large"], 0, 2**40), (numbers[b"plain.txt"], 0, 1)] * 300
        client.send(wire.frame(wire.SIGNATURE, wire.signature_payload(6, 8, items), request=50))
        client.expect(wire.SUMS, 50)
        client.send(wire.frame(wire.CANCEL, request=50))
        received = 0
        while (got := client.read_frame())[0] != wire.CANCELLED:
            assert got[2] == 50
            received += len(got[3])
        assert received < 300 * (3 << 20) // 8
        assert client.signature(6, 8, [(numbers[b"plain.txt"], 0, 1)], [1]) == [
            (wire.OK, wire.block_sums(b"hello\n", 6, 8))]


def test_no_name_escapes(tmp_path):
    """Nothing but entry numbers reaches the file system; a symlink is never followed."""
    source = tmp_path / "source"
    write(source / "d/inside", b"inside")
    write(tmp_path / "outside/inside", b"outside")
    with serving(tmp_path / "server", source) as server:
        with server.client() as client:
            numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
            # The directory becomes a symlink that leads out.
            (source / "d").rename(tmp_path / "moved")
            (source / "d").symlink_to(tmp_path / "outside")
            (code, content), = client.read([(numbers[b"d/inside"], 0, 0)])
            assert code in (wire.STALE, wire.IO) and content == b""


@pytest.mark.parametrize("part", [b"", b"sup", wire.client_hello()[:20]])
def test_a_silent_client_is_dropped_after_the_hello_timeout(tmp_path, tree, part):
    with serving(tmp_path / "server", tree, limits={"hello_timeout": "300ms"}) as server:
        with server.client(hello=False) as client:
            began = time.monotonic()
            client.send(part)
            assert error_code(client.until_closed()) == wire.TIMEOUT
            assert 0.2 < time.monotonic() - began < 5


def test_an_idle_client_is_dropped_and_ping_keeps_one(tmp_path, tree):
    with serving(tmp_path / "server", tree, limits={"idle_timeout": "500ms"}) as server:
        with server.client() as quiet, server.client() as busy:
            assert quiet.idle_ms == 500
            began = time.monotonic()
            while time.monotonic() - began < 1.5:
                busy.send(wire.frame(wire.PING, request=1))
                busy.expect(wire.PONG, 1)
                wait_until(lambda then=time.monotonic(): time.monotonic() - then > 0.1, "a moment")
            assert error_code(quiet.until_closed()) == wire.TIMEOUT


def test_too_many_connections_are_told_to_come_back(tmp_path, tree):
    with serving(tmp_path / "server", tree, limits={"connections_per_address": 2, "queue": 0}) as server:
        with server.client(), server.client():
            with pytest.raises(Ended) as ended:
                server.client()
            assert ended.value.code == wire.BUSY_CODE
        wait_until(lambda: connects(server), "the slots come back")


def connects(server):
    try:
        with server.client():
            return True
    except (Ended, AssertionError):
        return False


def test_slots_come_back_when_clients_vanish(tmp_path, tree):
    with serving(tmp_path / "server", tree, limits={"connections_per_address": 4, "queue": 0}) as server:
        for _ in range(20):
            clients = [server.client() for _ in range(4)]
            for client in clients:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.socket.close()
            wait_until(lambda: connects(server), "the slots come back")


def test_a_client_that_does_not_read_costs_no_memory(tmp_path, tree):
    with serving(tmp_path / "server", tree, limits={"connections_per_address": 64}) as server:
        def resident():
            return sum(int(open(f"/proc/{pid}/statm").read().split()[1]) for pid in server.children()) * 4096

        with server.client() as client:
            numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
        request = wire.frame(wire.READ, read_payload([(numbers[b"large"], 0, 0)] * 1000), request=2)
        before = resident()
        clients = []
        for _ in range(16):
            client = server.client()
            client.open("m")
            client.send(request)
            clients.append(client)
        for client in clients:
            client.expect(wire.DATA, 2)
        assert resident() - before < 96 << 20
        for client in clients:
            client.socket.close()


def test_random_bytes_and_flips_never_kill_a_worker(survivor):
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    chance = random.Random(seed)
    good = (wire.client_hello() + wire.frame(wire.MODULES, request=1) + wire.frame(wire.OPEN, wire.counted(b"m"), request=2) +
            wire.frame(wire.TREE, b"\0", request=3) + wire.frame(wire.DIGESTS, b"\1" + varints(1, 0, 100), request=4) +
            wire.frame(wire.READ, read_payload([(1, 0, 0), (2, 5, 9)]), flags=1, request=5) +
            wire.frame(wire.SIGNATURE, signature_payload([(1, 0, 1), (2, 5, 900)]), request=6) + wire.frame(wire.CANCEL, request=5))
    for round_number in range(300):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if round_number % 3 == 0:
            data = data[:chance.randrange(len(data))]
        with survivor.client(hello=False, timeout=2) as client:
            try:
                client.send(bytes(data))
                client.socket.shutdown(socket.SHUT_WR)
                client.until_closed()
            except (OSError, AssertionError) as error:
                # A frame that was cut short by our own mistake; a silent server would be a failure.
                assert not isinstance(error, TimeoutError), f"seed {seed}, round {round_number}: no end"


def test_access_rules_refuse(tmp_path, tree):
    server = Server(tmp_path / "server", {
        "open": {"path": str(tree)},
        "denied": {"path": str(tree), "deny": ["127.0.0.0/8"]},
        "hidden": {"path": str(tree), "list": False},
        "elsewhere": {"path": str(tree), "allow": ["192.0.2.0/24"]}})
    server.index()
    server.start()
    try:
        with server.client() as client:
            assert list(client.modules()) == ["open"]
            for module in ("denied", "elsewhere"):
                with pytest.raises(Ended) as ended:
                    client.open(module)
                assert ended.value.code in (wire.DENIED, wire.NOT_FOUND)
            assert client.open("hidden")["generation"] > 0
        pull(server.url("denied"), tmp_path / "dest", code=5)
    finally:
        assert server.stop() == 0


def test_a_hundred_clients_at_once(server, tree, tmp_path):
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda n: pull(server.url("m/d"), tmp_path / f"dest-{n}"), range(48)))
    for number in (0, 47):
        assert_same(tree / "d", tmp_path / f"dest-{number}")
