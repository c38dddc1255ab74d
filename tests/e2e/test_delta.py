"""Updates move what changed and little else: patches of changed files, moved and renamed files, similar names,
large files changed in place; and whatever becomes of the basis, the result is the source."""

import os
import random
import shutil
import subprocess

import pytest

from conftest import ENVIRONMENT, SUPERLIFTER, assert_same, pattern, pull, serving, write
from proxy import Proxy

KIB = 1 << 10
MIB = 1 << 20


def text(size, seed=0):
    """Lines that look like a program's: they compress, and do not repeat as a whole."""
    chance = random.Random(seed)
    words = ["static", "int", "return", "if", "else", "struct", "const", "for", "while", "break", "case"]
    lines = []
    length = 0
    while length < size:
        line = " ".join(chance.choice(words) for _ in range(chance.randrange(3, 9)))
        line = f"{line} value_{chance.randrange(10**6)};\n"
        lines.append(line)
        length += len(line)
    return "".join(lines).encode()[:size]


def spliced(data, at, removed=0, added=b""):
    return data[:at] + added + data[at + removed:]


class Case:
    """A source, its server, and a destination that was pulled once."""

    def __init__(self, source, server, dest):
        self.source = source
        self.server = server
        self.dest = dest

    def update(self, *options, **keywords):
        self.server.update()
        outcome = pull(*options, self.server.url(), self.dest, **keywords)
        assert_same(self.source, self.dest)
        return outcome.stats


@pytest.fixture
def case(tmp_path, dest, request):
    """Pulled once; the parameter is a function that fills the source."""
    source = tmp_path / "source"
    request.param(source)
    with serving(tmp_path / "server", source) as server:
        pull(server.url(), dest)
        assert_same(source, dest)
        yield Case(source, server, dest)


def one_large(source):
    write(source / "large", pattern(20 * MIB, 1))


def some_files(source):
    for number in range(200):
        write(source / f"d{number % 7}" / f"file-{number}.c", text(30_000 + 100 * number, number))


@pytest.mark.parametrize("case", [one_large], indirect=True)
@pytest.mark.parametrize("change", [
    lambda data: spliced(data, 7_000_001, 0, b"inserted"),
    lambda data: spliced(data, 7_000_001, 13),
    lambda data: spliced(data, 7_000_001, 100, pattern(100, 2)),
    lambda data: b"x" + data,
    lambda data: data[1:],
    lambda data: data + b"x",
    lambda data: data[:-1],
    lambda data: data[10 * MIB:] + data[:10 * MIB],
    lambda data: data[:MIB],
    lambda data: data + data,
], ids="insert delete replace insert-first delete-first append cut-last swap-halves truncate double".split())
def test_a_change_in_a_large_file_costs_little(case, change):
    data = change((case.source / "large").read_bytes())
    write(case.source / "large", data)
    stats = case.update()
    assert stats["files_patched"] == 1
    assert stats["files_fetched"] == stats["files_refetched"] == 0
    assert stats["bytes_literal"] < 4 * KIB
    assert stats["bytes_matched"] == len(data) - stats["bytes_literal"]
    assert stats["bytes_signature"] < 64 * KIB
    assert stats["bytes_received"] < 96 * KIB


@pytest.mark.parametrize("case", [some_files], indirect=True)
def test_many_small_changes_share_requests(case):
    for number in range(0, 200, 2):
        path = case.source / f"d{number % 7}" / f"file-{number}.c"
        data = path.read_bytes()
        write(path, spliced(data, len(data) // 3, 10, b"a line that was added\n"))
    stats = case.update()
    assert stats["files_patched"] == 100
    assert stats["bytes_literal"] < 100 * 2 * KIB
    # 100 files of 30 to 50 kB: 4 MB. Sums, literals, nodes and digests of these two hundred files.
    assert stats["bytes_received"] < 100 * 1200
    assert stats["bytes_sent"] < 100 * 60


@pytest.mark.parametrize("case", [lambda source: write(source / "log", text(4 * MIB, 3))], indirect=True)
def test_a_log_that_has_grown_costs_its_growth(case):
    grown = text(400 * KIB, 4)
    with open(case.source / "log", "ab") as log:
        log.write(grown)
    stats = case.update()
    assert stats["files_patched"] == 1
    assert stats["bytes_literal"] < len(grown) + 1 * KIB
    assert stats["bytes_received"] < len(grown) / 2  # It compresses.


@pytest.mark.parametrize("case", [one_large], indirect=True)
def test_nothing_in_common_costs_no_more_than_the_file(case):
    data = pattern(20 * MIB, 99)
    write(case.source / "large", data)
    stats = case.update()
    assert stats["files_fetched"] == 1 and stats["files_patched"] == 0
    assert stats["bytes_received"] + stats["bytes_sent"] < len(data) * 1.01


@pytest.mark.parametrize("case", [some_files], indirect=True)
def test_whole_file_turns_deltas_off(case):
    path = case.source / "d0/file-0.c"
    data = spliced(path.read_bytes(), 5, 0, b"x")
    write(path, data)
    stats = case.update("--whole-file")
    assert stats["files_patched"] == 0 and stats["bytes_signature"] == 0
    assert stats["bytes_literal"] == len(data)


@pytest.mark.parametrize("case", [some_files], indirect=True)
def test_moved_files_cost_no_content(case):
    for number in range(0, 200, 3):
        old = case.source / f"d{number % 7}" / f"file-{number}.c"
        new = case.source / "elsewhere" / f"{number % 5}" / old.name
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    stats = case.update("--delete")
    assert stats["files_moved"] == 67
    assert stats["bytes_literal"] == 0


@pytest.mark.parametrize("case", [some_files], indirect=True)
def test_files_that_change_places_cost_no_content(case):
    files = [case.source / f"d{number % 7}" / f"file-{number}.c" for number in range(200)]
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents[1:] + contents[:1]):
        write(path, content)
    stats = case.update()
    assert stats["files_moved"] == 200
    assert stats["bytes_literal"] == 0
    assert not (case.dest / ".superlifter/stage").exists()


@pytest.mark.parametrize("case", [some_files], indirect=True)
def test_moved_files_are_found_where_another_program_made_dest(case):
    shutil.rmtree(case.dest)
    subprocess.run(["cp", "-a", str(case.source), str(case.dest)], check=True)
    case.source.joinpath("d3").rename(case.source / "d3-moved")
    moved = len(list((case.source / "d3-moved").iterdir()))
    stats = case.update("--delete")
    assert stats["files_moved"] == moved
    assert stats["bytes_literal"] == 0


@pytest.mark.parametrize("case", [lambda source: write(source / "tool_1.2-3_amd64.deb", pattern(3 * MIB, 5))],
                         indirect=True)
def test_a_new_version_under_a_similar_name_is_a_patch(case):
    old = case.source / "tool_1.2-3_amd64.deb"
    data = old.read_bytes()
    old.unlink()
    write(case.source / "tool_1.2-4_amd64.deb", spliced(data, MIB, 100, b"version four"))
    stats = case.update("--delete")
    assert stats["files_patched"] == 1
    assert stats["bytes_literal"] < 4 * KIB


@pytest.mark.parametrize("case", [some_files], indirect=True)
def test_new_files_are_compressed_when_asked(case):
    data = text(2 * MIB, 77)
    write(case.source / "new.c", data)
    write(case.source / "noise", pattern(2 * MIB, 78))
    stats = case.update("-z")
    assert stats["bytes_literal"] == len(data) + 2 * MIB
    assert stats["bytes_received"] < 2 * MIB + len(data) / 2


@pytest.mark.parametrize("case", [one_large], indirect=True)
@pytest.mark.parametrize("change", [
    lambda data: spliced(data, 7_000_001, 0, b"inserted"),
    lambda data: spliced(data, 7_000_001, 13),
    lambda data: data[10 * MIB:] + data[:10 * MIB],
    lambda data: pattern(3 * MIB, 9) + data[:5 * MIB],
], ids="insert delete swap-halves new-front".split())
def test_in_place_changes_the_file_itself(case, change):
    data = change((case.source / "large").read_bytes())
    write(case.source / "large", data)
    inode = os.stat(case.dest / "large").st_ino
    stats = case.update("--inplace")
    assert stats["files_patched"] == 1
    assert os.stat(case.dest / "large").st_ino == inode


@pytest.mark.parametrize("case", [one_large], indirect=True)
@pytest.mark.parametrize("options", [(), ("--inplace",)], ids=["staged", "in-place"])
def test_kills_in_mid_patch_are_mended_by_the_next_pull(case, options):
    source = case.source / "large"
    data = source.read_bytes()
    for step in range(0, 19):
        data = spliced(data, step * MIB + 17, 5, pattern(40_000, 100 + step))
    write(source, data)
    case.server.update()
    # The last number is below what the server sends in all: 19 literals of 40,000 bytes of noise.
    for at in (20_000, 200_000, 500_000, 700_000):
        with Proxy(case.server.port) as proxy:
            proxy.hold(at)
            process = subprocess.Popen([SUPERLIFTER, "pull", "--quiet", *options, proxy.url(), str(case.dest)],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, env=ENVIRONMENT)
            proxy.wait_passed(at)
            process.kill()
            process.wait()
    pull(*options, case.server.url(), case.dest)
    assert_same(case.source, case.dest)


@pytest.mark.parametrize("case", [one_large], indirect=True)
def test_a_basis_that_changes_under_the_pull_does_no_harm(case):
    write(case.source / "large", spliced((case.source / "large").read_bytes(), 9, 0, b"x"))
    # Same size and time as at the last pull, other content: the state says one thing, the disk another.
    status = os.stat(case.dest / "large")
    with open(case.dest / "large", "r+b") as file:
        file.seek(3 * MIB)
        file.write(pattern(2 * MIB, 55))
    os.utime(case.dest / "large", ns=(status.st_mtime_ns, status.st_mtime_ns))
    stats = case.update()
    assert stats["files_patched"] == 1
    assert 2 * MIB <= stats["bytes_literal"] < 2 * MIB + 64 * KIB


def test_catalogs_keep_one_signature_for_equal_content(tmp_path, dest):
    source = tmp_path / "source"
    for number in range(10):
        write(source / f"copy-{number}", pattern(2 * MIB, 6))
    with serving(tmp_path / "server", source) as server:
        packs = list((server.catalog / "m").glob("*.signatures"))
        assert len(packs) == 1
        assert packs[0].stat().st_size < 0.015 * 2 * MIB + 8 * KIB
        pull(server.url(), dest)
        (source / "copy-3").rename(source / "renamed")
        server.update()
        assert packs[0].stat().st_size < 0.015 * 2 * MIB + 8 * KIB


def test_no_signatures_are_kept_when_none_are_wanted(tmp_path, dest):
    source = tmp_path / "source"
    write(source / "file", pattern(2 * MIB, 6))
    with serving(tmp_path / "server", source, signatures={"size": "0%"}) as server:
        pull(server.url(), dest)
        write(source / "file", spliced(pattern(2 * MIB, 6), 100, 1))
        server.update()
        stats = pull(server.url(), dest).stats
        assert stats["files_patched"] == 0 and stats["files_fetched"] == 1
        assert_same(source, dest)
