"""The client against servers that lie about block sums and send broken patches, and with a hostile basis in DEST:
either the right file in the end, or a clear error with the old file whole; in bounded time and memory. Each server
is scripted, byte by byte."""

import itertools
import os
import random
import struct
import threading

import pytest
import zstandard

import wire
from conftest import SUPERLIFTER, pattern, pull
from scripted_server import ScriptedServer, Tree, error
from test_bad_peer import limited

KIB = 1 << 10
MIB = 1 << 20

# Name to content at the source and in DEST: changes in the middle, and at both ends.
OLD = {b"large": pattern(3_000_000, 1), b"small": pattern(300_000, 2)}
NEW = {b"large": OLD[b"large"][:1_000_001] + pattern(20_000, 3) + OLD[b"large"][1_010_000:],
       b"small": b"begin" + OLD[b"small"][:150_000] + b"inserted" + OLD[b"small"][150_000:] + b"end"}


def lay(dest, files):
    dest.mkdir(exist_ok=True)
    for name, content in files.items():
        (dest / os.fsdecode(name)).write_bytes(content)


def contents(dest):
    """What DEST holds, but for the client's own; anything else than files fails the test."""
    return {os.fsencode(path.name): path.read_bytes() for path in dest.iterdir() if path.name != ".superlifter"}


def new_tree(**changes):
    return Tree(dict(NEW), **{"signature_level": 10, **changes})


def update(dest, tree, replies=(), options=(), code=0, old=None):
    """One pull over `old`; the outcome. The files are right when it succeeds, and else the old ones or right."""
    old = OLD if old is None else old
    lay(dest, old)
    with ScriptedServer(tree, replies=dict(replies)) as server:
        outcome = pull("--timeout=20", *options, server.url, dest, code=code, timeout=60)
        outcome.requests = server.requests
    right = {name: tree.contents[number] for number, name in enumerate(sorted(old), 1)}
    got = contents(dest)
    assert got.keys() == right.keys()
    for name, content in got.items():
        allowed = (right[name],) if outcome.code == 0 else (right[name], old[name])
        assert content in allowed, f"{name} is neither the old file nor the new one: {outcome}"
    if outcome.code == 0:
        assert not list((dest / ".superlifter" / "stage").rglob("*"))
    else:
        assert outcome.err.strip()
    return outcome


def test_true_sums_make_patches(dest):
    stats = update(dest, new_tree()).stats
    assert stats["files_patched"] == 2 and stats["files_mismatched"] == 0
    assert stats["bytes_literal"] < 40_000


# --- Sums that lie -----------------------------------------------------------------------------------


def sums_of(tree, make):
    """A reply to SIGNATURE whose sums are make(content, level, width, first, count), `count` cut to the file."""
    def reply(connection, request, payload):
        cursor = wire.Cursor(payload)
        level, width = cursor.u8(), cursor.u8()
        out = b""
        for entry, first, count in wire.parse_items(cursor):
            content = tree.contents[entry]
            count = min(count, -(-len(content) >> level) - first)
            sums = make(content, level, width, first, count)
            assert len(sums) == count * width
            out += struct.pack("<B", wire.OK) + sums
        connection.send_joined(wire.SUMS, request, out)

    return {wire.SIGNATURE: reply}


def equal_to_a_block_of_the_basis(content, level, width, _, count):
    basis = OLD[b"large" if len(content) > MIB else b"small"]
    return wire.block_sums(basis, level, width, 5, 1) * count


def one_weak_sum(content, level, width, _, count):
    weak = equal_to_a_block_of_the_basis(content, level, width, 0, 1)[:4]
    return b"".join(weak + os.urandom(width - 4) for _ in range(count))


def of_the_basis(content, level, width, first, count):
    """As if nothing had changed."""
    basis = OLD[b"large" if len(content) > MIB else b"small"]
    sums = wire.block_sums(basis, level, width, first, count)
    return sums + bytes(count * width - len(sums))


def of_the_basis_shuffled(content, level, width, first, count):
    sums = of_the_basis(content, level, width, first, count)
    blocks = [sums[at:at + width] for at in range(0, len(sums), width)]
    random.Random(first).shuffle(blocks)
    return b"".join(blocks)


LIES = {
    "zero": lambda content, level, width, first, count: bytes(width * count),
    "ones": lambda content, level, width, first, count: b"\xff" * (width * count),
    "equal": equal_to_a_block_of_the_basis,
    "one weak sum": one_weak_sum,
    "random": lambda content, level, width, first, count: os.urandom(width * count),
    "of another file": lambda content, level, width, first, count: wire.block_sums(
        pattern(len(content), 9), level, width, first, count),
    "of the basis": of_the_basis,
    "of the basis, shuffled": of_the_basis_shuffled,
}


@pytest.mark.parametrize("options", [(), ("--inplace",)])
@pytest.mark.parametrize("name", LIES)
def test_sums_that_lie_do_no_harm(dest, name, options):
    tree = new_tree()
    stats = update(dest, tree, sums_of(tree, LIES[name]), options).stats
    if name in ("equal", "of the basis", "of the basis, shuffled"):
        assert stats["files_mismatched"] == 2 and stats["files_refetched"] == 2
        assert stats["files_patched"] == 0
    if name in ("random", "of another file", "zero", "ones"):
        assert stats["files_mismatched"] == 0
    # Never more than each file twice, and its sums.
    whole = sum(map(len, NEW.values()))
    assert stats["bytes_literal"] <= 2 * whole and stats["bytes_signature"] < whole


@pytest.mark.parametrize("name", ["zero", "one weak sum of zeros"])
def test_sums_that_fit_everywhere_cost_bounded_time(dest, name):
    """Each place of the basis has the weak sum of every block."""
    make = LIES["zero"] if name == "zero" else lambda content, level, width, first, count: b"".join(
        bytes(4) + os.urandom(width - 4) for _ in range(count))
    tree = Tree({b"f": pattern(16 * MIB, 4)}, signature_level=10)
    lay(dest, {b"f": bytes(16 * MIB + 1)})
    with ScriptedServer(tree, replies=sums_of(tree, make)) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(dest)], timeout=60)
    assert code == 0, err
    assert peak < 300 * MIB
    assert contents(dest) == {b"f": tree.contents[1]}


# --- Replies that are broken -------------------------------------------------------------------------


def changed_reply(change):
    """A right reply to SIGNATURE, with its bytes changed."""
    def reply(connection, request, payload):
        joined = []

        class Catcher:
            def send_joined(self, kind, number, out):
                joined.append(out)

        connection.server.on_signature(Catcher(), request, payload)
        connection.send_joined(wire.SUMS, request, change(joined[0]))

    return {wire.SIGNATURE: reply}


CHANGED = {
    "empty": lambda out: b"",
    "a byte short": lambda out: out[:-1],
    "half": lambda out: out[:len(out) // 2],
    "a byte long": lambda out: out + b"\0",
    "twice": lambda out: out + out,
    "far too long": lambda out: out + bytes(3 * MIB),
    "an unknown status": lambda out: b"\x0e" + out[1:],
    "status 255": lambda out: b"\xff" + out[1:],
    "a refusal with sums": lambda out: struct.pack("<B", wire.NOT_FOUND) + out[1:],
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_broken_signature_ends_the_pull(dest, name):
    update(dest, new_tree(), changed_reply(CHANGED[name]), code=12)
    assert contents(dest) == OLD


BROKEN = {
    "a frame behind the last": lambda request: wire.frame(wire.SUMS, b"\3", wire.LAST, request) * 2,
    "of an unknown request": lambda request: wire.frame(wire.SUMS, b"\3", wire.LAST, 4242),
    "unknown flags": lambda request: wire.frame(wire.SUMS, b"\3", 0x82, request),
    "data": lambda request: wire.frame(wire.DATA, b"x", 3, request),
    "packed": lambda request: wire.frame(wire.PACKED, wire.compress(wire.frame(wire.DATA, b"x", 3, request)), 0,
                                         request),
    "digests": lambda request: wire.frame(wire.SIGNATURE, b"\3", 0, request),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_reply_to_signature(dest, name):
    replies = {wire.SIGNATURE: lambda connection, request, _: connection.send(BROKEN[name](request))}
    update(dest, new_tree(), replies, code=12)
    assert contents(dest) == OLD


def test_endless_sums(dest):
    def endless(connection, request, _):
        for _ in range(4096):
            connection.send(wire.frame(wire.SUMS, bytes(MIB), 0, request))

    lay(dest, OLD)
    with ScriptedServer(new_tree(), replies={wire.SIGNATURE: endless}) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(dest)])
    assert code == 12 and peak < 200 * MIB, err
    assert contents(dest) == OLD


@pytest.mark.parametrize("which", ["all", "the first", "from the second request on"])
@pytest.mark.parametrize("status", [wire.NOT_FOUND, wire.BUSY_CODE, wire.STALE, wire.IO, wire.DENIED])
def test_sums_that_are_refused(dest, status, which):
    """Without them a file comes whole, or with what is known of it."""
    tree = new_tree()
    requests = itertools.count()

    def reply(connection, request, payload):
        number = next(requests)
        cursor = wire.Cursor(payload)
        level, width = cursor.u8(), cursor.u8()
        out = b""
        for item, (entry, first, count) in enumerate(wire.parse_items(cursor)):
            refused = {"all": True, "the first": item == 0, "from the second request on": number > 0}[which]
            out += struct.pack("<B", status if refused else wire.OK)
            if not refused:
                out += wire.block_sums(tree.contents[entry], level, width, first, count)
        connection.send_joined(wire.SUMS, request, out)

    stats = update(dest, tree, {wire.SIGNATURE: reply}).stats
    assert stats["files_mismatched"] == 0
    if which == "all":
        assert stats["files_fetched"] == 2
    if which == "from the second request on":
        assert stats["files_patched"] >= 1


@pytest.mark.parametrize("code", [wire.NOT_FOUND, wire.BUSY_CODE, wire.IO, wire.PROTOCOL, wire.INTERNAL, 999])
def test_a_signature_request_that_fails(dest, code):
    replies = {wire.SIGNATURE: lambda connection, request, _: connection.send(error(code, request))}
    outcome = update(dest, new_tree(), replies, code=None)
    assert outcome.code in ((12,) if code in (wire.PROTOCOL, 999) else (0, 5, 10, 12, 23)), outcome


def test_a_generation_that_is_gone_while_sums_come(dest):
    answers = itertools.count()

    def gone_once(connection, request, payload):
        if next(answers) == 0:
            return connection.send(error(wire.GONE, request))
        return connection.server.on_signature(connection, request, payload)

    update(dest, new_tree(), {wire.SIGNATURE: gone_once})


def test_sums_that_never_come(dest):
    silence = threading.Event()
    try:
        update(dest, new_tree(), {wire.SIGNATURE: lambda *_: silence.wait(30)}, ("--timeout=1",), code=30)
    finally:
        silence.set()
    assert contents(dest) == OLD


@pytest.mark.parametrize("level", [1, 5, 6, 7, 8, 9, 11, 12, 28, 29, 30, 64, 255])
def test_signature_levels_that_may_not_be(dest, level):
    tree = new_tree()
    tree.signature_level = level
    outcome = update(dest, tree, code=(0, 12))
    assert outcome.code == 0 if level in (12, 28) else True
    if level % 2 or level > 28:
        assert outcome.code == 12 or not [kind for kind, _ in outcome.requests if kind == wire.SIGNATURE]


# --- Literals ----------------------------------------------------------------------------------------


def literals(tree, answer):
    """A reply to READ: answer(connection, request, items) with (number, entry, offset, length) of the literals;
    whole files are right, so that what was wrong can be mended."""
    def reply(connection, request, payload):
        items = wire.parse_items(wire.Cursor(payload))
        if any(offset == 0 and length in (0, len(tree.contents[entry])) for entry, offset, length in items):
            return connection.server.on_read(connection, request, payload)
        return answer(connection, request, [(number, *item) for number, item in enumerate(items)])

    return {wire.READ: reply}


def data(content, request, flags=wire.ITEM_END | wire.ITEM_OK):
    return wire.frame(wire.DATA, content, flags, request)


def each(make):
    """Sends one DATA for each literal: make(right content)."""
    def build(tree):
        def answer(connection, request, items):
            for _, entry, offset, length in items:
                connection.send(data(make(tree.contents[entry][offset:offset + length]), request))

        return literals(tree, answer)

    return build


WRONG_LITERALS = {
    "a byte short": each(lambda content: content[:-1]),
    "empty": each(lambda content: b""),
    "changed": each(lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    "zeros": each(lambda content: bytes(len(content))),
}


@pytest.mark.parametrize("options", [(), ("--inplace",)])
@pytest.mark.parametrize("name", WRONG_LITERALS)
def test_literals_that_are_wrong_are_mended(dest, name, options):
    tree = new_tree()
    stats = update(dest, tree, WRONG_LITERALS[name](tree), options).stats
    assert stats["files_mismatched"] == 2 and stats["files_refetched"] == 2


def test_literals_that_are_wrong_however_often(dest):
    tree = new_tree()

    def wrong(connection, request, payload):
        for entry, offset, length in wire.parse_items(wire.Cursor(payload)):
            length = length or len(tree.contents[entry]) - offset
            for at in range(0, length, MIB):
                last = at + MIB >= length
                connection.send(data(bytes(min(MIB, length - at)), request, 3 if last else 0))

    outcome = update(dest, tree, {wire.READ: wrong}, code=(12, 23))
    assert "large" in outcome.err and "small" in outcome.err
    assert contents(dest) == OLD


def test_literals_that_are_too_long(dest):
    tree = new_tree()
    update(dest, tree, each(lambda content: content + b"x")(tree), code=12)
    assert contents(dest) == OLD


@pytest.mark.parametrize("status, code", [(wire.STALE, 24), (wire.IO, 23), (wire.NOT_FOUND, 23), (777, 12)])
@pytest.mark.parametrize("when", ["before", "in the middle", "behind"])
def test_literals_that_are_refused(dest, status, code, when):
    tree = new_tree()

    def answer(connection, request, items):
        for number, entry, offset, length in items:
            content = tree.contents[entry][offset:offset + length]
            if when == "in the middle":
                connection.send(data(content[:1], request, 0) + data(b"", request, wire.ITEM_END))
            elif when == "behind":
                connection.send(data(content, request, wire.ITEM_END))
            connection.send(wire.frame(wire.ITEM, struct.pack("<IH", number, status), request=request))

    update(dest, tree, literals(tree, answer), code=code)
    assert contents(dest) == OLD


def test_literals_in_another_order(dest):
    """DATA does not say what it is: those of one length go unnoticed until the digest, others are too long."""
    tree = new_tree()

    def answer(connection, request, items):
        for _, entry, offset, length in reversed(items):
            connection.send(data(tree.contents[entry][offset:offset + length], request))

    outcome = update(dest, tree, literals(tree, answer), code=(0, 12))
    assert outcome.code == 12 or outcome.stats["files_mismatched"] > 0


def test_requests_answered_in_another_order(dest):
    """Which is legal for what does not depend on it, and must at least do no harm."""
    tree = new_tree()
    held = []

    def reply(connection, request, payload):
        held.append((request, payload))
        if len(held) < 2:
            return
        for number, asked in reversed(held):
            connection.server.on_read(connection, number, asked)
        held.clear()

    outcome = update(dest, tree, {wire.READ: reply}, ("--timeout=2",), code=(0, 12, 30))
    assert outcome.code != 0 or outcome.stats["files_patched"] == 2


BROKEN_LITERALS = {
    "a status out of turn": lambda request: wire.frame(wire.ITEM, struct.pack("<IH", 1, wire.STALE), 0, request),
    "a status out of range": lambda request: wire.frame(wire.ITEM, struct.pack("<IH", 2**32 - 1, 0), 0, request),
    "OK before the end": lambda request: wire.frame(wire.ITEM, struct.pack("<IH", 0, wire.OK), 0, request),
    "two statuses": lambda request: wire.frame(wire.ITEM, struct.pack("<IH", 0, wire.STALE), 0, request) * 2,
    "of an unknown request": lambda request: data(b"x", 4242),
}


@pytest.mark.parametrize("name", BROKEN_LITERALS)
def test_broken_answers_for_literals(dest, name):
    tree = new_tree()
    replies = literals(tree, lambda connection, request, _: connection.send(BROKEN_LITERALS[name](request)))
    update(dest, tree, replies, code=12)
    assert contents(dest) == OLD


# --- PACKED ------------------------------------------------------------------------------------------


def packed(content, request, **parameters):
    return wire.frame(wire.PACKED, zstandard.ZstdCompressor(**parameters).compress(content), 0, request)


def lying_about_its_size(frames, request, states):
    """A zstd frame whose header states another size; the magic, a descriptor and four bytes of size."""
    block = len(frames) << 3 | 1  # Raw, last.
    body = struct.pack("<IBI", 0xFD2FB528, 0xA0, states) + struct.pack("<I", block)[:3] + frames
    return wire.frame(wire.PACKED, body, 0, request)


BAD_PACKS = {
    "garbage": lambda frames, request: wire.frame(wire.PACKED, b"no zstd at all", 0, request),
    "nothing": lambda frames, request: wire.frame(wire.PACKED, b"", 0, request),
    "of nothing": lambda frames, request: packed(b"", request),
    "a pack in a pack": lambda frames, request: packed(packed(frames, request), request),
    "frames of another request": lambda frames, request: packed(
        frames[:8] + struct.pack("<I", request + 1) + frames[12:], request),
    "frames of the session": lambda frames, request: packed(frames[:8] + bytes(4) + frames[12:], request),
    "a hello": lambda frames, request: packed(wire.server_hello(), request),
    "an error": lambda frames, request: packed(error(wire.GONE, request), request),
    "a goodbye": lambda frames, request: packed(wire.frame(wire.GOODBYE), request),
    "2 MiB": lambda frames, request: packed(data(bytes(MIB - 12), request, 0) * 2, request),
    "a byte above 1 MiB": lambda frames, request: packed(data(bytes(MIB - 11), request, 0), request),
    "no size": lambda frames, request: packed(frames, request, write_content_size=False),
    "a size that is too small": lambda frames, request: lying_about_its_size(frames, request, len(frames) - 1),
    "a size that is too large": lambda frames, request: lying_about_its_size(frames, request, len(frames) + 1),
    "a size of everything": lambda frames, request: lying_about_its_size(frames, request, 2**32 - 1),
    "a part of a frame": lambda frames, request: packed(frames[:-1], request),
    "a part of a header": lambda frames, request: packed(frames + b"\0\0\0", request),
    "two zstd frames": lambda frames, request: wire.frame(
        wire.PACKED, wire.compress(frames) + wire.compress(frames), 0, request),
    "bytes behind it": lambda frames, request: wire.frame(wire.PACKED, wire.compress(frames) + b"x", 0, request),
    "half of it": lambda frames, request: wire.frame(wire.PACKED, wire.compress(frames)[:-5], 0, request),
    "what is skipped": lambda frames, request: wire.frame(
        wire.PACKED, struct.pack("<II", 0x184D2A50, 4) + b"skip", 0, request),
    "flags": lambda frames, request: wire.frame(wire.PACKED, wire.compress(frames), 1, request),
    "of an unknown request": lambda frames, request: packed(data(b"x", 4242), 4242),
    "of the session": lambda frames, request: packed(data(b"x", 0), 0),
}


def packs(tree, make):
    def answer(connection, request, items):
        frames = [data(tree.contents[entry][offset:offset + length], request) for _, entry, offset, length in items]
        connection.send(make(b"".join(frames), request))

    return literals(tree, answer)


def test_right_packs_are_taken(dest):
    tree = new_tree()
    stats = update(dest, tree, packs(tree, packed)).stats
    assert stats["files_patched"] == 2 and stats["files_mismatched"] == 0


def test_a_size_that_is_right_however_it_was_stated(dest):
    tree = new_tree()
    update(dest, tree, packs(tree, lambda frames, request: lying_about_its_size(frames, request, len(frames))))


@pytest.mark.parametrize("name", BAD_PACKS)
def test_a_bad_pack_ends_the_pull(dest, name):
    tree = new_tree()
    update(dest, tree, packs(tree, BAD_PACKS[name]), code=12)
    assert contents(dest) == OLD


def test_a_pack_that_was_not_asked_for(dest):
    """Whole files come packed only when that is wanted."""
    tree = new_tree()

    def reply(connection, request, payload):
        frames = [data(tree.contents[entry][offset:offset + KIB], request, 0)
                  for entry, offset, _ in wire.parse_items(wire.Cursor(payload))]
        connection.send(packed(b"".join(frames), request))

    with ScriptedServer(tree, replies={wire.READ: reply}) as server:
        outcome = pull("--timeout=20", server.url, dest, code=12)
    assert "packed" in outcome.err and contents(dest) == {}


def test_packs_that_hold_memory(dest):
    """Packs of many empty DATA frames, again and again: each names a large slab for nothing."""
    tree = new_tree()

    def answer(connection, request, items):
        _, entry, offset, length = items[0]
        content = tree.contents[entry][offset:offset + length]
        for at in range(min(len(content), 3000)):
            connection.send(packed(data(b"", request, 0) * 2000 + data(content[at:at + 1], request, 0), request))
        rest = data(content[3000:], request)
        connection.send(rest + b"".join(data(tree.contents[number][begin:begin + size], request)
                                        for _, number, begin, size in items[1:]))

    lay(dest, OLD)
    with ScriptedServer(tree, replies=literals(tree, answer)) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(dest)], timeout=100)
    assert code == 0, err
    assert peak < 250 * MIB
    assert contents(dest) == NEW


# --- A hostile basis ---------------------------------------------------------------------------------


def periodic(period, size, seed=5):
    return (pattern(period, seed) * (size // period + 1))[:size]


BASES = {
    "zeros": (pattern(2 * MIB, 6), bytes(3 * MIB)),
    "zeros for zeros, longer": (bytes(2 * MIB), bytes(3 * MIB + 1)),
    "zeros for zeros, shorter": (bytes(2 * MIB + 77), bytes(MIB)),
    "zeros with a difference": (bytes(MIB) + b"x" + bytes(MIB), bytes(2 * MIB)),
    "periodic": (periodic(100, 2 * MIB), periodic(100, 2 * MIB)[37:]),
    "periodic by block": (periodic(4096, 2 * MIB), periodic(4096, 2 * MIB)[4000:] + b"y"),
    "periodic with another period": (periodic(1000, 2 * MIB), periodic(999, 2 * MIB)),
    "of one byte": (pattern(2 * MIB, 6), b"x"),
    "of two values": (bytes(byte & 1 for byte in pattern(MIB, 7)), bytes(byte & 1 for byte in pattern(MIB, 8))),
}


@pytest.mark.parametrize("options", [(), ("--inplace",)])
@pytest.mark.parametrize("name", BASES)
def test_a_basis_that_is_alike_everywhere(dest, name, options):
    right, basis = BASES[name]
    update(dest, Tree({b"f": right}, signature_level=10), options=options, old={b"f": basis})


@pytest.mark.parametrize("options", [(), ("--inplace",)])
def test_a_sparse_basis(dest, options):
    right = pattern(2 * MIB, 6)
    dest.mkdir()
    with open(dest / "f", "wb") as out:
        out.seek(200 * MIB + 123)
        out.write(right[:MIB])
        out.truncate(300 * MIB)
    with ScriptedServer(Tree({b"f": right}, signature_level=10)) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", *options, server.url, str(dest)], timeout=60)
    assert code == 0, err
    assert peak < 300 * MIB
    assert contents(dest) == {b"f": right}


def test_a_basis_that_is_no_file_any_more(dest, tmp_path):
    """Changed between the comparison and the matching: opened without following, and never waited for."""
    tree = new_tree()
    (tmp_path / "outside").write_bytes(OLD[b"large"])

    def swap(connection, request, payload):
        for name, make in ((b"large", lambda path: os.symlink(tmp_path / "outside", path)),
                           (b"small", os.mkfifo)):
            path = dest / os.fsdecode(name)
            if path.is_file() and not path.is_symlink():
                path.unlink()
                make(path)
        connection.server.on_signature(connection, request, payload)

    update(dest, tree, {wire.SIGNATURE: swap})
    assert (tmp_path / "outside").read_bytes() == OLD[b"large"]
    assert not (dest / "large").is_symlink()
