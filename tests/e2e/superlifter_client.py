"""A small superlifter client, written from PROTOCOL.md alone. It shows that a day and a scripting language
are enough, and drives the daemon from tests with whatever bytes a test wants to send."""

import socket
import struct

import wire


class Ended(Exception):
    """The server ended the session (ERROR with id 0, BUSY) or a request; code is from section 7."""

    def __init__(self, code, argument=0):
        super().__init__(f"code {code}, argument {argument}")
        self.code = code
        self.argument = argument


class Client:
    def __init__(self, host, port, timeout=10, hello=True):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.received = b""
        self.bytes_received = 0
        self.next_request = 1
        if hello:
            self.hello()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    # --- Frames --------------------------------------------------------------------------------------

    def send(self, data):
        self.socket.sendall(data)

    def read_frame(self):
        """(type, flags, request, payload), or None at the end of the stream."""
        header = self._take(12)
        if header is None:
            return None
        length, kind, flags, reserved, request = struct.unpack("<IBBHI", header)
        assert reserved == 0
        assert length <= 1 << 20
        payload = self._take(length)
        assert payload is not None, "the stream ended inside a frame"
        return kind, flags, request, payload

    def _take(self, count):
        while len(self.received) < count:
            try:
                data = self.socket.recv(max(65536, count - len(self.received)))
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self.received, "the stream ended inside a frame"
                return None
            self.bytes_received += len(data)
            self.received += data
        data, self.received = self.received[:count], self.received[count:]
        return data

    def expect(self, kind, request=0):
        got = self.read_frame()
        assert got is not None, f"the stream ended; expected type {kind}"
        if got[0] == wire.ERROR:
            code, argument = struct.unpack("<HQ", got[3])
            raise Ended(code, argument)
        if got[0] == wire.BUSY:
            raise Ended(*struct.unpack("<HI", got[3]))
        assert got[0] == kind and got[2] == request, f"expected type {kind} of {request}, got {got[:3]}"
        return got

    def until_closed(self):
        """The frames that still come, to the end of the stream."""
        frames = []
        while (got := self.read_frame()) is not None:
            frames.append(got)
        return frames

    def request(self, kind, payload=b"", flags=0):
        number = self.next_request
        self.next_request += 1
        self.send(wire.frame(kind, payload, flags, number))
        return number

    def joined(self, kind, request):
        payload = b""
        while True:
            _, flags, _, part = self.expect(kind, request)
            payload += part
            if flags & wire.LAST:
                return payload

    # --- Messages ------------------------------------------------------------------------------------

    def hello(self, **fields):
        self.send(wire.client_hello(**fields))
        cursor = wire.Cursor(self.expect(wire.HELLO)[3])
        assert cursor.take(8) == wire.MAGIC
        self.version = cursor.u16()
        self.features = [cursor.counted() for _ in range(cursor.varint())]
        self.agent = cursor.counted()
        self.idle_ms = cursor.u32()
        self.motd = cursor.counted()
        assert cursor.done()

    def modules(self):
        cursor = wire.Cursor(self.joined(wire.MODULE_LIST, self.request(wire.MODULES)))
        found = {}
        for _ in range(cursor.varint()):
            name, comment = cursor.counted(), cursor.counted()
            found[name.decode()] = {"comment": comment.decode(), "generation": cursor.u64(),
                                    "entries": cursor.u64(), "files": cursor.u64(), "bytes": cursor.u64()}
        assert cursor.done()
        return found

    def open(self, module):
        request = self.request(wire.OPEN, wire.counted(module.encode()))
        cursor = wire.Cursor(self.expect(wire.OPENED, request)[3])
        opened = {"generation": cursor.u64(), "root": cursor.take(32), "flags": cursor.u8(),
                  "mode": cursor.u16(), "mtime": cursor.i64(), "mtime_ns": cursor.u32(),
                  "owner": cursor.counted(), "group": cursor.counted(), "entries": cursor.u64(),
                  "files": cursor.u64(), "bytes": cursor.u64(), "nodes": cursor.u32(),
                  "nodes_bytes": cursor.u64(), "signature_level": cursor.u8()}
        assert cursor.done()
        return opened

    def tree(self, digests=None):
        """Nodes by digest: the listed ones, or all."""
        if digests is None:
            payload = struct.pack("<B", 0)
        else:
            payload = struct.pack("<B", 1) + wire.varint(len(digests)) + b"".join(digests)
        stream = wire.decompress(self.joined(wire.NODES, self.request(wire.TREE, payload)))
        nodes = wire.split_nodes(stream)
        if digests is not None:
            assert [wire.sha256(node) for node in nodes] == list(digests)
        return {wire.sha256(node): node for node in nodes}

    def digests(self, kind, ranges):
        """ranges: (gap, count); 16- or 32-byte digests in order."""
        payload = struct.pack("<B", kind) + wire.varint(len(ranges))
        payload += b"".join(wire.varint(gap) + wire.varint(count) for gap, count in ranges)
        data = self.joined(wire.DIGEST_LIST, self.request(wire.DIGESTS, payload))
        size = 16 if kind == 1 else 32
        return [data[i:i + size] for i in range(0, len(data), size)]

    def signature(self, level, width, items, blocks):
        """items: (entry, first block, count); blocks: how many each of them has. (code, sums) of each."""
        payload = wire.signature_payload(level, width, items)
        cursor = wire.Cursor(self.joined(wire.SUMS, self.request(wire.SIGNATURE, payload)))
        found = []
        for (_, first, count), of_file in zip(items, blocks):
            code = cursor.u8()
            here = max(0, min(count, of_file - first)) if code == wire.OK else 0
            found.append((code, cursor.take(here * width)))
        assert cursor.done()
        return found

    def read(self, items, may_pack=False):
        """items: (entry, offset, length); a list of (code, bytes)."""
        request = self.request(wire.READ, wire.items_payload(items), wire.MAY_PACK if may_pack else 0)
        frames = []  # Unpacked, and not looked at yet.
        self.packs = 0
        status = [None] * len(items)
        content = [b""] * len(items)
        at = 0  # The item that DATA belongs to now.
        while None in status:
            got = frames.pop(0) if frames else self.read_frame()
            assert got is not None and got[2] == request, got
            kind, flags, _, part = got
            if kind == wire.PACKED and may_pack:
                frames = wire.unpack(part)
                self.packs += 1
                continue
            if kind == wire.ITEM:
                number, code = struct.unpack("<IH", part)
                assert status[number] is None
                status[number] = code
                if number == at:
                    at += 1
                continue
            assert kind == wire.DATA, got[:3]
            # An item that failed before its first byte had only its ITEM.
            while status[at] is not None and not content[at]:
                at += 1
            content[at] += part
            if flags & wire.ITEM_END:
                if flags & wire.ITEM_OK:
                    assert status[at] is None
                    status[at] = wire.OK
                at += 1
        return list(zip(status, content))

    def goodbye(self):
        self.send(wire.frame(wire.GOODBYE))
        self.expect(wire.GOODBYE)
        assert self.read_frame() is None

    # --- The tree as paths -----------------------------------------------------------------------------

    def walk(self, opened):
        """(number, path, entry) of every entry, in preorder, from one TREE "all"."""
        nodes = self.tree()
        assert len(nodes) <= opened["nodes"]
        return list(walk_nodes(nodes, opened["root"]))


def walk_nodes(nodes, root):
    number = 0
    stack = [(root, b"")]  # Nodes still to visit, or entries that wait, last first.
    while stack:
        item, path = stack.pop()
        if isinstance(item, dict):
            number += 1
            full = path + item["name"]
            yield number, full, item
            if item["kind"] == wire.DIRECTORY:
                stack.append((item["node"], full + b"/"))
            continue
        parsed = wire.parse_node(nodes[item])
        if parsed[0] == "index":
            stack.extend((child[0], path) for child in reversed(parsed[2]))
        else:
            stack.extend((one, path) for one in reversed(parsed[4]))
