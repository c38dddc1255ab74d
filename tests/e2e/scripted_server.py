"""A superlifter server that a test writes by hand: right by default, and wrong exactly where the test says.

    tree = Tree({b"a": b"content", b"d": {b"x": b"1"}})
    with ScriptedServer(tree) as server:
        pull(server.url, dest)

Tree holds nodes, digests and contents as the protocol names them; a hostile test changes one of these, or
overrides one reply with a function of the server's `replies` (message type to function of connection,
request id and payload). `cut_at` and `flip_at` cut or corrupt the server's output at a byte.
"""

import socket
import struct
import threading

import wire


class Symlink(bytes):
    """A target, as a value of Tree's dictionary."""


class File:
    """Content with metadata; plain bytes do for the rest."""

    def __init__(self, content, **fields):
        self.content = content
        self.fields = fields


class Raw:
    """An entry given as bytes, with what the entry numbers need to know: one entry, no children."""

    def __init__(self, data):
        self.data = data


class Tree:
    """children: dictionary of name to bytes (a file), dict (a directory), Symlink, File or Raw; in the order
    in which the entries are to be encoded, which is sorted unless keep_order says otherwise."""

    def __init__(self, children, keep_order=False, provisional=False, with_digests=True, signature_level=0):
        self.nodes = {}
        self.contents = {}  # Entry number to bytes.
        self.keep_order = keep_order
        self.with_digests = with_digests
        self.signature_level = signature_level
        self.flags = wire.PROVISIONAL if provisional else 0
        self.generation = 1
        self.entries = self.files = self.bytes = 0
        self.root = self._add(children, 0)[0]

    def _add(self, children, number):
        """Builds one directory; (digest, entries, files, bytes)."""
        total = files = content = 0
        out = []
        xxh, sha = b"", b""
        for name in children if self.keep_order else sorted(children):
            value = children[name]
            number += 1
            total += 1
            if isinstance(value, Raw):
                out.append(value.data)
            elif isinstance(value, dict):
                digest, below, below_files, below_bytes = self._add(value, number)
                out.append(wire.entry(wire.DIRECTORY, name, mode=0o755, node=digest, entries=below,
                                      files=below_files, content=below_bytes))
                number += below
                total += below
                files += below_files
                content += below_bytes
            elif isinstance(value, Symlink):
                out.append(wire.entry(wire.SYMLINK, name, mode=0o777, target=bytes(value)))
            else:
                fields = value.fields if isinstance(value, File) else {}
                data = value.content if isinstance(value, File) else value
                out.append(wire.entry(wire.FILE, name, **{"size": len(data), **fields}))
                self.contents[number] = data
                xxh += wire.xxh128(data)
                sha += wire.sha256(data)
                files += 1
                content += len(data)
        known = self.with_digests and xxh
        node = wire.leaf(out, xxh=wire.xxh128(xxh) if known else bytes(16),
                         sha=wire.sha256(sha) if known else bytes(32))
        self.entries, self.files, self.bytes = total, files, content
        return self.add_node(node), total, files, content

    def add_node(self, node):
        """Stores a node under its digest, and returns that."""
        digest = wire.sha256(node)
        self.nodes[digest] = node
        return digest

    def opened(self, **changes):
        fields = {"generation": self.generation, "root": self.root, "flags": self.flags, "mode": 0o755,
                  "mtime": 1_700_000_000, "mtime_ns": 0, "owner": b"", "group": b"",
                  "entries": self.entries, "files": self.files, "bytes": self.bytes,
                  "nodes": len(self.nodes),
                  "nodes_bytes": sum(len(wire.counted(node)) for node in self.nodes.values()),
                  "signature_level": self.signature_level, **changes}
        return (struct.pack("<Q", fields["generation"]) + fields["root"] +
                struct.pack("<BHqI", fields["flags"], fields["mode"], fields["mtime"], fields["mtime_ns"]) +
                wire.counted(fields["owner"]) + wire.counted(fields["group"]) +
                struct.pack("<QQQIQB", fields["entries"], fields["files"], fields["bytes"], fields["nodes"],
                            fields["nodes_bytes"], fields["signature_level"]))


class Connection:
    def __init__(self, server, peer):
        self.server = server
        self.peer = peer
        self.sent = 0
        self.borders = []  # Bytes sent at the end of each frame.

    def send(self, data, border=True):
        """Sends, cutting or corrupting where the server was told to. False once the stream was cut."""
        flip = self.server.flip_at
        if flip is not None and self.sent <= flip < self.sent + len(data):
            at = flip - self.sent
            data = data[:at] + bytes([data[at] ^ self.server.flip_mask]) + data[at + 1:]
        cut = self.server.cut_at
        if cut is not None and self.sent + len(data) >= cut:
            data = data[:max(0, cut - self.sent)]
            self.peer.sendall(data)
            self.sent += len(data)
            raise ConnectionAbortedError
        self.peer.sendall(data)
        self.sent += len(data)
        if border:
            self.borders.append(self.sent)

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.peer.recv(count - len(data))
            if not part:
                raise ConnectionAbortedError
            data += part
        return data

    def frames(self):
        while True:
            length, kind, _, _, request = struct.unpack("<IBBHI", self.take(12))
            yield kind, request, self.take(length)

    def send_joined(self, kind, request, payload, size=1 << 20):
        parts = [payload[i:i + size] for i in range(0, len(payload), size)] or [b""]
        for part in parts:
            self.send(wire.frame(kind, part, wire.LAST if part is parts[-1] else 0, request))


class ScriptedServer:
    def __init__(self, tree=None, cut_at=None, flip_at=None, flip_mask=0xFF, greeting=None, replies=None):
        self.tree = tree or Tree({})
        self.cut_at = cut_at
        self.flip_at = flip_at
        self.flip_mask = flip_mask
        self.greeting = greeting  # Bytes to send at once, before anything was read.
        self.replies = {wire.HELLO: self.on_hello, wire.MODULES: self.on_modules, wire.OPEN: self.on_open,
                        wire.TREE: self.on_tree, wire.DIGESTS: self.on_digests, wire.READ: self.on_read,
                        wire.SIGNATURE: self.on_signature,
                        wire.CANCEL: self.on_cancel, wire.PING: self.on_ping, **(replies or {})}
        self.connections = []
        self.requests = []  # (type, payload) of everything that came, in order.
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"127.0.0.1:{self.port}/m"
        self.thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        # shutdown wakes the accept; close alone would not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.listener.close()
        for connection in self.connections:
            connection.peer.close()

    def _accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            peer.settimeout(30)
            connection = Connection(self, peer)
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self.greeting is not None:
                connection.send(self.greeting)
            for kind, request, payload in connection.frames():
                self.requests.append((kind, payload))
                if kind == wire.GOODBYE:
                    connection.send(wire.frame(wire.GOODBYE))
                    break
                self.replies[kind](connection, request, payload)
        except OSError:
            pass
        try:
            # Not close(): unread input would turn into a reset that overtakes what was sent.
            connection.peer.shutdown(socket.SHUT_WR)
            while connection.peer.recv(65536):
                pass
        except OSError:
            pass
        connection.peer.close()

    # --- The right replies ---------------------------------------------------------------------------

    def on_hello(self, connection, _request, _payload):
        connection.send(wire.server_hello())

    def on_modules(self, connection, request, _payload):
        tree = self.tree
        connection.send_joined(wire.MODULE_LIST, request,
                               wire.varint(1) + wire.counted(b"m") + wire.counted(b"") +
                               struct.pack("<QQQQ", tree.generation, tree.entries, tree.files, tree.bytes))

    def on_open(self, connection, request, _payload):
        connection.send(wire.frame(wire.OPENED, self.tree.opened(), request=request))

    def on_tree(self, connection, request, payload):
        cursor = wire.Cursor(payload)
        if cursor.u8() == 0:
            nodes = list(self.tree.nodes.values())
        else:
            digests = [cursor.take(32) for _ in range(cursor.varint())]
            if any(digest not in self.tree.nodes for digest in digests):
                return connection.send(error(wire.NOT_FOUND, request))
            nodes = [self.tree.nodes[digest] for digest in digests]
        stream = b"".join(wire.counted(node) for node in nodes)
        return connection.send_joined(wire.NODES, request, wire.compress(stream))

    def on_digests(self, connection, request, payload):
        cursor = wire.Cursor(payload)
        size, digest_of = (16, wire.xxh128) if cursor.u8() == 1 else (32, wire.sha256)
        at, out = 0, b""
        for _ in range(cursor.varint()):
            at += cursor.varint()
            for _ in range(cursor.varint()):
                content = self.tree.contents.get(at)
                out += digest_of(content) if content is not None and self.tree.with_digests else bytes(size)
                at += 1
        connection.send_joined(wire.DIGEST_LIST, request, out)

    def on_read(self, connection, request, payload):
        cursor = wire.Cursor(payload)
        for number, (entry, offset, length) in enumerate(wire.parse_items(cursor)):
            content = self.tree.contents.get(entry)
            if content is None:
                connection.send(wire.frame(wire.ITEM, struct.pack("<IH", number, wire.NOT_FOUND),
                                           request=request))
                continue
            data = content[offset:offset + length if length else None]
            for at in range(0, max(1, len(data)), 65536):
                part = data[at:at + 65536]
                last = at + 65536 >= len(data)
                connection.send(wire.frame(wire.DATA, part, (wire.ITEM_END | wire.ITEM_OK) if last else 0,
                                           request))

    def on_signature(self, connection, request, payload):
        cursor = wire.Cursor(payload)
        level, width = cursor.u8(), cursor.u8()
        out = b""
        for entry, first, count in wire.parse_items(cursor):
            content = self.tree.contents.get(entry)
            known = content is not None and (level <= 16 or 0 < self.tree.signature_level <= level)
            out += struct.pack("<B", wire.OK if known else wire.NOT_FOUND)
            if known:
                out += wire.block_sums(content, level, width, first, count)
        connection.send_joined(wire.SUMS, request, out)

    def on_cancel(self, connection, request, _payload):
        connection.send(wire.frame(wire.CANCELLED, request=request))

    def on_ping(self, connection, request, _payload):
        connection.send(wire.frame(wire.PONG, request=request))


def error(code, request=0, argument=0):
    return wire.frame(wire.ERROR, struct.pack("<HQ", code, argument), request=request)
