"""Serve a tree, pull it, prove that it is the same; pull again, and see that nothing moves."""

import os
import pathlib
import re

import pytest

import wire
from conftest import (STATS_FIELDS, assert_same, make_tree, pattern, pull, run_client, serving, snapshot,
                      write)


def test_every_kind_of_entry(server, tree, dest):
    outcome = pull(server.url(), dest)
    assert_same(tree, dest)
    assert list(outcome.stats) == STATS_FIELDS
    # Two of the files are further names of a third: links, no transfer.
    assert outcome.stats["files_fetched"] == outcome.stats["files_total"] - 2 > 1500
    assert outcome.stats["generation"] == server.current()
    assert re.fullmatch(r"[0-9a-f]{64}", outcome.stats["root"])


def test_second_pull_moves_under_2_kb(server, tree, dest):
    first = pull(server.url(), dest)
    again = pull(server.url(), dest)
    assert again.stats["bytes_received"] + again.stats["bytes_sent"] < 2048
    assert again.stats["files_fetched"] == 0 and again.stats["bytes_literal"] == 0
    assert again.stats["files_unchanged"] == again.stats["files_total"] == first.stats["files_total"]
    assert again.stats["root"] == first.stats["root"]
    assert_same(tree, dest)


def test_byte_counts_are_those_of_the_socket(server, tree, dest):
    from proxy import Proxy
    with Proxy(server.port) as proxy:
        outcome = pull(proxy.url(), dest)
        proxy.wait_passed(outcome.stats["bytes_received"])
        assert outcome.stats["bytes_received"] == proxy.passed
    parts = sum(outcome.stats[name] for name in ("bytes_manifest", "bytes_signature", "bytes_literal"))
    assert parts <= outcome.stats["bytes_received"]


def test_pull_into_an_existing_copy_without_state_fetches_nothing(server, tree, dest):
    pull(server.url(), dest)
    for path in sorted((dest / ".superlifter").rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() else path.rmdir()
    (dest / ".superlifter").rmdir()
    again = pull(server.url(), dest)
    assert again.stats["bytes_literal"] == 0
    assert_same(tree, dest)


def test_real_headers(tmp_path, dest):
    with serving(tmp_path / "server", "/usr/include") as server:
        pull(server.url(), dest)
        assert_same("/usr/include", dest)
        again = pull(server.url(), dest)
        assert again.stats["bytes_received"] + again.stats["bytes_sent"] < 2048


@pytest.mark.parametrize("path", ["d", "d/e/f", "many", "odd names", "links", "empty-directory"])
def test_a_directory_of_a_module_fills_dest(server, tree, dest, path):
    pull(server.url(f"m/{path.replace(' ', '%20')}"), dest)
    assert_same(tree / path, dest)


def test_a_single_file_becomes_dest(server, tree, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    pull(server.url("m/plain.txt"), into / "new-name")
    assert os.listdir(into) == ["new-name"]
    assert (into / "new-name").read_bytes() == (tree / "plain.txt").read_bytes()
    assert (into / "new-name").stat().st_mtime_ns == (tree / "plain.txt").stat().st_mtime_ns


def test_a_single_file_lands_in_a_directory(server, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    pull(server.url("m/d/e/f/deep.txt"), into)
    assert os.listdir(into) == ["deep.txt"]


def test_dest_defaults_to_the_last_segment(server, tree, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    outcome = run_client("pull", "--quiet", server.url("m/d"), cwd=here)
    assert outcome.code == 0, outcome
    assert_same(tree / "d", here / "d")


def test_url_form(server, tree, dest):
    pull(f"superlifter://127.0.0.1:{server.port}/m/d", dest)
    assert_same(tree / "d", dest)


def test_an_empty_tree(tmp_path, dest):
    source = tmp_path / "source"
    source.mkdir(mode=0o750)
    with serving(tmp_path / "server", source) as server:
        pull(server.url(), dest)
        assert_same(source, dest)


def test_several_modules(tmp_path):
    from conftest import Server
    write(tmp_path / "a/x", b"in a")
    write(tmp_path / "b/y", b"in b")
    server = Server(tmp_path / "server", {"a": {"path": str(tmp_path / "a")}, "b": {"path": str(tmp_path / "b")}})
    lines = server.index()
    assert len(lines.splitlines()) == 2, lines
    server.start()
    try:
        pull(server.url("a"), tmp_path / "got-a")
        pull(server.url("b"), tmp_path / "got-b")
        assert_same(tmp_path / "a", tmp_path / "got-a")
        assert_same(tmp_path / "b", tmp_path / "got-b")
    finally:
        assert server.stop() == 0


def test_dry_run_changes_nothing(server, dest):
    outcome = pull("-n", server.url(), dest)
    assert outcome.stats["files_total"] > 1500
    assert not dest.exists()
    dest.mkdir()
    pull("-n", server.url(), dest)
    assert os.listdir(dest) == []


def test_with_one_and_many_writers(server, tree, tmp_path):
    for jobs in (1, 7):
        pull("--jobs", jobs, server.url(), tmp_path / f"jobs-{jobs}")
        assert_same(tree, tmp_path / f"jobs-{jobs}")


def test_with_a_limit_on_the_rate(tmp_path, dest):
    write(tmp_path / "source/f", pattern(1 << 20))
    with serving(tmp_path / "server", tmp_path / "source") as server:
        outcome = pull("--bwlimit=1M", server.url(), dest)
        assert outcome.stats["elapsed_s"] >= 0.5
        assert_same(tmp_path / "source", dest)


def test_a_client_written_from_the_document_sees_the_same(server, tree):
    """Nodes, commitments, digests and contents, all checked against the source by a second client."""
    with server.client() as client:
        assert client.version == 1
        summary = client.modules()["m"]
        opened = client.open("m")
        assert summary["entries"] == opened["entries"] and summary["bytes"] == opened["bytes"]
        assert opened["flags"] == 0
        entries = client.walk(opened)
        assert [number for number, _, _ in entries] == list(range(1, opened["entries"] + 1))
        root = os.fsencode(tree)
        xxh = client.digests(1, [(0, opened["entries"] + 1)])
        sha = client.digests(2, [(0, opened["entries"] + 1)])
        files = [(number, path, entry) for number, path, entry in entries if entry["kind"] == wire.FILE]
        assert len(files) == opened["files"]
        wanted = [(number, path, entry) for number, path, entry in files if len(path) < 3000]
        for start in range(0, len(wanted), 500):
            part = wanted[start:start + 500]
            replies = client.read([(number, 0, 0) for number, _, _ in part])
            for (number, path, entry), (code, content) in zip(part, replies):
                assert code == wire.OK
                with open(root + b"/" + path, "rb") as file:
                    assert content == file.read(), path
                assert entry["size"] == len(content)
                assert xxh[number] == wire.xxh128(content) and sha[number] == wire.sha256(content)
        for number, _, entry in entries:
            if entry["kind"] != wire.FILE:
                assert xxh[number] == bytes(16) and sha[number] == bytes(32)
        client.goodbye()


def test_ranges_of_a_file(server, tree):
    content = (tree / "large").read_bytes()
    with server.client() as client:
        numbers = {path: number for number, path, _ in client.walk(client.open("m"))}
        # Ranges of one file stand in order within a request.
        for items in ([(0, 1), (5, 100_000), (len(content) - 3, 1000)],
                      [(0, 70_000), (len(content) - 3, 0), (len(content), 0), (len(content) + 9, 5)]):
            replies = client.read([(numbers[b"large"], offset, length) for offset, length in items])
            for (offset, length), (code, got) in zip(items, replies):
                assert code == wire.OK and got == content[offset:offset + length if length else None]


def test_the_same_tree_has_the_same_root_everywhere(tmp_path, tree):
    """Nothing that belongs to one host is in what is digested."""
    import subprocess
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(tree), str(copy)], check=True)
    roots = []
    for name, source in (("one", tree), ("two", copy)):
        with serving(tmp_path / name, source) as server, server.client() as client:
            roots.append(client.open("m")["root"])
    assert roots[0] == roots[1]


def test_what_was_pulled_can_be_served_on(server, tree, tmp_path):
    pull(server.url(), tmp_path / "first")
    with server.client() as client:
        root = client.open("m")["root"]
    with serving(tmp_path / "second-server", tmp_path / "first") as second:
        with second.client() as client:
            assert client.open("m")["root"] == root
        pull(second.url(), tmp_path / "second")
    assert_same(tree, tmp_path / "second")


def test_serve_without_a_config(tmp_path, dest):
    import signal
    import subprocess
    import threading
    from conftest import ENVIRONMENT, SUPERLIFTERD
    make_tree(tmp_path / "stuff")
    process = subprocess.Popen(
        [SUPERLIFTERD, "--serve", str(tmp_path / "stuff"), "--listen", "127.0.0.1:0"], stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={**ENVIRONMENT, "XDG_CACHE_HOME": str(tmp_path / "cache")}, text=True)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "listening on" in line:
                port = int(re.search(r"listening on \S*:(\d+)", line).group(1))
                break
        threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True).start()
        pull(f"127.0.0.1:{port}/stuff", dest)
        assert_same(tmp_path / "stuff", dest)
        catalogs = [path.name for path in (tmp_path / "cache/superlifter").iterdir()]
        assert len(catalogs) == 1 and re.fullmatch(r"stuff-[0-9a-f]{16}", catalogs[0]), catalogs
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, lines


def test_serve_names_the_module(tmp_path, dest):
    write(tmp_path / "stuff/f", b"x")
    import subprocess
    from conftest import ENVIRONMENT, SUPERLIFTERD
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([SUPERLIFTERD, "index", "--serve", f"{tmp_path}/stuff=other"], env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert "other" in done.stdout


def test_snapshot_of_names(server, tree, dest):
    """The odd names once more, without rsync in between."""
    pull(server.url("m/odd%20names"), dest)
    assert snapshot(dest) == snapshot(pathlib.Path(tree) / "odd names")
