"""--include and --exclude, with rsync's meaning: the first match decides, a directory takes all along."""

import subprocess

import pytest

from conftest import ENVIRONMENT, pull, serving, snapshot, write


@pytest.fixture
def filtered(tmp_path):
    source = tmp_path / "source"
    for path in ("a.txt", "a.tmp", "d/b.txt", "d/b.tmp", "d/keep.tmp", "cache/x", "d/cache/y", "d/e/c.txt", "[odd]"):
        write(source / path, path)
    with serving(tmp_path / "server", source) as server:
        yield server, source


RULES = [
    ["--exclude=*.tmp"],
    ["--include=keep.tmp", "--exclude=*.tmp"],
    ["--exclude=/cache/"],
    ["--exclude=cache/"],
    ["--exclude=/d/*.tmp"],
    ["--exclude=d/**"],
    ["--exclude=d/***"],
    ["--include=*/", "--include=*.txt", "--exclude=*"],
    ["--include=/d/", "--include=/d/b.*", "--exclude=*"],
    ["--exclude=\\[odd\\]"],
    ["--exclude=?.tmp"],
    ["--exclude=[a-b].t[!m]t"],
]


@pytest.mark.parametrize("rules", RULES, ids=" ".join)
def test_filters_mean_what_they_mean_to_rsync(filtered, tmp_path, rules):
    server, source = filtered
    pull(*rules, server.url(), tmp_path / "ours")
    subprocess.run(["rsync", "-a", *rules, f"{source}/", f"{tmp_path}/theirs/"], check=True, env=ENVIRONMENT)
    assert snapshot(tmp_path / "ours") == snapshot(tmp_path / "theirs")


def test_totals_count_what_is_left(filtered, dest):
    server, _ = filtered
    outcome = pull("--exclude=*.tmp", server.url(), dest)
    assert outcome.stats["files_total"] == 6


def test_a_filter_that_is_lifted_brings_the_rest(filtered, dest):
    server, source = filtered
    pull("--exclude=d/", server.url(), dest)
    assert not (dest / "d").exists()
    pull(server.url(), dest)
    assert snapshot(dest) == snapshot(source)
