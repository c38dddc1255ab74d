"""The bytes of PROTOCOL.md, both ways, as a script sees them. Written from that page alone, so that it is a
second opinion on it; the C++ code was not consulted."""

import hashlib
import struct

import xxhash
import zstandard

MAGIC = b"superlft"

HELLO, BUSY, ERROR, MODULES, MODULE_LIST, OPEN, OPENED, TREE, NODES = range(1, 10)
DIGESTS, DIGEST_LIST, READ, DATA, ITEM, CANCEL, CANCELLED, PING, PONG, GOODBYE = range(10, 20)
SIGNATURE, SUMS, PACKED = range(20, 23)

LAST = 1                # MODULE_LIST, NODES, DIGEST_LIST, SUMS
MAY_PACK = 1            # READ
ITEM_END, ITEM_OK = 1, 2  # DATA

(OK, PROTOCOL, VERSION, NOT_FOUND, DENIED, BUSY_CODE, STALE, GONE, IO, TIMEOUT, SHUTDOWN, NOT_READY,
 TOO_SLOW, INTERNAL) = range(14)

FILE, DIRECTORY, SYMLINK = range(3)
HARD_LINK = 4
PROVISIONAL, OWNERS = 1, 2


def frame(kind, payload=b"", flags=0, request=0, reserved=0, length=None):
    """One whole frame; length overrides the true one."""
    return struct.pack("<IBBHI", len(payload) if length is None else length, kind, flags, reserved,
                       request) + payload


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def counted(data):
    return varint(len(data)) + data


def xxh128(data):
    return xxhash.xxh3_128_digest(data)


class Cursor:
    """Reads fields in order; running out of bytes is an EOFError."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise EOFError
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def u8(self):
        return self.number("B")

    def u16(self):
        return self.number("H")

    def u32(self):
        return self.number("I")

    def u64(self):
        return self.number("Q")

    def i64(self):
        return self.number("q")

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def counted(self):
        return self.take(self.varint())

    def done(self):
        return self.at == len(self.data)


def decompress(data):
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def compress(data):
    return zstandard.ZstdCompressor().compress(data)


def client_hello(version_min=1, version_max=1, features=(), agent=b"scripted", magic=MAGIC):
    payload = magic + struct.pack("<HH", version_min, version_max) + varint(len(features))
    payload += b"".join(counted(feature) for feature in features) + counted(agent)
    return frame(HELLO, payload)


def server_hello(version=1, features=(), agent=b"scripted", idle_ms=60000, motd=b"", magic=MAGIC):
    payload = magic + struct.pack("<H", version) + varint(len(features))
    payload += b"".join(counted(feature) for feature in features) + counted(agent)
    return frame(HELLO, payload + struct.pack("<I", idle_ms) + counted(motd))


# --- Ranges and block sums ---------------------------------------------------------------------------


def items_payload(items):
    """[read-items] or [signature-items] of (entry, begin, length): begins counted from the end of the item
    before, when that has the same entry."""
    out = varint(len(items))
    before = None
    for entry_number, begin, length in items:
        base = before[1] + before[2] if before and before[0] == entry_number else 0
        out += varint(entry_number) + varint(begin - base) + varint(length)
        before = entry_number, begin, length
    return out


def parse_items(cursor):
    """The same, read."""
    items = []
    for _ in range(cursor.varint()):
        entry_number, begin, length = cursor.varint(), cursor.varint(), cursor.varint()
        if items and items[-1][0] == entry_number:
            begin += items[-1][1] + items[-1][2]
        items.append((entry_number, begin, length))
    return items


def weak_sum(block):
    value = 0
    for byte in block:
        value = (value * 0x9E6D2C3D + byte) & 0xFFFFFFFF
    return value


def strong_sum(block, level):
    if level <= 10:
        return xxhash.xxh3_64_intdigest(block)
    finer = 1 << (level - 2)
    return xxhash.xxh3_64_intdigest(b"".join(
        struct.pack("<Q", strong_sum(block[at:at + finer], level - 2)) for at in range(0, len(block), finer)))


def block_sums(content, level, width, first=0, count=None):
    """The sums of the blocks from `first` on, as SUMS has them."""
    size = 1 << level
    end = len(content) if count is None else min(len(content), (first + count) * size)
    out = b""
    for at in range(first * size, end, size):
        block = content[at:at + size]
        out += struct.pack("<II", weak_sum(block), strong_sum(block, level) & 0xFFFFFFFF)[:width]
    return out


def signature_payload(level, width, items):
    return struct.pack("<BB", level, width) + items_payload(items)


def unpack(payload):
    """(type, flags, request, payload) of the frames in a PACKED."""
    size = zstandard.frame_content_size(payload)
    assert 0 <= size <= 1 << 20
    cursor = Cursor(zstandard.ZstdDecompressor().decompress(payload))
    assert len(cursor.data) == size
    frames = []
    while not cursor.done():
        length, kind, flags, reserved, request = struct.unpack("<IBBHI", cursor.take(12))
        assert reserved == 0 and kind in (DATA, ITEM)
        frames.append((kind, flags, request, cursor.take(length)))
    return frames


# --- Directory nodes ---------------------------------------------------------------------------------


def entry(kind, name, *, mode=0o644, mtime=1_700_000_000, mtime_ns=0, size=0, link=None, target=b"",
          node=b"", entries=0, files=0, content=0, owner=None, group=b"", head=None):
    """One entry of a leaf; owner None means that the leaf has no owners."""
    out = struct.pack("<BHqI", head if head is not None else kind | (HARD_LINK if link else 0), mode, mtime,
                      mtime_ns) + counted(name)
    if owner is not None:
        out += counted(owner) + counted(group)
    if kind == FILE:
        out += varint(size) + (counted(link) if link else b"")
    elif kind == DIRECTORY:
        out += node + varint(entries) + varint(files) + varint(content)
    else:
        out += counted(target)
    return out


def leaf(entries, *, owners=False, xxh=bytes(16), sha=bytes(32), count=None):
    return (struct.pack("<BB", 0, 1 if owners else 0) + varint(len(entries) if count is None else count) +
            xxh + sha + b"".join(entries))


def index(level, children, count=None):
    """children: (digest, entries, first name)."""
    out = struct.pack("<BB", 1, level) + varint(len(children) if count is None else count)
    return out + b"".join(node + varint(entries) + counted(name) for node, entries, name in children)


def parse_node(data):
    """("leaf", owners, xxh, sha, entries) or ("index", level, children); entries are dicts."""
    cursor = Cursor(data)
    if cursor.u8() == 1:
        level = cursor.u8()
        children = [(cursor.take(32), cursor.varint(), cursor.counted()) for _ in range(cursor.varint())]
        assert cursor.done()
        return "index", level, children
    owners = bool(cursor.u8() & 1)
    count = cursor.varint()
    xxh, sha = cursor.take(16), cursor.take(32)
    entries = []
    for _ in range(count):
        head = cursor.u8()
        one = {"kind": head & 3, "mode": cursor.u16(), "mtime": cursor.i64(), "mtime_ns": cursor.u32(),
               "name": cursor.counted(), "link": None}
        if owners:
            one["owner"], one["group"] = cursor.counted(), cursor.counted()
        if one["kind"] == FILE:
            one["size"] = cursor.varint()
            if head & HARD_LINK:
                one["link"] = cursor.counted()
        elif one["kind"] == DIRECTORY:
            one["node"] = cursor.take(32)
            one["entries"], one["files"], one["bytes"] = cursor.varint(), cursor.varint(), cursor.varint()
        else:
            one["target"] = cursor.counted()
        entries.append(one)
    assert cursor.done()
    return "leaf", owners, xxh, sha, entries


def sha256(data):
    return hashlib.sha256(data).digest()


def split_nodes(stream):
    """The nodes of a decompressed [nodes-list]."""
    cursor = Cursor(stream)
    nodes = []
    while not cursor.done():
        nodes.append(cursor.counted())
    return nodes
