"""What a person sees: a display on a terminal, plain lines elsewhere, --quiet, --stats."""

import json
import os
import re

from conftest import STATS_FIELDS, SUPERLIFTER, on_a_terminal, pattern, run_client, serving, write


def test_a_display_on_a_terminal(tmp_path, dest):
    write(tmp_path / "source/large-file", pattern(8 << 20))
    with serving(tmp_path / "server", tmp_path / "source") as server:
        for columns in (100, 40):
            code, out, shown = on_a_terminal(
                [SUPERLIFTER, "pull", "--bwlimit=8M", "--stats=json", server.url(), f"{dest}-{columns}"], columns,
                stdout=False)
            assert code == 0, shown
            assert json.loads(out.splitlines()[-1])["files_fetched"] == 1
            redraws = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
            assert len(redraws) > 4, shown
            assert any("%" in part for part in redraws) or any("MiB" in part or "MB" in part for part in redraws)
            assert columns < 60 or any("/s" in part for part in redraws)
            assert max(len(part) for part in redraws if part.startswith("transferring")) <= columns


def test_plain_lines_elsewhere(server, dest):
    outcome = run_client("pull", server.url(), dest)
    assert outcome.code == 0
    assert "\r" not in outcome.err and "\x1b" not in outcome.err
    assert "\r" not in outcome.out


def test_quiet_says_nothing_but_the_stats(server, dest):
    outcome = run_client("pull", "--quiet", server.url(), dest)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    outcome = run_client("pull", "--quiet", "--stats=json", server.url(), dest)
    assert outcome.err == "" and len(outcome.out.splitlines()) == 1
    assert list(json.loads(outcome.out)) == STATS_FIELDS


def test_stats_come_when_a_pull_fails_in_mid_transfer(tmp_path, dest):
    for number in range(50):
        write(tmp_path / f"source/f{number}", pattern(50_000, number))
    keys = {"hold_while": ["/hold"]}
    with serving(tmp_path / "server", tmp_path / "source", module_keys=keys) as server:
        (tmp_path / "source/f7").unlink()
        write(tmp_path / "source/hold", b"")
        outcome = run_client("pull", "--quiet", "--stats=json", server.url(), dest)
        assert outcome.code == 24
        assert outcome.stats["stale"] == 1 and outcome.stats["files_fetched"] == 49


def test_totals_are_exact(server, tree, dest):
    outcome = run_client("pull", "--stats=json", server.url(), dest)
    files, total, seen = 0, 0, set()
    for directory, _, names in os.walk(os.fsencode(tree)):
        for name in names:
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except OSError:  # Longer than a path may be; make_deep's one file.
                continue
            if os.path.islink(path):
                continue
            files += 1
            if status.st_ino not in seen:
                total += status.st_size
            seen.add(status.st_ino)
    assert outcome.stats["files_total"] in (files, files + 1)
    assert outcome.stats["bytes_total"] in (total, total + len(b"at the bottom"))
