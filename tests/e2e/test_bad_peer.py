"""The client against servers that are broken or hostile: a clear message, the documented exit code, nothing
outside DEST, nothing torn, no memory eaten. Each server is scripted, byte by byte."""

import os
import random
import resource
import socket
import stat
import struct
import subprocess
import threading
import time

import pytest

import wire
from conftest import ENVIRONMENT, SUPERLIFTER, on_a_terminal, pattern, pull, run_client, snapshot
from scripted_server import File, ScriptedServer, Symlink, Tree, error

GOOD = {b"a": b"first", b"d": {b"inner": b"second", b"z": b""}, b"empty": b"", b"link": Symlink(b"a"),
        b"large": pattern(300_000)}


@pytest.fixture
def fence(tmp_path):
    """DEST in a directory whose other contents must not change."""
    outside = tmp_path / "fence"
    outside.mkdir()
    (outside / "bystander").write_bytes(b"untouched")
    (outside / "target").mkdir()
    (outside / "target" / "inner").write_bytes(b"untouched, too")
    before = snapshot(outside)
    yield outside / "dest"
    after = {path: value for path, value in snapshot(outside).items()
             if path != b"dest" and not path.startswith(b"dest/")}
    assert after == before, "something outside DEST changed"


def test_the_scripted_server_is_right_when_it_is_not_told_otherwise(fence):
    with ScriptedServer(Tree(GOOD)) as server:
        outcome = pull(server.url, fence)
    assert outcome.stats["files_fetched"] == 5
    got = snapshot(fence)
    assert got[b"a"][1] == b"first" and got[b"d/inner"][1] == b"second"
    assert got[b"large"][1] == GOOD[b"large"] and got[b"link"] == ("link", b"a", 0)


# --- Names and structure -----------------------------------------------------------------------------


def leaf_only(*entries, claim=None):
    """A tree of one hand-made leaf."""
    tree = Tree({})
    tree.root = tree.add_node(wire.leaf(list(entries)))
    tree.entries = len(entries) if claim is None else claim
    tree.files = tree.entries
    tree.contents = {number: b"evil" for number in range(1, 100)}
    return tree


def one_file(name, **fields):
    return wire.entry(wire.FILE, name, **{"size": 4, **fields})


BAD_NODES = {
    "dot-dot": leaf_only(one_file(b"..")),
    "dot": leaf_only(one_file(b".")),
    "slash": leaf_only(one_file(b"../bystander")),
    "absolute": leaf_only(one_file(b"/etc/superlifter-was-here")),
    "slash inside": leaf_only(one_file(b"target/inner")),
    "NUL": leaf_only(one_file(b"a\0b")),
    "empty name": leaf_only(one_file(b"")),
    "long name": leaf_only(one_file(b"n" * 256)),
    "unsorted": leaf_only(one_file(b"b"), one_file(b"a")),
    "twice": leaf_only(one_file(b"a"), one_file(b"a")),
    "a link and a file of one name": leaf_only(wire.entry(wire.SYMLINK, b"a", target=b"/etc"), one_file(b"a")),
    "symlink to nothing": leaf_only(wire.entry(wire.SYMLINK, b"a", target=b"")),
    "symlink with NUL": leaf_only(wire.entry(wire.SYMLINK, b"a", target=b"x\0y")),
    "hard link out": leaf_only(one_file(b"a", link=b"../bystander")),
    "absolute hard link": leaf_only(one_file(b"a", link=b"/etc/passwd")),
    "hard-linked directory": leaf_only(wire.entry(wire.DIRECTORY, b"a", head=5, node=bytes(32))),
    "unknown kind": leaf_only(one_file(b"a", head=3)),
    "reserved bits": leaf_only(one_file(b"a", head=0x80)),
    "mode": leaf_only(one_file(b"a", mode=0o17777)),
    "nanoseconds": leaf_only(one_file(b"a", mtime_ns=10**9)),
    "more entries than were announced": leaf_only(one_file(b"a"), one_file(b"b"), claim=1),
    "unknown node type": None,
    "trailing bytes": None,
    "huge count": None,
    "index of one": None,
    "index with a wrong level": None,
    "index with a wrong count": None,
    "index with a wrong first name": None,
    "deep": None,
}


def bad_tree(name):
    if BAD_NODES[name] is not None:
        return BAD_NODES[name]
    tree = Tree({})
    leaves = [wire.leaf([one_file(b"a")]), wire.leaf([one_file(b"b")])]
    below = [tree.add_node(leaf) for leaf in leaves]
    tree.entries = 2
    if name == "unknown node type":
        node = b"\7" + leaves[0][1:]
    elif name == "trailing bytes":
        node = leaves[0] + b"x"
    elif name == "huge count":
        node = wire.leaf([one_file(b"a")], count=2**40)
    elif name == "index of one":
        node = wire.index(1, [(below[0], 1, b"a")])
    elif name == "index with a wrong level":
        node = wire.index(3, [(below[0], 1, b"a"), (below[1], 1, b"b")])
    elif name == "index with a wrong count":
        node = wire.index(1, [(below[0], 5, b"a"), (below[1], 1, b"b")])
    elif name == "index with a wrong first name":
        node = wire.index(1, [(below[0], 1, b"a"), (below[1], 1, b"c")])
    else:  # A directory in a directory in a …, past every path's length.
        node = wire.leaf([])
        for level in range(3000):
            tree.add_node(node)
            node = wire.leaf([wire.entry(wire.DIRECTORY, b"d", mode=0o755, node=wire.sha256(node), entries=level)])
        tree.entries = 3000
    tree.root = tree.add_node(node)
    return tree


@pytest.mark.parametrize("name", BAD_NODES)
def test_a_bad_node_ends_the_pull(fence, name):
    with ScriptedServer(bad_tree(name)) as server:
        outcome = pull(server.url, fence, code=12)
    assert outcome.err.strip()
    if fence.exists():
        assert snapshot(fence) == {}


def test_a_directory_that_claims_more_than_it_holds(fence):
    tree = Tree({b"d": {b"inner": b"x"}})
    inner = wire.sha256(wire.leaf([one_file(b"x")]))
    tree.add_node(wire.leaf([one_file(b"x")]))
    tree.root = tree.add_node(wire.leaf([wire.entry(wire.DIRECTORY, b"d", mode=0o755, node=inner, entries=2**31)]))
    with ScriptedServer(tree) as server:
        pull(server.url, fence, code=12)


def test_a_symlink_is_never_walked_through(fence):
    """The first generation has a symlink that leads out, the second a directory of that name."""
    with ScriptedServer(Tree({b"d": Symlink(b"../target")})) as server:
        pull(server.url, fence)
    assert os.readlink(fence / "d") == "../target"
    with ScriptedServer(Tree({b"d": {b"inner": b"evil"}})) as server:
        pull(server.url, fence)
    assert not (fence / "d").is_symlink() and (fence / "d/inner").read_bytes() == b"evil"


@pytest.mark.parametrize("target", [b"../target", b"/tmp", b"/"])
def test_a_symlink_put_where_a_directory_is_expected(fence, target):
    """Somebody (or an earlier pull) left a symlink in DEST where the generation has a directory."""
    fence.mkdir()
    (fence / "d").symlink_to(os.fsdecode(target))
    with ScriptedServer(Tree({b"d": {b"inner": b"evil"}})) as server:
        outcome = pull(server.url, fence, code=(0, 23))
    if outcome.code == 0:
        assert not (fence / "d").is_symlink()
    assert not os.path.exists(os.path.join(os.fsdecode(target), "inner")) or target == b"../target"


def test_the_clients_own_state_cannot_be_named(fence):
    tree = Tree({b".superlifter": {b"state.generation": b"evil", b"stage": {b"x": b"evil"}}, b"a": b"good"})
    with ScriptedServer(tree) as server:
        outcome = pull(server.url, fence, code=(0, 12, 23))
    for path in (fence / ".superlifter").rglob("*") if fence.exists() else []:
        assert not path.is_file() or path.read_bytes() != b"evil"
    if outcome.code == 0:
        pull_again = run_client("verify", fence)
        assert pull_again.code == 0, pull_again


def test_setuid_bits_are_dropped(fence):
    tree = Tree({b"suid": File(b"#!", mode=0o6755), b"d": {}, b"sticky": File(b"", mode=0o1644)})
    with ScriptedServer(tree) as server:
        pull(server.url, fence)
    assert stat.S_IMODE(os.stat(fence / "suid").st_mode) == 0o755


def test_hard_links_to_nothing_and_to_each_other(fence):
    """Groups named by a path that is not there, is a directory, or is itself a link: content decides."""
    tree = leaf_only(one_file(b"a", link=b"not/here"), one_file(b"b", link=b"a"), one_file(b"c", link=b"c"),
                     wire.entry(wire.DIRECTORY, b"d", mode=0o755, node=wire.sha256(wire.leaf([]))),
                     one_file(b"e", link=b"d"))
    tree.add_node(wire.leaf([]))
    tree.files = 4
    with ScriptedServer(tree) as server:
        outcome = pull(server.url, fence, code=(0, 12))
    if outcome.code == 0:
        for name in ("a", "b", "c", "e"):
            assert (fence / name).read_bytes() == b"evil"


# --- Sizes -------------------------------------------------------------------------------------------


def limited(command, memory=1 << 30, timeout=60):
    """Runs a command that may not have more than `memory` bytes resident in the end (VmHWM)."""
    def limits():
        resource.setrlimit(resource.RLIMIT_DATA, (4 * memory, 4 * memory))

    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=ENVIRONMENT, preexec_fn=limits)
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    err = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    watchdog.cancel()
    process.stdout.close()
    process.stderr.close()
    return process.returncode, err, usage.ru_maxrss * 1024


def shared_at_every_level(levels, width=16):
    """`levels` directories deep, `width` entries wide, all of them the same node: width**levels entries."""
    tree = Tree({})
    node = wire.leaf([one_file(b"f")])
    entries = 1
    for _ in range(levels):
        digest = tree.add_node(node)
        node = wire.leaf([wire.entry(wire.DIRECTORY, b"d%02d" % i, mode=0o755, node=digest, entries=entries,
                                     files=0) for i in range(width)])
        entries = width * (entries + 1)
    tree.root = tree.add_node(node)
    tree.entries = entries
    return tree


@pytest.mark.parametrize("claim", [10, None])
def test_nodes_shared_at_every_level(fence, claim):
    tree = shared_at_every_level(12)
    tree.entries = claim if claim is not None else min(tree.entries, 0xFFFFFFF0)
    with ScriptedServer(tree) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", "--max-entries=1000000", server.url, str(fence)])
    assert code == 12, err
    assert peak < 400 << 20
    assert err.strip()


def test_opened_that_claims_everything(fence):
    tree = Tree(GOOD)
    opened = tree.opened(entries=2**63, files=2**63, bytes=2**64 - 1, nodes=2**32 - 1, nodes_bytes=2**64 - 1)
    replies = {wire.OPEN: lambda connection, request, _: connection.send(
        wire.frame(wire.OPENED, opened, request=request))}
    with ScriptedServer(tree, replies=replies) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(fence)])
    assert code == 12 and peak < 200 << 20, err


def test_a_zstd_bomb_in_nodes(fence):
    def bomb(connection, request, _):
        # 16 GiB of zeros in frames of ours.
        import zstandard
        compressor = zstandard.ZstdCompressor(level=1).compressobj()
        zeros = bytes(1 << 24)
        for _ in range(1024):
            data = compressor.compress(zeros)
            if data:
                connection.send(wire.frame(wire.NODES, data, request=request))
        connection.send(wire.frame(wire.NODES, compressor.flush(), wire.LAST, request))

    with ScriptedServer(Tree(GOOD), replies={wire.TREE: bomb}) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(fence)])
    assert code == 12 and peak < 300 << 20, (code, err, peak)


def test_a_zstd_window_that_is_too_large(fence):
    import zstandard
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def reply(connection, request, _):
        connection.send_joined(wire.NODES, request, data.compress(bytes(1 << 20)) + data.flush())

    with ScriptedServer(Tree(GOOD), replies={wire.TREE: reply}) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(fence)])
    assert code == 12 and peak < 200 << 20, err


@pytest.mark.parametrize("stream", [b"no zstd at all", b"", wire.compress(b"\xff" * 100)])
def test_nodes_that_are_no_nodes(fence, stream):
    replies = {wire.TREE: lambda connection, request, _: connection.send_joined(wire.NODES, request, stream)}
    with ScriptedServer(Tree(GOOD), replies=replies) as server:
        pull(server.url, fence, code=12)


def test_missing_nodes(fence):
    tree = Tree(GOOD)
    del tree.nodes[next(digest for digest in tree.nodes if digest != tree.root)]
    with ScriptedServer(tree) as server:
        pull(server.url, fence, code=12)


def test_a_missing_root(fence):
    tree = Tree(GOOD)
    tree.root = bytes(32)
    with ScriptedServer(tree) as server:
        pull(server.url, fence, code=12)


def test_nodes_that_are_not_what_their_name_says(fence):
    tree = Tree(GOOD)
    tree.nodes = {digest: wire.leaf([one_file(b"other")]) for digest in tree.nodes}
    with ScriptedServer(tree) as server:
        pull(server.url, fence, code=12)


# --- Content -----------------------------------------------------------------------------------------


def test_content_that_does_not_fit_its_digest(fence):
    tree = Tree(GOOD)
    right = dict(tree.contents)
    tree.contents[1] = b"wrong"

    def digests(connection, request, payload):
        wrong, tree.contents = tree.contents, right
        server.on_digests(connection, request, payload)
        tree.contents = wrong

    with ScriptedServer(tree, replies={wire.DIGESTS: digests}) as server:
        outcome = pull(server.url, fence, code=(12, 23))
    assert "a" in outcome.err
    assert not (fence / "a").exists()


def test_digests_that_do_not_fit_the_commitment(fence):
    tree = Tree(GOOD)

    def digests(connection, request, payload):
        wrong = {number: content + b"!" for number, content in tree.contents.items()}
        right, tree.contents = tree.contents, wrong
        server.on_digests(connection, request, payload)
        tree.contents = right

    with ScriptedServer(tree, replies={wire.DIGESTS: digests}) as server:
        pull(server.url, fence, code=(12, 23))
    assert not (fence / "a").exists()


@pytest.mark.parametrize("count", [0, 1, 16 * 3, 1 << 20])
def test_digest_lists_of_a_wrong_length(fence, count):
    replies = {wire.DIGESTS: lambda connection, request, _: connection.send_joined(
        wire.DIGEST_LIST, request, bytes(count))}
    with ScriptedServer(Tree(GOOD), replies=replies) as server:
        pull(server.url, fence, code=(12, 23))


def test_more_data_than_was_asked_for(fence):
    def endless(connection, request, _):
        for _ in range(4096):
            connection.send(wire.frame(wire.DATA, bytes(1 << 20), 0, request))

    with ScriptedServer(Tree(GOOD), replies={wire.READ: endless}) as server:
        code, err, peak = limited([SUPERLIFTER, "pull", server.url, str(fence)])
    assert code == 12 and peak < 300 << 20, err
    # Nor is the disk filled.
    assert sum(path.lstat().st_size for path in fence.rglob("*")) < 16 << 20


@pytest.mark.parametrize("code, expected", [(wire.STALE, 24), (wire.IO, 23), (wire.NOT_FOUND, 23),
                                             (wire.DENIED, 23), (wire.GONE, 24), (777, 12)])
def test_an_item_that_is_refused(fence, code, expected):
    def refuse_first(connection, request, payload):
        cursor = wire.Cursor(payload)
        items = [(cursor.varint(), cursor.varint(), cursor.varint()) for _ in range(cursor.varint())]
        for number, (entry, _, _) in enumerate(items):
            if entry == 1:
                connection.send(wire.frame(wire.ITEM, struct.pack("<IH", number, code), request=request))
            else:
                connection.send(wire.frame(wire.DATA, server.tree.contents[entry], wire.ITEM_END | wire.ITEM_OK,
                                           request))

    with ScriptedServer(Tree(GOOD), replies={wire.READ: refuse_first}) as server:
        outcome = pull(server.url, fence, code=expected)
    if expected != 12:
        assert "a" in outcome.err
        assert not (fence / "a").exists() and (fence / "d/inner").read_bytes() == b"second"


BROKEN_REPLIES = {
    "item out of range": lambda request: wire.frame(wire.ITEM, struct.pack("<IH", 9999, 0), request=request),
    "item twice": lambda request: wire.frame(wire.ITEM, struct.pack("<IH", 0, 6), request=request) * 2,
    "data of an unknown request": lambda request: wire.frame(wire.DATA, b"x", 3, 4242),
    "unknown type": lambda request: wire.frame(77, b"", 0, request),
    "a client's message": lambda request: wire.frame(wire.READ, b"", 0, request),
    "a second hello": lambda request: wire.server_hello(),
    "reserved bits": lambda request: wire.frame(wire.DATA, b"x", 3, request, reserved=1),
    "flags": lambda request: wire.frame(wire.DATA, b"x", 0x83, request),
    "a frame that is too long": lambda request: wire.frame(wire.DATA, b"x", 3, request, length=(1 << 20) + 1),
    "OK without the end": lambda request: wire.frame(wire.DATA, b"x", wire.ITEM_OK, request),
    "an error code that does not exist": lambda request: error(999, request),
}


@pytest.mark.parametrize("name", BROKEN_REPLIES)
def test_a_broken_reply(fence, name):
    replies = {wire.READ: lambda connection, request, _: connection.send(BROKEN_REPLIES[name](request))}
    with ScriptedServer(Tree(GOOD), replies=replies) as server:
        outcome = pull("--timeout=5", server.url, fence, code=12)
    assert outcome.err.strip()


# --- The stream itself -------------------------------------------------------------------------------


def measured():
    """Frame borders and length of what a right server sends for one pull."""
    import tempfile
    with tempfile.TemporaryDirectory() as scratch, ScriptedServer(Tree(GOOD)) as server:
        pull(server.url, os.path.join(scratch, "dest"))
        connection = server.connections[0]
        return connection.borders, connection.sent


def whole_or_absent(dest):
    """Every file that is there is one of the generation's, whole."""
    if not dest.exists():
        return
    right = {b"a": b"first", b"d/inner": b"second", b"d/z": b"", b"empty": b"", b"large": GOOD[b"large"],
             b"link": b"a"}
    for path, (kind, content, _) in snapshot(dest).items():
        assert kind == "directory" or content == right[path], path


def test_a_stream_cut_at_every_border_and_beside_it(tmp_path):
    borders, length = measured()
    cuts = sorted({at + off for at in borders for off in (-1, 0, 1, 11, 12, 13) if 0 < at + off < length})
    for at in cuts:
        dest = tmp_path / f"dest-{at}"
        with ScriptedServer(Tree(GOOD), cut_at=at) as server:
            # The last border but one is before GOODBYE: there the pull may already be whole.
            outcome = pull("--timeout=10", server.url, dest, code=(0, 2, 10, 12))
        if outcome.code == 0:
            assert at >= length - 24, f"cut at {at} of {length} went unnoticed"
        else:
            assert outcome.err.strip()
        whole_or_absent(dest)


def test_after_each_cut_the_next_pull_is_whole(fence):
    borders, length = measured()
    for at in borders[1:-1]:
        with ScriptedServer(Tree(GOOD), cut_at=at) as server:
            pull("--timeout=10", server.url, fence, code=(0, 10, 12))
        whole_or_absent(fence)
    with ScriptedServer(Tree(GOOD)) as server:
        pull(server.url, fence)
    assert snapshot(fence)[b"large"][1] == GOOD[b"large"]


def test_single_corrupted_bytes(tmp_path):
    borders, length = measured()
    seed = int(os.environ.get("SUPERLIFTER_SEED", time.time_ns() % 1_000_000))
    print(f"SUPERLIFTER_SEED={seed}")
    chance = random.Random(seed)
    headers = {at + off for at in [0] + borders[:-1] for off in range(12)}
    places = sorted(headers | set(chance.sample(range(length), 120)))
    for at in places:
        dest = tmp_path / f"dest-{at}"
        with ScriptedServer(Tree(GOOD), flip_at=at, flip_mask=1 << chance.randrange(8)) as server:
            outcome = pull("--timeout=1", "--contimeout=5", server.url, dest, code=None)
            assert outcome.code in (0, 2, 5, 10, 12, 23, 24, 30), f"seed {seed}, byte {at}: {outcome}"
        whole_or_absent_or_metadata(dest, seed, at)


def whole_or_absent_or_metadata(dest, seed, at):
    """A flip in an unprotected field (the agent, a counter) may pass; content and names never."""
    if dest.exists():
        for path, (kind, content, _) in snapshot(dest).items():
            assert kind == "directory" or path in (b"a", b"d/inner", b"d/z", b"empty", b"large", b"link"), (
                f"seed {seed}, byte {at}: {path}")
    whole_or_absent(dest)


@pytest.mark.parametrize("greeting", [
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n",
    b"220 ftp.example.org ready\r\n",
    b"\x15\x03\x03\x00\x02\x02\x28",
    bytes(100),
    b"\xff" * 100,
    wire.server_hello(magic=b"superlfx"),
    wire.frame(wire.DATA, b"x", 3, 1),
])
def test_a_peer_that_is_not_superlifter(fence, greeting):
    with ScriptedServer(greeting=greeting, replies={wire.HELLO: lambda connection, *_: hang_up()}) as server:
        outcome = pull("--timeout=5", server.url, fence, code=2)
    assert "not superlifter" in outcome.err or "superlifter" in outcome.err
    assert str(server.port) in outcome.err
    assert not fence.exists() or snapshot(fence) == {}


def hang_up():
    raise ConnectionAbortedError


def test_another_version_refused_by_the_server(fence):
    replies = {wire.HELLO: lambda connection, *_: connection.send(error(wire.VERSION, 0, 3 | 7 << 16))}
    with ScriptedServer(replies=replies) as server:
        outcome = pull(server.url, fence, code=2)
    assert "3" in outcome.err and "7" in outcome.err and "version" in outcome.err


def test_another_version_chosen_by_the_server(fence):
    replies = {wire.HELLO: lambda connection, *_: connection.send(wire.server_hello(version=9))}
    with ScriptedServer(replies=replies) as server:
        outcome = pull(server.url, fence, code=2)
    assert "9" in outcome.err


def test_a_feature_that_nobody_asked_for(fence):
    replies = {wire.HELLO: lambda connection, *_: connection.send(wire.server_hello(features=[b"teleport"]))}
    with ScriptedServer(replies=replies) as server:
        pull(server.url, fence, code=(0, 2, 12))


@pytest.mark.parametrize("code, expected", [(wire.NOT_FOUND, 5), (wire.DENIED, 5)])
def test_an_open_that_is_refused(fence, code, expected):
    replies = {wire.OPEN: lambda connection, request, _: connection.send(error(code, request))}
    with ScriptedServer(replies=replies) as server:
        outcome = pull(server.url, fence, code=expected)
    assert "m" in outcome.err
    assert not fence.exists() or snapshot(fence) == {}


def test_busy_is_tried_again(fence):
    answers = []

    def busy_twice(connection, *_):
        answers.append(None)
        if len(answers) <= 2:
            connection.send(wire.frame(wire.BUSY, struct.pack("<HI", wire.BUSY_CODE, 20)))
            hang_up()
        connection.send(wire.server_hello())

    with ScriptedServer(Tree(GOOD), replies={wire.HELLO: busy_twice}) as server:
        pull(server.url, fence)
    assert len(answers) == 3


def test_busy_for_ever_ends_with_5(fence):
    def busy(connection, *_):
        connection.send(wire.frame(wire.BUSY, struct.pack("<HI", wire.BUSY_CODE, 1)))
        hang_up()

    with ScriptedServer(replies={wire.HELLO: busy}) as server:
        outcome = pull("--timeout=3", server.url, fence, code=5, timeout=120)
    assert "busy" in outcome.err.lower()


def test_not_ready_is_waited_for(fence):
    answers = []
    tree = Tree(GOOD)

    def not_ready_twice(connection, request, _):
        answers.append(None)
        if len(answers) <= 2:
            return connection.send(error(wire.NOT_READY, request, 20))
        return connection.send(wire.frame(wire.OPENED, tree.opened(), request=request))

    with ScriptedServer(tree, replies={wire.OPEN: not_ready_twice}) as server:
        pull(server.url, fence)


def test_gone_opens_anew(fence):
    answers = []

    def gone_once(connection, request, payload):
        answers.append(None)
        if len(answers) == 1:
            return connection.send(error(wire.GONE, request))
        return server.on_tree(connection, request, payload)

    with ScriptedServer(Tree(GOOD), replies={wire.TREE: gone_once}) as server:
        pull(server.url, fence)
    assert snapshot(fence)[b"a"][1] == b"first"


def test_a_server_that_shuts_down_in_mid_session(fence):
    replies = {wire.READ: lambda connection, *_: (connection.send(error(wire.SHUTDOWN)), hang_up())}
    with ScriptedServer(Tree(GOOD), replies=replies) as server:
        outcome = pull("--timeout=5", server.url, fence, code=(5, 10, 12))
    assert outcome.err.strip()


def test_connection_refused(fence):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = pull(f"127.0.0.1:{port}/m", fence, code=10)
    assert str(port) in outcome.err and "refused" in outcome.err.lower()
    assert not fence.exists()


def test_a_name_that_does_not_resolve(fence):
    outcome = pull("--contimeout=5", "host.invalid/m", fence, code=10)
    assert "host.invalid" in outcome.err
    assert not fence.exists()


def test_a_peer_that_accepts_and_says_nothing(fence):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = pull("--timeout=1", "--contimeout=1", f"127.0.0.1:{listener.getsockname()[1]}/m", fence, code=30)
    assert outcome.err.strip()


def test_a_host_that_does_not_answer_at_all(fence):
    """A full listen queue drops the handshake, as a firewall would."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    fillers = []
    try:
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        outcome = pull("--contimeout=1", f"127.0.0.1:{port}/m", fence, code=35)
        assert str(port) in outcome.err
    finally:
        for one in [*fillers, listener]:
            one.close()


@pytest.mark.parametrize("kind", [wire.OPEN, wire.TREE, wire.DIGESTS, wire.READ])
def test_a_server_that_falls_silent(fence, kind):
    """A half-open connection: the bytes just stop."""
    silence = threading.Event()
    with ScriptedServer(Tree(GOOD), replies={kind: lambda *_: silence.wait(30)}) as server:
        outcome = pull("--timeout=1", server.url, fence, code=30)
        silence.set()
    assert outcome.err.strip()
    whole_or_absent(fence)


def test_a_server_that_resets(fence):
    def reset(connection, *_):
        connection.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.peer.close()
        hang_up()

    with ScriptedServer(Tree(GOOD), replies={wire.READ: reset}) as server:
        outcome = pull("--timeout=5", server.url, fence, code=(10, 12))
    assert outcome.err.strip()
    whole_or_absent(fence)


def test_text_from_the_server_is_escaped(fence):
    """A motd or a name must not drive the terminal."""
    tree = Tree({b"\x1b[31mred\n": b"x"})
    replies = {wire.HELLO: lambda connection, *_: connection.send(wire.server_hello(motd=b"hi \x1b]0;owned\x07")),
               wire.READ: lambda connection, request, _: connection.send(
                   wire.frame(wire.ITEM, struct.pack("<IH", 0, wire.STALE), request=request))}
    with ScriptedServer(tree, replies=replies) as server:
        outcome = run_client("pull", server.url, fence)
        assert outcome.code == 24
        assert "\x1b" not in outcome.err + outcome.out and "\x07" not in outcome.err + outcome.out
        _, _, shown = on_a_terminal([SUPERLIFTER, "ls", server.url])
        assert "\x1b" not in shown


def test_a_provisional_generation_has_no_digests(fence):
    with ScriptedServer(Tree(GOOD, provisional=True, with_digests=False)) as server:
        outcome = run_client("pull", server.url, fence)
    assert outcome.code == 0 and "no digests" in outcome.err
    assert snapshot(fence)[b"d/inner"][1] == b"second"
    # What the client recorded stands against a change on disk.
    assert run_client("verify", fence).code == 0
    before = (fence / "a").stat()
    (fence / "a").write_bytes(b"FIRST")
    os.utime(fence / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run_client("verify", fence).code == 23


def test_modules_with_hostile_lists(fence):
    for payload in (wire.varint(2**40), wire.varint(1) + wire.counted(b"n" * 129), wire.varint(1) + b"\x05ab",
                    b"\xff" * 11):
        replies = {wire.MODULES: lambda connection, request, _, data=payload: connection.send_joined(
            wire.MODULE_LIST, request, data)}
        with ScriptedServer(replies=replies) as server:
            assert run_client("modules", f"127.0.0.1:{server.port}").code == 12
