"""The source changes, `index` runs, the next pull ends equal, and only what changed crosses the wire."""

import os

import pytest

from conftest import assert_same, pattern, pull, serving, write


@pytest.fixture
def pulled(tmp_path, dest):
    """A source of 40 files of 256 KiB, served and pulled once."""
    source = tmp_path / "source"
    for number in range(40):
        write(source / f"dir-{number % 4}" / f"file-{number}", pattern(256 << 10, number))
    write(source / "replaced/inner", b"a directory that becomes a file")
    write(source / "grows", b"a file that becomes a directory")
    (source / "swings").symlink_to("grows")
    with serving(tmp_path / "server", source) as server:
        pull(server.url(), dest)
        assert_same(source, dest)
        yield server, source, dest


def again(pulled, *options):
    server, source, dest = pulled
    server.update()
    outcome = pull(*options, server.url(), dest)
    assert_same(source, dest)
    return outcome.stats


def test_one_of_each_change(pulled):
    _, source, _ = pulled
    write(source / "dir-0/file-0", pattern(256 << 10, 1000))         # changed
    write(source / "dir-1/added", pattern(64 << 10, 1001))           # added
    (source / "dir-2/file-2").unlink()                               # removed
    (source / "dir-3/file-3").rename(source / "dir-3/renamed")       # renamed
    (source / "replaced/inner").unlink()                             # directory to file
    (source / "replaced").rmdir()
    write(source / "replaced", b"now a file")
    (source / "grows").unlink()                                      # file to directory
    write(source / "grows/inner", b"now a directory")
    (source / "swings").unlink()                                     # symlink to file
    write(source / "swings", b"now a file, too")
    stats = again(pulled, "--delete")
    changed = (256 << 10) + (64 << 10) + len(b"now a file" + b"now a directory" + b"now a file, too")
    assert stats["bytes_literal"] == changed
    assert stats["bytes_received"] < changed + 64 * 1024
    assert stats["files_moved"] == 1


def test_a_new_time_or_mode_moves_no_content(pulled):
    _, source, _ = pulled
    os.utime(source / "dir-0/file-0", ns=(1, 1_000_000_000_000_000_001))
    (source / "dir-1/file-1").chmod(0o600)
    (source / "dir-2").chmod(0o700)
    stats = again(pulled)
    assert stats["bytes_literal"] == 0


def test_a_renamed_directory_moves_no_content(pulled):
    _, source, _ = pulled
    (source / "dir-0").rename(source / "elsewhere")
    stats = again(pulled, "--delete")
    assert stats["bytes_literal"] == 0 and stats["files_moved"] == 10


def test_a_copy_of_a_file_moves_no_content(pulled):
    _, source, _ = pulled
    write(source / "copy", pattern(256 << 10, 5))
    stats = again(pulled)
    assert stats["bytes_literal"] == 0


def test_two_files_that_swap_names(pulled):
    _, source, _ = pulled
    (source / "dir-0/file-0").rename(source / "spare")
    (source / "dir-1/file-1").rename(source / "dir-0/file-0")
    (source / "spare").rename(source / "dir-1/file-1")
    again(pulled)


def test_a_new_hard_link_and_a_broken_one(pulled):
    _, source, _ = pulled
    os.link(source / "dir-0/file-0", source / "dir-1/link")
    stats = again(pulled)
    assert stats["bytes_literal"] == 0
    (source / "dir-1/link").unlink()
    write(source / "dir-1/link", b"on its own")
    again(pulled)


def test_a_symlink_that_changes(pulled):
    _, source, _ = pulled
    (source / "swings").unlink()
    (source / "swings").symlink_to("elsewhere")
    stats = again(pulled)
    assert stats["bytes_literal"] == 0


def test_local_damage_is_mended(pulled):
    """A file that was touched in DEST is not what the last pull left: it is had again."""
    server, source, dest = pulled
    write(dest / "dir-0/file-0", b"somebody wrote here")
    (dest / "dir-1/file-1").unlink()
    (dest / "dir-2/file-2").chmod(0o640)
    stats = pull(server.url(), dest).stats
    assert_same(source, dest)
    assert stats["bytes_literal"] == 2 * (256 << 10)


def test_damage_that_keeps_size_and_time_is_found_with_checksum(pulled):
    server, source, dest = pulled
    path = dest / "dir-0/file-0"
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(b"#")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    pull("--checksum", server.url(), dest)
    assert_same(source, dest)


def test_foreign_files_stay_without_delete(pulled):
    server, source, dest = pulled
    write(dest / "mine", b"keep")
    pull(server.url(), dest)
    assert (dest / "mine").read_bytes() == b"keep"


def test_a_foreign_directory_in_the_way_of_a_file_is_not_lost_without_delete(pulled):
    """What was never pulled is not thrown away unasked."""
    server, source, dest = pulled
    (dest / "dir-0/file-0").unlink()
    write(dest / "dir-0/file-0/mine", b"keep")
    outcome = pull(server.url(), dest, code=(0, 23))
    if outcome.code == 0:
        pytest.fail("a directory with a foreign file was replaced by a file without --delete")
    assert "file-0" in outcome.err
    assert (dest / "dir-0/file-0/mine").read_bytes() == b"keep"
    pull("--delete", server.url(), dest)
    assert_same(source, dest)


def test_one_new_file_in_a_large_directory_costs_one_chunk(tmp_path, dest):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20_000):
        (source / f"entry-{number:06}").touch()
    with serving(tmp_path / "server", source) as server:
        pull(server.url(), dest)
        write(source / "entry-010000-b", b"new")
        server.update()
        stats = pull(server.url(), dest).stats
        assert stats["files_fetched"] == 1
        # One leaf of at most 512 entries and the index above; the whole directory would be 500 KB.
        assert stats["bytes_manifest"] < 40_000
        assert_same(source, dest)
