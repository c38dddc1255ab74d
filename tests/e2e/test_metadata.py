"""Modes, times, owners."""

import os
import pwd
import stat

import pytest

from conftest import assert_same, is_root, pull, serving, write


def test_setuid_and_setgid_only_with_owner(tmp_path):
    source = tmp_path / "source"
    for name, mode in (("suid", 0o4755), ("sgid", 0o2755), ("both", 0o6711), ("sticky", 0o1755)):
        write(source / name, b"x").chmod(mode)
    (source / "d").mkdir()
    (source / "d").chmod(0o2775)
    with serving(tmp_path / "server", source, module_keys={"owners": True}) as server:
        pull(server.url(), tmp_path / "dest")
        for path in (tmp_path / "dest").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o6000 == 0, path
        if is_root:
            pull("--owner", server.url(), tmp_path / "dest")
            assert_same(source, tmp_path / "dest", "-og")


@pytest.mark.skipif(not is_root, reason="needs root")
def test_owners_as_root(tmp_path):
    source = tmp_path / "source"
    write(source / "roots", b"x")
    write(source / "nobodys", b"x", mode=0o4755)
    write(source / "nobodys-dir/inside", b"x")
    (source / "link").symlink_to("roots")
    nobody = pwd.getpwnam("nobody")
    for name in ("nobodys", "nobodys-dir", "link"):
        os.lchown(source / name, nobody.pw_uid, nobody.pw_gid)
    (source / "nobodys").chmod(0o4755)
    # An owner without a name here.
    write(source / "stranger", b"x")
    os.chown(source / "stranger", 54321, 54321)
    with serving(tmp_path / "server", source, module_keys={"owners": True}) as server:
        pull(server.url(), tmp_path / "plain")
        assert (tmp_path / "plain/nobodys").stat().st_uid == os.getuid()
        pull("--owner", server.url(), tmp_path / "dest")
        assert_same(source, tmp_path / "dest", "-og", "--exclude=stranger")
        # A second pull with --owner into what was pulled without mends it.
        pull("--owner", server.url(), tmp_path / "plain")
        assert_same(source, tmp_path / "plain", "-og", "--exclude=stranger")


@pytest.mark.skipif(not is_root, reason="needs root")
def test_owner_from_a_module_without_owners(tmp_path):
    source = tmp_path / "source"
    write(source / "f", b"x")
    os.chown(source / "f", 65534, 65534)
    with serving(tmp_path / "server", source) as server:
        outcome = pull("--owner", server.url(), tmp_path / "dest", code=None)
        if outcome.code == 0:
            assert (tmp_path / "dest/f").stat().st_uid == os.getuid()
        else:
            assert "owners" in outcome.err


def test_the_umask_does_not_matter(server, tree, tmp_path):
    old = os.umask(0o077)
    try:
        pull(server.url(), tmp_path / "dest")
    finally:
        os.umask(old)
    assert_same(tree, tmp_path / "dest")


def test_files_are_private_while_they_are_staged(tmp_path):
    """A file that only its owner may read is never open to others, not even half-way."""
    source = tmp_path / "source"
    write(source / "secret", b"x" * (4 << 20), mode=0o600)
    import subprocess
    from conftest import ENVIRONMENT, SUPERLIFTER
    from proxy import Proxy
    with serving(tmp_path / "server", source) as server, Proxy(server.port) as proxy:
        proxy.hold(2 << 20)
        process = subprocess.Popen([SUPERLIFTER, "pull", "--quiet", proxy.url(), str(tmp_path / "dest")],
                                   stdin=subprocess.DEVNULL, env=ENVIRONMENT)
        try:
            proxy.wait_passed(2 << 20)
            for path in (tmp_path / "dest/.superlifter").rglob("*"):
                if path.is_file() and path.stat().st_size > 1 << 16:
                    closed = any(parent.stat().st_mode & 0o077 == 0 for parent in
                                 list(path.parents)[:len(path.relative_to(tmp_path / "dest").parts) - 1])
                    assert closed or path.stat().st_mode & 0o077 == 0, path
            proxy.release()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def test_times_of_directories_survive_their_contents(server, tree, dest):
    pull(server.url(), dest)
    assert (dest / "d").stat().st_mtime_ns == (tree / "d").stat().st_mtime_ns == 1_222_333_444_555_666_777
    assert dest.stat().st_mtime_ns == tree.stat().st_mtime_ns
