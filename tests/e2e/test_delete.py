"""--delete removes what the source does not have, last of all, and never the client's own state."""

import os

from conftest import assert_same, pattern, pull, run_client, serving, write


def test_delete_makes_equal(server, tree, dest):
    pull(server.url(), dest)
    write(dest / "extra/deep/file", b"x")
    write(dest / "d/extra", b"x")
    (dest / "extra-link").symlink_to("/etc")
    os.mkfifo(dest / "extra-fifo")
    outcome = pull("--delete", server.url(), dest)
    assert_same(tree, dest)
    assert outcome.stats["files_deleted"] == 6
    assert (dest / ".superlifter").is_dir()


def test_delete_does_not_follow_symlinks(server, dest, tmp_path):
    write(tmp_path / "outside/precious", b"keep")
    pull(server.url(), dest)
    (dest / "way-out").symlink_to(tmp_path / "outside")
    pull("--delete", server.url(), dest)
    assert not (dest / "way-out").is_symlink()
    assert (tmp_path / "outside/precious").read_bytes() == b"keep"


def test_a_dry_run_says_what_it_would_delete(server, dest):
    pull(server.url(), dest)
    write(dest / "extra", b"x")
    outcome = run_client("pull", "-n", "--delete", server.url(), dest)
    assert outcome.code == 0 and "extra" in outcome.out
    assert (dest / "extra").exists()


def test_excluded_files_are_not_deleted(server, dest):
    pull(server.url(), dest)
    write(dest / "local.conf", b"mine")
    write(dest / "keep/inside", b"mine")
    write(dest / "other", b"x")
    pull("--delete", "--exclude=*.conf", "--exclude=/keep/", server.url(), dest)
    assert (dest / "local.conf").exists() and (dest / "keep/inside").exists() and not (dest / "other").exists()


def test_read_only_directories_can_be_emptied(server, tree, dest):
    pull(server.url(), dest)
    write(dest / "closed/file", b"x")
    (dest / "closed").chmod(0o500)
    pull("--delete", server.url(), dest)
    assert_same(tree, dest)


def test_a_file_that_could_not_be_had_is_not_deleted(tmp_path, dest):
    """It is in the generation, so its old version stays."""
    source = tmp_path / "source"
    for number in range(20):
        write(source / f"f{number}", pattern(100_000, number))
    with serving(tmp_path / "server", source, module_keys={"hold_while": ["/hold"]}) as server:
        pull(server.url(), dest)
        write(dest / "extra", b"x")
        for number in range(20):
            write(source / f"f{number}", pattern(100_000, 100 + number))
        server.update()
        write(source / "hold", b"")
        (source / "f7").unlink()
        pull("--delete", server.url(), dest, code=24)
        assert (dest / "f7").read_bytes() == pattern(100_000, 7)
