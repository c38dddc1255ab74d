"""The catalog: provisional at first, incremental after that, held, watched, asked for; damaged, newer."""

import fcntl
import os
import re
import signal
import subprocess
import threading
import time

import pytest

import wire
from conftest import (ENVIRONMENT, SUPERLIFTERD, Server, as_nobody, assert_same, is_root, make_deep, pattern,
                      pull, run_client, serving, wait_until, write)


def hashed(line):
    return int(re.search(r"(\d+) hashed", line).group(1))


@pytest.fixture
def source(tmp_path):
    for number in range(50):
        write(tmp_path / "source" / f"d{number % 5}" / f"f{number}", pattern(10_000, number))
    return tmp_path / "source"


def test_an_index_with_nothing_changed_publishes_nothing(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    first = server.index()
    assert hashed(first) == 50 and "generation" in first
    current = (server.catalog / "m/CURRENT").read_text()
    second = server.index()
    assert "up to date" in second
    assert (server.catalog / "m/CURRENT").read_text() == current


def test_only_what_changed_is_read_again(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    server.index()
    write(source / "d0/f0", b"changed")
    write(source / "d1/new", b"new")
    (source / "d2/f2").unlink()
    assert hashed(server.index()) == 2


def test_a_change_that_keeps_size_and_mtime_is_seen(tmp_path, source, dest):
    """ctime cannot be set back."""
    with serving(tmp_path / "server", source) as server:
        pull(server.url(), dest)
        path = source / "d0/f0"
        before = path.stat()
        write(path, pattern(10_000, 999))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        server.update()
        pull("--checksum", server.url(), dest)
        assert_same(source, dest)


def test_the_index_command_names_its_modules(tmp_path, source):
    write(tmp_path / "other/x", b"x")
    server = Server(tmp_path / "server", {"m": {"path": str(source)}, "n": {"path": str(tmp_path / "other")}})
    only_n = server.index("n")
    assert "n" in only_n and not (server.catalog / "m/CURRENT").exists()
    wrong = server.index("nowhere", code=1)
    assert "nowhere" in wrong


def test_a_module_is_served_before_it_was_hashed(tmp_path, source, dest):
    """4 GiB of hole take long enough to hash that the provisional generation can be pulled from."""
    with open(source / "huge", "wb") as file:
        file.truncate(4 << 30)
    with serving_without_index(tmp_path / "server", source) as server:
        server.wait_log(r"module m: generation 1 published.*\(provisional\)")
        with server.client() as client:
            opened = client.open("m")
            assert opened["flags"] & wire.PROVISIONAL and opened["generation"] == 1
            assert client.digests(1, [(0, 3)]) == [bytes(16)] * 3
        outcome = run_client("pull", "--stats=json", server.url("m/d0"), dest)
        assert outcome.code == 0, outcome
        assert outcome.stats["files_fetched"] == 10 and outcome.stats["generation"] == 1
        assert "no digests" in outcome.err
        assert_same(source / "d0", dest)
        server.wait_log(r"module m: generation 2 published", timeout=90)
        # The digests that the client made itself fit: nothing is fetched again.
        wait_until(lambda: server.generation() == 2, "generation 2 is served")
        again = pull(server.url("m/d0"), dest)
        assert again.stats["files_fetched"] == 0 and again.stats["generation"] == 2
        assert_same(source / "d0", dest)


def serving_without_index(work, source, **keys):
    import contextlib

    @contextlib.contextmanager
    def manage():
        server = Server(work, {"m": {"path": str(source), **keys}})
        try:
            yield server.start()
        finally:
            print(f"--- log of superlifterd\n{server.log()}")
            assert server.stop() in (None, 0)

    return manage()


def test_a_rescan_by_signal(tmp_path, source):
    with serving(tmp_path / "server", source) as server:
        write(source / "new", b"new")
        number = server.current() + 1
        server.process.send_signal(signal.SIGUSR1)
        server.wait_log(rf"module m: generation {number} published: .* 1 hashed")
        server.wait_served(number)
        after = len(server.lines)
        server.process.send_signal(signal.SIGUSR1)
        server.wait_log(rf"module m: generation {number} is up to date", after=after)


def test_a_rescan_by_interval(tmp_path, source):
    with serving(tmp_path / "server", source, module_keys={"rescan": "1s"}) as server:
        number = server.current() + 1
        write(source / "new", b"new")
        server.wait_log(rf"module m: generation {number} published")


def test_a_rescan_by_file_system_events(tmp_path, source, dest):
    with serving(tmp_path / "server", source, module_keys={"watch": True}) as server:
        server.wait_log(r"module m: generation \d+ is up to date")
        number = server.current() + 1
        write(source / "d0/new", b"new")
        server.wait_log(rf"module m: generation {number} published")
        # Below a directory that did not exist when the watch began.
        write(source / "fresh/deep/file", b"fresh")
        wait_until(lambda: "fresh/deep/file" in listing(server), "the new directory is served")
        write(source / "fresh/deep/second", b"second")
        wait_until(lambda: "fresh/deep/second" in listing(server), "events below the new directory count")
        pull(server.url(), dest)
        assert_same(source, dest)


def listing(server):
    with server.client() as client:
        return {path.decode(errors="surrogateescape") for _, path, _ in client.walk(client.open("m"))}


def test_a_stale_read_brings_a_rescan(tmp_path, source, dest):
    with serving(tmp_path / "server", source) as server:
        number = server.current() + 1
        write(source / "d0/f0", b"changed behind the catalog's back")
        outcome = pull(server.url(), dest, code=(0, 24))
        if outcome.code == 24:
            assert "f0" in outcome.err
        server.wait_log(rf"module m: generation {number} published")
        server.wait_served(number)
        pull(server.url(), dest)
        assert_same(source, dest)


def test_nothing_is_published_while_an_update_is_in_progress(tmp_path, source):
    server = Server(tmp_path / "server",
                    {"m": {"path": str(source), "hold_while": ["/Archive-Update-in-Progress-*"]}})
    server.index()
    mark = write(source / "Archive-Update-in-Progress-mirror", b"")
    write(source / "half", b"half of an update")
    before = server.current()
    held = server.index(code=None)
    assert "Archive-Update-in-Progress-mirror" in held
    assert server.current() == before
    mark.unlink()
    server.index()
    assert server.current() == before + 1


def test_excluded_entries_cannot_be_named(tmp_path, source):
    write(source / "d0/secret.tmp", b"x")
    write(source / "private/x", b"x")
    write(source / ".superlifter/stage/y", b"x")
    with serving(tmp_path / "server", source, module_keys={"exclude": ["*.tmp", "/private/"]}) as server:
        names = listing(server)
        assert not any("tmp" in name or "private" in name or ".superlifter" in name for name in names)
        for path in ("d0/secret.tmp", "private", "private/x", ".superlifter"):
            assert run_client("cat", server.url(f"m/{path}")).code != 0


def test_special_files_are_left_out(tmp_path, source, dest):
    import socket
    os.mkfifo(source / "fifo")
    here = socket.socket(socket.AF_UNIX)
    cwd = os.getcwd()
    os.chdir(source)
    try:
        here.bind("socket")
    finally:
        os.chdir(cwd)
    with serving(tmp_path / "server", source) as server:
        names = listing(server)
        assert "fifo" not in names and "socket" not in names
        pull(server.url(), dest)
        assert_same(source, dest, "--exclude=/fifo", "--exclude=/socket")


def test_paths_over_4095_bytes_are_refused_by_name(tmp_path, source, dest):
    make_deep(source, 4095)
    with serving(tmp_path / "server", source) as server:
        assert max(map(len, listing(server))) == 4095
    make_deep(source, 4200)
    again = Server(tmp_path / "server-2", {"m": {"path": str(source)}})
    done = subprocess.run([SUPERLIFTERD, "index", "--config", str(again.config)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0, done
    assert "nnnn" in done.stderr and "4,095" in done.stderr.replace("4095", "4,095")


@pytest.mark.skipif(not is_root, reason="needs to become somebody who may not read everything")
def test_unreadable_files_are_left_out_and_named(tmp_path, source, dest):
    write(source / "d0/unreadable", b"secret", mode=0o600)
    write(source / "closed/inside", b"secret")
    (source / "closed").chmod(0o700)
    server = Server(tmp_path / "server", {"m": {"path": str(source)}}, user="nobody")
    for path in (server.work, server.catalog):
        path.chmod(0o777)
    keywords = as_nobody(source / "d0")
    done = subprocess.run([SUPERLIFTERD, "index", "--config", str(server.config)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, env=ENVIRONMENT, timeout=60, **keywords)
    assert done.returncode == 0, done
    assert "unreadable" in done.stderr and "closed" in done.stderr
    server.start(**keywords)
    try:
        names = listing(server)
        assert "d0/unreadable" not in names and "closed/inside" not in names
        pull(server.url(), dest)
        assert not (dest / "d0/unreadable").exists()
    finally:
        assert server.stop() == 0


def test_one_writer_at_a_time(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    server.index()
    with open(server.catalog / "m/LOCK", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = server.current()
        write(source / "new", b"new")
        assert "m" in server.index(code=1)
        assert server.current() == before


def test_a_bounded_number_of_generations_is_kept(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}}, limits={"generations": 2})
    for number in range(5):
        write(source / "changing", b"%d" % number)
        server.index()
    kept = sorted(path.name for path in (server.catalog / "m").glob("*.generation"))
    last = server.current()
    assert kept == sorted([f"{last - 1}.generation", f"{last}.generation"])
    assert not list((server.catalog / "m").glob("*.tmp"))


def test_an_index_killed_at_any_moment_leaves_the_old_generation_serving(tmp_path, source, dest):
    with serving(tmp_path / "server", source) as server:
        for number in range(8):
            for file in range(50):
                write(source / f"d{file % 5}" / f"f{file}", pattern(200_000, number * 50 + file))
            process = subprocess.Popen([SUPERLIFTERD, "index", "--config", str(server.config)],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, env=ENVIRONMENT)
            try:
                process.wait(number * 0.02)
            except subprocess.TimeoutExpired:
                process.kill()
            process.wait()
            assert server.generation() >= 1
        server.update()
        assert not list((server.catalog / "m").glob("*.tmp"))
        pull(server.url(), dest)
        assert_same(source, dest)


def damage(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("offset", [0, 20, 300, 4088, 4096, 5000, -1])
def test_a_damaged_catalog_is_made_again(tmp_path, source, dest, offset):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    server.index()
    generation = server.file_of_generation()
    at = offset if offset >= 0 else generation.stat().st_size + offset
    damage(generation, at, bytes([generation.read_bytes()[at] ^ 0xFF]))
    server.start()
    try:
        server.wait_log(r"module m: generation \d+ published(?!.*provisional)")
        wait_until(lambda: pull(server.url(), dest, code=None).code == 0, "the module is served again")
        assert_same(source, dest)
        assert "damaged" in server.log() or "corrupt" in server.log()
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("current", [b"", b"nonsense\n", b"999\n", b"-1\n", b"\0" * 100])
def test_a_damaged_current_is_made_again(tmp_path, source, dest, current):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    server.index()
    (server.catalog / "m/CURRENT").write_bytes(current)
    server.index()
    server.start()
    try:
        pull(server.url(), dest)
        assert_same(source, dest)
    finally:
        assert server.stop() == 0


def test_a_catalog_that_is_damaged_while_it_is_served_kills_nobody(tmp_path, source, dest):
    with serving(tmp_path / "server", source) as server:
        generation = server.file_of_generation()
        size = generation.stat().st_size
        for at in range(4096, size, max(1, size // 50)):
            damage(generation, at, b"\xff\xff\xff\xff")
        workers = server.children()
        for _ in range(3):
            run_client("pull", "--quiet", server.url(), dest)  # Whatever comes of it.
        server.index()
        wait_until(lambda: pull(server.url(), dest, code=None).code == 0, "the module is served again")
        assert_same(source, dest)
        assert server.children() == workers, "a process died of it"


def packs(server):
    return sorted(path.name for path in (server.catalog / "m").glob("*.signatures"))


def test_signatures_are_kept_by_content_within_their_size(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    said = server.index()
    size, share, pack = re.search(r"hashed, signatures ([\d.]+) MB \(([\d.]+) %\) in a pack of ([\d.]+) MB",
                                  said).groups()
    assert 0 < float(share) <= 1.5 and float(size) <= float(pack)
    file = server.catalog / "m/1.signatures"
    before = file.read_bytes()
    assert len(before) <= 0.015 * 50 * 10_000
    (source / "d0").rename(source / "renamed")
    os.link(source / "d1/f1", source / "linked")
    write(source / "copied", (source / "d2/f2").read_bytes())
    server.index()
    assert file.read_bytes() == before and packs(server) == ["1.signatures"]
    assert "signatures" in server.index()  # Up to date.


def test_the_size_of_signatures_decides_how_fine_they_are(tmp_path, source):
    sizes = []
    write(source / "large", pattern(3 << 20, 1))
    for share in ("1.5%", "0.4%", "0.1%", "0.03%"):
        server = Server(tmp_path / "server", {"m": {"path": str(source)}}, signatures={"size": share},
                        limits={"generations": 1})
        server.index()
        assert "up to date" in server.index()
        (pack,) = packs(server)
        sizes.append((server.catalog / "m" / pack).stat().st_size)
        assert sizes[-1] <= float(share[:-1]) / 100 * (50 * 10_000 + (3 << 20))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    for share in ("0.02%", "0%"):
        server = Server(tmp_path / "server", {"m": {"path": str(source)}}, signatures={"size": share},
                        limits={"generations": 1})
        assert "signatures" not in server.index()
        assert packs(server) == []


@pytest.mark.parametrize("damaged", [None, b"", b"x" * 5000])
def test_a_damaged_pack_costs_signatures_and_nothing_else(tmp_path, source, dest, damaged):
    with serving(tmp_path / "server", source) as server:
        (pack,) = packs(server)
        if damaged is None:
            (server.catalog / "m" / pack).unlink()
        else:
            (server.catalog / "m" / pack).write_bytes(damaged)
        write(source / "d0/f0", b"changed")
        pull(server.url(), dest, code=(0, 24))
        server.update()
        pull(server.url(), dest)
        assert_same(source, dest)
        assert "hashed, signatures" in server.log() or len(packs(server)) >= 1


def test_a_catalog_of_an_older_format_is_made_again(tmp_path, source, dest):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    server.index()
    generation = server.file_of_generation()
    damage(generation, 8, (1).to_bytes(4, "little"))
    server.start()
    try:
        server.wait_log("format version 1 is older than version")
        server.wait_log(r"module m: generation \d+ published(?!.*provisional)")
        wait_until(lambda: pull(server.url(), dest, code=None).code == 0, "the module is served again")
        assert_same(source, dest)
        assert "damaged" not in server.log() and "corrupt" not in server.log()
    finally:
        assert server.stop() == 0


def test_a_catalog_of_a_newer_format_is_left_alone(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    server.index()
    generation = server.file_of_generation()
    damage(generation, 8, (99).to_bytes(4, "little"))
    before = generation.read_bytes()
    said = server.index(code=1)
    assert "version 99" in said and "version 2" in said
    assert generation.read_bytes() == before
    server.start()
    try:
        outcome = pull(server.url(), tmp_path / "dest", code=None)
        assert outcome.code in (5, 12), outcome
        server.wait_log("99")
    finally:
        assert server.stop() == 0


def test_a_file_that_keeps_changing_does_not_hold_up_the_rest(tmp_path, source):
    server = Server(tmp_path / "server", {"m": {"path": str(source)}})
    stop = threading.Event()
    restless = write(source / "restless", pattern(4 << 20))

    def change():
        with open(restless, "r+b") as file:
            while not stop.is_set():
                file.seek(0)
                file.write(time.monotonic_ns().to_bytes(8, "little"))
                file.flush()

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        server.index()
    finally:
        stop.set()
        thread.join()
    assert (server.catalog / "m/CURRENT").read_text().strip().isdigit()
    server.index()
    server.start()
    try:
        pull(server.url(), tmp_path / "dest")
        assert_same(source, tmp_path / "dest")
    finally:
        assert server.stop() == 0
